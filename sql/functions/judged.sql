-- Every rule but the caps, for many attempts in one query: what authorize and replay are made of. It is inlined into
-- the query that calls it, so it has no settings of its own and names everything in full.
drop function if exists ringfence.judged(ringfence.attempt[], timestamptz);
create function ringfence.judged(p_attempts ringfence.attempt[], p_now timestamptz)
returns table (
  decision_id uuid, orig_id uuid, entry text, switch text, host text, channel text, call_ref text, account text,
  sip_user text, trunk text, source_address text, caller text, caller_name text, caller_e164 bigint,
  caller_defect text, called text, called_e164 bigint, called_defect text, places jsonb, campaign text,
  caller_withheld boolean, asked_at timestamptz,
  endpoint bigint, customer text, state text, vetted_until timestamptz, time_zone text, traffic text,
  profile text, calls_per_second numeric, burst integer, concurrent_calls integer, calls_per_day integer,
  calls_per_month integer, minutes_per_day integer, minutes_per_month integer, caller_id_calls_per_day integer,
  max_delay_ms integer, report_rules text[], off_rules text[],
  grant_id bigint, grant_source text, attestation text, valid_from timestamptz, valid_until timestamptz,
  first bigint, last bigint, listed_category text, listed_source text,
  called_country text, called_state text, called_class text, called_time_zones text[],
  destination_rule bigint, destination_customer text, destination_prefix bigint, destination_area text,
  destination_action text, destination_calls_per_day integer, destination_calls_per_month integer,
  destination_minutes_per_day integer, destination_minutes_per_month integer,
  do_not_call_source text, consent text,
  failed_endpoint text, failed_customer text, failed_vetting text, failed_campaign text, failed_caller_id text,
  failed_do_not_originate text, failed_grant text, failed_called_number text, failed_destination text,
  failed_do_not_call text, failed_calling_hours text, reason text, would_reject text[])
language sql stable
as $$
select
  a.decision_id, a.orig_id, a.entry, a.switch, a.host, a.channel, a.call_ref, a.account, a.sip_user, a.trunk,
  a.source_address, a.caller, a.caller_name, a.caller_e164, a.caller_defect, a.called, a.called_e164, a.called_defect,
  a.places, coalesce(a.campaign, ''), coalesce(a.caller_withheld, false), a.asked_at,
  e.endpoint, e.customer, c.state, c.vetted_until, c.time_zone, t.traffic,
  p.profile, p.calls_per_second, p.burst, p.concurrent_calls, p.calls_per_day, p.calls_per_month, p.minutes_per_day,
  p.minutes_per_month, p.caller_id_calls_per_day, p.max_delay_ms, p.report_rules, p.off_rules,
  g.grant_id, g.source, g.attestation, g.valid_from, g.valid_until, g.first, g.last, l.category, l.source,
  n.country, n.state, t.class, n.time_zones,
  x.destination_rule, x.customer, x.prefix, x.area, x.action, x.calls_per_day, x.calls_per_month, x.minutes_per_day,
  x.minutes_per_month, d.entry[1], d.entry[2],
  f.endpoint, f.customer, f.vetting, f.campaign, f.caller_id, f.do_not_originate, f.granted, f.called_number,
  f.destination, f.do_not_call, f.calling_hours, v.reason, v.would_reject
