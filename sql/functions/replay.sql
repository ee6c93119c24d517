-- Recorded decisions as the attempts they answered, with how each call ended: what 'ringfence policy replay' judges
-- again. It is inlined into the query that calls it, so that only the partitions of p_from to p_below are read.
drop function if exists ringfence.recorded_attempts(uuid, uuid, text[]);
create function ringfence.recorded_attempts(p_from uuid, p_below uuid, p_withheld text[])
returns table (
  decision_id uuid, orig_id uuid, entry text, switch text, host text, channel text, call_ref text, account text,
  sip_user text, trunk text, source_address text, caller text, caller_name text, caller_e164 bigint,
  caller_defect text, called text, called_e164 bigint, called_defect text, places jsonb, campaign text,
  caller_withheld boolean, asked_at timestamptz,
  skipped text, was_customer text, was_verdict text, was_reason text, freed_at timestamptz, ended_at timestamptz, seconds integer)
language sql stable
as $$
select
  d.decision_id, null::uuid, d.entry, d.switch, d.host, null, null, d.account, d.sip_user, d.trunk, d.source_address,
  d.caller, null, d.caller_e164,
  -- The defect is not on record: the reason tells it, and where an earlier rule refused, the text that was shown.
  case when d.caller_e164 is not null then ''
       when 'caller_id_malformed' = any (d.would_reject || d.reason) then 'malformed'
       when 'caller_id_missing' = any (d.would_reject || d.reason) then 'missing'
       when btrim(d.caller) = '' or d.entry <> 'sql' and lower(btrim(d.caller)) = any (p_withheld) then 'missing'
       else 'malformed' end,
  d.called, d.called_e164,
  case when d.called_e164 is not null then ''
       when 'called_number_malformed' = any (d.would_reject || d.reason) then 'malformed'
       when 'called_number_missing' = any (d.would_reject || d.reason) then 'missing'
       when btrim(d.called) = '' or d.entry <> 'sql' and lower(btrim(d.called)) = any (p_withheld) then 'missing'
       else 'malformed' end,
  null::jsonb, d.campaign, d.caller_withheld, d.decided_at,
  case when d.reason = 'emergency' then 'emergency'
       when d.degraded or d.reason in ('malformed_attempt', 'caller_id_conflict') then 'not_judged'
       when d.reason in ('customer_suspended', 'customer_not_active') then 'customer_state'
       else '' end,
  d.customer, d.verdict, d.reason,
  -- A call counts until its end is written down. One whose end nobody told stopped counting when its lease ran out,
  -- a day before it was given up (forget_leases).
  case when e.source = 'lease_expired' then e.recorded_at - interval '1 day'
       else coalesce(e.recorded_at, l.expires_at) end,
  e.ended_at,
  case when e.ended_at > e.answered_at then ceil(extract(epoch from e.ended_at - e.answered_at))::integer else 0 end
from ringfence.decisions d
left join ringfence.call_ends e
  on e.decision_id = d.decision_id and e.decision_id >= p_from and e.decision_id < p_below
left join ringfence.leases l on l.customer = d.customer and l.decision_id = d.decision_id and not l.counted
where d.decision_id >= p_from and d.decision_id < p_below
$$;
comment on function ringfence.recorded_attempts is 'Decisions from p_from to before p_below as attempts to be judged again, with what was answered and until when each call counted. skipped says why a policy does not decide a call: emergency, not_judged, customer_state. p_withheld are the words that stand for no caller ID.';
revoke execute on function ringfence.recorded_attempts from public;
grant execute on function ringfence.recorded_attempts to ringfence_admin, ringfence_auditor;
