"""The gate against a real Postgres that works, hangs, dies and comes back."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ringfence import reasons, telemetry
from ringfence.config import DatabaseSettings, GateSettings, JournalSettings, LoggingSettings, NumberingSettings
from ringfence.gate import Gate
from ringfence.model import Attempt, CallEnd, Decision, EndSource, HungUpBy, Verdict
from ringfence.numbering import Numbering
from ringfence.store.authorize import Lane
from ringfence.store.connect import connected
from ringfence.store.journal import RECORD_DECISIONS, RECORD_ENDS, Journal
from ringfence.store.migrate import migrate
from ringfence.store.rows import attempt_fields, call_end_fields, decision_fields, to_json
from tests.integration.calls import attempt, judge, make_customer
from tests.lab.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration


def asked(**more: Any) -> Attempt:
    return attempt(**more).attempt


@pytest.fixture
def log() -> Iterator[None]:
    """Quiet logs."""
    with Path("/dev/null").open("w") as nowhere:
        writer = telemetry.configure(LoggingSettings(), nowhere)
        yield
        writer.close()


@asynccontextmanager
async def serving(database: DatabaseSettings, spool: Path, **gate: Any) -> AsyncIterator[tuple[Gate, Journal]]:
    """A gate with two lanes and its journal."""
    settings = GateSettings(**gate)
    journal = Journal(JournalSettings(spool_directory=spool), database, telemetry.get_logger())
    lanes = [Lane(database, settings.deadline_ms) for _ in range(2)]
    running = Gate(settings, Numbering(NumberingSettings()), lanes, journal, telemetry.get_logger())
    await journal.start()
    await running.start()
    try:
        yield running, journal
    finally:
        await running.stop(2)
        await journal.stop(2)


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedPostgres, DatabaseSettings]]:
    """A PostgreSQL of the test's own, to be frozen and killed, with one customer."""
    with EmbeddedPostgres(18, tmp_path / "pg") as server:
        settings = DatabaseSettings(dsn=server.dsn("postgres"), connect_timeout_s=1)
        async with connected(settings, application="test") as connection:
            await migrate(connection)
            await make_customer(connection)
        yield server, settings


async def eventually(check: Callable[[], Any], timeout_s: float = 15) -> Any:
    """The first true value of an async check."""
    async with asyncio.timeout(timeout_s):
        while not (value := await check()):  # noqa: ASYNC110 - what is waited for happens in Postgres
            await asyncio.sleep(0.02)
        return value


async def test_attempts_that_wait_share_a_round_trip(
    database: DatabaseSettings, connection: asyncpg.Connection, tmp_path: Path, log: None
) -> None:
    await make_customer(connection)
    sizes: list[int] = []

    class Counting(Lane):
        async def authorize(self, batch: Any, lease_s: int) -> Any:
            sizes.append(len(batch))
            return await super().authorize(batch, lease_s)

    journal = Journal(JournalSettings(spool_directory=tmp_path), database, telemetry.get_logger())
    lane = Counting(database, 1000)
    gate = Gate(
        GateSettings(max_batch=32), Numbering(NumberingSettings()), [lane], journal, telemetry.get_logger()
    )
    await gate.start()
    decisions = await asyncio.gather(*(gate.decide(asked()) for _ in range(100)))
    await gate.stop(2)
    assert all(decision.reason == "authorized" for decision in decisions)
    assert sum(sizes) == 100
    assert max(sizes) == 32
    assert len(sizes) <= 5
    assert await connection.fetchval("select count(*) from decisions") == 100


