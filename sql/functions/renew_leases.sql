create or replace function ringfence.renew_leases(p_customers text[], p_decisions uuid[], p_lease_s integer)
returns integer
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_kept integer;
begin
  -- Counter rows first and in customer order, as everywhere; then leases in order.
  perform 1 from counters k
  where k.customer = any (p_customers)
  order by k.customer collate "C"
  for no key update;

  -- A live call keeps its lease, or gets back the one that had expired: the cap must count what is really there.
  with live as (
    select l.customer, l.decision_id, l.counted
    from (select distinct * from unnest(p_customers, p_decisions)) as n(customer, decision_id)
    join leases l using (customer, decision_id)
    order by l.customer collate "C", l.decision_id
    for update of l
  ), kept as (
    update leases l set counted = true, expires_at = clock_timestamp() + p_lease_s * interval '1 second'
    from live where l.customer = live.customer and l.decision_id = live.decision_id
    returning 1
  ), back as (
    select customer, count(*)::integer as n from live where not counted group by customer
  ), raised as (
    update counters k set live_calls = live_calls + back.n from back where k.customer = back.customer
  )
  select count(*) into v_kept from kept;
  return v_kept;
end
$$;
comment on function ringfence.renew_leases is 'Keeps the leases of live calls, and counts again those that had expired; returns how many there were.';
revoke execute on function ringfence.renew_leases from public;
grant execute on function ringfence.renew_leases to ringfence_daemon, ringfence_admin;
