-- What is known of numbers: by the world's plans, and by the lists the operator loads.

create table ringfence.dialing_ranges (
  first        bigint primary key,
  last         bigint not null check (last >= first),
  country      text not null default '',
  state        text not null default '',
  kind         text not null default '' check (kind in ('', 'premium', 'satellite', 'toll_free')),
  other_digits smallint[] not null default '{}',
  other_kind   text not null default '' check (other_kind in ('', 'premium', 'satellite', 'toll_free')),
  time_zones   text[] not null default '{}'
);
comment on table ringfence.dialing_ranges is 'The world''s numbering plans as ranges that do not overlap, filled by ''ringfence db migrate'' from phonenumbers.';
comment on column ringfence.dialing_ranges.first is 'First number, its E.164 digits filled up to 15 with zeros.';
comment on column ringfence.dialing_ranges.last is 'Last number, its digits filled up to 15 with nines.';
comment on column ringfence.dialing_ranges.country is 'ISO 3166 country; empty for numbers of no country.';
comment on column ringfence.dialing_ranges.state is 'US state the area code belongs to; empty where there is none or several.';
comment on column ringfence.dialing_ranges.kind is 'premium, satellite, toll_free, or empty for all others.';
comment on column ringfence.dialing_ranges.other_digits is 'Numbers that have so many digits, country code included, are of other_kind instead.';
comment on column ringfence.dialing_ranges.other_kind is 'As kind, for numbers whose length is in other_digits.';
comment on column ringfence.dialing_ranges.time_zones is 'Every IANA zone the called party may be in.';

create table ringfence.do_not_originate (
  prefix    bigint not null check (prefix between 1 and 999999999999999),
  category  text not null check (category in ('subscriber_request', 'invalid', 'unallocated', 'unused')),
  source    text not null check (length(source) between 1 and 200),
  listed_on date not null default current_date,
  primary key (prefix, category, source)
);
create index do_not_originate_by_list on ringfence.do_not_originate (category, source, prefix);
comment on table ringfence.do_not_originate is 'Numbers no call may show (47 CFR 64.1200(o)): a row holds every number that begins with its digits.';
comment on column ringfence.do_not_originate.prefix is 'Leading E.164 digits; all of them for a single number.';
comment on column ringfence.do_not_originate.category is 'Why it may be on the list: its subscriber asked, it is invalid, not allocated to a provider, or allocated and unused.';
comment on column ringfence.do_not_originate.source is 'Where it comes from.';
comment on column ringfence.do_not_originate.listed_on is 'Since when it is listed, as its source says.';

create table ringfence.do_not_call (
  number    bigint not null check (number between 1000000 and 999999999999999),
  customer  text not null default '*',
  source    text not null check (length(source) between 1 and 200),
  listed_on date not null default current_date,
  primary key (number, customer, source)
);
create index do_not_call_by_list on ringfence.do_not_call (customer, source, number);
comment on table ringfence.do_not_call is 'Numbers that telemarketing calls may not reach. Other traffic is never held against it.';
comment on column ringfence.do_not_call.number is 'E.164 digits.';
comment on column ringfence.do_not_call.customer is 'Whose own list it is on, or * for a list that holds for all.';
comment on column ringfence.do_not_call.source is 'Where it comes from.';
comment on column ringfence.do_not_call.listed_on is 'Since when it is listed, as its source says.';

create table ringfence.call_consents (
  customer    text not null references ringfence.customers,
  number      bigint not null check (number between 1000000 and 999999999999999),
  evidence    text not null check (length(evidence) between 1 and 500),
  given_at    timestamptz not null default now(),
  valid_until timestamptz not null default 'infinity',
  primary key (customer, number)
);
comment on table ringfence.call_consents is 'Who agreed to be called by a customer: exempt from the do-not-call lists.';
comment on column ringfence.call_consents.customer is 'Who may call.';
comment on column ringfence.call_consents.number is 'Who agreed, E.164 digits.';
comment on column ringfence.call_consents.evidence is 'Where the proof is filed.';
comment on column ringfence.call_consents.given_at is 'Since when it holds.';
comment on column ringfence.call_consents.valid_until is 'It holds until before this moment.';
