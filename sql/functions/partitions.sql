create or replace function ringfence.uuid_floor(p_at timestamptz) returns uuid
language sql immutable strict parallel safe
as $$
  select (lpad(to_hex((extract(epoch from p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
comment on function ringfence.uuid_floor is 'The smallest UUID whose UUIDv7 time is at or after p_at: the lower bound of a search by time.';

create or replace function ringfence.uuid_time(p_id uuid) returns timestamptz
language sql immutable strict parallel safe
as $$
  select to_timestamp(('x' || lpad(left(replace(p_id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;
comment on function ringfence.uuid_time is 'The time inside a UUIDv7 (RFC 9562 section 5.7), to the millisecond.';

create or replace function ringfence.ensure_partitions(p_days_ahead integer default 7) returns integer
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
-- A new partition needs the parent for itself for a moment. If a long report reads there, calls would queue behind
-- that wish: give it up, there are days left to come back.
set lock_timeout = '100ms'
as $$
declare
  v_table text;
  v_name  text;
  v_day   date;
  v_made  integer := 0;
begin
  perform pg_advisory_xact_lock(hashtextextended('ringfence.ensure_partitions', 0));
  foreach v_table in array array['decisions', 'call_ends'] loop
    -- From yesterday on: another host's clock, or a spooled record, may still be there.
    for v_day in
      select d::date from generate_series((now() at time zone 'UTC')::date - 1,
                                          (now() at time zone 'UTC')::date + p_days_ahead, interval '1 day') d
    loop
      v_name := v_table || '_' || to_char(v_day, 'YYYYMMDD');
      if to_regclass('ringfence.' || v_name) is null then
        begin
          execute format('create table %I partition of %I for values from (%L) to (%L)', v_name, v_table,
                         uuid_floor(v_day::timestamp at time zone 'UTC'),
                         uuid_floor((v_day + 1)::timestamp at time zone 'UTC'));
          v_made := v_made + 1;
        exception when check_violation then
          -- The default partition already holds rows of that day: they stay there, and nothing is lost.
          raise warning 'partition % not made: rows of that day are in %_other', v_name, v_table;
        when lock_not_available then
          raise warning 'partition % not made yet: the table is being read', v_name;
          return v_made;
        end;
      end if;
    end loop;
  end loop;
  return v_made;
end
$$;
comment on function ringfence.ensure_partitions is 'Makes the day partitions of the records from yesterday to p_days_ahead; returns how many were new.';
revoke execute on function ringfence.ensure_partitions from public;
grant execute on function ringfence.ensure_partitions to ringfence_daemon, ringfence_admin;
