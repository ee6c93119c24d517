"""`ringfence bypass list` and `ringfence db recount`."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ExitCode
from ringfence.model import Entry
from tests.integration.calls import FOREIGN, attempt, judge, make_customer
from tests.integration.command import Command

pytestmark = pytest.mark.integration


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    """The command line on the test's database."""
    return Command(database, tmp_path)


async def test_the_holes_are_listed_and_nothing_else(ringfence: Command, connection: asyncpg.Connection) -> None:
    assert "no call went around the gate" in ringfence.ok("bypass", "list").out
    await make_customer(connection)
    stray = attempt(caller=FOREIGN, entry=Entry.WATCH, places={"created_by": "originate"})
    await judge(connection, attempt(), stray)
    [found] = ringfence.ok("bypass", "list", "--json").json
    assert found["decision_id"] == str(stray.attempt.decision_id)
    assert (found["created_by"], found["verdict"], found["caller_e164"]) == ("originate", "reject", f"+{FOREIGN}")
    assert ringfence.ok("bypass", "list", "--customer", "acme", "--json").json == [found]
    assert ringfence("bypass", "list", "--customer", "nobody").code == ExitCode.NOT_FOUND


async def test_a_recount_proves_the_books_and_exits_1_if_they_were_wrong(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    await judge(connection, attempt())
    assert "every counter is right" in ringfence.ok("db", "recount").out
    await connection.execute("update counters set live_calls = 5")
    ran = ringfence("db", "recount", "--json")
    assert (ran.code, ran.json) == (ExitCode.REFUSED, [{"customer": "acme", "was": 5, "live": 1}])
    ringfence.ok("db", "recount")
