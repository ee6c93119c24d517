create or replace function ringfence.apply_vetting() returns trigger
language plpgsql security definer
set search_path = ringfence, pg_temp
as $$
begin
  update customers set
    vetted_until = new.valid_until,
    rmd_status = new.rmd_status,
    rmd_checked_at = new.rmd_checked_at,
    contact_email = new.contact_email
  where customer = new.customer;
  return null;
end
$$;
comment on function ringfence.apply_vetting is 'Puts what the judge needs of a new vetting on the customer.';
create or replace trigger apply_vetting after insert on ringfence.vettings
  for each row execute function ringfence.apply_vetting();

create or replace function ringfence.record_finding(
  p_customer text, p_kind text, p_summary text, p_evidence text default ''
) returns bigint
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_state   text;
  v_finding bigint;
  v_suspend boolean;
begin
  select state into v_state from customers where customer = p_customer for no key update;
  if not found then
    raise exception 'there is no customer %', quote_literal(p_customer) using errcode = 'no_data_found';
  end if;
  v_suspend := p_kind = 'illegal_traffic' and v_state in ('active', 'restricted', 'suspended');
  insert into findings (customer, found_by, kind, summary, evidence, suspended)
  values (p_customer, actor(), p_kind, p_summary, p_evidence, v_suspend)
  returning finding_id into v_finding;
  if v_suspend then
    perform set_customer_state(p_customer, 'suspended', left('finding ' || v_finding || ': ' || p_summary, 200), true);
  else
    perform note_change('customer.finding', p_customer,
                        jsonb_build_object('finding', v_finding, 'kind', p_kind, 'summary', p_summary));
  end if;
  return v_finding;
end
$$;
comment on function ringfence.record_finding is 'Writes down what was found about a customer''s traffic. Illegal traffic suspends the customer at once and ends its live calls.';
