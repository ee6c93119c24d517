"""Bringing a database to the schema this version needs: forward only, under an advisory lock, re-runnable."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from ringfence.errors import ConflictError, DatabaseError
from ringfence.numberplan import edition
from ringfence.reasons import REASONS
from ringfence.store import numberplan, sqlfiles

MINIMUM_SERVER_VERSION = 150000
_LOCK = 0x52494E47  # "RING"

_BOOTSTRAP = """
create schema if not exists ringfence;
create table if not exists ringfence.migrations (
  name       text primary key,
  digest     text not null,
  applied_at timestamptz not null default now()
);
comment on table ringfence.migrations is 'The .sql files and the data that ''ringfence db migrate'' has applied.';
comment on column ringfence.migrations.name is 'File name without suffix, after functions/, data/ or nothing.';
comment on column ringfence.migrations.digest is 'SHA-256 of the file as applied, or of the edition of the data.';
comment on column ringfence.migrations.applied_at is 'When it was applied last.';
"""

_REMEMBER = """
insert into ringfence.migrations (name, digest) values ($1, $2)
on conflict (name) do update set digest = excluded.digest, applied_at = now()
"""

_ADD_REASON = """
insert into ringfence.reasons (reason, sip_status, q850_cause, retryable, sentence) values ($1, $2, $3, $4, $5)
on conflict do nothing
"""


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a run did. All empty: the database was already current."""

    migrations: tuple[str, ...]
    functions: tuple[str, ...]
    data: tuple[str, ...] = ()


async def migrate(connection: asyncpg.Connection) -> Migrated:
    """Apply every migration that is missing and every function file that changed, and load the numbering plans if
    phonenumbers has others now; all in one transaction.

    Raises DatabaseError if the server is older than PostgreSQL 15, a file fails or the numbering plans cannot be
    read, ConflictError if a migration that was applied differs from the shipped one. Then nothing was changed.
    """
    version = connection.get_server_version()
    if version.major * 10000 < MINIMUM_SERVER_VERSION:
        raise DatabaseError(f"PostgreSQL {version.major} is too old: Ringfence needs 15 or newer")
    async with connection.transaction():
        await connection.execute("set local client_min_messages = warning")
        await connection.execute("select pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_BOOTSTRAP)
        rows = await connection.fetch("select name, digest from ringfence.migrations")
        applied = {row["name"]: row["digest"] for row in rows}
        ran = [file.name for file in sqlfiles.migrations() if await _apply_migration(connection, file, applied)]
        changed = [
            file for file in sqlfiles.functions() if ran or applied.get(f"functions/{file.name}") != file.digest
        ]
        # A function may be used by one whose file sorts before its own: bodies are checked when first run.
        await connection.execute("set local check_function_bodies = off")
        for file in changed:
            await _run(connection, f"functions/{file.name}", file)
        await connection.executemany(
            _ADD_REASON, [(r.code, r.sip_status, r.q850_cause, r.retryable, r.sentence) for r in REASONS]
        )
        await connection.execute("select ringfence.ensure_partitions()")
        loaded = applied.get(numberplan.NAME) != edition()
        if loaded:
            await numberplan.load(connection)
            await connection.execute(_REMEMBER, numberplan.NAME, edition())
    return Migrated(tuple(ran), tuple(file.name for file in changed), ("dialing_ranges",) if loaded else ())


async def is_current(connection: asyncpg.Connection) -> bool:
    """True if every shipped migration has been applied to this database."""
    try:
        rows = await connection.fetch("select name from ringfence.migrations")
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        return False
    return {file.name for file in sqlfiles.migrations()} <= {row["name"] for row in rows}


async def _apply_migration(
    connection: asyncpg.Connection, file: sqlfiles.SqlFile, applied: dict[str, str]
) -> bool:
    if file.name in applied:
        if applied[file.name] != file.digest:
            raise ConflictError(
                f"migration {file.name} was applied with other contents: this is not the database of this version"
            )
        return False
    await _run(connection, file.name, file)
    return True


async def _run(connection: asyncpg.Connection, name: str, file: sqlfiles.SqlFile) -> None:
    try:
        await connection.execute(file.text)
        await connection.execute(_REMEMBER, name, file.digest)
    except asyncpg.PostgresError as error:
        raise DatabaseError(f"sql/{name}.sql failed: {error}") from error
