"""Lines of an import, in the temporary table number_import, that contradict each other or what is granted: each is
taken out of it and becomes a fault."""

from __future__ import annotations

import asyncpg

from ringfence.store.faults import SHOWN, Faults

_UNKNOWN = """
create temp table number_unknown on commit drop as
select i.line, i.customer, c.state from number_import i left join ringfence.customers c using (customer)
where c.customer is null or c.state = 'terminated'
"""

# Walking up the numbers of a customer, a block that begins before the end of an earlier one meets it.
_MEETS_LINE = """
create temp table number_meets_line on commit drop as
select line, customer, first, last from (
  select *, max(last) over (partition by customer order by first, line
                            rows between unbounded preceding and 1 preceding) as reach
  from number_import
) walked where first <= reach
"""

_MET_LINES = """
select m.line, m.first, m.last, (
  select min(i.line) from number_import i
  where i.customer = m.customer and i.line <> m.line and i.first <= m.last and i.last >= m.first
) as other
from (select * from number_meets_line order by line limit $1) m order by m.line
"""

# Grants of a customer never overlap, so the last one that begins within or before a block is the one to look at.
# One walk up the numbers finds it for every block: a descent of the index for each would stumble over every grant
# that was revoked, or rolled back, and not vacuumed yet.
MEETS_GRANT = """
create temp table number_meets_grant on commit drop as
with span as materialized (
  select customer, max(last) as top from number_import group by customer
), walked as (
  select line, customer, max(grant_first) over (partition by customer order by place, line nulls first) as met
  from (
    select null::bigint as line, g.customer collate "C" as customer, g.first as place, g.first as grant_first
    from span s join ringfence.grants g on g.customer = s.customer and g.first <= s.top
    union all
    select line, customer, last, null from number_import
  ) placed
)
select i.line, i.first, i.last, g.grant_id, g.first as other_first, g.last as other_last,
  g.first <= i.first and g.last >= i.last and g.source = i.source and g.evidence = i.evidence
  and g.attestation = i.attestation and g.valid_from = coalesce(i.valid_from, '-infinity')
  and g.valid_until = coalesce(i.valid_until, 'infinity') and g.shared = i.shared as there
from walked w
join number_import i on i.line = w.line
join ringfence.grants g on g.customer = w.customer and g.first = w.met
where w.line is not null and w.met is not null and g.last >= i.first
"""

# Several customers may be in one file. Shared lines meet shared ones only.
_MEETS_OTHER_LINE = """
create temp table number_meets_other_line on commit drop as
select line, customer, first, last, shared from (
  select *, max(last) filter (where not shared) over earlier as exclusive_reach, max(last) over earlier as reach
  from number_import
  window earlier as (order by first, line rows between unbounded preceding and 1 preceding)
) walked where first <= exclusive_reach or (not shared and first <= reach)
"""

_MET_OTHER_LINES = """
select m.line, m.first, m.last, o.line as other, o.customer
from (select * from number_meets_other_line order by line limit $1) m
cross join lateral (
  select i.line, i.customer from number_import i
  where i.customer <> m.customer and i.first <= m.last and i.last >= m.first and not (i.shared and m.shared)
  order by i.line limit 1
) o order by m.line
"""

# Lines that meet grants of their own customer are gone when this is asked, so whatever a line meets is another's.
# A grant that begins before the end of a line and reaches its beginning meets it.
_MEETS_OTHER_GRANT = """
create temp table number_meets_other_grant on commit drop as
with span as materialized (
  select min(first) - 99999999 as low, max(last) as high from number_import
), walked as (
  select line, first, last, shared, max(exclusive_last) over upwards as exclusive_reach,
    max(shared_last) over upwards as shared_reach
  from (
    select g.first as place, g.last as exclusive_last, null::bigint as shared_last, null::bigint as line,
      null::bigint as first, null::bigint as last, null::boolean as shared
    from span s join ringfence.grants g on not g.shared and g.first between s.low and s.high
    union all
    select g.first, null, g.last, null, null, null, null
    from span s join ringfence.grants g on g.shared and g.first between s.low and s.high
    union all
    select last, null, null, line, first, last, shared from number_import
  ) placed
  window upwards as (order by place, line nulls first rows unbounded preceding)
)
select line, first, last, shared from walked
where exclusive_reach >= first or (not shared and shared_reach >= first)
"""

