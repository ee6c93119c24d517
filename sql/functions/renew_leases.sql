create or replace function ringfence.renew_leases(p_customers text[], p_decisions uuid[], p_lease_s integer)
returns integer
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  with live as (
    select l.customer, l.decision_id
    from unnest(p_customers, p_decisions) as n(customer, decision_id)
    join leases l using (customer, decision_id)
    where l.counted
    order by l.customer collate "C", l.decision_id
    for update of l
  ), renewed as (
    update leases l set expires_at = clock_timestamp() + p_lease_s * interval '1 second'
    from live where l.customer = live.customer and l.decision_id = live.decision_id
    returning 1
  )
  select count(*)::integer from renewed
$$;
comment on function ringfence.renew_leases is 'Keeps the leases of live calls; returns how many were still there.';
revoke execute on function ringfence.renew_leases from public;
grant execute on function ringfence.renew_leases to ringfence_daemon, ringfence_admin;
