create or replace function ringfence.raise_expiries() returns integer
language sql volatile security definer
set search_path = ringfence, pg_temp
as $$
  with bounds as (
    select now() as at, now() + expiry_notice_days * interval '1 day' as soon,
           now() - interval '7 days' as lately  -- what ran out before is old news
    from provider
  ), ending as (
    -- One notice a customer and day: an import of a thousand grants ends as one.
    select g.customer, 'grants' as what, g.valid_until <= b.at as ended,
      (g.valid_until at time zone 'UTC')::date as day, min(g.valid_until) as at, max(g.valid_until) as at_last,
      count(*) as grants, sum(g.last - g.first + 1)::bigint as numbers
    from bounds b join grants g
      on g.valid_until <> 'infinity' and g.valid_until > b.lately and g.valid_until <= b.soon
    group by 1, 2, 3, 4
    union all
    select c.customer, 'the vetting', c.vetted_until <= b.at, (c.vetted_until at time zone 'UTC')::date,
      c.vetted_until, c.vetted_until, null, null
    from bounds b join customers c on c.vetted_until > b.lately and c.vetted_until <= b.soon
  ), fresh as materialized (
    select e.*, o.once
    from ending e
      join customers c using (customer)
      cross join format('%s of %s of %s on %s', case when ended then 'end' else 'expiry' end, what, customer, day)
        as o (once)
    where c.state in ('active', 'restricted', 'suspended')
      and not exists (select from notices n where n.once = o.once)
  )
  select count(raise_notice('expiry', f.customer, f.once, jsonb_strip_nulls(jsonb_build_object(
    'what', case f.what when 'grants' then 'grants' else 'vetting' end, 'ended', f.ended, 'at', f.at, 'day', f.day,
    'grants', f.grants, 'numbers', f.numbers, 'blocks', b.blocks))))::integer
  from fresh f
    left join lateral (
      select jsonb_agg(jsonb_build_array(first, last)) as blocks
      from (select first, last from grants
            where customer = f.customer and valid_until between f.at and f.at_last
            order by first
            limit 20) sample
    ) b on f.what = 'grants'
$$;
comment on function ringfence.raise_expiries is 'Writes a notice for grants and vettings that run out within provider.expiry_notice_days, and another when they have run out; returns how many.';
revoke execute on function ringfence.raise_expiries from public;
grant execute on function ringfence.raise_expiries to ringfence_daemon, ringfence_admin;
