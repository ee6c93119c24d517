-- Know your customer: who they are, who checked it, and every move from prospect to terminated.

alter table ringfence.customers
  add column kind               text not null default 'end_user' check (kind in ('end_user', 'provider')),
  add column vetted_until       timestamptz,
  add column rmd_status         text not null default '' check (rmd_status in ('', 'listed', 'not_listed')),
  add column rmd_checked_at     timestamptz,
  add column restricted_profile text not null default 'restricted' references ringfence.limit_profiles,
  add column contact_email      text not null default '' check (length(contact_email) <= 254);
alter table ringfence.customers alter column state set default 'prospect';
comment on column ringfence.customers.state is 'Active customers originate calls, restricted ones under their restricted profile; no others do.';
comment on column ringfence.customers.kind is 'end_user, or provider: one that sends its own customers'' calls and must be in the Robocall Mitigation Database.';
comment on column ringfence.customers.vetted_until is 'The latest vetting holds until then; null if there is none. Without a vetting that holds, no call passes.';
comment on column ringfence.customers.rmd_status is 'For a provider: whether it was found in the Robocall Mitigation Database.';
comment on column ringfence.customers.rmd_checked_at is 'When that was looked up.';
comment on column ringfence.customers.restricted_profile is 'While the customer is restricted, of each cap the tighter of this profile and its own holds.';
comment on column ringfence.customers.contact_email is 'Where notices to the customer go.';

create table ringfence.vettings (
  vetting_id               bigint generated always as identity primary key,
  customer                 text not null references ringfence.customers,
  vetted_at                timestamptz not null default now(),
  vetted_by                text not null check (vetted_by <> ''),
  method                   text not null check (method in ('call', 'visit', 'documents', 'upgrade')),
  valid_until              timestamptz not null,
  legal_name               text not null default '',
  trading_name             text not null default '',
  entity_type              text not null default '',
  incorporation_state      text not null default '',
  incorporation_country    text not null default '',
  tax_id_sealed            bytea,
  tax_id_digest            bytea,
  physical_address         text not null default '',
  address_kind             text not null default ''
                           check (address_kind in ('', 'office', 'home', 'virtual', 'po_box', 'hotel')),
  contact_name             text not null default '',
  contact_email            text not null default '',
  contact_phone            text not null default '',
  alternate_phone          text not null default '',
  website                  text not null default '',
  use_case                 text not null default '',
  campaign_type            text not null default '',
  expected_calls_per_second numeric(9, 3) check (expected_calls_per_second >= 0),
  expected_calls_per_day   integer check (expected_calls_per_day >= 0),
  source_addresses         text[] not null default '{}',
  questionnaire_version    text not null default '',
  questionnaire_at         timestamptz,
  aup_version              text not null default '',
  aup_accepted_at          timestamptz,
  aup_accepted_by          text not null default '',
  prior_actions            text not null default '',
  red_flags                text[] not null default '{}',
  documents                text[] not null default '{}',
  filer_id_499             text not null default '',
  rmd_number               text not null default '',
  rmd_status               text not null default '' check (rmd_status in ('', 'listed', 'not_listed')),
  rmd_checked_at           timestamptz,
  ocn                      text not null default '',
  frn                      text not null default '',
  stir_shaken              text not null default '' check (stir_shaken in ('', 'full', 'partial', 'none')),
  note                     text not null default ''
);
create index vettings_of_customer on ringfence.vettings (customer, vetting_id);
create index vettings_by_tax_id on ringfence.vettings (tax_id_digest) where tax_id_digest is not null;
comment on table ringfence.vettings is 'What was found out about a customer, each time it was looked into. The newest row is what is known; none is ever changed.';
comment on column ringfence.vettings.vetting_id is 'Number of the vetting.';
comment on column ringfence.vettings.customer is 'Who was vetted.';
comment on column ringfence.vettings.vetted_at is 'When.';
comment on column ringfence.vettings.vetted_by is 'Who vetted.';
comment on column ringfence.vettings.method is 'How: by a call of our staff, a visit, documents; or taken over when this version was installed.';
comment on column ringfence.vettings.valid_until is 'When it must be done again.';
comment on column ringfence.vettings.legal_name is 'Registered business name.';
comment on column ringfence.vettings.trading_name is 'Name the business is known by.';
comment on column ringfence.vettings.entity_type is 'Corporation, LLC, sole proprietor …';
comment on column ringfence.vettings.incorporation_state is 'State of incorporation.';
comment on column ringfence.vettings.incorporation_country is 'Country of incorporation.';
comment on column ringfence.vettings.tax_id_sealed is 'EIN or government number, encrypted; only who holds the vetting key reads it.';
comment on column ringfence.vettings.tax_id_digest is 'Keyed digest of that number: tells whether two customers have the same, and nothing else.';
comment on column ringfence.vettings.physical_address is 'Where the business is.';
comment on column ringfence.vettings.address_kind is 'What is at that address.';
comment on column ringfence.vettings.contact_name is 'Whom to talk to.';
comment on column ringfence.vettings.contact_email is 'Their e-mail address; notices go there.';
comment on column ringfence.vettings.contact_phone is 'Their telephone.';
comment on column ringfence.vettings.alternate_phone is 'A second telephone.';
comment on column ringfence.vettings.website is 'Web site.';
comment on column ringfence.vettings.use_case is 'What the calls are for, in the customer''s words.';
comment on column ringfence.vettings.campaign_type is 'Conversational, call centre, notification, telemarketing …';
comment on column ringfence.vettings.expected_calls_per_second is 'Rate the customer expects to send.';
comment on column ringfence.vettings.expected_calls_per_day is 'Calls a day the customer expects to send.';
comment on column ringfence.vettings.source_addresses is 'Network addresses the calls will come from.';
comment on column ringfence.vettings.questionnaire_version is 'Version of the questionnaire that was answered.';
comment on column ringfence.vettings.questionnaire_at is 'When it was answered.';
comment on column ringfence.vettings.aup_version is 'Version of the acceptable-use policy that was accepted.';
comment on column ringfence.vettings.aup_accepted_at is 'When it was accepted.';
comment on column ringfence.vettings.aup_accepted_by is 'Who accepted it for the customer.';
comment on column ringfence.vettings.prior_actions is 'Tracebacks and enforcement actions known of.';
comment on column ringfence.vettings.red_flags is 'What was odd.';
comment on column ringfence.vettings.documents is 'Where the proofs are filed.';
comment on column ringfence.vettings.filer_id_499 is 'For a provider: FCC Form 499 filer id.';
comment on column ringfence.vettings.rmd_number is 'For a provider: number of its filing in the Robocall Mitigation Database.';
comment on column ringfence.vettings.rmd_status is 'For a provider: whether it was found there.';
comment on column ringfence.vettings.rmd_checked_at is 'For a provider: when that was looked up.';
comment on column ringfence.vettings.ocn is 'For a provider: Operating Company Number.';
comment on column ringfence.vettings.frn is 'For a provider: FCC Registration Number.';
comment on column ringfence.vettings.stir_shaken is 'For a provider: how far it signs its calls.';
comment on column ringfence.vettings.note is 'Anything else.';

