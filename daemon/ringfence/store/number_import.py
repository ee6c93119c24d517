"""Many grants at once, in one transaction: rows stream into a temporary table, and SQL checks and joins them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ringfence.store.bulk_load import bulk_load
from ringfence.store.faults import SHOWN, Faults
from ringfence.store.number_clashes import (
    drop_grants_of_others,
    drop_lines_of_others,
    drop_meeting_grants,
    drop_meeting_lines,
    drop_unknown_customers,
)
from ringfence.store.number_replace import Replacing, revoke_others

__all__ = ["SHOWN", "Faults", "ImportRow", "Imported", "Replacing", "import_numbers"]

# line of the file, customer, first, last, source, evidence, attestation, valid_from, valid_until, shared
ImportRow = tuple[int, str, int, int, str, str, str, datetime | None, datetime | None, bool]

# A table that was bulk loaded or emptied a moment ago has statistics that would make the planner read all of it
# for every row.
_PLANNING = """
set local enable_seqscan = off;
set local enable_bitmapscan = off;
"""

_TABLE = """
create temp table number_import (
  line bigint, customer text collate "C", first bigint, last bigint, source text, evidence text, attestation text,
  valid_from timestamptz, valid_until timestamptz, shared boolean
) on commit drop
"""

_LOCK = "select ringfence.lock_grants()"

# A single number goes on the block of the one before it if it follows it directly and holds on the same terms.
_JOINED = """
select customer, min(first) as first, max(last) as last, min(source) as source, min(evidence) as evidence,
  min(attestation) as attestation, coalesce(min(valid_from), '-infinity') as valid_from,
  coalesce(min(valid_until), 'infinity') as valid_until,
  bool_and(shared) as shared
from (
  select *, count(*) filter (where follows is not true) over (partition by customer order by first) as place
  from (
    select *, first = last and first = (lag(last) over before) + 1 and lag(first = last) over before
      and length(first::text) = length((lag(first) over before)::text)
      and (source, evidence, attestation) = (lag(source) over before, lag(evidence) over before,
                                             lag(attestation) over before)
      and valid_from is not distinct from lag(valid_from) over before
      and valid_until is not distinct from lag(valid_until) over before
      and shared = lag(shared) over before as follows
    from number_import window before as (partition by customer order by first)
  ) walked
) placed group by customer, place
"""

_GRANT = f"""
with added as (
  insert into ringfence.grants (customer, first, last, source, evidence, attestation, valid_from, valid_until,
                                shared, granted_by)
  select *, ringfence.actor()
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
  jsonb_build_object('origin', $1::text, 'sha256', $2::text, 'grants', grants, 'numbers', numbers))
from unnest($3::text[], $4::bigint[], $5::bigint[]) n(customer, grants, numbers) order by customer
"""

_NOTE_REPLACED = """
select ringfence.note_change('number.replace', $1, jsonb_build_object(
  'origin', $2::text, 'sha256', $3::text, 'reason', $4::text, 'revoked_grants', $5::bigint,
  'revoked_numbers', $6::bigint, 'grants', $7::bigint, 'numbers', $8::bigint))
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did, or would have done: rows read, rows that were granted already, what was added."""

    rows: int
    already_there: int
    grants: int
    numbers: int
    customers: int
    revoked: int = 0
    revoked_numbers: int = 0


async def import_numbers(
    connection: asyncpg.Connection,
    read: Iterable[ImportRow],
    faults: Faults,
    *,
    origin: str,
    digest: Callable[[], str],
    skip_bad: bool = False,
    dry_run: bool = False,
    replacing: Replacing | None = None,
) -> Imported:
    """Grant every row; rows must be checked one by one already. `origin` is noted as where they came from, with
    what `digest` returns when all are read.

    `faults` may grow while `read` is consumed; what only the database can tell (unknown customers, overlaps) is
    added to it. If it then holds anything, nothing is granted unless `skip_bad`. A dry run never grants. What
    `read` raises leaves nothing behind.

    `replacing` revokes every grant of its customer, whose rows all must be, that the rows do not hold on the same
    terms. Raises ConflictError if it would take away more than half of over `GUARDED` numbers.
    """
    async with bulk_load(connection) as load:
        await connection.execute(_PLANNING)
        await connection.execute(_TABLE)
        await connection.copy_records_to_table("number_import", records=read)
        await connection.execute("analyze number_import")
        rows: int = await connection.fetchval("select count(*) from number_import")
        await connection.execute(_LOCK)
        await drop_unknown_customers(connection, faults)
        await drop_meeting_lines(connection, faults)
        revoked = lost = 0
        if replacing is None:
            already_there = await drop_meeting_grants(connection, faults)
        else:
            already_there, revoked, lost = await revoke_others(connection, replacing, guard=not faults.count)
        await drop_lines_of_others(connection, faults)
        await drop_grants_of_others(connection, faults)
        granting = skip_bad or not faults.count
        added = await connection.fetch(_WOULD_GRANT if dry_run else _GRANT) if granting else []
        columns = [[row[name] for row in added] for name in ("customer", "grants", "numbers")]
        grants, numbers = sum(columns[1]), sum(columns[2])
        if not dry_run:
            if replacing is None:
                await connection.fetch(_NOTE, origin, digest(), *columns)
            elif revoked or grants:
                by = (replacing.customer, origin, digest(), replacing.reason)
                await connection.fetch(_NOTE_REPLACED, *by, revoked, lost, grants, numbers)
            # Running daemons plan anew; without the right to do this it is only a warning, and autovacuum does it.
            await connection.execute("analyze ringfence.grants")
        load.keep = granting and not dry_run
    return Imported(rows, already_there, grants, numbers, len(added), revoked, lost)
