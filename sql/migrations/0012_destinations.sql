-- Where calls may go, and what telemarketing has to heed.

create table ringfence.destination_rules (
  destination_rule  bigint generated always as identity primary key,
  customer          text not null default '*',
  prefix            bigint not null default 0 check (prefix between 0 and 999999999999999),
  area              text not null default ''
                    check (area ~ '^([A-Z]{2}|premium|satellite|toll_free|international|domestic|service)?$'),
  action            text not null check (action in ('allow', 'deny', 'cap')),
  calls_per_day     integer check (calls_per_day >= 0),
  calls_per_month   integer check (calls_per_month >= 0),
  minutes_per_day   integer check (minutes_per_day >= 0),
  minutes_per_month integer check (minutes_per_month >= 0),
  unique (customer, prefix, area),
  check ((prefix = 0) <> (area = '')),
  check ((action = 'cap') = (coalesce(calls_per_day, calls_per_month, minutes_per_day, minutes_per_month) is not null))
);
comment on table ringfence.destination_rules is 'What calls to a prefix, a country or a class may do. A customer''s own rule wins over one for all, a longer prefix over a shorter, a prefix over a country, a country over a class.';
comment on column ringfence.destination_rules.destination_rule is 'Number of the rule.';
comment on column ringfence.destination_rules.customer is 'Whose calls, or * for all.';
comment on column ringfence.destination_rules.prefix is 'Leading E.164 digits of the called number; 0 if the rule is for an area.';
comment on column ringfence.destination_rules.area is 'ISO country or class: premium, satellite, toll_free, international, domestic, service (short codes).';
comment on column ringfence.destination_rules.action is 'allow, deny, or cap: allow within the caps of this rule.';
comment on column ringfence.destination_rules.calls_per_day is 'Allowed calls of one customer under this rule per day.';
comment on column ringfence.destination_rules.calls_per_month is 'Allowed calls of one customer under this rule per month.';
comment on column ringfence.destination_rules.minutes_per_day is 'Answered minutes of one customer under this rule per day.';
comment on column ringfence.destination_rules.minutes_per_month is 'Answered minutes of one customer under this rule per month.';

create table ringfence.destination_ranges (
  customer         text not null,
  starts           text collate "C" not null,
  destination_rule bigint,
  primary key (customer, starts)
);
comment on table ringfence.destination_ranges is 'The rules for prefixes laid flat, the longest prefix winning: made from destination_rules by a trigger, so that a decision finds its rule in one descent.';
comment on column ringfence.destination_ranges.customer is 'Whose calls, or * for all.';
comment on column ringfence.destination_ranges.starts is 'From this text on, in the order of its characters, up to the next row: digits where a prefix begins, digits and a colon (it follows 9) where one ends.';
comment on column ringfence.destination_ranges.destination_rule is 'The rule that holds there, or null.';

alter table ringfence.endpoints add column traffic text not null default 'conversational'
  check (traffic in ('conversational', 'telemarketing'));
comment on column ringfence.endpoints.traffic is 'Whether its calls are telemarketing: do-not-call lists and calling hours hold for those only.';

create table ringfence.campaigns (
  customer    text not null references ringfence.customers,
  campaign    text not null check (campaign ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$'),
  traffic     text not null check (traffic in ('conversational', 'telemarketing')),
  description text not null default '' check (length(description) <= 500),
  enabled     boolean not null default true,
  created_at  timestamptz not null default now(),
  primary key (customer, campaign)
);
comment on table ringfence.campaigns is 'What a customer''s calls are for. The switch names the campaign of a call; it decides then, not the endpoint, what traffic it is.';
comment on column ringfence.campaigns.customer is 'Whose campaign.';
comment on column ringfence.campaigns.campaign is 'The name the switch gives.';
comment on column ringfence.campaigns.traffic is 'Whether its calls are telemarketing.';
comment on column ringfence.campaigns.description is 'What it is about.';
comment on column ringfence.campaigns.enabled is 'Calls of a campaign that is not enabled are refused.';
comment on column ringfence.campaigns.created_at is 'When the campaign was added.';

create table ringfence.calling_hours (
  country text not null check (country ~ '^[A-Z]{2}$'),
  state   text not null default '' check (state ~ '^([A-Z]{2})?$'),
  weekday smallint not null check (weekday between 0 and 6),
  opens   time not null,
  closes  time not null check (closes >= opens),
  primary key (country, state, weekday)
);
comment on table ringfence.calling_hours is 'When telemarketing may call, in the called party''s local time. The country''s hours and the state''s must both be kept, in every zone the number may be in.';
comment on column ringfence.calling_hours.country is 'ISO country of the called number.';
comment on column ringfence.calling_hours.state is 'US state of the called number, or empty for the whole country.';
comment on column ringfence.calling_hours.weekday is '0 is Sunday.';
comment on column ringfence.calling_hours.opens is 'Calls may begin at this time.';
comment on column ringfence.calling_hours.closes is 'Calls may begin before this time; equal to opens for a day without calls.';
-- 47 CFR 64.1200(c)(1).
insert into ringfence.calling_hours (country, weekday, opens, closes)
select 'US', d, '08:00', '21:00' from generate_series(0, 6) d;
