create or replace function ringfence.explained(
  r jsonb, k jsonb, d jsonb, n jsonb, p_over text[], p_now timestamptz
) returns jsonb
language sql stable
as $$
  select jsonb_agg(jsonb_build_object(
    'rule', rule,
    'mode', case when (r -> 'report_rules') ? rule then 'report' when (r -> 'off_rules') ? rule then 'off'
                 else 'enforce' end,
    'failed', coalesce(failed, case when rule = any (p_over) then rule || '_exceeded' end),
    'data', data) order by place)
  from (values
    (1, 'endpoint', r ->> 'failed_endpoint', jsonb_build_object(
      'endpoint', r -> 'endpoint', 'customer', r -> 'customer', 'traffic', r -> 'traffic')),
    (2, 'customer', r ->> 'failed_customer', jsonb_build_object('state', r -> 'state')),
    (3, 'vetting', r ->> 'failed_vetting', jsonb_build_object('vetted_until', r -> 'vetted_until')),
    (4, 'campaign', r ->> 'failed_campaign', jsonb_build_object('campaign', r -> 'campaign', 'traffic', r -> 'traffic')),
    (5, 'caller_id', r ->> 'failed_caller_id', jsonb_build_object(
      'e164', r -> 'caller_e164', 'defect', r -> 'caller_defect', 'withheld', r -> 'caller_withheld')),
    (6, 'do_not_originate', r ->> 'failed_do_not_originate', jsonb_build_object(
      'category', r -> 'listed_category', 'source', r -> 'listed_source')),
    (7, 'grant', r ->> 'failed_grant', jsonb_build_object(
      'grant', r -> 'grant_id', 'source', r -> 'grant_source', 'attestation', r -> 'attestation',
      'first', r -> 'first', 'last', r -> 'last', 'valid_from', r -> 'valid_from', 'valid_until', r -> 'valid_until')),
    (8, 'called_number', r ->> 'failed_called_number', jsonb_build_object(
      'e164', r -> 'called_e164', 'defect', r -> 'called_defect')),
    (9, 'destination', r ->> 'failed_destination', jsonb_build_object(
      'class', r -> 'called_class', 'country', r -> 'called_country', 'state', r -> 'called_state',
      'destination_rule', r -> 'destination_rule', 'of', r -> 'destination_customer',
      'prefix', nullif(r -> 'destination_prefix', '0'), 'area', r -> 'destination_area',
      'action', r -> 'destination_action')),
    (10, 'do_not_call', r ->> 'failed_do_not_call', jsonb_build_object(
      'listed_by', r -> 'do_not_call_source', 'consent', r -> 'consent')),
    (11, 'calling_hours', r ->> 'failed_calling_hours', jsonb_build_object(
      'state', r -> 'called_state', 'local_times', (
        select jsonb_object_agg(z, to_char(timezone(z, p_now), 'Dy HH24:MI'))
        from jsonb_array_elements_text(nullif(r -> 'called_time_zones', 'null')) z
        where r ->> 'traffic' = 'telemarketing'))),
    (12, 'calls_per_second', null, jsonb_build_object(
      'profile', r -> 'profile', 'cap', r -> 'calls_per_second', 'burst', r -> 'burst',
      'max_delay_ms', r -> 'max_delay_ms', 'next_call', k -> 'next_call')),
    (13, 'concurrent_calls', null, jsonb_build_object('cap', r -> 'concurrent_calls', 'live', k -> 'live_calls')),
    (14, 'calls_per_day', null, jsonb_build_object('cap', r -> 'calls_per_day', 'used', k -> 'calls_today')),
    (15, 'calls_per_month', null, jsonb_build_object('cap', r -> 'calls_per_month', 'used', k -> 'calls_this_month')),
    (16, 'minutes_per_day', null, jsonb_build_object(
      'cap', r -> 'minutes_per_day', 'used', (k ->> 'seconds_today')::bigint / 60)),
    (17, 'minutes_per_month', null, jsonb_build_object(
      'cap', r -> 'minutes_per_month', 'used', (k ->> 'seconds_this_month')::bigint / 60)),
    (18, 'destination_cap', null, jsonb_build_object(
      'destination_rule', case when r ->> 'destination_action' = 'cap' then r -> 'destination_rule' end,
      'calls_per_day', r -> 'destination_calls_per_day', 'calls_per_month', r -> 'destination_calls_per_month',
      'minutes_per_day', r -> 'destination_minutes_per_day',
      'minutes_per_month', r -> 'destination_minutes_per_month',
      'day', d -> 'day', 'calls_today', d -> 'calls_today', 'seconds_today', d -> 'seconds_today',
      'month', d -> 'month', 'calls_this_month', d -> 'calls_this_month',
      'seconds_this_month', d -> 'seconds_this_month')),
    (19, 'caller_id_cap', null, jsonb_build_object(
      'cap', r -> 'caller_id_calls_per_day', 'day', n -> 'day', 'used', n -> 'calls_today'))
  ) as x(place, rule, failed, data)
$$;
comment on function ringfence.explained is 'Every rule in order with its mode, whether it failed, and the data it used: the long answer of a dry run.';
revoke execute on function ringfence.explained from public;
