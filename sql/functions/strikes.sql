create or replace function ringfence.may_strike(p_customer text) returns boolean
language sql stable strict
set search_path = ringfence, pg_temp
as $$
  -- One event is one infraction, however many calls it takes; nobody is struck again before the warning has reached
  -- them, or while the suspension is still to be carried out; and a warning that no longer counts bars no new one.
  select s.strikes and coalesce((
    select i.happened_at + s.infraction_hours * interval '1 hour' <= clock_timestamp()
           and case i.consequence
                 when 'suspended' then i.notice_id is not null
                 else coalesce(n.delivered_at <= clock_timestamp(), false)
                      or i.happened_at + s.infractions_count_days * interval '1 day' <= clock_timestamp() end
    from infractions i left join notices n using (notice_id)
    where i.customer = p_customer and i.reversed_at is null
    order by i.infraction_id desc
    limit 1), true)
  from provider s
$$;
comment on function ringfence.may_strike is 'Whether a call that shows somebody else''s number would be a new infraction, and not part of one that is known.';
revoke execute on function ringfence.may_strike from public;

-- The caller holds the customer's counter row.
create or replace function ringfence.strike(p_customer text, p_decision uuid, p_caller text, p_reason text)
returns text
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  s             provider%rowtype;
  v_now         timestamptz := clock_timestamp();
  v_warnings    integer;
  v_consequence text;
  v_infraction  bigint;
  v_notice      bigint;
begin
  select * into s from provider;
  -- Asked again, now that nobody else can strike: whoever held the counter row may have struck, and suspended.
  if not may_strike(p_customer)
     or not exists (select from customers where customer = p_customer and state in ('active', 'restricted')) then
    return null;
  end if;
  select count(*) into v_warnings
  from infractions
  where customer = p_customer and reversed_at is null
    and happened_at > v_now - s.infractions_count_days * interval '1 day';
  v_consequence := case when v_warnings < s.warnings_before_suspension then 'warned' else 'suspended' end;
  insert into infractions (customer, happened_at, decision_id, caller, reason, consequence)
  values (p_customer, v_now, p_decision, p_caller, p_reason, v_consequence)
  returning infraction_id into v_infraction;
  if v_consequence = 'warned' then
    v_notice := raise_notice('warning', p_customer, 'infraction ' || v_infraction, jsonb_build_object(
      'infraction', v_infraction, 'caller', p_caller, 'reason', p_reason, 'decision', p_decision,
      'happened_at', v_now, 'warnings_left', s.warnings_before_suspension - v_warnings - 1));
    update infractions set notice_id = v_notice where infraction_id = v_infraction;
  else
    perform suspend_for_infraction(p_customer);
  end if;
  return v_consequence;
end
$$;
comment on function ringfence.strike is 'Counts a call that showed somebody else''s number against its customer: warns, and suspends at the next event after the warning was delivered. Returns what followed, or null if the call belongs to an event that is known already.';
revoke execute on function ringfence.strike from public;

create or replace function ringfence.suspend_for_infraction(p_customer text) returns boolean
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_actor      text := current_setting('ringfence.actor', true);
  v_infraction infractions%rowtype;
  v_caller     text;
begin
  -- A call does not wait for whoever holds the customer's row: settle_infractions comes back to it.
  perform 1 from customers
  where customer = p_customer and state in ('active', 'restricted')
  for no key update skip locked;
  if not found then
    return false;
  end if;
  select * into v_infraction from infractions
  where customer = p_customer and consequence = 'suspended' and notice_id is null and reversed_at is null
  order by infraction_id desc
  limit 1;
  if not found then
    return false;
  end if;
  v_caller := case when v_infraction.caller ~ '^[0-9]{7,}$' then '+' else '' end || v_infraction.caller;
  perform set_config('ringfence.actor', 'ringfence', true);
  perform set_customer_state(p_customer, 'suspended',
    format('infraction %s: showed %s, which is not assigned or granted to the customer',
           v_infraction.infraction_id, v_caller),
    (select suspension_hangs_up from provider));
  -- The reason is written for the operator; from these facts the notice is worded for the customer.
  update notices n
  set data = n.data || jsonb_build_object(
    'infraction', i.infraction_id, 'caller', i.caller, 'cause', i.reason, 'decision', i.decision_id,
    'happened_at', i.happened_at)
  from infractions i
  where i.infraction_id = v_infraction.infraction_id and n.notice_id = i.notice_id;
  perform set_config('ringfence.actor', coalesce(v_actor, ''), true);
  return true;
end
$$;
comment on function ringfence.suspend_for_infraction is 'Suspends the customer for an infraction that is to suspend it and has not yet, unless somebody holds its row at this moment; returns whether it did.';
revoke execute on function ringfence.suspend_for_infraction from public;

create or replace function ringfence.settle_infractions() returns integer
language sql volatile security definer
set search_path = ringfence, pg_temp
as $$
  select coalesce(sum(suspend_for_infraction(customer)::integer), 0)::integer
  from (
    select distinct i.customer
    from infractions i join customers c using (customer)
    where i.consequence = 'suspended' and i.notice_id is null and i.reversed_at is null
      and c.state in ('active', 'restricted')
  ) due
$$;
comment on function ringfence.settle_infractions is 'Carries out the suspensions that a call could not, because the customer''s row was held; returns how many.';
revoke execute on function ringfence.settle_infractions from public;
grant execute on function ringfence.settle_infractions to ringfence_daemon, ringfence_admin;

create or replace function ringfence.reverse_infraction(p_infraction bigint, p_reason text) returns text
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_customer text;
begin
  update infractions set reversed_at = clock_timestamp(), reversed_by = actor(), reversal_reason = p_reason
  where infraction_id = p_infraction and reversed_at is null
  returning customer into v_customer;
  if found then
    perform note_change('infraction.reverse', v_customer,
                        jsonb_build_object('infraction', p_infraction, 'reason', p_reason));
  end if;
  return v_customer;
end
$$;
comment on function ringfence.reverse_infraction is 'Takes an infraction back, so that it no longer counts; returns whose it was, or null. A suspension it led to stays until the customer is reinstated.';
