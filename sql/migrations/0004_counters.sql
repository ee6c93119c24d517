-- What caps are measured with. Lock order everywhere: counter rows in customer order, then leases.

create table ringfence.counters (
  customer    text primary key references ringfence.customers,
  next_call   timestamptz not null default '-infinity',
  day         date not null default '-infinity',
  calls_today integer not null default 0 check (calls_today >= 0),
  live_calls  integer not null default 0 check (live_calls >= 0)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
comment on table ringfence.counters is 'One row a customer, locked while a call of that customer is judged: this makes every cap exact across daemons.';
comment on column ringfence.counters.customer is 'Whose counters.';
comment on column ringfence.counters.next_call is 'GCRA theoretical arrival time: when the next call would come if calls were spaced evenly.';
comment on column ringfence.counters.day is 'The customer''s local day that calls_today counts.';
comment on column ringfence.counters.calls_today is 'Allowed calls on that day.';
comment on column ringfence.counters.live_calls is 'Number of this customer''s counted leases; moves only when such a lease comes or goes, so it can be recounted at any time.';

create table ringfence.leases (
  customer    text not null references ringfence.customers,
  decision_id uuid not null,
  host        text not null,
  switch      text not null,
  channel     text not null,
  taken_at    timestamptz not null,
  expires_at  timestamptz not null,
  counted     boolean not null default true,
  primary key (customer, decision_id)
) with (fillfactor = 70);
create index leases_by_expiry on ringfence.leases (expires_at) where counted;
create index leases_to_forget on ringfence.leases (expires_at) where not counted;
create index leases_of_switch on ringfence.leases (host, switch);
comment on table ringfence.leases is 'One row for each allowed call whose end is not known yet.';
comment on column ringfence.leases.customer is 'Whose call.';
comment on column ringfence.leases.decision_id is 'The decision that let it out.';
comment on column ringfence.leases.host is 'The Ringfence host that renews the lease.';
comment on column ringfence.leases.switch is 'The switch the call is on.';
comment on column ringfence.leases.channel is 'The channel that asked.';
comment on column ringfence.leases.taken_at is 'When the call was allowed.';
comment on column ringfence.leases.expires_at is 'If nobody renews it, the call stops counting at this moment.';
comment on column ringfence.leases.counted is 'Whether the call counts against the cap. An expired lease no longer counts, but stays until the switch, or time, tells how the call ended.';
