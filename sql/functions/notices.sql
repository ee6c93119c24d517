create or replace function ringfence.raise_notice(p_kind text, p_customer text, p_once text, p_data jsonb)
returns bigint
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  insert into notices (kind, customer, once, data) values (p_kind, p_customer, p_once, p_data)
  on conflict (once) do nothing
  returning notice_id
$$;
comment on function ringfence.raise_notice is 'Writes a notice, unless one about the same thing is there; its number, or null.';
revoke execute on function ringfence.raise_notice from public;
grant execute on function ringfence.raise_notice to ringfence_admin;

create or replace function ringfence.tell_of_notice() returns trigger language plpgsql as $$
begin
  perform pg_notify('ringfence_notice', '');
  return null;
end
$$;
create or replace trigger tell_of_notice after insert on ringfence.notices
  for each statement execute function ringfence.tell_of_notice();
