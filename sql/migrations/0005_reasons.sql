create table ringfence.reasons (
  reason     text primary key check (reason ~ '^[a-z][a-z0-9_]{0,62}$'),
  sip_status integer not null check (sip_status = 0 or sip_status between 400 and 699),
  q850_cause integer not null check (q850_cause between 0 and 127),
  retryable  boolean not null,
  sentence   text not null
);
comment on table ringfence.reasons is 'What each reason answers. Filled by ''ringfence db migrate''; rows that are here are never overwritten, so the operator may change them.';
comment on column ringfence.reasons.reason is 'Stable machine word.';
comment on column ringfence.reasons.sip_status is 'SIP status of the refusal; 0 for reasons that allow.';
comment on column ringfence.reasons.q850_cause is 'Q.850 cause the switch hangs up with.';
comment on column ringfence.reasons.retryable is 'Whether the same call may succeed later without a policy change.';
comment on column ringfence.reasons.sentence is 'One sentence for the operator.';

create table ringfence.policy_changes (
  version    bigint generated always as identity primary key,
  changed_at timestamptz not null default now(),
  changed_by text not null,
  action     text not null,
  customer   text not null default '',
  detail     jsonb not null default '{}'
);
comment on table ringfence.policy_changes is 'Every change of policy, in order. Its number is the policy version a decision names.';
comment on column ringfence.policy_changes.version is 'Policy version that this change made.';
comment on column ringfence.policy_changes.changed_at is 'When.';
comment on column ringfence.policy_changes.changed_by is 'Who.';
comment on column ringfence.policy_changes.action is 'What was done, noun.verb.';
comment on column ringfence.policy_changes.customer is 'The customer it concerns, or empty.';
comment on column ringfence.policy_changes.detail is 'What was changed.';
