-- Append-only records, partitioned by the day inside the UUIDv7 decision id, so that the id alone finds the
-- partition and alone is the key that joins a decision to its end.

create table ringfence.decisions (
  decision_id    uuid not null,
  customer       text not null,
  decided_at     timestamptz not null,
  orig_id        uuid not null,
  verdict        text not null check (verdict in ('allow', 'reject', 'delay')),
  reason         text not null,
  sip_status     integer not null,
  q850_cause     integer not null,
  attestation    text not null check (attestation in ('', 'A', 'B', 'C')),
  delay_ms       integer not null,
  grant_id       bigint,
  policy_version bigint not null,
  degraded       boolean not null,
  entry          text not null,
  switch         text not null,
  host           text not null,
  channel        text not null,
  call_ref       text not null,
  account        text not null,
  sip_user       text not null,
  trunk          text not null,
  source_address text not null,
  caller         text not null,
  caller_name    text not null,
  caller_e164    bigint,
  called         text not null,
  called_e164    bigint,
  places         jsonb not null,
  primary key (customer, decision_id)
) partition by range (decision_id);
create index decisions_by_called on ringfence.decisions (called_e164, decided_at);
-- The id alone is unique too: a decision told by the journal waits for the one that authorize may be committing.
create unique index decisions_by_id on ringfence.decisions (decision_id);
create table ringfence.decisions_other partition of ringfence.decisions default;

comment on table ringfence.decisions is 'The answer to every attempt, inserted once and never changed.';
comment on column ringfence.decisions.decision_id is 'UUIDv7 made by the daemon; the join key everywhere.';
comment on column ringfence.decisions.customer is 'Who answers for the call; empty if no endpoint matched or nothing was looked up (emergency).';
comment on column ringfence.decisions.decided_at is 'When it was decided.';
comment on column ringfence.decisions.orig_id is 'SHAKEN origid of the call (RFC 8588 section 5).';
comment on column ringfence.decisions.verdict is 'allow, reject, or delay.';
comment on column ringfence.decisions.reason is 'The first rule that failed, or why it passed.';
comment on column ringfence.decisions.sip_status is 'SIP status answered to the caller; 0 if allowed.';
comment on column ringfence.decisions.q850_cause is 'Q.850 cause given to the switch; 0 if allowed.';
comment on column ringfence.decisions.attestation is 'SHAKEN attestation decided for the call; empty if refused.';
comment on column ringfence.decisions.delay_ms is 'How long the call is held before it leaves.';
comment on column ringfence.decisions.grant_id is 'The grant the caller ID rests on.';
comment on column ringfence.decisions.policy_version is 'Newest policy change when this was decided.';
comment on column ringfence.decisions.degraded is 'A declared failure answer, given because Postgres did not judge in time, and recorded afterwards.';
comment on column ringfence.decisions.entry is 'hook, watch or sql.';
comment on column ringfence.decisions.switch is 'Name of the switch.';
comment on column ringfence.decisions.host is 'Name of the Ringfence host.';
comment on column ringfence.decisions.channel is 'The switch''s name for the channel.';
comment on column ringfence.decisions.call_ref is 'The switch''s own id of the call: Asterisk Linkedid, FreeSWITCH UUID.';
comment on column ringfence.decisions.account is 'Account code as the switch showed it.';
comment on column ringfence.decisions.sip_user is 'Authenticated SIP user as the switch showed it.';
comment on column ringfence.decisions.trunk is 'Endpoint or gateway the call came from.';
comment on column ringfence.decisions.source_address is 'Network address the call came from.';
comment on column ringfence.decisions.caller is 'Caller ID as shown; control characters escaped.';
comment on column ringfence.decisions.caller_name is 'Display name as shown; control characters escaped.';
comment on column ringfence.decisions.caller_e164 is 'Caller ID as E.164 digits, or null if it is none.';
comment on column ringfence.decisions.called is 'Called number as dialled; control characters escaped.';
comment on column ringfence.decisions.called_e164 is 'Called number as E.164 digits, or null if it is none.';
comment on column ringfence.decisions.places is 'Every other place in which a caller ID stood.';

create table ringfence.call_ends (
  decision_id        uuid not null,
  customer           text not null,
  source             text not null check (source in ('event', 'reconciled', 'lease_expired', 'undelivered')),
  hung_up_by         text not null check (hung_up_by in ('caller', 'callee', 'switch', 'ringfence', 'unknown')),
  started_at         timestamptz,
  answered_at        timestamptz,
  ended_at           timestamptz,
  duration_ms        bigint check (duration_ms >= 0),
  billable_ms        bigint not null check (billable_ms >= 0),
  post_dial_delay_ms integer check (post_dial_delay_ms >= 0),
  q850_cause         integer not null,
  sip_status         integer not null,
  trunk              text not null,
  trunk_channel      text not null,
  detail             text not null,
  recorded_at        timestamptz not null default now(),
  primary key (customer, decision_id)
) partition by range (decision_id);
create unique index call_ends_by_id on ringfence.call_ends (decision_id);
create table ringfence.call_ends_other partition of ringfence.call_ends default;

comment on table ringfence.call_ends is 'How each allowed call ended: exactly one row a decision, inserted once and never changed.';
comment on column ringfence.call_ends.decision_id is 'The decision that let the call out.';
comment on column ringfence.call_ends.customer is 'As in the decision.';
comment on column ringfence.call_ends.source is 'How the end became known.';
comment on column ringfence.call_ends.hung_up_by is 'Who ended the call.';
comment on column ringfence.call_ends.started_at is 'When the attempt was made.';
comment on column ringfence.call_ends.answered_at is 'When the callee answered; null if nobody did.';
comment on column ringfence.call_ends.ended_at is 'When the call ended.';
comment on column ringfence.call_ends.duration_ms is 'From start to end.';
comment on column ringfence.call_ends.billable_ms is 'From answer to end; 0 if nobody answered.';
comment on column ringfence.call_ends.post_dial_delay_ms is 'From the attempt to the first ringing, progress or answer of the callee.';
comment on column ringfence.call_ends.q850_cause is 'Q.850 cause the callee''s leg ended with; 0 if none was shown.';
comment on column ringfence.call_ends.sip_status is 'Final SIP status from the carrier; 0 if none was shown.';
comment on column ringfence.call_ends.trunk is 'Trunk the call left by.';
comment on column ringfence.call_ends.trunk_channel is 'The switch''s name for the leg on that trunk.';
comment on column ringfence.call_ends.detail is 'What the switch said of it, for people.';
comment on column ringfence.call_ends.recorded_at is 'When this row was written.';

create function ringfence.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
    using errcode = 'integrity_constraint_violation';
end
$$;
create trigger append_only before update or delete on ringfence.decisions
  for each row execute function ringfence.refuse_change();
create trigger append_only before update or delete on ringfence.call_ends
  for each row execute function ringfence.refuse_change();
create trigger append_only before update or delete on ringfence.policy_changes
  for each row execute function ringfence.refuse_change();
create trigger append_only before update or delete on ringfence.revoked_grants
  for each row execute function ringfence.refuse_change();
create trigger not_emptied before truncate on ringfence.decisions
  for each statement execute function ringfence.refuse_change();
create trigger not_emptied before truncate on ringfence.call_ends
  for each statement execute function ringfence.refuse_change();
create trigger not_emptied before truncate on ringfence.policy_changes
  for each statement execute function ringfence.refuse_change();
create trigger not_emptied before truncate on ringfence.revoked_grants
  for each statement execute function ringfence.refuse_change();
