create or replace function ringfence.record_decisions(p_attempts ringfence.attempt[], p_decisions ringfence.decision[])
returns integer
language sql volatile strict security definer
set search_path = ringfence, pg_temp
as $$
  with recorded as (
    insert into decisions (
      decision_id, customer, decided_at, orig_id, verdict, reason, sip_status, q850_cause, attestation,
      delay_ms, grant_id, policy_version, degraded, entry, switch, host, channel, call_ref, account, sip_user,
      trunk, source_address, caller, caller_name, caller_e164, called, called_e164, places, campaign,
      caller_withheld)
    select
      a.decision_id, d.customer, uuid_time(a.decision_id), a.orig_id, d.verdict, d.reason, d.sip_status,
      d.q850_cause, d.attestation, d.delay_ms, null, d.policy_version, d.degraded, a.entry, a.switch, a.host,
      a.channel, a.call_ref, a.account, a.sip_user, a.trunk, a.source_address, a.caller, a.caller_name,
      a.caller_e164, a.called, a.called_e164, a.places, coalesce(a.campaign, ''),
      coalesce(a.caller_withheld, false)
    from unnest(p_attempts) with ordinality a
    join unnest(p_decisions) with ordinality d using (ordinality)
    on conflict do nothing
    returning 1
  )
  select count(*)::integer from recorded
$$;
comment on function ringfence.record_decisions is 'Writes down decisions that were given without the database, each once: emergency calls and declared failure answers.';
revoke execute on function ringfence.record_decisions from public;
grant execute on function ringfence.record_decisions to ringfence_daemon;
