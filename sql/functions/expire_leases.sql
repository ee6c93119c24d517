-- The caller holds the customer's counter row.
create or replace function ringfence.expire_leases_of(p_customer text, p_now timestamptz) returns integer
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  with lost as (
    -- A lease that is being renewed or ended at this moment is somebody else's: leave it.
    select decision_id from leases
    where customer = p_customer and counted and expires_at < p_now
    for update skip locked
  ), expired as (
    update leases l set counted = false from lost
    where l.customer = p_customer and l.decision_id = lost.decision_id
    returning 1
  ), counting as (
    select count(*)::integer as n from expired
  ), lowered as (
    update counters set live_calls = live_calls - n from counting where customer = p_customer and n > 0
  )
  select n from counting
$$;
comment on function ringfence.expire_leases_of is 'Stops counting the expired leases of one customer whose counter row the caller has locked; returns how many.';
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
    select distinct customer collate "C" as c from leases
    where counted and expires_at < clock_timestamp() order by c
  loop
    perform 1 from counters where customer = v_customer for no key update;
    v_total := v_total + expire_leases_of(v_customer, clock_timestamp());
  end loop;
  return v_total;
end
$$;
comment on function ringfence.expire_leases is 'Stops counting every lease that nobody renewed; returns how many.';
revoke execute on function ringfence.expire_leases from public;
grant execute on function ringfence.expire_leases to ringfence_daemon, ringfence_admin;

-- In a transaction of its own: record_ends takes counter rows from the first customer on.
create or replace function ringfence.forget_leases(p_after interval default '1 day') returns integer
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  select coalesce(record_ends(array_agg(
    row(l.decision_id, l.customer, 'lease_expired', 'unknown', l.taken_at, null, null, null, 0, 0, '', '',
        'nobody told how the call ended')::call_end)), 0)
  from leases l
  where not l.counted and l.expires_at < clock_timestamp() - p_after
$$;
comment on function ringfence.forget_leases is 'Ends the calls whose lease expired p_after ago and whose switch never told; returns how many.';
revoke execute on function ringfence.forget_leases from public;
grant execute on function ringfence.forget_leases to ringfence_daemon, ringfence_admin;

create or replace function ringfence.recount() returns table (customer text, was integer, live integer)
language plpgsql volatile security definer
set search_path = ringfence, pg_temp
as $$
#variable_conflict use_column
begin
  for customer in
    select k.customer collate "C" as c from counters k
    where k.live_calls <> (select count(*) from leases l where l.customer = k.customer and l.counted)
    order by c
  loop
    select k.live_calls into was from counters k where k.customer = recount.customer for no key update;
    select count(*) into live from leases l where l.customer = recount.customer and l.counted;
    if was <> live then
      update counters k set live_calls = live where k.customer = recount.customer;
      return next;
    end if;
  end loop;
end
$$;
comment on function ringfence.recount is 'Sets every live-call counter to the number of counted leases; returns the customers whose counter was wrong, none if the books are straight.';
revoke execute on function ringfence.recount from public;
grant execute on function ringfence.recount to ringfence_admin;
