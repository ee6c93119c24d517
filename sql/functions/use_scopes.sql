-- The caller holds the customer's counter row.
create or replace function ringfence.use_scopes(
  p_customer text, p_scopes text[], p_day date, p_month date, p_calls integer, p_seconds bigint
) returns void
language sql volatile strict
set search_path = ringfence, pg_temp
as $$
  insert into usage as u (customer, scope, day, calls_today, seconds_today, month, calls_this_month, seconds_this_month)
  select p_customer, scope, p_day, p_calls, p_seconds, p_month, p_calls, p_seconds from unnest(p_scopes) scope
  -- A call says which day it is, even if that is the day before because the customer's time zone was moved west. The
  -- end of a call only adds to its day, or begins a new one.
  on conflict (customer, scope) do update set
    day = case when p_calls > 0 then p_day else greatest(u.day, p_day) end,
    calls_today = case when p_day = u.day then u.calls_today + p_calls
                       when p_calls > 0 or p_day > u.day then p_calls else u.calls_today end,
    seconds_today = case when p_day = u.day then u.seconds_today + p_seconds
                         when p_calls > 0 or p_day > u.day then p_seconds else u.seconds_today end,
    month = case when p_calls > 0 then p_month else greatest(u.month, p_month) end,
    calls_this_month = case when p_month = u.month then u.calls_this_month + p_calls
                            when p_calls > 0 or p_month > u.month then p_calls else u.calls_this_month end,
    seconds_this_month = case when p_month = u.month then u.seconds_this_month + p_seconds
                              when p_calls > 0 or p_month > u.month then p_seconds else u.seconds_this_month end
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
      limit 200
      for update skip locked)
    returning 1
  )
  select count(*)::integer from gone
$$;
comment on function ringfence.forget_usage is 'Drops counters of months that are over, some at a time; returns how many.';
revoke execute on function ringfence.forget_usage from public;
grant execute on function ringfence.forget_usage to ringfence_daemon, ringfence_admin;
