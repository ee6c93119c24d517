"""A real PostgreSQL for the session, and a database of its own, migrated, for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.store.connect import connected
from ringfence.store.migrate import migrate
from tests.lab.available import postgres_binaries
from tests.lab.postgres import EmbeddedPostgres

_TEMPLATE = "migrated"
_names = (f"test_{number}" for number in count(1))


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """PostgreSQL 18 without fsync, with one migrated database that the others are copied from."""
    if postgres_binaries(18) is None:
        pytest.skip("no PostgreSQL 18 in the lab")
    with EmbeddedPostgres(18, tmp_path_factory.mktemp("postgres"), fsync=False) as server:
        server.create_database(_TEMPLATE)
        asyncio.run(_migrate(DatabaseSettings(dsn=server.dsn(_TEMPLATE))))
        yield server


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[DatabaseSettings]:
    """Where a fresh, migrated database is."""
    name = next(_names)
    postgres.psql(f"create database {name} template {_TEMPLATE}")
    yield DatabaseSettings(dsn=postgres.dsn(name))
    postgres.psql(f"drop database {name} with (force)")


@pytest.fixture
async def connection(database: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """A superuser's connection to the fresh database."""
    async with connected(database, application="test", actor="tester") as opened:
        yield opened


async def _migrate(settings: DatabaseSettings) -> None:
    async with connected(settings, application="test") as opened:
        await migrate(opened)
