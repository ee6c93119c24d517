create or replace function ringfence.record_ends(p_ends ringfence.call_end[]) returns integer
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_ends call_end[];
  v_new  integer;
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
  with gone as (
    delete from leases l using unnest(v_ends) e
    where l.customer = e.customer and l.decision_id = e.decision_id
    returning l.customer, l.counted
  ), freed as (
    select customer, count(*)::integer as n from gone where counted group by customer
  )
  update counters k set live_calls = live_calls - freed.n from freed where k.customer = freed.customer;

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
