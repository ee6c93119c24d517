-- What was used, by day and month of the customer's time zone.

alter table ringfence.counters
  add column seconds_today      bigint not null default 0 check (seconds_today >= 0),
  add column month              date not null default '-infinity',
  add column calls_this_month   integer not null default 0 check (calls_this_month >= 0),
  add column seconds_this_month bigint not null default 0 check (seconds_this_month >= 0),
  add column breached_on        date not null default '-infinity',
  add column breached           text[] not null default '{}';
comment on column ringfence.counters.seconds_today is 'Answered seconds of calls that ended on that day.';
comment on column ringfence.counters.month is 'First day of the customer''s local month that the monthly counters count.';
comment on column ringfence.counters.calls_this_month is 'Allowed calls in that month.';
comment on column ringfence.counters.seconds_this_month is 'Answered seconds of calls that ended in that month.';
comment on column ringfence.counters.breached_on is 'The local day that breached is about.';
comment on column ringfence.counters.breached is 'Caps that refused a call on that day: a notice is given at the first.';

create table ringfence.usage (
  customer           text not null references ringfence.customers,
  scope              text not null,
  day                date not null default '-infinity',
  calls_today        integer not null default 0 check (calls_today >= 0),
  seconds_today      bigint not null default 0 check (seconds_today >= 0),
  month              date not null default '-infinity',
  calls_this_month   integer not null default 0 check (calls_this_month >= 0),
  seconds_this_month bigint not null default 0 check (seconds_this_month >= 0),
  primary key (customer, scope)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
create index usage_to_forget on ringfence.usage (day);
comment on table ringfence.usage is 'Counters under a cap that is for part of a customer''s calls. Guarded by the lock on the customer''s row in counters.';
comment on column ringfence.usage.customer is 'Whose counters.';
comment on column ringfence.usage.scope is 'destination:N for the calls under destination rule N, caller:N for those that show number N.';
comment on column ringfence.usage.day is 'The customer''s local day that the daily counters count.';
comment on column ringfence.usage.calls_today is 'Allowed calls on that day.';
comment on column ringfence.usage.seconds_today is 'Answered seconds of calls that ended on that day.';
comment on column ringfence.usage.month is 'First day of the local month that the monthly counters count.';
comment on column ringfence.usage.calls_this_month is 'Allowed calls in that month.';
comment on column ringfence.usage.seconds_this_month is 'Answered seconds of calls that ended in that month.';

alter table ringfence.leases add column scopes text[] not null default '{}';
comment on column ringfence.leases.scopes is 'The scopes in usage that the seconds of this call count for, when it ends.';
