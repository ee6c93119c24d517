-- Documented rights to show numbers.

create table ringfence.grants (
  grant_id    bigint generated always as identity primary key,
  customer    text not null references ringfence.customers,
  first       bigint not null check (first between 1000000 and 999999999999999),
  last        bigint not null check (last <= 999999999999999),
  source      text not null default 'assigned' check (source in ('assigned', 'letter', 'callback', 'bill', 'resporg')),
  evidence    text not null default '' check (length(evidence) <= 500),
  attestation char(1) not null default 'A' check (attestation in ('A', 'B', 'C')),
  valid_from  timestamptz not null default '-infinity',
  valid_until timestamptz not null default 'infinity',
  granted_at  timestamptz not null default now(),
  granted_by  text not null default session_user,
  check (last >= first and last - first < 100000000),
  check (valid_until > valid_from),
  check (length(first::text) = length(last::text))
);
-- One descent finds the only grant that can hold a number: grants of a customer never overlap.
create unique index grants_by_number on ringfence.grants (customer, first) include (last);
comment on table ringfence.grants is 'A customer''s right to show every number from first to last. Grants of one customer do not overlap.';
comment on column ringfence.grants.grant_id is 'Number of the grant; a decision names the grant it rests on.';
comment on column ringfence.grants.customer is 'Who may show the numbers.';
comment on column ringfence.grants.first is 'First number of the block, E.164 digits.';
comment on column ringfence.grants.last is 'Last number of the block, E.164 digits.';
comment on column ringfence.grants.source is 'How the right was established: assigned by us, or validated by letter, callback, bill or RespOrg.';
comment on column ringfence.grants.evidence is 'Where the proof is filed.';
comment on column ringfence.grants.attestation is 'SHAKEN level a call showing these numbers earns (ATIS-1000074).';
comment on column ringfence.grants.valid_from is 'The grant holds from this moment.';
comment on column ringfence.grants.valid_until is 'The grant ends before this moment.';
comment on column ringfence.grants.granted_at is 'When the grant was entered.';
comment on column ringfence.grants.granted_by is 'Who entered it.';

create table ringfence.revoked_grants (
  grant_id    bigint primary key,
  customer    text not null,
  first       bigint not null,
  last        bigint not null,
  source      text not null,
  evidence    text not null,
  attestation char(1) not null,
  valid_from  timestamptz not null,
  valid_until timestamptz not null,
  granted_at  timestamptz not null,
  granted_by  text not null,
  revoked_at  timestamptz not null default now(),
  revoked_by  text not null,
  reason      text not null
);
comment on table ringfence.revoked_grants is 'Grants that were taken back, as they were, so that an audit can read what was true then.';
comment on column ringfence.revoked_grants.grant_id is 'The number it had as a grant.';
comment on column ringfence.revoked_grants.revoked_at is 'When it was taken back.';
comment on column ringfence.revoked_grants.revoked_by is 'Who took it back.';
comment on column ringfence.revoked_grants.reason is 'Why it was taken back.';
