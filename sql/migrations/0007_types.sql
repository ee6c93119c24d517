-- What functions take and give. A field is only ever added at the end.

create type ringfence.attempt as (
  decision_id uuid, orig_id uuid, entry text, switch text, host text, channel text, call_ref text,
  account text, sip_user text, trunk text, source_address text,
  caller text, caller_name text, caller_e164 bigint, caller_defect text,
  called text, called_e164 bigint, called_defect text,
  places jsonb
);
comment on type ringfence.attempt is 'One outbound call to be judged.';

create type ringfence.decision as (
  decision_id uuid, orig_id uuid, customer text, verdict text, reason text, sip_status integer,
  q850_cause integer, attestation text, delay_ms integer, policy_version bigint, degraded boolean,
  rules jsonb
);
comment on type ringfence.decision is 'The answer to one attempt; degraded marks one given without the database, rules holds each rule''s outcome in a dry run.';

create type ringfence.call_end as (
  decision_id uuid, customer text, source text, hung_up_by text, started_at timestamptz,
  answered_at timestamptz, ended_at timestamptz, post_dial_delay_ms integer, q850_cause integer,
  sip_status integer, trunk text, trunk_channel text, detail text
);
comment on type ringfence.call_end is 'How one allowed call ended.';
