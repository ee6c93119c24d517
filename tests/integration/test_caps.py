"""Caps are exact: many processes at once never let one call too many out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from itertools import pairwise
from multiprocessing import get_context
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.config import DatabaseSettings
from tests.integration.calls import attempt, judge, make_customer

pytestmark = pytest.mark.integration

PROCESSES = 4
TASKS = 50


def _one_process(dsn: str, calls_per_task: int) -> int:
    """Run 50 tasks in this process, eight connections wide; how many calls were allowed."""

    async def one_task(pool: asyncpg.Pool) -> int:
        allowed = 0
        for _ in range(calls_per_task):
            async with pool.acquire() as connection:
                [decision] = await judge(connection, attempt())
            allowed += decision.allowed
        return allowed

    async def all_tasks() -> int:
        async with asyncpg.create_pool(
            dsn, min_size=8, max_size=8, server_settings={"search_path": "ringfence"}
        ) as pool:
            return sum(await asyncio.gather(*(one_task(pool) for _ in range(TASKS))))

    return asyncio.run(all_tasks())


async def _all_processes(database: DatabaseSettings, calls_per_task: int) -> int:
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        runs = [loop.run_in_executor(pool, _one_process, database.dsn, calls_per_task) for _ in range(PROCESSES)]
        return sum(await asyncio.gather(*runs))


async def test_four_processes_of_fifty_tasks_never_pass_one_concurrent_call_too_many(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await make_customer(connection, calls_per_second=100_000, burst=100_000, concurrent=100)
    assert await _all_processes(database, 5) == 100
    assert await connection.fetchval("select live_calls from counters") == 100
    assert await connection.fetchval("select count(*) from leases") == 100
    assert await connection.fetchval("select count(*) from decisions") == PROCESSES * TASKS * 5


async def test_four_processes_of_fifty_tasks_never_pass_one_call_a_second_too_many(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await make_customer(connection, calls_per_second=10, burst=1, concurrent=100_000)
    started = time.monotonic()
    allowed = await _all_processes(database, 20)
    elapsed_s = time.monotonic() - started
    assert 0 < allowed <= 1 + 10 * elapsed_s
    times = [
        row["decided_at"]
        for row in await connection.fetch("select decided_at from decisions where verdict = 'allow' order by 1")
    ]
    assert len(times) == allowed > 2
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) >= timedelta(milliseconds=100)
    for start in range(len(times) - 10):  # an eleventh call within a second of the first would be one too many
        assert times[start + 10] - times[start] >= timedelta(seconds=1)


STEPS = ("call", "call", "end", "end again", "expire", "renew", "crash", "reconcile")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), max_size=40))
async def test_the_counter_equals_the_live_calls_whatever_happens_in_whatever_order(
    connection: asyncpg.Connection, steps: list[str]
) -> None:
    """`live` is the truth on the switch, `counted` what the books must say, `told` what has its end written."""
    async with _rolled_back(connection):
        await make_customer(connection, concurrent=5)
        live: list[UUID] = []
        counted: set[UUID] = set()
        told: list[UUID] = []
        for step in steps:
            if step == "call":
                [decision] = await judge(connection, attempt())
                assert decision.allowed == (len(counted) < 5)
                if decision.allowed:
                    live.append(decision.decision_id)
                    counted.add(decision.decision_id)
            elif step == "end" and live:
                told.append(live.pop(0))
                counted.discard(told[-1])
                assert await connection.fetchval("select end_call($1, 'acme')", told[-1])
            elif step == "end again" and told:
                assert not await connection.fetchval("select end_call($1, 'acme')", told[0])
            elif step == "expire" and counted:
                lost = sorted(counted)[0]
                counted.discard(lost)
                await connection.execute(
                    "update leases set expires_at = now() - interval '1 s' where decision_id = $1", lost
                )
                assert await connection.fetchval("select expire_leases()") == 1
            elif step == "renew":
                renewed = await connection.fetchval(
                    "select renew_leases(array_fill('acme'::text, array[$2::int]), $1, 300)", live, len(live)
                )
                assert renewed == len(live)
                counted |= set(live)
            elif step == "crash" and live:  # the end is lost with the daemon
                live.pop()
            elif step == "reconcile":
                gone = await connection.fetch(
                    "select decision_id from reconcile_leases("
                    "'host1', 'pbx', array_fill('acme'::text, array[$2::int]), $1, clock_timestamp(), 300)",
                    live, len(live),
                )  # fmt: skip
                told += [row["decision_id"] for row in gone]
                counted = set(live)
            assert await connection.fetchval("select coalesce(sum(live_calls), 0) from counters") == len(counted)
            assert await connection.fetch("select * from recount()") == []
            assert await connection.fetchval("select count(*) from call_ends") == len(told) == len(set(told))


async def test_judging_ending_renewing_and_reconciling_at_once_never_wait_for_each_other_in_a_circle(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    customers = [f"c{number}" for number in range(4)]
    for customer in customers:
        await make_customer(connection, customer, calls_per_second=100_000, burst=100_000, concurrent=30)
    live: dict[UUID, str] = {}
    until = time.monotonic() + 3

    async def calls(mine: asyncpg.Connection, rng: random.Random) -> None:
        while time.monotonic() < until:
            accounts = rng.choices(customers, k=8)
            for decision in await judge(mine, *[attempt(account.upper()) for account in accounts]):
                if decision.allowed:
                    live[decision.decision_id] = decision.customer

    async def ends(mine: asyncpg.Connection, rng: random.Random) -> None:
        while time.monotonic() < until:
            over = rng.sample(sorted(live), min(len(live), 10))
            for decision_id in over:
                live.pop(decision_id, None)
            rows = ", ".join(
                f"row('{d}', (select customer from decisions where decision_id = '{d}'), 'event', 'caller', "
                "null, null, null, null, 16, 200, '', '', '')::call_end"
                for d in over
            )
            await mine.fetchval(f"select record_ends(array[{rows}]::call_end[])")

    async def keeps(mine: asyncpg.Connection, rng: random.Random) -> None:
        while time.monotonic() < until:
            known = list(live.items())
            rng.shuffle(known)
            arguments = ([customer for _, customer in known], [decision for decision, _ in known])
            if rng.random() < 0.5:
                await mine.fetchval("select renew_leases($1, $2, 300)", *arguments)
            else:
                await mine.execute(
                    "update leases l set expires_at = now() from (select customer, decision_id from leases "
                    "where counted and random() < 0.1 for update skip locked) picked "
                    "where (l.customer, l.decision_id) = (picked.customer, picked.decision_id)"
                )
                await mine.fetchval("select expire_leases()")
                await mine.fetchval("select forget_leases('1 hour')")

    async with asyncpg.create_pool(
        database.dsn, min_size=6, max_size=6, server_settings={"search_path": "ringfence"}
    ) as pool:

        async def run(work: Callable[[asyncpg.Connection, random.Random], Awaitable[None]], seed: int) -> None:
            async with pool.acquire() as mine:
                await work(mine, random.Random(seed))

        await asyncio.gather(
            *(run(work, seed) for seed, work in enumerate((calls, calls, ends, ends, keeps, keeps)))
        )
    assert await connection.fetch("select * from recount()") == []
    doubled = "select decision_id from call_ends group by 1 having count(*) > 1"
    assert await connection.fetch(doubled) == []


async def test_a_recount_puts_a_wrong_counter_right_and_says_so(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await judge(connection, attempt(), attempt())
    assert await connection.fetch("select * from recount()") == []
    await connection.execute("update counters set live_calls = 7")
    assert [tuple(row) for row in await connection.fetch("select * from recount()")] == [("acme", 7, 2)]
    assert await connection.fetchval("select live_calls from counters") == 2


class _rolled_back:
    """What happens inside leaves no trace in the database."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._transaction = connection.transaction()

    async def __aenter__(self) -> None:
        await self._transaction.start()

    async def __aexit__(self, *_: object) -> None:
        await self._transaction.rollback()
