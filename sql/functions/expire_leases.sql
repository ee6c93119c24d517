-- The caller holds the customer's counter row.
create or replace function ringfence.expire_leases_of(p_customer text, p_now timestamptz) returns integer
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  with lost as (
    -- A lease that is being renewed or ended at this moment is somebody else's: leave it.
    select decision_id from leases
    where customer = p_customer and expires_at < p_now
    for update skip locked
  ), gone as (
    delete from leases l using lost
    where l.customer = p_customer and l.decision_id = lost.decision_id
    returning l.decision_id, l.taken_at, l.expires_at
  ), ended as (
    insert into call_ends (decision_id, customer, source, hung_up_by, started_at, ended_at, duration_ms,
                           billable_ms, q850_cause, sip_status, trunk, trunk_channel, detail)
    select decision_id, p_customer, 'lease_expired', 'unknown', taken_at, null, null, 0, 0, 0, '', '',
           'nobody renewed the lease'
    from gone
    on conflict do nothing
  ), counted as (
    select count(*)::integer as n from gone
  ), lowered as (
    update counters set live_calls = live_calls - n from counted where customer = p_customer and n > 0
  )
  select n from counted
$$;
comment on function ringfence.expire_leases_of is 'Ends the expired leases of one customer whose counter row the caller has locked; returns how many.';
revoke execute on function ringfence.expire_leases_of from public;

create or replace function ringfence.expire_leases() returns integer
language plpgsql volatile security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_customer text;
  v_total    integer := 0;
begin
  for v_customer in
    select distinct customer collate "C" as c from leases where expires_at < clock_timestamp() order by c
  loop
    perform 1 from counters where customer = v_customer for no key update;
    v_total := v_total + expire_leases_of(v_customer, clock_timestamp());
  end loop;
  return v_total;
end
$$;
comment on function ringfence.expire_leases is 'Ends every lease that nobody renewed; returns how many.';
revoke execute on function ringfence.expire_leases from public;
grant execute on function ringfence.expire_leases to ringfence_daemon, ringfence_admin;
