"""The schema: re-runnable on every supported PostgreSQL, commented throughout, and with three roles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ConflictError, DatabaseError
from ringfence.store.connect import connect, connected
from ringfence.store.migrate import is_current, migrate
from ringfence.store.office import Office
from tests.integration.calls import attempt, judge, make_customer
from tests.lab.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("version", [15, 16, 18])
async def test_a_call_is_judged_on_every_supported_postgres(version: int, tmp_path: Path) -> None:
    with EmbeddedPostgres(version, tmp_path, fsync=False) as server:
        async with connected(DatabaseSettings(dsn=server.dsn("postgres")), application="test") as connection:
            assert not await is_current(connection)
            first = await migrate(connection)
            assert first.migrations
            assert await is_current(connection)
            again = await migrate(connection)
            assert (again.migrations, again.functions) == ((), ())
            await make_customer(connection, concurrent=1)
            assert [(await judge(connection, attempt()))[0].reason for _ in range(2)] == [
                "authorized",
                "concurrent_calls_exceeded",
            ]


async def test_two_migrations_at_once_do_the_work_once(postgres: EmbeddedPostgres) -> None:
    dsn = postgres.create_database("migrated_twice")

    async def run() -> int:
        async with connected(DatabaseSettings(dsn=dsn), application="test") as connection:
            return len((await migrate(connection)).migrations)

    counts = await asyncio.gather(*(run() for _ in range(4)))
    assert sorted(counts)[:3] == [0, 0, 0]
    assert max(counts) > 0


async def test_a_migration_that_was_changed_after_it_ran_is_refused(connection: asyncpg.Connection) -> None:
    await connection.execute("update migrations set digest = 'other' where name = '0002_customers'")
    with pytest.raises(ConflictError, match="0002_customers was applied with other contents"):
        await migrate(connection)


async def test_the_daemon_names_a_database_without_the_schema(postgres: EmbeddedPostgres) -> None:
    office = Office(DatabaseSettings(dsn=postgres.create_database("empty")))
    with pytest.raises(DatabaseError, match="run 'ringfence db migrate'"):
        await office.require_schema()
    await office.close()


async def test_every_table_column_and_function_is_explained(connection: asyncpg.Connection) -> None:
    silent = await connection.fetch(
        """
        select c.relname || '.' || a.attname as what
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'ringfence'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          and col_description(c.oid, a.attnum) is null
          and not (c.relname = 'revoked_grants' and a.attname in (select attname from pg_attribute
                   where attrelid = 'ringfence.grants'::regclass))
        union all
        select relname from pg_class where relnamespace = 'ringfence'::regnamespace and relkind in ('r', 'p')
          and not relispartition and obj_description(oid) is null
        union all
        select proname from pg_proc where pronamespace = 'ringfence'::regnamespace
          and prorettype <> 'trigger'::regtype and obj_description(oid) is null
        """
    )
    assert [row["what"] for row in silent] == []


@pytest.fixture
async def daemon(
    postgres: EmbeddedPostgres, database: DatabaseSettings, connection: asyncpg.Connection
) -> AsyncIterator[asyncpg.Connection]:
    """A connection of a login that is only a member of ringfence_daemon."""
    async with _member_of("ringfence_daemon", database, connection) as opened:
        yield opened


class _member_of:
    def __init__(self, role: str, database: DatabaseSettings, owner: asyncpg.Connection) -> None:
        self._role, self._database, self._owner = role, database, owner

    async def __aenter__(self) -> asyncpg.Connection:
        await self._owner.execute(
            f"do $$ begin create role login_{self._role} login in role {self._role}; "
            "exception when duplicate_object then null; end $$"
        )
        dsn = self._database.dsn.replace("postgres@", f"login_{self._role}@")
        self._connection = await connect(DatabaseSettings(dsn=dsn), application="test")
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


async def test_the_daemons_role_judges_and_records_but_reads_and_writes_no_table(
    daemon: asyncpg.Connection, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    assert (await judge(daemon, attempt()))[0].reason == "authorized"
    await daemon.fetchval("select expire_leases()")
    await daemon.fetchval("select ensure_partitions()")
    for statement in (
        "select * from decisions",
        "select * from customers",
        "insert into grants (customer, first, last) values ('acme', 13105550100, 13105550100)",
        "update customers set state = 'active'",
        "delete from leases",
        "select set_customer_state('acme', 'suspended', 'x')",
        "truncate decisions",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await daemon.execute(statement)


async def test_the_auditor_reads_everything_and_changes_nothing(
    database: DatabaseSettings, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    async with _member_of("ringfence_auditor", database, connection) as auditor:
        for table in (
            "customers",
            "grants",
            "decisions",
            "call_ends",
            "policy_changes",
            "revoked_grants",
            "leases",
        ):
            await auditor.fetch(f"select * from {table}")
        for statement in (
            "update customers set state = 'active'",
            "delete from grants",
            "select * from authorize_call('ACME', '12125550100', '14155550123')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await auditor.execute(statement)


async def test_the_admin_edits_policy_but_no_record(
    database: DatabaseSettings, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    await judge(connection, attempt())
    async with _member_of("ringfence_admin", database, connection) as admin:
        await admin.execute("insert into grants (customer, first, last) values ('acme', 13105550100, 13105550100)")
        await admin.fetchval("select set_customer_state('acme', 'suspended', 'x')")
        await admin.fetchval("select revoke_grants('acme', 13105550100, 13105550100, 'x')")
        for statement in ("delete from decisions", "update policy_changes set action = 'x'", "delete from leases"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await admin.execute(statement)


async def test_decisions_of_a_day_lie_in_the_partition_of_that_day(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await judge(connection, attempt())
    partition = await connection.fetchval("select tableoid::regclass::text from decisions")
    today = await connection.fetchval("select to_char(now() at time zone 'UTC', 'YYYYMMDD')")
    assert partition == f"decisions_{today}"
    assert await connection.fetchval("select ensure_partitions(9)") == 4
    assert await connection.fetchval("select ensure_partitions(9)") == 0


async def test_grants_of_one_customer_cannot_overlap_even_in_one_statement(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    for first, last in ((12125550001, 12125550001), (12125540000, 12125550000), (12125540000, 12125560000)):
        with pytest.raises(asyncpg.ExclusionViolationError, match="overlaps grant"):
            await connection.execute(
                "insert into grants (customer, first, last) values ('acme', $1, $2)", first, last
            )
    with pytest.raises(asyncpg.ExclusionViolationError, match="overlaps grant"):
        await connection.execute(
            "insert into grants (customer, first, last) values ('acme', 13105550000, 13105550009), "
            "('acme', 13105550009, 13105550020)"
        )
    await connection.execute(
        "insert into grants (customer, first, last) values ('acme', 13105550000, 13105550009)"
    )
    with pytest.raises(asyncpg.ExclusionViolationError, match="overlaps grant"):
        await connection.execute(
            "update grants set first = 12125550000 - 1, last = 12125550005 where first = 13105550000"
        )


async def test_a_long_report_does_not_make_calls_wait_for_a_new_partition(
    database: DatabaseSettings, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    async with (
        connected(database, application="report") as report,
        connected(database, application="office") as office,
    ):
        async with report.transaction():
            await report.fetch("select * from decisions")
            async with asyncio.timeout(5):
                making, judged = await asyncio.gather(
                    office.fetchval("select ensure_partitions(20)"), judge(connection, attempt())
                )
        assert making == 0
        assert judged[0].reason == "authorized"
        assert await office.fetchval("select ensure_partitions(20)") == 26
