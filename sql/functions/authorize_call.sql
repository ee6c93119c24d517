-- For a dialplan or a script that asks Postgres directly (func_odbc, psql).
drop function if exists ringfence.authorize_call(text, text, text, text, text, text);
create or replace function ringfence.authorize_call(
  p_account text, p_caller text, p_called text,
  p_switch text default 'sql', p_host text default '*', p_channel text default '', p_campaign text default ''
) returns ringfence.decision
language plpgsql volatile security definer
set search_path = ringfence, pg_temp
as $$
declare
  v_attempt attempt;
  v_answer  decision;
begin
  v_attempt.orig_id := gen_random_uuid();
  v_attempt.decision_id := new_decision_id();
  v_attempt.entry := 'sql';
  v_attempt.switch := left(coalesce(p_switch, 'sql'), 64);
  v_attempt.host := left(coalesce(p_host, '*'), 64);
  v_attempt.channel := left(coalesce(p_channel, ''), 255);
  v_attempt.call_ref := '';
  v_attempt.account := left(printable(p_account), 255);
  v_attempt.sip_user := '';
  v_attempt.trunk := '';
  v_attempt.source_address := '';
  v_attempt.caller := left(printable(p_caller), 255);
  v_attempt.caller_name := '';
  v_attempt.called := left(printable(p_called), 255);
  v_attempt.places := '{}';
  v_attempt.campaign := left(printable(p_campaign), 64);
  v_attempt.caller_withheld := lower(btrim(coalesce(p_caller, ''))) in ('anonymous', 'withheld', 'private', 'restricted');
  if p_caller ~ '^\+?[1-9][0-9]{6,14}$' then
    v_attempt.caller_e164 := ltrim(p_caller, '+')::bigint;
  else
    v_attempt.caller_defect := case when coalesce(p_caller, '') = '' or v_attempt.caller_withheld then 'missing'
                                     else 'not_e164' end;
  end if;
  if p_called ~ '^\+?[1-9][0-9]{6,14}$' then
    v_attempt.called_e164 := ltrim(p_called, '+')::bigint;
  else
    v_attempt.called_defect := case when coalesce(p_called, '') = '' then 'missing' else 'not_e164' end;
  end if;
  select * into v_answer from authorize(array[v_attempt]);
  return v_answer;
end
$$;
comment on function ringfence.authorize_call is 'Judges one call whose numbers are already E.164 (with or without +), for plain SQL clients. The caller must let emergency numbers pass itself. Its lease must be kept with renew_leases within 300 s and ended with end_call.';
revoke execute on function ringfence.authorize_call from public;
grant execute on function ringfence.authorize_call to ringfence_daemon, ringfence_admin;

create or replace function ringfence.printable(p_text text) returns text
language sql immutable
as $$
  select regexp_replace(coalesce(p_text, ''), '[\x01-\x1f\x7f]', '?', 'g')
$$;
comment on function ringfence.printable is 'The text with ? for every control character; empty for null.';

create or replace function ringfence.new_decision_id() returns uuid
language sql volatile
as $$
  select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
          || '7' || substr(random, 2, 3) || to_hex(8 + ('x' || substr(random, 5, 1))::bit(4)::integer % 4)
          || substr(random, 6, 15))::uuid
  from (select replace(gen_random_uuid()::text, '-', '') as random) r
$$;
comment on function ringfence.new_decision_id is 'A UUIDv7 (RFC 9562 section 5.7), for clients that have none.';

create or replace function ringfence.end_call(p_decision uuid, p_customer text, p_answered_at timestamptz default null)
returns boolean
language sql volatile security definer
set search_path = ringfence, pg_temp
as $$
  select coalesce(bool_or(record_ends(array[row(
    d.decision_id, d.customer, 'event', 'unknown', uuid_time(d.decision_id), p_answered_at, clock_timestamp(), null,
    0, 0, '', '', 'told by a SQL client')::call_end]) > 0), false)
  from decisions d
  where d.decision_id = p_decision and d.customer = p_customer and d.verdict in ('allow', 'delay')
$$;
comment on function ringfence.end_call is 'Ends a call that a plain SQL client had authorized; false if its end was already known or there is no such call.';
revoke execute on function ringfence.end_call from public;
grant execute on function ringfence.end_call to ringfence_daemon, ringfence_admin;