async def test_an_emergency_call_passes_without_the_database_and_is_recorded_later(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    async with serving(database, tmp_path / "spool") as (gate, _):
        server.kill9()
        for called in ("911", "+911", "933", "112"):
            decision = await gate.decide(replace(
                asked(), called=called, account="nobody", caller=""))  # fmt: skip
            assert (decision.allowed, decision.reason) == (True, reasons.EMERGENCY)
        server.start()

        async def recorded() -> bool:
            async with connected(database, application="test") as connection:
                return await connection.fetchval("select count(*) from decisions where reason = 'emergency'") == 4

        assert await eventually(recorded)


async def test_a_frozen_database_is_answered_for_at_the_deadline_and_the_lease_comes_back(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    async with serving(database, tmp_path / "spool", deadline_ms=300) as (gate, _):
        assert (await gate.decide(asked())).reason == "authorized"
        server.freeze()
        started = time.monotonic()
        late = await asyncio.gather(*(gate.decide(asked()) for _ in range(20)))
        assert time.monotonic() - started < 0.6
        assert {decision.reason for decision in late} <= {
            reasons.DEADLINE_EXCEEDED,
            reasons.DATABASE_UNAVAILABLE,
        }
        assert not any(decision.allowed for decision in late)
        server.thaw()

        async def restored() -> bool:
            return (await gate.decide(asked())).reason == "authorized"

        await eventually(restored)

        async def books_balance() -> bool:
            async with connected(database, application="test") as connection:
                told = await connection.fetchval("select count(*) from decisions")
                live = await connection.fetchval("select count(*) from leases")
                ends = await connection.fetchval("select count(*) from call_ends where source = 'undelivered'")
                allowed = await connection.fetchval("select count(*) from decisions where verdict = 'allow'")
                return told >= 22 and allowed == live + ends

        assert await eventually(books_balance)


async def test_a_killed_database_is_told_at_once_and_every_refusal_is_recorded_when_it_returns(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    async with serving(database, tmp_path / "spool") as (gate, journal):
        server.kill9()
        answers = [await gate.decide(asked()) for _ in range(10)]
        assert {answer.reason for answer in answers} == {reasons.DATABASE_UNAVAILABLE}
        assert {(answer.sip_status, answer.q850_cause) for answer in answers} == {(503, 42)}
        assert await journal.flush(3)
        assert list((tmp_path / "spool").glob("*.jsonl"))
        server.start()

        async def recorded() -> bool:
            async with connected(database, application="test") as connection:
                return await connection.fetchval("select count(*) from decisions where degraded") == 10

        assert await eventually(recorded)

        async def spool_is_empty() -> bool:
            return not list((tmp_path / "spool").glob("*.jsonl"))

        assert await eventually(spool_is_empty)


async def test_an_operator_may_let_calls_out_while_the_database_is_down(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    async with serving(database, tmp_path / "spool", on_database_down="allow") as (gate, _):
        server.kill9()
        decision = await gate.decide(asked())
        assert decision.allowed
        assert (decision.reason, decision.degraded, decision.attestation) == (
            reasons.DATABASE_UNAVAILABLE,
            True,
            "",
        )
        server.start()


async def test_a_full_gate_refuses_instead_of_queueing(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    async with serving(database, tmp_path / "spool", max_waiting=5, max_batch=1, deadline_ms=500) as (gate, _):
        server.freeze()
        answers = await asyncio.gather(*(gate.decide(asked()) for _ in range(20)))
        server.thaw()
        overloaded = [answer for answer in answers if answer.reason == reasons.GATE_OVERLOADED]
        assert len(overloaded) == 15


async def test_one_poisoned_attempt_does_not_take_its_batch_with_it(
    database: DatabaseSettings, connection: asyncpg.Connection, tmp_path: Path, log: None
) -> None:
    await make_customer(connection)
    twice = asked()
    async with serving(database, tmp_path) as (gate, _):
        assert (await gate.decide(twice)).reason == "authorized"
        answers = await asyncio.gather(gate.decide(asked()), gate.decide(twice), gate.decide(asked()))
    assert [answer.reason for answer in answers] == ["authorized", reasons.INTERNAL_ERROR, "authorized"]


async def test_hostile_text_is_recorded_escaped(
    database: DatabaseSettings, connection: asyncpg.Connection, tmp_path: Path, log: None
) -> None:
    await make_customer(connection)
    hostile = "\x00\r\nINVITE ${system(reboot)} '; drop table decisions; -- \ud800" + "x" * 400
    async with serving(database, tmp_path) as (gate, _):
        decision = await gate.decide(
            replace(asked(), caller=hostile, caller_name=hostile, places={"pai": hostile, hostile: "x"})
        )
    assert decision.reason == "caller_id_malformed"
    row = await connection.fetchrow("select caller, caller_name, places from decisions")
    assert row is not None
    assert row["caller"].startswith(r"\x00\r\nINVITE ${system(reboot)}")
    assert len(row["caller"]) == 255
    assert json.loads(row["places"])["pai"] == row["caller"]


async def test_the_end_of_a_call_is_written_once_however_often_it_is_told(
    database: DatabaseSettings, connection: asyncpg.Connection, tmp_path: Path, log: None
) -> None:
    await make_customer(connection)
    async with serving(database, tmp_path) as (gate, journal):
        decision = await gate.decide(asked())
        end = CallEnd(
            decision.decision_id, "acme", EndSource.EVENT, HungUpBy.CALLEE, q850_cause=16, sip_status=200
        )
        for _ in range(3):
            journal.call_ended(end)
        assert await journal.flush(3)
    row = await connection.fetchrow("select * from call_ends")
    assert row is not None
    assert (row["hung_up_by"], row["q850_cause"], row["billable_ms"]) == ("callee", 16, 0)
    assert await connection.fetchval("select live_calls from counters") == 0


async def test_ends_spooled_by_a_daemon_that_died_are_loaded_by_the_next(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    spool = tmp_path / "spool"
    async with serving(database, spool) as (gate, journal):
        decision = await gate.decide(asked())
        server.kill9()
        journal.call_ended(CallEnd(decision.decision_id, "acme", EndSource.EVENT, HungUpBy.CALLER))
    [file] = spool.glob("*.jsonl")
    file.write_text(file.read_text() + "{torn", "utf-8")
    server.start()
    async with serving(database, spool):

        async def loaded() -> bool:
            async with connected(database, application="test") as connection:
                return await connection.fetchval("select count(*) from call_ends where hung_up_by = 'caller'") == 1

        assert await eventually(loaded)
    assert not list(spool.glob("*.jsonl"))


async def _true(value: bool) -> bool:
    return value


async def test_a_daemon_stopped_while_the_database_hangs_keeps_every_record_on_disk(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    spool = tmp_path / "spool"
    async with serving(database, spool) as (gate, journal):
        decisions = [await gate.decide(asked()) for _ in range(3)]
        await gate.decide(replace(asked(), called="911"))  # so that the journal is connected
        await eventually(lambda: _true(journal.settled))
        server.freeze()
        for decision in decisions:
            journal.call_ended(CallEnd(decision.decision_id, "acme", EndSource.EVENT, HungUpBy.CALLER))
            await asyncio.sleep(0)  # the first is in hand when the others come
        await journal.stop(0.3)
        kept = "".join(path.read_text() for path in spool.glob("*.jsonl"))
        assert all(str(decision.decision_id) in kept for decision in decisions)
        server.thaw()


async def test_a_hanging_database_does_not_keep_records_in_memory(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    spool = tmp_path / "spool"
    async with serving(database, spool) as (gate, journal):
        decision = await gate.decide(asked())
        await gate.decide(replace(asked(), called="911"))
        await eventually(lambda: _true(journal.settled))
        server.freeze()
        journal.call_ended(CallEnd(decision.decision_id, "acme", EndSource.EVENT, HungUpBy.CALLER))
        await eventually(lambda: _true(bool(list(spool.glob("*.jsonl")))))
        server.thaw()


async def test_a_server_that_restarts_while_ends_are_written_loses_none(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    async with serving(database, tmp_path / "spool") as (gate, journal):
        decisions = [await gate.decide(asked()) for _ in range(30)]
        for number, decision in enumerate(decisions):
            if number % 10 == 0:  # in the same turn of the loop as the end is told
                server.psql(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name like '%journal'"
                )
            journal.call_ended(CallEnd(decision.decision_id, "acme", EndSource.EVENT, HungUpBy.CALLER))
            await asyncio.sleep(0.01)

        async def all_written() -> bool:
            async with connected(database, application="test") as connection:
                return await connection.fetchval("select count(*) from call_ends") == 30

        await eventually(all_written)


async def test_records_wait_for_a_database_that_is_read_only_for_a_while(
    own_server: tuple[EmbeddedPostgres, DatabaseSettings], tmp_path: Path, log: None
) -> None:
    server, database = own_server
    async with serving(database, tmp_path / "spool") as (gate, journal):
        decision = await gate.decide(asked())
        server.psql("alter system set default_transaction_read_only = on; select pg_reload_conf()")
        journal.call_ended(CallEnd(decision.decision_id, "acme", EndSource.EVENT, HungUpBy.CALLER))
        assert await journal.flush(5)
        server.psql("set transaction_read_only = off; alter system reset default_transaction_read_only; ")
        server.psql("select pg_reload_conf()")

        async def written() -> bool:
            async with connected(database, application="test") as connection:
                return await connection.fetchval("select count(*) from call_ends") == 1

        await eventually(written)


async def test_an_answer_that_came_too_late_leaves_one_decision_and_no_lease(
    database: DatabaseSettings, connection: asyncpg.Connection, log: None
) -> None:
    """The journal tells the refusal while authorize, which nobody waits for any more, commits an allowance."""
    await make_customer(connection)
    late = attempt()
    refusal = Decision(
        late.attempt.decision_id, late.attempt.orig_id, Verdict.REJECT, reasons.DEADLINE_EXCEEDED, degraded=True
    )
    told = json.dumps([{"attempt": to_json(attempt_fields(late)), "decision": to_json(decision_fields(refusal))}])
    end = CallEnd(late.attempt.decision_id, "", EndSource.UNDELIVERED, HungUpBy.RINGFENCE)
    async with (
        connected(database, application="gate") as gate,
        connected(database, application="journal") as other,
    ):
        async with gate.transaction():
            assert (await judge(gate, late))[0].allowed
            journal = asyncio.create_task(_tell(other, told, json.dumps([to_json(call_end_fields(end))])))
            await asyncio.sleep(0.2)  # the journal waits for the transaction to end
            assert not journal.done()
        await journal
    rows = await connection.fetch("select customer, verdict from decisions")
    assert [tuple(row) for row in rows] == [("acme", "allow")]
    assert await connection.fetchval("select source from call_ends") == "undelivered"
    assert await connection.fetchval("select count(*) from leases") == 0
    assert await connection.fetchval("select live_calls from counters") == 0


async def _tell(connection: asyncpg.Connection, decisions: str, ends: str) -> None:
    async with connection.transaction():
        await connection.execute(RECORD_DECISIONS, decisions)
        await connection.execute(RECORD_ENDS, ends)
