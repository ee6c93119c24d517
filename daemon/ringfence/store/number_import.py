"""Many grants at once, in one transaction: rows stream into a temporary table, and SQL checks and joins them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

SHOWN = 20  # faults kept for people; the others are counted

# line of the file, customer, first, last, source, evidence, attestation, valid_from, valid_until
ImportRow = tuple[int, str, int, int, str, str, str, datetime | None, datetime | None]

# If this process dies, the server is to notice and roll back. And a table that was bulk loaded or emptied a moment
# ago has statistics that would make the planner read all of it for every row.
_SETTINGS = """
set local work_mem = '128MB';
set local jit = off;
set local client_connection_check_interval = '2s';
set local enable_seqscan = off;
set local enable_bitmapscan = off;
"""

_TABLE = """
create temp table number_import (
  line bigint, customer text collate "C", first bigint, last bigint, source text, evidence text, attestation text,
  valid_from timestamptz, valid_until timestamptz
) on commit drop
"""

_LOCK = "select ringfence.lock_grants()"

_UNKNOWN = """
create temp table number_unknown on commit drop as
select line, customer from number_import i
where not exists (select from ringfence.customers c where c.customer = i.customer)
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
_MEETS_GRANT = """
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
  and g.valid_until = coalesce(i.valid_until, 'infinity') as there
from walked w
join number_import i on i.line = w.line
join ringfence.grants g on g.customer = w.customer and g.first = w.met
where w.line is not null and w.met is not null and g.last >= i.first
"""

# A single number goes on the block of the one before it if it follows it directly and holds on the same terms.
_JOINED = """
select customer, min(first) as first, max(last) as last, min(source) as source, min(evidence) as evidence,
  min(attestation) as attestation, coalesce(min(valid_from), '-infinity') as valid_from,
  coalesce(min(valid_until), 'infinity') as valid_until
from (
  select *, count(*) filter (where follows is not true) over (partition by customer order by first) as place
  from (
    select *, first = last and first = (lag(last) over before) + 1 and lag(first = last) over before
      and length(first::text) = length((lag(first) over before)::text)
      and (source, evidence, attestation) = (lag(source) over before, lag(evidence) over before,
                                             lag(attestation) over before)
      and valid_from is not distinct from lag(valid_from) over before
      and valid_until is not distinct from lag(valid_until) over before as follows
    from number_import window before as (partition by customer order by first)
  ) walked
) placed group by customer, place
"""

_GRANT = f"""
with added as (
  insert into ringfence.grants (customer, first, last, source, evidence, attestation, valid_from, valid_until,
                                granted_by)
  select *, coalesce(nullif(current_setting('ringfence.actor', true), ''), session_user)
  from ({_JOINED}) joined order by customer, first
  returning customer, last - first + 1 as numbers
)
select customer, count(*) as grants, sum(numbers)::bigint as numbers from added group by customer order by customer
"""  # noqa: S608 - constants only

_WOULD_GRANT = f"""
select customer, count(*) as grants, sum(last - first + 1)::bigint as numbers
from ({_JOINED}) joined group by customer
"""  # noqa: S608 - constants only

_NOTE = """
select ringfence.note_change('number.import', customer,
  jsonb_build_object('origin', $1::text, 'grants', grants, 'numbers', numbers))
from unnest($2::text[], $3::bigint[], $4::bigint[]) n(customer, grants, numbers) order by customer
"""


@dataclass(slots=True)
class Faults:
    """What is wrong with the lines of a file: the first `SHOWN` by line, and how many there are."""

    count: int = 0
    _kept: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, text: str) -> None:
        """One more bad line."""
        self.count += 1
        heapq.heappush(self._kept, (-line, text))
        if len(self._kept) > SHOWN:
            heapq.heappop(self._kept)

    def first(self) -> list[tuple[int, str]]:
        """The first bad lines with what is wrong with them."""
        return sorted((-negative, text) for negative, text in self._kept)


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or would have done: rows read, rows that were granted already, what was added."""

    rows: int
    already_there: int
    grants: int
    numbers: int
    customers: int


async def import_numbers(
    connection: asyncpg.Connection,
    read: Iterable[ImportRow],
    faults: Faults,
    *,
    origin: str,
    skip_bad: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Grant every row; rows must be checked one by one already. `origin` is noted as where they came from.

    `faults` may grow while `read` is consumed; what only the database can tell (unknown customers, overlaps) is
    added to it. If it then holds anything, nothing is granted unless `skip_bad`. A dry run never grants. What
    `read` raises leaves nothing behind.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(_SETTINGS)
        await connection.execute(_TABLE)
        await connection.copy_records_to_table("number_import", records=read)
        await connection.execute("analyze number_import")
        rows: int = await connection.fetchval("select count(*) from number_import")
        await connection.execute(_LOCK)
        await _drop_unknown_customers(connection, faults)
        await _drop_meeting_lines(connection, faults)
        already_there = await _drop_meeting_grants(connection, faults)
        granting = skip_bad or not faults.count
        added = await connection.fetch(_WOULD_GRANT if dry_run else _GRANT) if granting else []
        columns = [[row[name] for row in added] for name in ("customer", "grants", "numbers")]
        if not dry_run:
            await connection.fetch(_NOTE, origin, *columns)
            # Running daemons plan anew; without the right to do this it is only a warning, and autovacuum does it.
            await connection.execute("analyze ringfence.grants")
        keep = granting and not dry_run
    except (KeyboardInterrupt, asyncio.CancelledError):
        # A rollback would wait for the statement; without us the server does it by itself.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # asyncpg's loose ends
        connection.terminate()
        raise
    except BaseException:
        if not connection.is_closed():
            await transaction.rollback()
        raise
    await (transaction.commit() if keep else transaction.rollback())
    return Imported(rows, already_there, sum(columns[1]), sum(columns[2]), len(added))


async def _drop_unknown_customers(connection: asyncpg.Connection, faults: Faults) -> None:
    await connection.execute(_UNKNOWN)
    for row in await connection.fetch("select * from number_unknown order by line limit $1", SHOWN):
        faults.add(row["line"], f"customer: there is no customer {row['customer'][:64]!r}")
    await _drop(connection, faults, "number_unknown")


async def _drop_meeting_lines(connection: asyncpg.Connection, faults: Faults) -> None:
    await connection.execute(_MEETS_LINE)
    for row in await connection.fetch(_MET_LINES, SHOWN):
        faults.add(row["line"], f"{block(row['first'], row['last'])} is also on line {row['other']}")
    await _drop(connection, faults, "number_meets_line")


async def _drop_meeting_grants(connection: asyncpg.Connection, faults: Faults) -> int:
    await connection.execute(_MEETS_GRANT)
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


async def _drop(connection: asyncpg.Connection, faults: Faults, table: str, *, not_faults: int = 0) -> None:
    """Take the lines in `table` out of the import and count those that were not shown."""
    found: int = await connection.fetchval(f"select count(*) from {table}")  # noqa: S608 - one of ours
    if found:
        await connection.execute(f"delete from number_import i using {table} t where i.line = t.line")  # noqa: S608
    faults.count += max(0, found - not_faults - SHOWN)


def block(first: int, last: int) -> str:
    """A block as people write it."""
    return f"+{first}" if first == last else f"+{first} to +{last}"
