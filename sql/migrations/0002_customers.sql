-- Who pays and answers for traffic, how a call is recognised as theirs, and how much they may send.

create table ringfence.limit_profiles (
  profile          text primary key check (profile ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  calls_per_second numeric(9, 3) not null check (calls_per_second > 0),
  burst            integer not null check (burst >= 1),
  concurrent_calls integer not null check (concurrent_calls >= 0),
  calls_per_day    integer check (calls_per_day >= 0),
  created_at       timestamptz not null default now()
);
comment on table ringfence.limit_profiles is 'Named sets of caps. Every customer has exactly one.';
comment on column ringfence.limit_profiles.profile is 'Name of the profile.';
comment on column ringfence.limit_profiles.calls_per_second is 'Sustained rate of allowed calls. In any t seconds at most burst + calls_per_second * t calls pass.';
comment on column ringfence.limit_profiles.burst is 'How many calls may come at the same instant (GCRA). 1 spaces calls evenly.';
comment on column ringfence.limit_profiles.concurrent_calls is 'How many calls may be live at once; 0 lets none out.';
comment on column ringfence.limit_profiles.calls_per_day is 'Allowed calls per day in the customer''s time zone; null for no such cap.';
comment on column ringfence.limit_profiles.created_at is 'When the profile was made.';

create table ringfence.customers (
  customer     text primary key check (customer ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  name         text not null check (length(name) between 1 and 200),
  state        text not null default 'active'
               check (state in ('prospect', 'active', 'restricted', 'suspended', 'terminated')),
  state_reason text not null default '',
  state_since  timestamptz not null default now(),
  hang_up      boolean not null default false,
  profile      text not null references ringfence.limit_profiles,
  time_zone    text not null default 'UTC' check (timezone(time_zone, timestamptz '2000-01-01') is not null),
  created_at   timestamptz not null default now()
);
comment on table ringfence.customers is 'Who pays and answers for the traffic.';
comment on column ringfence.customers.customer is 'Stable short name; the key everywhere, never reused.';
comment on column ringfence.customers.name is 'Legal or trading name, for people.';
comment on column ringfence.customers.state is 'Only an active customer may originate calls.';
comment on column ringfence.customers.state_reason is 'Why the customer is in this state.';
comment on column ringfence.customers.state_since is 'Since when the customer is in this state.';
comment on column ringfence.customers.hang_up is 'Whether the daemons hang up this customer''s live calls, emergency calls excepted.';
comment on column ringfence.customers.profile is 'The caps that hold for this customer.';
comment on column ringfence.customers.time_zone is 'IANA zone in which the customer''s day begins, for calls per day.';
comment on column ringfence.customers.created_at is 'When the customer was added.';

create table ringfence.endpoints (
  endpoint   bigint generated always as identity primary key,
  customer   text not null references ringfence.customers,
  kind       text not null check (kind in ('account', 'sip_user', 'trunk', 'source_address')),
  value      text not null check (length(value) between 1 and 255),
  host       text not null default '*',
  enabled    boolean not null default true,
  created_at timestamptz not null default now(),
  unique (kind, value, host)
);
create index endpoints_of_customer on ringfence.endpoints (customer);
comment on table ringfence.endpoints is 'How a call is recognised as a customer''s. The directory from wire identity to customer: the one key on the call''s way that cannot begin with the customer.';
comment on column ringfence.endpoints.endpoint is 'Number of the endpoint.';
comment on column ringfence.endpoints.customer is 'Whose calls these are.';
comment on column ringfence.endpoints.kind is 'Which identity of the call is compared. When several match, account wins over sip_user, trunk and source_address in that order.';
comment on column ringfence.endpoints.value is 'What the switch shows for it, compared exactly.';
comment on column ringfence.endpoints.host is 'The Ringfence host this holds on, or * for all. A row for the host wins over *.';
comment on column ringfence.endpoints.enabled is 'A disabled endpoint refuses its calls.';
comment on column ringfence.endpoints.created_at is 'When the endpoint was added.';
