-- Lists of numbers that the operator keeps.

create or replace function ringfence.lock_number_lists() returns void
language sql volatile
as $$
  select pg_advisory_xact_lock(hashtextextended('ringfence.number_lists', 0))
$$;
comment on function ringfence.lock_number_lists is 'Makes whoever else changes lists of numbers wait until this transaction ends, so that a load counts what it changes. Calls do not wait.';
revoke execute on function ringfence.lock_number_lists from public;
grant execute on function ringfence.lock_number_lists to ringfence_admin;

create or replace function ringfence.leading_digits(p_number bigint) returns bigint[]
language sql immutable strict parallel safe
as $$
  select array_agg(left(p_number::text, digits)::bigint order by digits)
  from generate_series(1, length(p_number::text)) digits
$$;
comment on function ringfence.leading_digits is 'Every run of digits that the number begins with, itself included.';
revoke execute on function ringfence.leading_digits from public;
grant execute on function ringfence.leading_digits to ringfence_admin, ringfence_auditor;
