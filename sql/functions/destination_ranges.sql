-- Prefixes are nested or apart, never crossing: one walk with a stack of those that are open lays them flat.
create or replace function ringfence.flatten_destinations(p_customer text) returns void
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  r        record;
  v_prefix text[] := '{}';  -- the open prefixes, the innermost at the end
  v_rule   bigint[] := '{}';
  v_depth  integer := 0;
begin
  delete from destination_ranges where customer = p_customer;
  for r in
    select destination_rule, prefix::text collate "C" as prefix from destination_rules
    where customer = p_customer and prefix > 0
    union all
    select null, ':'  -- closes whatever is open
    order by prefix
  loop
    while v_depth > 0 and not starts_with(r.prefix, v_prefix[v_depth]) loop
      v_depth := v_depth - 1;
      insert into destination_ranges
      values (p_customer, v_prefix[v_depth + 1] || ':', case when v_depth > 0 then v_rule[v_depth] end);
    end loop;
    exit when r.destination_rule is null;
    v_depth := v_depth + 1;
    v_prefix[v_depth] := r.prefix;
    v_rule[v_depth] := r.destination_rule;
    insert into destination_ranges values (p_customer, r.prefix, r.destination_rule);
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
