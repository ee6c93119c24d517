-- One number, one customer, unless both grants say that it is shared.

alter table ringfence.grants add column shared boolean not null default false;
alter table ringfence.revoked_grants add column shared boolean not null default false;
comment on column ringfence.grants.shared is 'Several customers may hold the number if every one of their grants is shared.';
comment on column ringfence.revoked_grants.shared is 'As in the grant.';

-- Numbers that several customers held already stay as they are.
update ringfence.grants g set shared = true
from (
  select grant_id,
    max(last) over (order by first, grant_id rows between unbounded preceding and 1 preceding) >= first as meets_before,
    min(first) over (order by first, grant_id rows between 1 following and unbounded following) <= last as meets_after
  from ringfence.grants
) w
where w.grant_id = g.grant_id and (w.meets_before or w.meets_after);

create index grants_exclusive on ringfence.grants (first) include (last, customer) where not shared;
create index grants_shared on ringfence.grants (first, last) include (customer) where shared;
create index grants_by_expiry on ringfence.grants (valid_until) where valid_until <> 'infinity';

-- Toll-free numbers are validated through the RespOrg, and nothing else is.
alter table ringfence.grants add constraint resporg_is_for_toll_free check (
  source = 'assigned'
  or (source = 'resporg') = (first::text ~ '^1(800|822|833|844|855|866|877|88[0-9])[0-9]{7}$')) not valid;
