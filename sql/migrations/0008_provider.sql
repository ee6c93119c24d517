-- Who runs Ringfence, and what holds for every customer of theirs.

create table ringfence.provider (
  only_row                   boolean primary key default true check (only_row),
  name                       text not null default '' check (length(name) <= 200),
  role                       text not null default 'originating'
                             check (role in ('originating', 'gateway', 'intermediate', 'terminating')),
  frn                        text not null default '' check (frn ~ '^([0-9]{10})?$'),
  ocn                        text not null default '' check (ocn ~ '^([0-9A-Z]{4})?$'),
  rmd_number                 text not null default '' check (rmd_number ~ '^(RMD[0-9]{7,10})?$'),
  home_country               text not null default 'US' check (home_country ~ '^[A-Z]{2}$'),
  assigned_numbers_only      boolean not null default false,
  aup_version                text not null default '' check (length(aup_version) <= 64),
  vetting_valid_days         integer not null default 365 check (vetting_valid_days between 1 and 3650),
  expiry_notice_days         integer not null default 30 check (expiry_notice_days between 0 and 365),
  strikes                    boolean not null default true,
  warnings_before_suspension integer not null default 1 check (warnings_before_suspension between 0 and 100),
  infraction_hours           integer not null default 24 check (infraction_hours between 0 and 8760),
  infractions_count_days     integer not null default 365 check (infractions_count_days between 1 and 3650),
  suspension_hangs_up        boolean not null default true
);
insert into ringfence.provider default values;
comment on table ringfence.provider is 'One row: the provider that runs Ringfence, and what holds for all its customers.';
comment on column ringfence.provider.only_row is 'Always true: there is one provider.';
comment on column ringfence.provider.name is 'Legal name, for notices.';
comment on column ringfence.provider.role is 'Role in the call chain as filed in the Robocall Mitigation Database.';
comment on column ringfence.provider.frn is 'FCC Registration Number.';
comment on column ringfence.provider.ocn is 'Operating Company Number.';
comment on column ringfence.provider.rmd_number is 'Number of the filing in the Robocall Mitigation Database.';
comment on column ringfence.provider.home_country is 'Calls to other countries than this one are of the class international.';
comment on column ringfence.provider.assigned_numbers_only is 'The strict reading: only numbers assigned by us may be shown; validated ones are refused.';
comment on column ringfence.provider.aup_version is 'The acceptable-use policy that customers accept now.';
comment on column ringfence.provider.vetting_valid_days is 'How long a vetting holds if nothing else is said.';
comment on column ringfence.provider.expiry_notice_days is 'How long before a grant or a vetting runs out a notice is given.';
comment on column ringfence.provider.strikes is 'Whether showing somebody else''s number is counted against the customer.';
comment on column ringfence.provider.warnings_before_suspension is 'How many infractions only warn; the next one suspends. 0 suspends at the first.';
comment on column ringfence.provider.infraction_hours is 'Attempts within so many hours of an infraction belong to it.';
comment on column ringfence.provider.infractions_count_days is 'Infractions older than this no longer count.';
comment on column ringfence.provider.suspension_hangs_up is 'Whether a suspension by infraction also ends the live calls.';

alter table ringfence.limit_profiles
  add column calls_per_month          integer check (calls_per_month >= 0),
  add column minutes_per_day          integer check (minutes_per_day >= 0),
  add column minutes_per_month        integer check (minutes_per_month >= 0),
  add column caller_id_calls_per_day  integer check (caller_id_calls_per_day >= 0),
  add column max_delay_ms             integer not null default 0 check (max_delay_ms between 0 and 10000),
  add column report_rules             text[] not null default '{}',
  add column off_rules                text[] not null default '{}',
  add constraint rules_exist check (report_rules || off_rules <@ array[
    'vetting', 'campaign', 'caller_id', 'do_not_originate', 'grant', 'destination', 'do_not_call',
    'calling_hours', 'calls_per_second', 'concurrent_calls', 'calls_per_day', 'calls_per_month', 'minutes_per_day',
    'minutes_per_month', 'destination_cap', 'caller_id_cap']),
  add constraint one_mode_a_rule check (not report_rules && off_rules);
comment on column ringfence.limit_profiles.calls_per_month is 'Allowed calls per month in the customer''s time zone; null for no such cap.';
comment on column ringfence.limit_profiles.minutes_per_day is 'Answered minutes per day, counted when a call ends; null for no such cap.';
comment on column ringfence.limit_profiles.minutes_per_month is 'Answered minutes per month, counted when a call ends; null for no such cap.';
comment on column ringfence.limit_profiles.caller_id_calls_per_day is 'Allowed calls per day that show the same caller ID; null for no such cap.';
comment on column ringfence.limit_profiles.max_delay_ms is 'A call over the calls-per-second cap is held up to so long for its slot; 0 refuses it at once.';
comment on column ringfence.limit_profiles.report_rules is 'Rules that are judged and recorded as would_reject, but refuse nothing.';
comment on column ringfence.limit_profiles.off_rules is 'Rules that are not judged. Every rule that is in neither list is enforced.';

insert into ringfence.limit_profiles (profile, calls_per_second, burst, concurrent_calls, calls_per_day)
values ('restricted', 1, 1, 2, 200) on conflict do nothing;
