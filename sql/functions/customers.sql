-- What the admin does, each as one transaction with its entry in policy_changes.

create or replace function ringfence.actor() returns text
language sql stable
as $$
  select coalesce(nullif(current_setting('ringfence.actor', true), ''), session_user)
$$;
comment on function ringfence.actor is 'Who makes a change: the user at the keyboard as the command line told, else the login role.';

create or replace function ringfence.note_change(p_action text, p_customer text, p_detail jsonb) returns bigint
language sql volatile
set search_path = ringfence, pg_temp
as $$
  insert into policy_changes (changed_by, action, customer, detail)
  values (actor(), p_action, p_customer, coalesce(p_detail, '{}'))
  returning version
$$;
comment on function ringfence.note_change is 'Writes down who changed what and tells running daemons; returns the new policy version.';

create or replace function ringfence.tell_daemons() returns trigger language plpgsql as $$
begin
  perform pg_notify('ringfence_policy', new.version::text || ' ' || new.action || ' ' || new.customer);
  return null;
end
$$;
create or replace trigger tell_daemons after insert on ringfence.policy_changes
  for each row execute function ringfence.tell_daemons();

create or replace function ringfence.state_may_become(p_from text, p_to text) returns boolean
language sql immutable strict parallel safe
as $$
  select (p_from, p_to) in (
    ('prospect', 'active'), ('prospect', 'terminated'),
    ('active', 'restricted'), ('active', 'suspended'), ('active', 'terminated'),
    ('restricted', 'active'), ('restricted', 'suspended'), ('restricted', 'terminated'),
    ('suspended', 'active'), ('suspended', 'restricted'), ('suspended', 'suspended'), ('suspended', 'terminated'),
    ('terminated', 'terminated'))
$$;
comment on function ringfence.state_may_become is 'Whether a customer may be moved from one state to the other. Suspended to suspended is for a suspension that is also to end the live calls.';

create or replace function ringfence.set_customer_state(
  p_customer text, p_state text, p_reason text, p_hang_up boolean default false, p_approved_by text default ''
) returns bigint
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_from  text;
  v_until timestamptz;
  v_now   timestamptz;
begin
  select state, vetted_until into v_from, v_until from customers where customer = p_customer for no key update;
  if not found then
    raise exception 'there is no customer %', quote_literal(p_customer) using errcode = 'no_data_found';
  end if;
  if not state_may_become(v_from, p_state) then
    raise exception 'customer % is % and cannot become %', quote_literal(p_customer), v_from, p_state
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  if v_from = 'suspended' and p_state in ('active', 'restricted') and (p_reason = '' or p_approved_by = '') then
    raise exception 'reinstating customer % needs a reason and the name of who approved it', quote_literal(p_customer)
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  if p_state in ('active', 'restricted') and (v_until is null or v_until <= clock_timestamp()) then
    raise exception 'customer % cannot become %: its vetting %', quote_literal(p_customer), p_state,
      case when v_until is null then 'was never done' else 'ran out on ' || v_until::date end
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  v_now := clock_timestamp();  -- after what led to it, in the same transaction too
  update customers
  set state = p_state, state_reason = p_reason, state_since = v_now,
      hang_up = p_hang_up and p_state in ('suspended', 'terminated')
  where customer = p_customer;
  insert into customer_states (customer, from_state, state, reason, moved_by, approved_by, moved_at)
  values (p_customer, v_from, p_state, p_reason, actor(), p_approved_by, v_now);
  if p_state = 'suspended' and v_from <> 'suspended' then
    perform raise_notice('suspension', p_customer, 'suspension of ' || p_customer || ' at ' || v_now,
                         jsonb_build_object('reason', p_reason, 'by', actor()));
  end if;
  -- Infractions that were to suspend are answered by this suspension, whoever made it: they must not suspend again
  -- once it is lifted.
  if 'suspended' in (v_from, p_state) then
    update infractions
    set notice_id = (select max(notice_id) from notices where customer = p_customer and kind = 'suspension')
    where customer = p_customer and consequence = 'suspended' and notice_id is null and reversed_at is null;
  end if;
  return note_change('customer.' || p_state, p_customer, jsonb_build_object(
    'from', v_from, 'reason', p_reason, 'hang_up', p_hang_up, 'approved_by', p_approved_by));
end
$$;
comment on function ringfence.set_customer_state is 'Moves a customer to another state; it holds from the next attempt on, and with p_hang_up for live calls too.';

create or replace function ringfence.note_new_customer() returns trigger
language plpgsql security definer
set search_path = ringfence, pg_temp
as $$
begin
  insert into customer_states (customer, from_state, state, reason, moved_by)
  values (new.customer, null, new.state, new.state_reason, actor());
  return null;
end
$$;
create or replace trigger note_new_customer after insert on ringfence.customers
  for each row execute function ringfence.note_new_customer();

create or replace function ringfence.customers_to_hang_up(p_customers text[]) returns setof text
language sql stable strict security definer
set search_path = ringfence, pg_temp
as $$
  select customer from customers where customer = any (p_customers) and hang_up
$$;
comment on function ringfence.customers_to_hang_up is 'Those of the customers whose live calls are to be hung up.';
revoke execute on function ringfence.customers_to_hang_up from public;
grant execute on function ringfence.customers_to_hang_up to ringfence_daemon;
