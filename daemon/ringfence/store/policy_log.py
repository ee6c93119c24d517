"""Reading who changed what: entries of policy_changes, whose numbers are the policy versions decisions name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ringfence.errors import NotFoundError
from ringfence.store.policy import Row

_ENTRY = "version, changed_at, changed_by, action, customer, detail"

_FOUND = f"""
select {_ENTRY} from ringfence.policy_changes
where changed_at >= $1 and ($2::timestamptz is null or changed_at < $2)
  and ($3::text is null or customer = $3) and ($4::text is null or action = $4)
order by version desc limit $5
"""  # noqa: S608 - constants only

_BEFORE = f"select {_ENTRY} from ringfence.policy_changes where version < $1 order by version desc limit 1"  # noqa: S608
_AFTER = "select version from ringfence.policy_changes where version > $1 order by version limit 1"


@dataclass(frozen=True, slots=True)
class Search:
    """Which changes: from `since` on and before `until`; None is any."""

    since: datetime
    until: datetime | None = None
    customer: str | None = None
    action: str | None = None
    limit: int = 100


async def changes(connection: asyncpg.Connection, search: Search) -> list[Row]:
    """Changes of policy, the newest version first."""
    found = await connection.fetch(
        _FOUND, search.since, search.until, search.customer, search.action, search.limit
    )
    return [_entry(record) for record in found]


async def change(connection: asyncpg.Connection, version: int) -> Row:
    """The change that made a policy version, with the entry `before` it (or None).

    Raises NotFoundError with the versions around it: a change that was given up leaves a gap.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        found = await connection.fetchrow(
            f"select {_ENTRY} from ringfence.policy_changes where version = $1",  # noqa: S608 - constants only
            version,
        )
        before = await connection.fetchrow(_BEFORE, version)
        after = await connection.fetchval(_AFTER, version)
    if found is None:
        around = [str(at) for at in (before and before["version"], after) if at is not None]
        beside = f"the nearest are {' and '.join(around)}" if around[1:] else f"the nearest is {''.join(around)}"
        raise NotFoundError(
            f"no change made policy version {version}: "
            + (f"a change that is given up leaves a gap; {beside}" if around else "nothing was ever changed")
        )
    return {**_entry(found), "before": _entry(before) if before else None}


def _entry(record: asyncpg.Record) -> Row:
    return {**record, "detail": json.loads(record["detail"])}