from unnest(p_attempts) a
cross join ringfence.provider s
left join lateral (
  select e.*
  from (values (1, 'account', a.account), (2, 'sip_user', a.sip_user), (3, 'trunk', a.trunk),
               (4, 'source_address', a.source_address)) w(precedence, kind, value)
  join ringfence.endpoints e on e.kind = w.kind and e.value = w.value and e.host in (a.host, '*')
  where w.value <> ''
  order by w.precedence, e.host = '*'
  limit 1
) e on true
left join ringfence.customers c on c.customer = e.customer
left join lateral (
  select l.* from ringfence.limit_profiles l where l.profile = c.profile and c.state <> 'restricted'
  union all
  select l.* from ringfence.tighter_profile(c.profile, c.restricted_profile) l where c.state = 'restricted'
) p on true
left join lateral (
  select g.* from ringfence.grants g
  where g.customer = e.customer and g.first <= a.caller_e164
  order by g.first desc
  limit 1
) g on g.last >= a.caller_e164
-- A number is on the list if any of its leading digits is.
left join lateral (
  select o.category, o.source from ringfence.do_not_originate o
  where o.prefix = any (array[
    a.caller_e164, a.caller_e164 / 10, a.caller_e164 / 100, a.caller_e164 / 1000, a.caller_e164 / 10000,
    a.caller_e164 / 100000, a.caller_e164 / 1000000, a.caller_e164 / 10000000, a.caller_e164 / 100000000,
    a.caller_e164 / 1000000000, a.caller_e164 / 10000000000, a.caller_e164 / 100000000000,
    a.caller_e164 / 1000000000000, a.caller_e164 / 10000000000000, a.caller_e164 / 100000000000000])
  order by o.prefix desc
  limit 1
) l on true
left join ringfence.campaigns m on a.campaign <> '' and m.customer = e.customer and m.campaign = a.campaign
left join lateral (
  select
    r.last, r.country, r.state, r.time_zones,
    case when length(a.called_e164::text) = any (r.other_digits) then r.other_kind else r.kind end as kind
  from ringfence.dialing_ranges r
  where a.called_e164 >= 1000000 and r.first <= rpad(a.called_e164::text, 15, '0')::bigint
  order by r.first desc
  limit 1
) n on n.last >= rpad(a.called_e164::text, 15, '0')::bigint
-- Territories have country codes of their own, but are no foreign countries: calling them is domestic, and the hours
-- of the whole country hold there.
cross join lateral (
  select case when n.country in ('PR', 'VI', 'GU', 'AS', 'MP') then 'US'
              -- An area code that is newer than the plan is most likely one of the United States.
              when n.country = '' and a.called_e164 between 10000000000 and 19999999999 then 'US'
              else n.country end as soil
) h
cross join lateral (
  select
    coalesce(m.traffic, e.traffic) as traffic,
    case when a.called_e164 >= 1000000 then a.called_e164::text end collate "C" as digits,
    case when n.kind = 'satellite' or n.kind in ('premium', 'toll_free') and h.soil <> s.home_country
           then 'international'
    end as wider_class,
    case when a.called_e164 < 1000000 then 'service'
         when n.kind <> '' then n.kind
         when h.soil = s.home_country then 'domestic'
         when a.called_e164 is not null then 'international' end as class
  offset 0  -- worked out once, and not wherever it is used: so also below
) t
-- The first that is found: the customer's own rules, then those for all; of each its prefixes, country, class.
cross join lateral (
  select coalesce(
    (select r.destination_rule from ringfence.destination_ranges r
     where r.customer = e.customer and r.starts <= t.digits order by r.starts desc limit 1),
    (select r.destination_rule from ringfence.destination_rules r
     where r.customer = e.customer and r.prefix = 0 and r.area = n.country),
    (select r.destination_rule from ringfence.destination_rules r
     where r.customer = e.customer and r.prefix = 0 and r.area = t.class),
    (select r.destination_rule from ringfence.destination_rules r
     where r.customer = e.customer and r.prefix = 0 and r.area = t.wider_class),
    (select r.destination_rule from ringfence.destination_ranges r
     where r.customer = '*' and r.starts <= t.digits order by r.starts desc limit 1),
    (select r.destination_rule from ringfence.destination_rules r
     where r.customer = '*' and r.prefix = 0 and r.area = n.country),
    (select r.destination_rule from ringfence.destination_rules r
     where r.customer = '*' and r.prefix = 0 and r.area = t.class),
    (select r.destination_rule from ringfence.destination_rules r
     where r.customer = '*' and r.prefix = 0 and r.area = t.wider_class)) as destination_rule
  offset 0
) y
left join ringfence.destination_rules x on x.destination_rule = y.destination_rule
cross join lateral (
  select case when t.traffic = 'telemarketing'
              then ringfence.do_not_call_entry(e.customer, a.called_e164, coalesce(a.asked_at, p_now)) end as entry
  offset 0
) d
cross join lateral (
  select
    case when e.endpoint is null then 'endpoint_unknown'
         when not e.enabled then 'endpoint_disabled' end as endpoint,
    case when c.state = 'suspended' then 'customer_suspended'
         when c.state not in ('active', 'restricted') then 'customer_not_active' end as customer,
    case when c.customer is null then null
         when c.vetted_until is null then 'customer_not_vetted'
         when c.vetted_until <= coalesce(a.asked_at, p_now) then 'customer_vetting_expired'
         when c.kind = 'provider' and c.rmd_status <> 'listed' then 'provider_not_in_rmd' end as vetting,
    case when a.campaign <> '' and m.enabled is not true then 'campaign_unknown' end as campaign,
    case when a.caller_e164 is not null then null
         when a.caller_withheld then 'caller_id_withheld'
         when coalesce(a.caller_defect, '') in ('', 'missing') then 'caller_id_missing'
         else 'caller_id_malformed' end as caller_id,
    case when l.category = 'unallocated' then 'caller_id_unallocated'
         when l.category is not null then 'caller_id_do_not_originate' end as do_not_originate,
    -- What is no number is granted to nobody: letting withheld callers pass must not let '13105550199#' pass too.
    case when a.caller_e164 is null and coalesce(a.caller_defect, '') in ('', 'missing') then null
         when g.grant_id is null then 'caller_id_not_authorized'
         when s.assigned_numbers_only and g.source <> 'assigned' then 'caller_id_not_assigned'
         when coalesce(a.asked_at, p_now) < g.valid_from or coalesce(a.asked_at, p_now) >= g.valid_until
           then 'caller_id_grant_not_in_date' end as granted,
    case when a.called_e164 is not null then null
         when coalesce(a.called_defect, '') in ('', 'missing') then 'called_number_missing'
         else 'called_number_malformed' end as called_number,
    case when x.action = 'deny' then 'destination_denied' end as destination,
    case when d.entry[1] is not null and d.entry[2] is null then 'called_number_do_not_call' end as do_not_call,
    case when t.traffic = 'telemarketing'
           and ringfence.outside_calling_hours(h.soil, n.state, n.time_zones, coalesce(a.asked_at, p_now))
           then 'outside_calling_hours' end as calling_hours
  offset 0
) f
cross join lateral (
  select
    -- Modes are looked at only where a profile has any: most have none, and a caller waits.
    case when p.report_rules || p.off_rules <> '{}' then coalesce(f.endpoint, f.customer, ringfence.first_failure(
           array[f.vetting, f.campaign, f.caller_id, f.do_not_originate, f.granted, f.called_number, f.destination,
                 f.do_not_call, f.calling_hours], p.report_rules || p.off_rules))
         else coalesce(f.endpoint, f.customer, f.vetting, f.campaign, f.caller_id, f.do_not_originate, f.granted,
                       f.called_number, f.destination, f.do_not_call, f.calling_hours) end as reason,
    case when p.report_rules <> '{}' then ringfence.reported_failures(
           array[f.vetting, f.campaign, f.caller_id, f.do_not_originate, f.granted, f.called_number, f.destination,
                 f.do_not_call, f.calling_hours], p.report_rules)
         else '{}' end as would_reject
) v
$$;
comment on function ringfence.judged is 'Judges attempts by every rule but the caps, with the data each rule used. Changes nothing.';
revoke execute on function ringfence.judged from public;