_MET_OTHER_GRANTS = """
select m.line, m.first, m.last, g.customer, g.grant_id, g.first as other_first, g.last as other_last
from (select * from number_meets_other_grant order by line limit $1) m
cross join lateral (
  select * from ringfence.grants g
  where g.first between m.first - 99999999 and m.last and g.last >= m.first and not (g.shared and m.shared)
  order by g.first desc limit 1
) g order by m.line
"""


async def drop_unknown_customers(connection: asyncpg.Connection, faults: Faults) -> None:
    """Lines of customers that are not there, or are terminated, are faults."""
    await connection.execute(_UNKNOWN)
    for row in await connection.fetch("select * from number_unknown order by line limit $1", SHOWN):
        if row["state"] is None:
            faults.add(row["line"], f"customer: there is no customer {row['customer'][:64]!r}")
        else:
            faults.add(row["line"], f"customer: {row['customer']!r} is terminated, and gets nothing more")
    await _drop(connection, faults, "number_unknown")


async def drop_meeting_lines(connection: asyncpg.Connection, faults: Faults) -> None:
    """Lines that hold a number of another line of their customer are faults."""
    await connection.execute(_MEETS_LINE)
    for row in await connection.fetch(_MET_LINES, SHOWN):
        faults.add(row["line"], f"{block(row['first'], row['last'])} is also on line {row['other']}")
    await _drop(connection, faults, "number_meets_line")


async def drop_meeting_grants(connection: asyncpg.Connection, faults: Faults) -> int:
    """Lines that grants of their customer hold on the same terms go and are counted; others that meet one are
    faults."""
    await connection.execute(MEETS_GRANT)
    clashes = "select * from number_meets_grant where not there order by line limit $1"
    for row in await connection.fetch(clashes, SHOWN):
        other = block(row["other_first"], row["other_last"])
        faults.add(
            row["line"],
            f"{block(row['first'], row['last'])} overlaps grant {row['grant_id']} ({other}), which is not on the "
            "same terms or does not hold all of it",
        )
    there: int = await connection.fetchval("select count(*) from number_meets_grant where there")
    await _drop(connection, faults, "number_meets_grant", not_faults=there)
    return there


async def drop_lines_of_others(connection: asyncpg.Connection, faults: Faults) -> None:
    """Lines that hold a number of another customer's line are faults, unless both are shared."""
    if await connection.fetchval("select count(distinct customer) < 2 from number_import"):
        return
    await connection.execute(_MEETS_OTHER_LINE)
    for row in await connection.fetch(_MET_OTHER_LINES, SHOWN):
        faults.add(
            row["line"],
            f"{block(row['first'], row['last'])} is also on line {row['other']}, for customer {row['customer']!r}"
            ": both must be shared",
        )
    await _drop(connection, faults, "number_meets_other_line")


async def drop_grants_of_others(connection: asyncpg.Connection, faults: Faults) -> None:
    """Lines that hold a number of another customer's grant are faults, unless both are shared. Ask it last."""
    await connection.execute(_MEETS_OTHER_GRANT)
    for row in await connection.fetch(_MET_OTHER_GRANTS, SHOWN):
        other = block(row["other_first"], row["other_last"])
        faults.add(
            row["line"],
            f"{block(row['first'], row['last'])} meets grant {row['grant_id']} ({other}) of customer "
            f"{row['customer']!r}: both must be shared",
        )
    await _drop(connection, faults, "number_meets_other_grant")


async def _drop(connection: asyncpg.Connection, faults: Faults, table: str, *, not_faults: int = 0) -> None:
    """Take the lines in `table` out of the import and count those that were not shown."""
    found: int = await connection.fetchval(f"select count(*) from {table}")  # noqa: S608 - one of ours
    if found:
        await connection.execute(f"delete from number_import i using {table} t where i.line = t.line")  # noqa: S608
    faults.count += max(0, found - not_faults - SHOWN)


def block(first: int, last: int) -> str:
    """A block as people write it."""
    return f"+{first}" if first == last else f"+{first} to +{last}"
