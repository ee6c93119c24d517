create or replace function ringfence.lock_grants(p_customers text[]) returns void
language plpgsql volatile strict
set search_path = ringfence, pg_temp
as $$
declare
  v_bucket integer;
begin
  -- Buckets, not customers: an import may touch more customers than the server has room for locks.
  for v_bucket in select distinct abs(hashtext(c) % 64) as bucket from unnest(p_customers) c order by bucket loop
    perform pg_advisory_xact_lock(hashtextextended('ringfence.grants', v_bucket));
  end loop;
end
$$;
comment on function ringfence.lock_grants is 'Makes whoever changes grants of these customers wait until this transaction ends.';

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
  perform lock_grants(array(select distinct customer from new_grants));
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
  return null;
end
$$;
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
                              valid_until, granted_at, granted_by, revoked_by, reason)
  select grant_id, customer, first, last, source, evidence, attestation, valid_from, valid_until, granted_at,
         granted_by, coalesce(nullif(current_setting('ringfence.actor', true), ''), session_user), p_reason
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