create or replace function ringfence.tighter_profile(p_profile text, p_restricted text)
returns setof ringfence.limit_profiles
language sql stable strict
set search_path = ringfence, pg_temp
as $$
  -- least() passes over null, which is no cap. A rule is as strict as the stricter of both has it.
  select
    p.profile || '+' || r.profile, least(p.calls_per_second, r.calls_per_second), least(p.burst, r.burst),
    least(p.concurrent_calls, r.concurrent_calls), least(p.calls_per_day, r.calls_per_day), p.created_at,
    least(p.calls_per_month, r.calls_per_month), least(p.minutes_per_day, r.minutes_per_day),
    least(p.minutes_per_month, r.minutes_per_month), least(p.caller_id_calls_per_day, r.caller_id_calls_per_day),
    least(p.max_delay_ms, r.max_delay_ms),
    array(select unnest(p.report_rules || p.off_rules) intersect select unnest(r.report_rules || r.off_rules)
          except (select unnest(p.off_rules) intersect select unnest(r.off_rules))),
    array(select unnest(p.off_rules) intersect select unnest(r.off_rules))
  from limit_profiles p, limit_profiles r
  where p.profile = p_profile and r.profile = p_restricted
$$;
comment on function ringfence.tighter_profile is 'What holds for a restricted customer: of each cap and each mode the tighter of its profile and its restricted profile.';
revoke execute on function ringfence.tighter_profile from public;

