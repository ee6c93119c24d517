-- The one judge. Everything that asks whether a call may leave asks this function.
create or replace function ringfence.authorize(
  p_attempts ringfence.attempt[],
  p_lease_s  integer default 300,
  p_dry_run  boolean default false
) returns setof ringfence.decision
language plpgsql volatile strict security definer
set search_path = ringfence, pg_temp
-- Every lookup here is one index descent. Statistics that are missing or stale, after a large import say, must not
-- talk the planner into reading a table instead.
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  r             record;
  k             counters%rowtype;
  v_answer      decision;
  v_now         timestamptz;
  v_spacing     interval;
  v_day         date;
  v_version     bigint;
  v_endpoint    text;
  v_customer    text;
  v_caller      text;
  v_called      text;
  v_rate        text;
  v_concurrent  text;
  v_daily       text;
begin
  select coalesce(max(version), 0) into v_version from policy_changes;

  -- Rows that get locked are taken in customer order, so that batches from several hosts cannot deadlock.
  for r in
    select a.*, e.endpoint, e.enabled, e.customer, c.state, c.time_zone,
           p.profile, p.calls_per_second, p.burst, p.concurrent_calls, p.calls_per_day,
           g.grant_id, g.attestation, g.valid_from, g.valid_until, g.first, g.last
    from unnest(p_attempts) a
    left join lateral (
      select e.*
      from (values (1, 'account', a.account), (2, 'sip_user', a.sip_user), (3, 'trunk', a.trunk),
                   (4, 'source_address', a.source_address)) w(precedence, kind, value)
      join endpoints e on e.kind = w.kind and e.value = w.value and e.host in (a.host, '*')
      where w.value <> ''
      order by w.precedence, e.host = '*'
      limit 1
    ) e on true
    left join customers c on c.customer = e.customer
    left join limit_profiles p on p.profile = c.profile
    left join lateral (
      select g.* from grants g
      where g.customer = e.customer and g.first <= a.caller_e164
      order by g.first desc
      limit 1
    ) g on g.last >= a.caller_e164
    order by e.customer collate "C" nulls first
  loop
    v_now := clock_timestamp();
    v_rate := null;
    v_concurrent := null;
    v_daily := null;

    v_endpoint := case when r.endpoint is null then 'endpoint_unknown'
                       when not r.enabled then 'endpoint_disabled' end;
    v_customer := case when r.state = 'suspended' then 'customer_suspended'
                       when r.state <> 'active' then 'customer_not_active' end;
    v_caller := case when r.caller_e164 is null and coalesce(r.caller_defect, '') in ('', 'missing')
                       then 'caller_id_missing'
                     when r.caller_e164 is null then 'caller_id_malformed'
                     when r.grant_id is null then 'caller_id_not_authorized'
                     when v_now < r.valid_from or v_now >= r.valid_until then 'caller_id_grant_not_in_date' end;
    v_called := case when r.called_e164 is null and coalesce(r.called_defect, '') in ('', 'missing')
                       then 'called_number_missing'
                     when r.called_e164 is null then 'called_number_malformed' end;
    v_answer.reason := coalesce(v_endpoint, v_customer, v_caller, v_called);

    -- Caps come last and are consumed only by a call that passes everything else.
    if r.customer is not null and (v_answer.reason is null or p_dry_run) then
      if p_dry_run then
        select * into k from counters where customer = r.customer;
      else
        select * into k from counters where customer = r.customer for no key update;
        if not found then
          insert into counters (customer) values (r.customer) on conflict do nothing;
          select * into k from counters where customer = r.customer for no key update;
        end if;
      end if;
      -- Time is read after the lock is held: a wait for it must not count against the caller.
      v_now := clock_timestamp();
      -- Spacing is rounded up to a whole microsecond so that rounding can never add a call.
      v_spacing := ceil(1000000 / r.calls_per_second) * interval '1 microsecond';
      v_day := (v_now at time zone r.time_zone)::date;
      if k.customer is null then
        k.next_call := '-infinity'; k.live_calls := 0; k.calls_today := 0;
      elsif k.day <> v_day then
        k.calls_today := 0;
      end if;
      -- A clock set back must not shut a customer out until it has caught up.
      if k.next_call > v_now + r.burst * v_spacing then
        k.next_call := v_now;
      end if;
      if k.next_call - (r.burst - 1) * v_spacing > v_now then
        v_rate := 'calls_per_second_exceeded';
      end if;
      if k.live_calls >= r.concurrent_calls and not p_dry_run and r.concurrent_calls > 0 then
        k.live_calls := k.live_calls - expire_leases_of(r.customer, v_now);
      end if;
      if k.live_calls >= r.concurrent_calls then
        v_concurrent := 'concurrent_calls_exceeded';
      end if;
      if k.calls_today >= r.calls_per_day then
        v_daily := 'calls_per_day_exceeded';
      end if;
      v_answer.reason := coalesce(v_answer.reason, v_rate, v_concurrent, v_daily);
    end if;

    v_answer.decision_id := r.decision_id;
    v_answer.orig_id := r.orig_id;
    v_answer.customer := coalesce(r.customer, '');
    v_answer.policy_version := v_version;
    v_answer.delay_ms := 0;
    v_answer.degraded := false;
    if v_answer.reason is null then
      v_answer.verdict := 'allow';
      v_answer.reason := 'authorized';
      v_answer.attestation := r.attestation;
      v_answer.sip_status := 0;
      v_answer.q850_cause := 0;
    else
      v_answer.verdict := 'reject';
      v_answer.attestation := '';
      select s.sip_status, s.q850_cause into v_answer.sip_status, v_answer.q850_cause
      from reasons s where s.reason = v_answer.reason;
      if not found then
        v_answer.sip_status := 403;
        v_answer.q850_cause := 21;
      end if;
    end if;

    if p_dry_run then
      v_answer.rules := jsonb_build_array(
        jsonb_build_object('rule', 'endpoint', 'failed', v_endpoint,
          'data', jsonb_build_object('endpoint', r.endpoint, 'customer', r.customer)),
        jsonb_build_object('rule', 'customer', 'failed', v_customer,
          'data', jsonb_build_object('state', r.state)),
        jsonb_build_object('rule', 'caller_id', 'failed', v_caller,
          'data', jsonb_build_object('e164', r.caller_e164, 'defect', r.caller_defect, 'grant', r.grant_id,
            'first', r.first, 'last', r.last, 'valid_from', r.valid_from, 'valid_until', r.valid_until)),
        jsonb_build_object('rule', 'called_number', 'failed', v_called,
          'data', jsonb_build_object('e164', r.called_e164, 'defect', r.called_defect)),
        jsonb_build_object('rule', 'calls_per_second', 'failed', v_rate,
          'data', jsonb_build_object('profile', r.profile, 'cap', r.calls_per_second, 'burst', r.burst,
            'next_call', k.next_call)),
        jsonb_build_object('rule', 'concurrent_calls', 'failed', v_concurrent,
          'data', jsonb_build_object('cap', r.concurrent_calls, 'live', k.live_calls)),
        jsonb_build_object('rule', 'calls_per_day', 'failed', v_daily,
          'data', jsonb_build_object('cap', r.calls_per_day, 'today', k.calls_today)));
    else
      if v_answer.verdict = 'allow' then
        update counters set
          next_call = greatest(k.next_call, v_now) + v_spacing,
          day = v_day,
          calls_today = k.calls_today + 1,
          live_calls = live_calls + 1
        where customer = r.customer;
        insert into leases (customer, decision_id, host, switch, channel, taken_at, expires_at)
        values (r.customer, r.decision_id, r.host, r.switch, r.channel, v_now,
                v_now + p_lease_s * interval '1 second');
      end if;
      insert into decisions (
        decision_id, customer, decided_at, orig_id, verdict, reason, sip_status, q850_cause, attestation,
        delay_ms, grant_id, policy_version, degraded, entry, switch, host, channel, call_ref, account, sip_user,
        trunk, source_address, caller, caller_name, caller_e164, called, called_e164, places)
      values (
        r.decision_id, v_answer.customer, v_now, r.orig_id, v_answer.verdict, v_answer.reason,
        v_answer.sip_status, v_answer.q850_cause, v_answer.attestation, v_answer.delay_ms, r.grant_id,
        v_version, false, r.entry, r.switch, r.host, r.channel, r.call_ref, r.account, r.sip_user, r.trunk,
        r.source_address, r.caller, r.caller_name, r.caller_e164, r.called, r.called_e164, r.places);
    end if;
    return next v_answer;
  end loop;
end
$$;
comment on function ringfence.authorize is 'Judges attempts, consumes caps, takes leases and writes decisions in one transaction. A dry run writes nothing and reports every rule.';
revoke execute on function ringfence.authorize from public;
grant execute on function ringfence.authorize to ringfence_daemon, ringfence_admin;
