drop function if exists ringfence.lock_grants(text[]);
create or replace function ringfence.lock_grants() returns void
language sql volatile
as $$
  select pg_advisory_xact_lock(hashtextextended('ringfence.grants', 0))
$$;
comment on function ringfence.lock_grants is 'Makes whoever else changes grants wait until this transaction ends: a number may not go to two customers at once. Calls do not wait.';

-- Grants of one customer never overlap: then the index descent in authorize finds the only one that can match.
create or replace function ringfence.refuse_overlap() returns trigger
language plpgsql
set search_path = ringfence, pg_temp
set enable_seqscan = off  -- a million new grants are checked before anything was analyzed
as $$
declare
  v_clash record;
begin
  -- Two admins at once must see each other's grants. Not by the customer's row: a suspension must never wait.
  perform lock_grants();
  select n.customer, n.first, n.last, o.grant_id, o.first as other_first, o.last as other_last
  into v_clash
  from new_grants n
  join lateral (
    select g.* from grants g
    where g.customer = n.customer and g.first <= n.last and g.grant_id <> n.grant_id
    order by g.first desc
    limit 1
  ) o on o.last >= n.first
  limit 1;
  if found then
    raise exception '% to % overlaps grant % (% to %) of customer %', v_clash.first, v_clash.last,
      v_clash.grant_id, v_clash.other_first, v_clash.other_last, quote_literal(v_clash.customer)
      using errcode = 'exclusion_violation';
  end if;

  -- Grants that are not shared overlap none of anybody's, so the nearest one below is the one to look at.
  select n.first, n.last, o.customer, o.first as other_first, o.last as other_last
  into v_clash
  from new_grants n
  join lateral (
    select g.* from grants g
    where not g.shared and g.first <= n.last and g.grant_id <> n.grant_id
    order by g.first desc
    limit 1
  ) o on o.last >= n.first
  limit 1;
  -- Shared grants of several customers overlap one another, so one walk up the numbers looks at all of them.
  if not found and exists (select from new_grants where not shared) and exists (select from grants where shared) then
    with span as materialized (
      select min(first) - 99999999 as low, max(last) as high from new_grants where not shared
    ), walked as (
      select first, last, grant_id, max(shared_last) over (order by place, shared_last nulls last) as reach
      from (
        select g.first as place, g.last as shared_last, null::bigint as first, null::bigint as last,
          null::bigint as grant_id
        from span s join grants g on g.shared and g.first between s.low and s.high
        union all
        select last, null, first, last, grant_id from new_grants where not shared
      ) placed
    ), met as (
      select n.grant_id, n.first, n.last, n.customer
      from walked w join new_grants n using (grant_id)
      where w.reach >= w.first
      limit 1
    )
    select m.first, m.last, g.customer, g.first as other_first, g.last as other_last
    into v_clash
    from met m
    join grants g on g.shared and g.first between m.first - 99999999 and m.last and g.last >= m.first
    limit 1;
  end if;
  if v_clash.first is not null then
    raise exception '% to % meets the grant of % to % to customer %: both must be shared', v_clash.first, v_clash.last,
      v_clash.other_first, v_clash.other_last, quote_literal(v_clash.customer)
      using errcode = 'exclusion_violation';
  end if;
  return null;
end
$$;
comment on function ringfence.refuse_overlap is 'Refuses a grant that meets another of the same customer, or one of another customer unless both are shared.';
create or replace trigger refuse_overlap_on_insert after insert on ringfence.grants
  referencing new table as new_grants for each statement execute function ringfence.refuse_overlap();
create or replace trigger refuse_overlap_on_update after update on ringfence.grants
  referencing new table as new_grants for each statement execute function ringfence.refuse_overlap();

create or replace function ringfence.revoke_grants(p_customer text, p_first bigint, p_last bigint, p_reason text)
returns integer
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_count integer;
begin
  with gone as (
    delete from grants where customer = p_customer and first >= p_first and last <= p_last returning *
  )
  insert into revoked_grants (grant_id, customer, first, last, source, evidence, attestation, valid_from,
                              valid_until, granted_at, granted_by, shared, revoked_by, reason)
  select grant_id, customer, first, last, source, evidence, attestation, valid_from, valid_until, granted_at,
         granted_by, shared, actor(), p_reason
  from gone;
  get diagnostics v_count = row_count;
  if v_count > 0 then
    perform note_change('number.revoke', p_customer,
      jsonb_build_object('first', p_first, 'last', p_last, 'grants', v_count, 'reason', p_reason));
  end if;
  return v_count;
end
$$;
comment on function ringfence.revoke_grants is 'Takes back every grant that lies wholly within first to last; returns how many.';

create or replace function ringfence.share_grants(p_customer text, p_first bigint, p_last bigint, p_shared boolean)
returns integer
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_count integer;
begin
  update grants set shared = p_shared
  where customer = p_customer and first >= p_first and last <= p_last and shared <> p_shared;
  get diagnostics v_count = row_count;
  if v_count > 0 then
    perform note_change(case when p_shared then 'number.share' else 'number.unshare' end, p_customer,
      jsonb_build_object('first', p_first, 'last', p_last, 'grants', v_count));
  end if;
  return v_count;
end
$$;
comment on function ringfence.share_grants is 'Lets other customers hold the numbers of every grant that lies wholly within first to last, or no longer; returns how many grants changed.';
revoke execute on function ringfence.share_grants from public;
grant execute on function ringfence.share_grants to ringfence_admin;
