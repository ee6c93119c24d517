-- What follows from showing somebody else's number, and who is told of what.

create table ringfence.notices (
  notice_id     bigint generated always as identity primary key,
  kind          text not null check (kind in ('warning', 'suspension', 'expiry', 'breach')),
  customer      text not null,
  created_at    timestamptz not null default clock_timestamp(),
  once          text not null unique,
  data          jsonb not null,
  planned_at    timestamptz,
  delivered_at  timestamptz,
  delivered_how text not null default ''
);
create index notices_to_plan on ringfence.notices (notice_id) where planned_at is null;
create index notices_of_customer on ringfence.notices (customer, notice_id);
comment on table ringfence.notices is 'What people must be told. Written on the call''s way at most once an event; delivered by the daemons, never on the call''s way.';
comment on column ringfence.notices.notice_id is 'Number of the notice.';
comment on column ringfence.notices.kind is 'warning and suspension of a customer, expiry of a grant or a vetting, breach of a cap.';
comment on column ringfence.notices.customer is 'Whom it concerns.';
comment on column ringfence.notices.created_at is 'When it was written.';
comment on column ringfence.notices.once is 'What it is about: the same thing is noticed once.';
comment on column ringfence.notices.data is 'The facts, for the text and for machines.';
comment on column ringfence.notices.planned_at is 'When it was decided where it goes; null until then.';
comment on column ringfence.notices.delivered_at is 'When it reached the customer, or whoever tells the customer; null until then.';
comment on column ringfence.notices.delivered_how is 'By which way, or what an operator said of it.';

create table ringfence.notice_deliveries (
  notice_id       bigint not null references ringfence.notices,
  channel         text not null check (channel in ('webhook', 'email')),
  address         text not null,
  to_customer     boolean not null,
  attempts        integer not null default 0,
  next_attempt_at timestamptz not null default clock_timestamp(),
  sent_at         timestamptz,
  gave_up_at      timestamptz,
  last_error      text not null default '',
  primary key (notice_id, channel, address)
);
create index notice_deliveries_due on ringfence.notice_deliveries (next_attempt_at)
  where sent_at is null and gave_up_at is null;
comment on table ringfence.notice_deliveries is 'Each way a notice goes out. A daemon takes one by moving next_attempt_at ahead, so that another tries if it dies: at least once.';
comment on column ringfence.notice_deliveries.notice_id is 'The notice.';
comment on column ringfence.notice_deliveries.channel is 'webhook or email.';
comment on column ringfence.notice_deliveries.address is 'URL or e-mail address.';
comment on column ringfence.notice_deliveries.to_customer is 'Whether this way reaches the customer: only then is the notice delivered.';
comment on column ringfence.notice_deliveries.attempts is 'How often it was tried.';
comment on column ringfence.notice_deliveries.next_attempt_at is 'When it is tried next.';
comment on column ringfence.notice_deliveries.sent_at is 'When it was accepted.';
comment on column ringfence.notice_deliveries.gave_up_at is 'When no further try was thought worth it.';
comment on column ringfence.notice_deliveries.last_error is 'Why the last try failed.';

create table ringfence.infractions (
  infraction_id   bigint generated always as identity primary key,
  customer        text not null,
  happened_at     timestamptz not null,
  decision_id     uuid not null,
  caller          text not null,
  reason          text not null,
  consequence     text not null check (consequence in ('warned', 'suspended')),
  notice_id       bigint references ringfence.notices,
  reversed_at     timestamptz,
  reversed_by     text not null default '',
  reversal_reason text not null default ''
);
create index infractions_of_customer on ringfence.infractions (customer, infraction_id);
comment on table ringfence.infractions is 'Times a customer was caught showing a number that is not theirs: one row an event, not an attempt.';
comment on column ringfence.infractions.infraction_id is 'Number of the infraction.';
comment on column ringfence.infractions.customer is 'Who was caught.';
comment on column ringfence.infractions.happened_at is 'When the first attempt of the event was.';
comment on column ringfence.infractions.decision_id is 'The decision on that attempt.';
comment on column ringfence.infractions.caller is 'The number that was shown.';
comment on column ringfence.infractions.reason is 'The reason of that decision.';
comment on column ringfence.infractions.consequence is 'warned, or suspended.';
comment on column ringfence.infractions.notice_id is 'The notice given.';
comment on column ringfence.infractions.reversed_at is 'When it was taken back; it no longer counts then.';
comment on column ringfence.infractions.reversed_by is 'Who took it back.';
comment on column ringfence.infractions.reversal_reason is 'Why it was taken back.';
