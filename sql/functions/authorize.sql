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
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
  r             record;
  k             counters%rowtype;
  d             usage%rowtype;  -- under the destination rule
  n             usage%rowtype;  -- with the same caller ID
  v_answer      decision;
  v_now         timestamptz := clock_timestamp();
  v_spacing     interval;
  v_burst       interval;
  v_slot        timestamptz;
  v_local       timestamp;
  v_day         date;
  v_month       date;
  v_version     bigint;
  v_scopes      text[];
  v_over        text[];  -- caps that are exceeded, in the order of the rules
  v_enforced    text[];
  v_held        boolean;
begin
  select coalesce(max(version), 0) into v_version from policy_changes;

  -- Rows that get locked are taken in customer order, so that batches from several hosts cannot deadlock; and a
  -- customer's calls in the order they were asked about, which the ids tell.
  for r in
    -- Not everything it tells, but what is needed here: each column costs a little, and a caller waits.
    select
      decision_id, orig_id, entry, switch, host, channel, call_ref, account, sip_user, trunk, source_address, caller,
      caller_name, caller_e164, called, called_e164, places, campaign, caller_withheld, asked_at,
      customer, time_zone, profile, calls_per_second, burst, concurrent_calls, calls_per_day, calls_per_month,
      minutes_per_day, minutes_per_month, caller_id_calls_per_day, max_delay_ms, report_rules, off_rules,
      grant_id, attestation, destination_rule, destination_action, destination_calls_per_day,
      destination_calls_per_month, destination_minutes_per_day, destination_minutes_per_month,
      failed_do_not_originate, failed_grant, reason, would_reject
    from judged(p_attempts, v_now) order by customer collate "C" nulls first, decision_id
  loop
    if r.asked_at is not null and not p_dry_run then
      raise exception 'a call is judged now, not at another time' using errcode = 'invalid_parameter_value';
    end if;
    v_answer := null;
    v_over := '{}';
    v_answer.decision_id := r.decision_id;
    v_answer.orig_id := r.orig_id;
    v_answer.customer := coalesce(r.customer, '');
    v_answer.reason := r.reason;
    v_answer.would_reject := r.would_reject;
    v_answer.policy_version := v_version;
    v_answer.delay_ms := 0;
    v_answer.degraded := false;
    v_held := false;
    v_now := case when p_dry_run then coalesce(r.asked_at, clock_timestamp()) else clock_timestamp() end;

    -- Caps come last and are consumed only by a call that passes everything else.
    if r.customer is not null and (r.reason is null or p_dry_run) then
      if p_dry_run then
        select * into k from counters where customer = r.customer;
      else
        select * into k from counters where customer = r.customer for no key update;
        if not found then
          insert into counters (customer) values (r.customer) on conflict do nothing;
          select * into k from counters where customer = r.customer for no key update;
        end if;
        v_held := true;
        -- Time is read after the lock is held: a wait for it must not count against the caller.
        v_now := clock_timestamp();
      end if;
      v_local := v_now at time zone r.time_zone;
      v_day := v_local::date;
      v_month := date_trunc('month', v_local)::date;
      if k.customer is null then
        k.next_call := '-infinity'; k.live_calls := 0; k.calls_today := 0; k.seconds_today := 0;
        k.calls_this_month := 0; k.seconds_this_month := 0; k.breached := '{}';
      else
        if k.day <> v_day then
          k.calls_today := 0; k.seconds_today := 0;
        end if;
        if k.month <> v_month then
          k.calls_this_month := 0; k.seconds_this_month := 0;
        end if;
      end if;
      v_scopes := '{}';

      -- Spacing is rounded up to a whole microsecond so that rounding can never add a call.
      v_spacing := ceil(1000000 / r.calls_per_second) * interval '1 microsecond';
      -- A clock set back must not shut a customer out until it has caught up.
      v_burst := least((r.burst - 1) * v_spacing, interval '100 years');
      if k.next_call > v_now + v_spacing + v_burst + r.max_delay_ms * interval '1 millisecond' then
        k.next_call := v_now;
      end if;
      v_slot := k.next_call - v_burst;
      if v_slot > v_now then
        -- Whoever comes next finds the slot after this one: calls leave in the order they were asked about.
        v_answer.delay_ms := ceil(extract(epoch from v_slot - v_now) * 1000);
        if v_answer.delay_ms > r.max_delay_ms or 'calls_per_second' = any (r.report_rules || r.off_rules) then
          v_answer.delay_ms := 0;
          v_over := v_over || 'calls_per_second'::text;
        end if;
      end if;
      if k.live_calls >= r.concurrent_calls and not p_dry_run and r.concurrent_calls > 0 then
        k.live_calls := k.live_calls - expire_leases_of(r.customer, v_now);
      end if;
      if k.live_calls >= r.concurrent_calls then
        v_over := v_over || 'concurrent_calls'::text;
      end if;
      if k.calls_today >= r.calls_per_day then
        v_over := v_over || 'calls_per_day'::text;
      end if;
      if k.calls_this_month >= r.calls_per_month then
        v_over := v_over || 'calls_per_month'::text;
      end if;
      if k.seconds_today >= r.minutes_per_day * 60::bigint then
        v_over := v_over || 'minutes_per_day'::text;
      end if;
      if k.seconds_this_month >= r.minutes_per_month * 60::bigint then
        v_over := v_over || 'minutes_per_month'::text;
      end if;
      d := null;
      if r.destination_action = 'cap' then
        v_scopes := v_scopes || ('destination:' || r.destination_rule);
        select * into d from usage where customer = r.customer and scope = v_scopes[1];
        if (case when d.day = v_day then d.calls_today else 0 end) >= r.destination_calls_per_day
           or (case when d.month = v_month then d.calls_this_month else 0 end) >= r.destination_calls_per_month
           or (case when d.day = v_day then d.seconds_today else 0 end) >= r.destination_minutes_per_day * 60::bigint
           or (case when d.month = v_month then d.seconds_this_month else 0 end)
              >= r.destination_minutes_per_month * 60::bigint then
          v_over := v_over || 'destination_cap'::text;
        end if;
      end if;
      n := null;
      if r.caller_id_calls_per_day is not null and r.caller_e164 is not null then
        v_scopes := v_scopes || ('caller:' || r.caller_e164);
        select * into n from usage where customer = r.customer and scope = v_scopes[cardinality(v_scopes)];
        if (case when n.day = v_day then n.calls_today else 0 end) >= r.caller_id_calls_per_day then
          v_over := v_over || 'caller_id_cap'::text;
        end if;
      end if;

      if v_over <> '{}' then
        v_enforced := '{}';
        for i in 1 .. cardinality(v_over) loop
          if v_over[i] = any (r.report_rules) then
            v_answer.would_reject := v_answer.would_reject || (v_over[i] || '_exceeded');
          elsif not v_over[i] = any (r.off_rules) then
            v_enforced := v_enforced || v_over[i];
          end if;
        end loop;
        v_answer.reason := coalesce(v_answer.reason, v_enforced[1] || '_exceeded');
        -- The first refusal of the day under a cap is told to people; the others are in the records.
        if r.reason is null and v_enforced <> '{}' and not p_dry_run
           and not (k.breached_on = v_day and v_enforced[1] = any (k.breached)) then
          update counters
          set breached_on = v_day,
              breached = case when breached_on = v_day then breached else '{}' end || v_enforced[1]
          where customer = r.customer;
          perform raise_notice('breach', r.customer,
            format('breach of %s by %s on %s', v_enforced[1], r.customer, v_day),
            jsonb_build_object('rule', v_enforced[1], 'reason', v_answer.reason, 'day', v_day, 'at', v_now,
                               'profile', r.profile, 'decision', r.decision_id));
        end if;
      end if;
    end if;

    if v_answer.reason is null then
      v_answer.verdict := case when v_answer.delay_ms > 0 then 'delay' else 'allow' end;
      v_answer.reason := 'authorized';
      -- A number that was let through without a right to it is vouched for as a known customer's, not as theirs.
      v_answer.attestation := case when r.failed_grant is null and r.failed_do_not_originate is null
                                     and r.grant_id is not null then r.attestation
                                   when r.attestation = 'C' then 'C' else 'B' end;
      v_answer.sip_status := 0;
      v_answer.q850_cause := 0;
    else
      v_answer.verdict := 'reject';
      v_answer.attestation := '';
      v_answer.delay_ms := 0;
      select s.sip_status, s.q850_cause into v_answer.sip_status, v_answer.q850_cause
      from reasons s where s.reason = v_answer.reason;
      if not found then
        v_answer.sip_status := 403;
        v_answer.q850_cause := 21;
      end if;
    end if;

    if p_dry_run then
      select explained(to_jsonb(j), to_jsonb(k), to_jsonb(d), to_jsonb(n), v_over, v_now)
      into v_answer.rules
      from judged(p_attempts, v_now) j where j.decision_id = r.decision_id;
    else
      if v_answer.verdict <> 'reject' then
        update counters set
          next_call = case when 'calls_per_second' = any (v_over) then next_call
                           else greatest(k.next_call, v_now) + v_spacing end,
          day = v_day,
          calls_today = k.calls_today + 1,
          seconds_today = k.seconds_today,
          month = v_month,
          calls_this_month = k.calls_this_month + 1,
          seconds_this_month = k.seconds_this_month,
          live_calls = live_calls + 1
        where customer = r.customer;
        if v_scopes <> '{}' then
          perform use_scopes(r.customer, v_scopes, v_day, v_month, 1, 0);
        end if;
        insert into leases (customer, decision_id, host, switch, channel, taken_at, expires_at, scopes)
        values (r.customer, r.decision_id, r.host, r.switch, r.channel, v_now,
                v_now + p_lease_s * interval '1 second', v_scopes);
      elsif r.failed_grant = 'caller_id_not_authorized' and r.caller_e164 is not null
            and v_answer.reason in ('caller_id_not_authorized', 'caller_id_do_not_originate', 'caller_id_unallocated')
            and not 'grant' = any (r.report_rules || r.off_rules)
            and may_strike(r.customer) then
        -- The same lock as for a call that passes, and before all others: no two transactions wait for each other.
        if not v_held then
          insert into counters (customer) values (r.customer) on conflict do nothing;
          perform 1 from counters where customer = r.customer for no key update;
        end if;
        perform strike(r.customer, r.decision_id, r.caller_e164::text, v_answer.reason);
      end if;
      insert into decisions (
        decision_id, customer, decided_at, orig_id, verdict, reason, sip_status, q850_cause, attestation,
        delay_ms, grant_id, policy_version, degraded, entry, switch, host, channel, call_ref, account, sip_user,
        trunk, source_address, caller, caller_name, caller_e164, called, called_e164, places, would_reject, campaign,
        caller_withheld)
      values (
        r.decision_id, v_answer.customer, v_now, r.orig_id, v_answer.verdict, v_answer.reason,
        v_answer.sip_status, v_answer.q850_cause, v_answer.attestation, v_answer.delay_ms, r.grant_id,
        v_version, false, r.entry, r.switch, r.host, r.channel, r.call_ref, r.account, r.sip_user, r.trunk,
        r.source_address, r.caller, r.caller_name, r.caller_e164, r.called, r.called_e164, r.places,
        v_answer.would_reject, left(r.campaign, 64), r.caller_withheld);
    end if;
    return next v_answer;
  end loop;
end
$$;
comment on function ringfence.authorize is 'Judges attempts, consumes caps, takes leases and writes decisions in one transaction. A dry run writes nothing and reports every rule.';
revoke execute on function ringfence.authorize from public;
grant execute on function ringfence.authorize to ringfence_daemon, ringfence_admin;