create table ringfence.customer_states (
  move_id     bigint generated always as identity primary key,
  customer    text not null,
  from_state  text,
  state       text not null,
  reason      text not null,
  moved_by    text not null,
  approved_by text not null default '',
  moved_at    timestamptz not null default now()
);
create index customer_states_of_customer on ringfence.customer_states (customer, move_id);
comment on table ringfence.customer_states is 'Every move of a customer from one state to another, in order.';
comment on column ringfence.customer_states.move_id is 'Number of the move.';
comment on column ringfence.customer_states.customer is 'Who was moved.';
comment on column ringfence.customer_states.from_state is 'The state before; null when the customer was added.';
comment on column ringfence.customer_states.state is 'The state after.';
comment on column ringfence.customer_states.reason is 'Why.';
comment on column ringfence.customer_states.moved_by is 'Who did it.';
comment on column ringfence.customer_states.approved_by is 'Who approved it, where approval is needed.';
comment on column ringfence.customer_states.moved_at is 'When.';

create table ringfence.findings (
  finding_id bigint generated always as identity primary key,
  customer   text not null references ringfence.customers,
  found_at   timestamptz not null default now(),
  found_by   text not null,
  kind       text not null check (kind in ('illegal_traffic', 'suspicious_traffic', 'complaint')),
  summary    text not null check (length(summary) between 1 and 1000),
  evidence   text not null default '' check (length(evidence) <= 500),
  suspended  boolean not null
);
create index findings_of_customer on ringfence.findings (customer, finding_id);
comment on table ringfence.findings is 'What was found about a customer''s traffic. Illegal traffic suspends the whole customer in the same transaction.';
comment on column ringfence.findings.finding_id is 'Number of the finding.';
comment on column ringfence.findings.customer is 'Whose traffic.';
comment on column ringfence.findings.found_at is 'When.';
comment on column ringfence.findings.found_by is 'Who says so.';
comment on column ringfence.findings.kind is 'illegal_traffic suspends; the others are for the record.';
comment on column ringfence.findings.summary is 'What was found.';
comment on column ringfence.findings.evidence is 'Where the proof is filed.';
comment on column ringfence.findings.suspended is 'Whether the customer was suspended for it.';

create trigger append_only before update or delete on ringfence.vettings
  for each row execute function ringfence.refuse_change();
create trigger append_only before update or delete on ringfence.customer_states
  for each row execute function ringfence.refuse_change();
create trigger append_only before update or delete on ringfence.findings
  for each row execute function ringfence.refuse_change();
create trigger not_emptied before truncate on ringfence.vettings
  for each statement execute function ringfence.refuse_change();
create trigger not_emptied before truncate on ringfence.customer_states
  for each statement execute function ringfence.refuse_change();
create trigger not_emptied before truncate on ringfence.findings
  for each statement execute function ringfence.refuse_change();

-- Customers of before this version that may call keep calling: they count as vetted for 90 days, and are listed as due.
-- Nobody else does: a restricted customer could not call before, and cannot now until it is vetted.
with taken_over as (
  insert into ringfence.vettings (customer, vetted_by, method, valid_until, legal_name, note)
  select customer, 'ringfence', 'upgrade', now() + interval '90 days', name,
         'taken over by the upgrade: vet this customer before it runs out'
  from ringfence.customers where state in ('active', 'suspended')
  returning customer, valid_until
)
update ringfence.customers c set vetted_until = t.valid_until from taken_over t where c.customer = t.customer;
insert into ringfence.customer_states (customer, from_state, state, reason, moved_by, moved_at)
select customer, null, state, state_reason, 'ringfence', state_since from ringfence.customers;
