"""Caps are exact: many processes at once never let one call too many out."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context

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
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert min(gaps) >= timedelta(milliseconds=100)
    for start in range(len(times) - 10):  # an eleventh call within a second of the first would be one too many
        assert times[start + 10] - times[start] >= timedelta(seconds=1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(["call", "call", "end", "end again", "expire"]), max_size=40))
async def test_the_counter_equals_the_leases_whatever_happens_in_whatever_order(
    connection: asyncpg.Connection, steps: list[str]
) -> None:
    async with _rolled_back(connection):
        await make_customer(connection, concurrent=5)
        live, ended = [], []
        for step in steps:
            if step == "call":
                [decision] = await judge(connection, attempt())
                assert decision.allowed == (len(live) < 5)
                live += [decision.decision_id] if decision.allowed else []
            elif step == "end" and live:
                ended.append(live.pop(0))
                assert await connection.fetchval("select end_call($1, 'acme')", ended[-1])
            elif step == "end again" and ended:
                assert not await connection.fetchval("select end_call($1, 'acme')", ended[0])
            elif step == "expire" and live:
                ended.append(live.pop())
                await connection.execute(
                    "update leases set expires_at = now() - interval '1 s' where decision_id = $1", ended[-1]
                )
                assert await connection.fetchval("select expire_leases()") == 1
            counted = await connection.fetchval("select coalesce(sum(live_calls), 0) from counters")
            assert counted == len(live) == await connection.fetchval("select count(*) from leases")
            assert await connection.fetchval("select count(*) from call_ends") == len(ended)


class _rolled_back:  # noqa: N801 - reads as a statement
    """What happens inside leaves no trace in the database."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._transaction = connection.transaction()

    async def __aenter__(self) -> None:
        await self._transaction.start()

    async def __aexit__(self, *_: object) -> None:
        await self._transaction.rollback()
