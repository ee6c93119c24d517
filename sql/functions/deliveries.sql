-- How notices go out: planned, taken by one daemon at a time, settled. None of it is on a call's way.

create or replace function ringfence.may_be_mailed(p_address text) returns boolean
language sql immutable strict parallel safe
as $$
  select length(p_address) <= 254 and p_address ~ '^[!#-''*+./0-9=?A-Z^_a-z~-]+@[0-9A-Za-z]+([.-]+[0-9A-Za-z]+)*$'
$$;
comment on function ringfence.may_be_mailed is 'Whether this is an e-mail address that can be put into a message as it is.';

create or replace function ringfence.plan_notices(p_mail boolean, p_operators text[], p_webhook text) returns integer
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_count integer;
begin
  with unplanned as materialized (
    select n.notice_id, case when p_mail and may_be_mailed(c.contact_email) then c.contact_email end as contact
    from notices n left join customers c using (customer)
    where n.planned_at is null
      and (p_webhook <> '' or p_mail and (cardinality(p_operators) > 0 or may_be_mailed(c.contact_email)))
    order by n.notice_id
    limit 1000
    for no key update of n skip locked
  ), ways as (
    insert into notice_deliveries (notice_id, channel, address, to_customer)
    select distinct on (notice_id, channel, address) notice_id, channel, address, to_customer
    from (
      select notice_id, 'email' as channel, contact as address, true as to_customer
      from unplanned where contact is not null
      union all
      select notice_id, 'email', operator, false from unplanned, unnest(p_operators) operator where p_mail
      union all
      select notice_id, 'webhook', p_webhook, contact is null from unplanned where p_webhook <> ''
    ) each
    order by notice_id, channel, address, to_customer desc
    on conflict do nothing
  ), planned as (
    update notices set planned_at = clock_timestamp() where notice_id in (select notice_id from unplanned)
    returning 1
  )
  select count(*) into v_count from planned;
  return v_count;
end
$$;
comment on function ringfence.plan_notices is 'Decides where each new notice goes; returns how many it decided on. A notice that nothing leads anywhere for is left for later. The webhook is there to tell the customer if no e-mail can.';
revoke execute on function ringfence.plan_notices from public;
grant execute on function ringfence.plan_notices to ringfence_daemon;

create or replace function ringfence.claim_deliveries(
  p_channel text, p_webhook text, p_limit integer, p_hold_s double precision, p_give_up_s double precision
) returns table (
  notice_id bigint, channel text, address text, to_customer boolean, attempts integer, overdue boolean,
  told_by text, kind text, customer text, customer_name text, provider text, created_at timestamptz, data jsonb
)
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  with due as materialized (
    select d.notice_id, d.channel, d.address
    from notice_deliveries d
    where d.sent_at is null and d.gave_up_at is null and d.next_attempt_at <= clock_timestamp()
      and d.channel = p_channel and (d.channel = 'email' or d.address = p_webhook)
    order by d.next_attempt_at
    limit p_limit
    for no key update skip locked
  ), taken as (
    -- A try whose outcome nobody knows yet has no error: retry_notice leaves it alone.
    update notice_deliveries d
    set attempts = d.attempts + 1, last_error = '',
        next_attempt_at = clock_timestamp() + p_hold_s * interval '1 second'
    from due
    where d.notice_id = due.notice_id and d.channel = due.channel and d.address = due.address
    returning d.*
  )
  select t.notice_id, t.channel, t.address, t.to_customer, t.attempts,
    coalesce(n.planned_at + p_give_up_s * interval '1 second' <= clock_timestamp(), false),
    coalesce((select w.channel from notice_deliveries w where w.notice_id = t.notice_id and w.to_customer
              order by w.channel limit 1), ''),
    n.kind, n.customer, coalesce(c.name, n.customer), p.name, n.created_at, n.data
  from taken t join notices n using (notice_id) left join customers c on c.customer = n.customer
    cross join provider p
$$;
comment on function ringfence.claim_deliveries is 'Takes up to p_limit deliveries that are due on a channel: nobody else gets them for p_hold_s seconds. Whoever took one settles it; if it does not, the delivery is due again. overdue: this try is the last.';
revoke execute on function ringfence.claim_deliveries from public;
grant execute on function ringfence.claim_deliveries to ringfence_daemon;

