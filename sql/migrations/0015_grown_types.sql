alter type ringfence.attempt add attribute campaign text;
alter type ringfence.attempt add attribute caller_withheld boolean;
alter type ringfence.attempt add attribute asked_at timestamptz;
comment on column ringfence.attempt.asked_at is 'Only in a dry run: the moment to judge it at.';
alter type ringfence.decision add attribute would_reject text[];

alter table ringfence.decisions
  add column would_reject    text[] not null default '{}',
  add column campaign        text not null default '',
  add column caller_withheld boolean not null default false;
comment on column ringfence.decisions.would_reject is 'Reasons for which rules in the mode report would have refused the call.';
comment on column ringfence.decisions.campaign is 'The campaign the switch named.';
comment on column ringfence.decisions.caller_withheld is 'The caller ID is withheld; caller_e164 is the network-asserted identity behind it.';
