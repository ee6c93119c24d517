-- Prefixes are nested or apart, never crossing: one walk with a stack of those that are open lays them flat.
create or replace function ringfence.flatten_destinations(p_customer text) returns void
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  r       record;
  v_last  bigint[] := '{}';  -- the open prefixes, the innermost at the end
  v_rule  bigint[] := '{}';
  v_next  bigint := 0;       -- where the innermost goes on
  v_depth integer := 0;
begin
  delete from destination_ranges where customer = p_customer;
  for r in
    select destination_rule, rpad(prefix::text, 15, '0')::bigint as first, rpad(prefix::text, 15, '9')::bigint as last
    from destination_rules
    where customer = p_customer and prefix > 0
    union all
    select null, 1000000000000000, 1000000000000000  -- closes whatever is open
    order by first, last desc
  loop
    while v_depth > 0 and v_last[v_depth] < r.first loop
      if v_next <= v_last[v_depth] then
        insert into destination_ranges values (p_customer, v_next, v_last[v_depth], v_rule[v_depth]);
      end if;
      v_next := v_last[v_depth] + 1;
      v_depth := v_depth - 1;
    end loop;
    if v_depth > 0 and v_next < r.first then
      insert into destination_ranges values (p_customer, v_next, r.first - 1, v_rule[v_depth]);
    end if;
    v_next := r.first;
    v_depth := v_depth + 1;
    v_last[v_depth] := r.last;
    v_rule[v_depth] := r.destination_rule;
  end loop;
end
$$;
comment on function ringfence.flatten_destinations is 'Lays the prefix rules of one customer, or of all (*), flat in destination_ranges.';
revoke execute on function ringfence.flatten_destinations from public;

create or replace function ringfence.follow_destination_rules() returns trigger
language plpgsql security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_customer text;
begin
  for v_customer in select distinct customer from changed order by customer loop
    -- Whoever changes the same customer's rules waits, so that the ranges are those of all committed rules.
    perform pg_advisory_xact_lock(hashtextextended('ringfence.destination_ranges ' || v_customer, 0));
    perform flatten_destinations(v_customer);
  end loop;
  return null;
end
$$;
create or replace trigger follow_insert after insert on ringfence.destination_rules
  referencing new table as changed for each statement execute function ringfence.follow_destination_rules();
create or replace trigger follow_update after update on ringfence.destination_rules
  referencing new table as changed for each statement execute function ringfence.follow_destination_rules();
create or replace trigger follow_delete after delete on ringfence.destination_rules
  referencing old table as changed for each statement execute function ringfence.follow_destination_rules();

create or replace function ringfence.keep_owner() returns trigger
language plpgsql
as $$
begin
  if new.customer <> old.customer then
    raise exception 'a destination rule stays with its customer' using errcode = 'integrity_constraint_violation';
  end if;
  return new;
end
$$;
create or replace trigger keep_owner before update on ringfence.destination_rules
  for each row execute function ringfence.keep_owner();
