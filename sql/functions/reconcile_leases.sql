create or replace function ringfence.reconcile_leases(
  p_host text, p_switch text, p_customers text[], p_decisions uuid[], p_asked_at timestamptz, p_lease_s integer
) returns table (decision_id uuid, customer text)
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
#variable_conflict use_column
declare
  v_ends call_end[];
begin
  -- Counter rows first and in customer order, as everywhere.
  perform 1 from counters k
  where k.customer in (
    select l.customer from leases l where l.host = p_host and l.switch = p_switch
    union select unnest(p_customers))
  order by k.customer collate "C"
  for no key update;

  perform renew_leases(p_customers, p_decisions, p_lease_s);

  -- What the switch no longer shows is over. A lease taken since the switch was asked may not be in its answer; both
  -- moments are read off the daemon's clock, which need not be the database's.
  select array_agg(row(l.decision_id, l.customer, 'reconciled', 'unknown', l.taken_at, null, null, null, 0, 0, '',
                       '', 'the switch no longer shows the call')::call_end)
  into v_ends
  from leases l
  where l.host = p_host and l.switch = p_switch and uuid_time(l.decision_id) < p_asked_at
    and not l.decision_id = any (p_decisions);
  if v_ends is not null then
    perform record_ends(v_ends);
  end if;
  return query select e.decision_id, e.customer from unnest(v_ends) e;
end
$$;
comment on function ringfence.reconcile_leases is 'Compares one switch''s own list of live calls with its leases: live ones are renewed or counted again, the others end as reconciled and are returned.';
revoke execute on function ringfence.reconcile_leases from public;
grant execute on function ringfence.reconcile_leases to ringfence_daemon;