create or replace function ringfence.settle_delivery(
  p_notice bigint, p_channel text, p_address text, p_attempt integer, p_ok boolean, p_error text,
  p_retry_in_s double precision, p_give_up boolean
) returns boolean
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_to_customer boolean;
begin
  if not p_ok then
    -- Of a try that was held for too long and made again by somebody else, the failure says nothing any more.
    update notice_deliveries
    set last_error = left(p_error, 500),
        next_attempt_at = clock_timestamp() + p_retry_in_s * interval '1 second',
        gave_up_at = case when p_give_up then clock_timestamp() end
    where notice_id = p_notice and channel = p_channel and address = p_address
      and attempts = p_attempt and sent_at is null;
    return found;
  end if;
  update notice_deliveries
  set sent_at = clock_timestamp(), gave_up_at = null, last_error = ''
  where notice_id = p_notice and channel = p_channel and address = p_address and sent_at is null
  returning to_customer into v_to_customer;
  if v_to_customer then
    update notices
    set delivered_at = clock_timestamp(), delivered_how = p_channel || ' to ' || p_address
    where notice_id = p_notice and delivered_at is null;
  end if;
  return v_to_customer is not null;
end
$$;
comment on function ringfence.settle_delivery is 'Writes down how a try ended. A success of a way to the customer makes the notice delivered. False if it was settled before.';
revoke execute on function ringfence.settle_delivery from public;
grant execute on function ringfence.settle_delivery to ringfence_daemon;

create or replace function ringfence.abandon_deliveries(p_mail boolean, p_webhook text, p_give_up_s double precision)
returns table (notice_id bigint, channel text, address text, kind text, customer text)
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  with abandoned as (
    update notice_deliveries d
    set gave_up_at = clock_timestamp(),
        last_error = case when d.last_error = '' then 'no daemon is configured for it' else d.last_error end
    from notices n
    where n.notice_id = d.notice_id
      and d.sent_at is null and d.gave_up_at is null and d.next_attempt_at <= clock_timestamp()
      and case when d.channel = 'email' then not p_mail else d.address <> p_webhook end
      -- Another daemon may be configured for it and make its last try now.
      and n.planned_at + p_give_up_s * interval '1 second' + interval '1 day' <= clock_timestamp()
    returning d.notice_id, d.channel, d.address, n.kind, n.customer
  )
  select * from abandoned
$$;
comment on function ringfence.abandon_deliveries is 'Gives up what is long overdue on ways that are no longer configured; returns what that was.';
revoke execute on function ringfence.abandon_deliveries from public;
grant execute on function ringfence.abandon_deliveries to ringfence_daemon;

create or replace function ringfence.retry_notice(p_notice bigint) returns integer
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_customer text;
  v_count    integer;
begin
  select customer into v_customer from notices where notice_id = p_notice for no key update;
  if not found then
    return null;
  end if;
  -- One that a daemon has in hand at this moment goes on by itself: nobody else may send it meanwhile.
  update notice_deliveries set next_attempt_at = clock_timestamp(), gave_up_at = null
  where notice_id = p_notice and sent_at is null
    and (attempts = 0 or last_error <> '' or next_attempt_at <= clock_timestamp());
  get diagnostics v_count = row_count;
  update notices set planned_at = null where notice_id = p_notice;
  perform note_change('notice.retry', v_customer, jsonb_build_object('notice', p_notice));
  perform pg_notify('ringfence_notice', '');
  return v_count;
end
$$;
comment on function ringfence.retry_notice is 'Makes every way that did not work due again and has the ways decided anew, so that an address that is new now is used; returns how many are due, or null if there is no such notice.';
revoke execute on function ringfence.retry_notice from public;
grant execute on function ringfence.retry_notice to ringfence_admin;

create or replace function ringfence.mark_delivered(p_notice bigint, p_how text) returns text
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_customer text;
begin
  update notices set delivered_at = clock_timestamp(), delivered_how = p_how
  where notice_id = p_notice and delivered_at is null
  returning customer into v_customer;
  if found then
    perform note_change('notice.delivered', v_customer, jsonb_build_object('notice', p_notice, 'how', p_how));
  end if;
  return v_customer;
end
$$;
comment on function ringfence.mark_delivered is 'For an operator who told the customer: the notice is delivered. Returns whom it concerns, or null if it was delivered before or is not there.';
revoke execute on function ringfence.mark_delivered from public;
grant execute on function ringfence.mark_delivered to ringfence_admin;
