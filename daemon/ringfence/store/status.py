"""What state a database is in: its schema beside what this version ships, and its counters beside its leases."""

from __future__ import annotations

from typing import Any

import asyncpg

from ringfence.store import policy, sqlfiles


async def read(connection: asyncpg.Connection) -> dict[str, Any]:
    """Every shipped .sql file with its state (`applied`, `missing`, `changed`), whether the schema is current, and
    the last day that records have a partition for."""
    files = [(file.name, file.digest) for file in sqlfiles.migrations()]
    files += [(f"functions/{file.name}", file.digest) for file in sqlfiles.functions()]
    applied: dict[str, asyncpg.Record] = {}
    if await connection.fetchval("select to_regclass('ringfence.migrations') is not null"):
        rows = await connection.fetch("select name, digest, applied_at from ringfence.migrations")
        applied = {row["name"]: row for row in rows}
    states = [
        {"file": name, "state": _state(applied.get(name), digest), "applied_at": _applied_at(applied.get(name))}
        for name, digest in files
    ]
    last_day = await connection.fetchval(
        "select max(right(relname, 8)) from pg_class "
        "where relnamespace = to_regnamespace('ringfence') and relname ~ '^decisions_\\d{8}$'"
    )
    version = connection.get_server_version()
    return {
        "server": f"PostgreSQL {version.major}.{version.minor}",
        "current": all(state["state"] == "applied" for state in states),
        "partitions_until": last_day and f"{last_day[:4]}-{last_day[4:6]}-{last_day[6:]}",
        "files": states,
    }


def _state(row: asyncpg.Record | None, digest: str) -> str:
    if row is None:
        return "missing"
    return "applied" if row["digest"] == digest else "changed"


def _applied_at(row: asyncpg.Record | None) -> Any:
    return None if row is None else row["applied_at"]


async def recount(connection: asyncpg.Connection) -> list[policy.Row]:
    """Put every live-call counter right; the customers whose counter was wrong, with `was` and `live`."""
    return policy.rows(await connection.fetch("select customer, was, live from ringfence.recount()"))
