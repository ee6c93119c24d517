"""A list of numbers made equal to a file, in one transaction: rows stream into a temporary table, SQL compares
them with what is there, and only the difference is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date

import asyncpg

from ringfence.errors import ConflictError
from ringfence.store import policy
from ringfence.store.bulk_load import bulk_load
from ringfence.store.faults import Faults
from ringfence.store.number_lists import NumberList, require_list

GUARDED = 1000  # entries a list must have before losing more than half of them is refused
SAMPLES = 10

ListRow = tuple[int, date | None]  # digits, since when they are listed if the file says so

_TABLES = """
create temp table list_import (entry bigint, listed_on date) on commit drop;
create temp table list_change (entry bigint, listed_on date, change text) on commit drop;
"""

# A date the file does not give stays as it is.
_COMPARED = """
insert into list_change
select coalesce(w.entry, t.entry) as entry, w.listed_on,
  case when t.entry is null then 'added' when w.entry is null then 'removed' else 'redated' end as change
from (select entry, min(listed_on) as listed_on from list_import group by entry) w
full join (select {key} as entry, listed_on from ringfence.{table} where {one} = $1 and {two} = $2) t using (entry)
where t.entry is null or w.entry is null or w.listed_on <> t.listed_on
"""

_COUNTED = """
select (select count(*) from ringfence.{table} where {one} = $1 and {two} = $2) as before,
  (select count(*) from list_import) as rows,
  (select count(*) from list_change where change = 'added') as added,
  (select count(*) from list_change where change = 'removed') as removed,
  (select count(*) from list_change where change = 'redated') as redated
"""

_REMOVE = """
delete from ringfence.{table} t using list_change c
where c.change = 'removed' and t.{key} = c.entry and t.{one} = $1 and t.{two} = $2
"""

_REDATE = """
update ringfence.{table} t set listed_on = c.listed_on from list_change c
where c.change = 'redated' and t.{key} = c.entry and t.{one} = $1 and t.{two} = $2
"""

_ADD = """
insert into ringfence.{table} ({key}, {one}, {two}, listed_on)
select entry, $1, $2, coalesce(listed_on, current_date) from list_change where change = 'added' order by entry
"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did, or would have done, to a list: entries added, removed, given another date, left as they
    were, and some of the first."""

    rows: int
    added: int
    removed: int
    redated: int
    unchanged: int
    first_added: list[int] = field(default_factory=list)
    first_removed: list[int] = field(default_factory=list)


async def load_list(
    connection: asyncpg.Connection,
    onto: NumberList,
    read: Iterable[ListRow],
    faults: Faults,
    *,
    origin: str,
    digest: Callable[[], str],
    add_only: bool = False,
    skip_bad: bool = False,
    dry_run: bool = False,
    allow_shrink: bool = False,
) -> Loaded | None:
    """Make the list equal to the rows, or only add them; `origin` and what `digest` returns when all are read are
    noted as where they came from.

    `faults` may grow while `read` is consumed. If it then holds anything, nothing is changed and None is returned,
    unless `skip_bad`. Raises ConflictError, unless `allow_shrink`, if a file without any row would empty the list
    or more than half of a list of over `GUARDED` entries would go; and NotFoundError if its customer is not there.
    What `read` raises leaves nothing behind.
    """
    loaded = None
    async with bulk_load(connection) as load:
        await require_list(connection, onto)
        await connection.execute(_TABLES)
        await connection.copy_records_to_table("list_import", records=read)
        if skip_bad or not faults.count:
            await connection.execute("analyze list_import")
            await connection.execute("select ringfence.lock_number_lists()")
            loaded = await _compare(connection, onto, add_only=add_only)
            if not allow_shrink:
                _refuse_shrinking(onto, loaded)
            if not dry_run:
                await _write(connection, onto, loaded, origin=origin, digest=digest(), skipped=faults.count)
        load.keep = loaded is not None and not dry_run
    return loaded


async def _compare(connection: asyncpg.Connection, onto: NumberList, *, add_only: bool) -> Loaded:
    await connection.execute(_sql(_COMPARED, onto), *onto.values)
    if add_only:
        await connection.execute("delete from list_change where change = 'removed'")
    await connection.execute("analyze list_change")
    [counted] = await connection.fetch(_sql(_COUNTED, onto), *onto.values)
    first = "select entry from list_change where change = $1 order by entry limit $2"
    return Loaded(
        counted["rows"],
        counted["added"],
        counted["removed"],
        counted["redated"],
        counted["before"] - counted["removed"] - counted["redated"],
        [row["entry"] for row in await connection.fetch(first, "added", SAMPLES)],
        [row["entry"] for row in await connection.fetch(first, "removed", SAMPLES)],
    )


def _refuse_shrinking(onto: NumberList, loaded: Loaded) -> None:
    before = loaded.removed + loaded.redated + loaded.unchanged
    if loaded.rows == 0 and loaded.removed:
        raise ConflictError(
            f"the file holds no number, and the list {loaded.removed:,}: check that the file is whole; "
            "--allow-shrink empties the list"
        )
    if before > GUARDED and loaded.removed * 2 > before:
        raise ConflictError(
            f"this would take {loaded.removed:,} of {before:,} entries off the list of {onto.names[0]} "
            f"{onto.values[0]!r} and source {onto.values[1]!r}, more than half: check that the file is whole; "
            "--allow-shrink does it, --add-only takes nothing off"
        )


async def _write(
    connection: asyncpg.Connection, onto: NumberList, loaded: Loaded, *, origin: str, digest: str, skipped: int
) -> None:
    for count, statement in ((loaded.removed, _REMOVE), (loaded.redated, _REDATE), (loaded.added, _ADD)):
        if count:
            await connection.execute(_sql(statement, onto), *onto.values)
    counts = {"added": loaded.added, "removed": loaded.removed, "redated": loaded.redated}
    detail = {**onto.detail, "origin": origin, "sha256": digest, **counts, "unchanged": loaded.unchanged}
    own = "customer" in onto.names and onto.values[0] != "*"
    # Noted even if nothing changed: an audit asks when the list was last fetched.
    await policy.note_change(
        connection, f"{onto.noun}.load", onto.values[0] if own else "", {**detail, "bad_lines": skipped}
    )
    if loaded.added + loaded.removed > GUARDED:
        # Without the right to do this it is only a warning, and autovacuum does it.
        await connection.execute(f"analyze ringfence.{onto.table}")


def _sql(template: str, onto: NumberList) -> str:
    return template.format(table=onto.table, key=onto.key, one=onto.names[0], two=onto.names[1])
