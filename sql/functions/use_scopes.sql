-- The caller holds the customer's counter row.
create or replace function ringfence.use_scopes(
  p_customer text, p_scopes text[], p_day date, p_month date, p_calls integer, p_seconds bigint
) returns void
language sql volatile strict
set search_path = ringfence, pg_temp
as $$
  insert into usage as u (customer, scope, day, calls_today, seconds_today, month, calls_this_month, seconds_this_month)
  select p_customer, scope, p_day, p_calls, p_seconds, p_month, p_calls, p_seconds from unnest(p_scopes) scope
  on conflict (customer, scope) do update set
    day = greatest(u.day, excluded.day),
    calls_today = case when excluded.day > u.day then p_calls
                       when excluded.day = u.day then u.calls_today + p_calls else u.calls_today end,
    seconds_today = case when excluded.day > u.day then p_seconds
                         when excluded.day = u.day then u.seconds_today + p_seconds else u.seconds_today end,
    month = greatest(u.month, excluded.month),
    calls_this_month = case when excluded.month > u.month then p_calls
                            when excluded.month = u.month then u.calls_this_month + p_calls
                            else u.calls_this_month end,
    seconds_this_month = case when excluded.month > u.month then p_seconds
                              when excluded.month = u.month then u.seconds_this_month + p_seconds
                              else u.seconds_this_month end
$$;
comment on function ringfence.use_scopes is 'Counts calls and seconds in the customer''s counters for part of its calls. What belongs to a day that is over counts for nothing any more.';
revoke execute on function ringfence.use_scopes from public;

create or replace function ringfence.forget_usage() returns integer
language sql volatile security definer
set search_path = ringfence, pg_temp
as $$
  with gone as (
    delete from usage where (customer, scope) in (
      select customer, scope from usage
      where day < current_date - 40
      order by day
      limit 10000
      for update skip locked)
    returning 1
  )
  select count(*)::integer from gone
$$;
comment on function ringfence.forget_usage is 'Drops counters of months that are over, some at a time; returns how many.';
revoke execute on function ringfence.forget_usage from public;
grant execute on function ringfence.forget_usage to ringfence_daemon, ringfence_admin;
