create or replace function ringfence.record_ends(p_ends ringfence.call_end[]) returns integer
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_ends  call_end[];
  v_new   integer;
  v_spent record;
begin
  -- An answer that never reached the switch is ended only if it was an allowance that was committed; and the
  -- daemon may not have learnt whose call it was, if it had to answer before Postgres did.
  select array_agg(row(e.decision_id, coalesce(d.customer, e.customer), e.source, e.hung_up_by, e.started_at,
                       e.answered_at, e.ended_at, e.post_dial_delay_ms, e.q850_cause, e.sip_status, e.trunk,
                       e.trunk_channel, e.detail)::call_end)
  into v_ends
  from unnest(p_ends) e
  left join lateral (
    select d.customer, d.verdict from decisions d
    where (e.source = 'undelivered' or e.customer = '') and d.decision_id = e.decision_id
    limit 1
  ) d on true
  where e.source <> 'undelivered' or d.verdict in ('allow', 'delay');

  -- Counter rows first and in customer order, as everywhere: then no two transactions can wait for each other.
  perform 1 from counters k
  where k.customer in (select e.customer from unnest(v_ends) e)
  order by k.customer collate "C"
  for no key update;

  perform 1 from leases l join unnest(v_ends) e using (customer, decision_id)
  order by l.customer collate "C", l.decision_id
  for update of l;
  -- A lease goes once, so that its call's seconds are counted once.
  for v_spent in
    with gone as (
      delete from leases l using unnest(v_ends) e
      where l.customer = e.customer and l.decision_id = e.decision_id
      -- A switch whose clock is ahead must not begin tomorrow.
      returning l.customer, l.counted, l.scopes, (least(e.ended_at, clock_timestamp()) at time zone (
        select c.time_zone from customers c where c.customer = l.customer))::date as day,
        case when e.ended_at > e.answered_at then ceil(extract(epoch from e.ended_at - e.answered_at))::bigint
             else 0 end as seconds
    ), freed as (
      select customer, count(*)::integer as n from gone where counted group by customer
    ), lowered as (
      update counters k set live_calls = live_calls - freed.n from freed where k.customer = freed.customer
    )
    select customer, scopes, day, date_trunc('month', day)::date as month, sum(seconds)::bigint as seconds
    from gone where seconds > 0
    group by customer, scopes, day
    order by customer, day
  loop
    update counters k set
      day = greatest(k.day, v_spent.day),
      calls_today = case when v_spent.day > k.day then 0 else k.calls_today end,
      seconds_today = case when v_spent.day > k.day then v_spent.seconds
                           when v_spent.day = k.day then k.seconds_today + v_spent.seconds else k.seconds_today end,
      month = greatest(k.month, v_spent.month),
      calls_this_month = case when v_spent.month > k.month then 0 else k.calls_this_month end,
      seconds_this_month = case when v_spent.month > k.month then v_spent.seconds
                                when v_spent.month = k.month then k.seconds_this_month + v_spent.seconds
                                else k.seconds_this_month end
    where k.customer = v_spent.customer;
    perform use_scopes(v_spent.customer, v_spent.scopes, v_spent.day, v_spent.month, 0, v_spent.seconds);
  end loop;

  -- Told twice is recorded once.
  insert into call_ends (decision_id, customer, source, hung_up_by, started_at, answered_at, ended_at,
                         duration_ms, billable_ms, post_dial_delay_ms, q850_cause, sip_status, trunk,
                         trunk_channel, detail)
  select e.decision_id, e.customer, e.source, e.hung_up_by, e.started_at, e.answered_at, e.ended_at,
         greatest(0, round(extract(epoch from e.ended_at - e.started_at) * 1000)),
         coalesce(greatest(0, round(extract(epoch from e.ended_at - e.answered_at) * 1000)), 0),
         e.post_dial_delay_ms, e.q850_cause, e.sip_status, e.trunk, e.trunk_channel, e.detail
  from unnest(v_ends) e
  on conflict do nothing;
  get diagnostics v_new = row_count;
  return v_new;
end
$$;
comment on function ringfence.record_ends is 'Writes how calls ended and frees their leases, each exactly once however often it is told; returns how many ends were new.';
revoke execute on function ringfence.record_ends from public;
grant execute on function ringfence.record_ends to ringfence_daemon;