-- The rules that have a mode and whose failures judged lists, in its order.
create or replace function ringfence.rules_with_mode() returns text[]
language sql immutable parallel safe
as $$
  select array['vetting', 'campaign', 'caller_id', 'do_not_originate', 'grant', 'called_number', 'destination',
               'do_not_call', 'calling_hours']
$$;
comment on function ringfence.rules_with_mode is 'The rules but the caps that have a mode, in the order in which they are judged.';

create or replace function ringfence.first_failure(p_failures text[], p_lenient text[]) returns text
language plpgsql immutable parallel safe
as $$
begin
  for i in 1 .. cardinality(p_failures) loop
    if p_failures[i] is not null and not (ringfence.rules_with_mode())[i] = any (p_lenient) then
      return p_failures[i];
    end if;
  end loop;
  return null;
end
$$;
comment on function ringfence.first_failure is 'The first failure of a rule that is not among the lenient ones.';

create or replace function ringfence.reported_failures(p_failures text[], p_report text[]) returns text[]
language plpgsql immutable parallel safe
as $$
declare
  v_reported text[] := '{}';
begin
  for i in 1 .. cardinality(p_failures) loop
    if p_failures[i] is not null and (ringfence.rules_with_mode())[i] = any (p_report) then
      v_reported := v_reported || p_failures[i];
    end if;
  end loop;
  return v_reported;
end
$$;
comment on function ringfence.reported_failures is 'The failures of rules that only report, in order.';

create or replace function ringfence.do_not_call_entry(p_customer text, p_number bigint, p_at timestamptz)
returns text[]
language plpgsql stable strict
set search_path = ringfence, pg_temp
as $$
declare
  v_source  text;
  v_consent text;
begin
  -- Consent lifts the lists that hold for all. Who asked this customer to stop must have agreed anew since.
  select o.source, k.evidence into v_source, v_consent
  from do_not_call o
  left join call_consents k
    on k.customer = p_customer and k.number = o.number and k.given_at <= p_at and k.valid_until > p_at
       and (o.customer = '*' or k.given_at >= o.listed_on + 1)
  where o.number = p_number and o.customer in ('*', p_customer)
  order by k.evidence is not null
  limit 1;
  if not found then
    return null;
  end if;
  return array[v_source, v_consent];
end
$$;
comment on function ringfence.do_not_call_entry is 'Which do-not-call list holds the number for this customer, and the evidence of the consent that exempts it, or null; null if none holds it.';
revoke execute on function ringfence.do_not_call_entry from public;

create or replace function ringfence.outside_calling_hours(
  p_country text, p_state text, p_time_zones text[], p_at timestamptz
) returns boolean
language plpgsql stable strict
set search_path = ringfence, pg_temp
as $$
declare
  v_zone text;
  v_wall timestamp;
begin
  -- The called party may be in any of the zones, and both the country's and the state's hours hold.
  foreach v_zone in array p_time_zones loop
    v_wall := timezone(v_zone, p_at);
    if exists (
      select from calling_hours
      where country = p_country and state = any (array['', p_state]) and weekday = extract(dow from v_wall)::smallint
        and (v_wall::time < opens or v_wall::time >= closes)
    ) then
      return true;
    end if;
  end loop;
  return false;
end
$$;
comment on function ringfence.outside_calling_hours is 'Whether telemarketing may not call at that moment, in at least one of the zones the called party may be in.';
revoke execute on function ringfence.outside_calling_hours from public;
