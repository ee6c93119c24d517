"""Shaping: a call over the rate is held up for its slot; the slots are exact, and nobody shares one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.model import Decision, Verdict
from ringfence.store.authorize import dry_run
from tests.integration.calls import attempt, judge, make_customer, reason

pytestmark = pytest.mark.integration

MS = timedelta(milliseconds=1)
MICROSECOND = timedelta(microseconds=1)


async def shape(
    connection: asyncpg.Connection,
    customer: str = "acme",
    *,
    calls_per_second: float,
    max_delay_ms: int,
    burst: int = 1,
) -> None:
    await make_customer(connection, customer, calls_per_second=calls_per_second, burst=burst)
    await connection.execute(
        "update limit_profiles set max_delay_ms = $2 where profile = $1", customer, max_delay_ms
    )


async def leaving(connection: asyncpg.Connection) -> list[datetime]:
    """When each allowed call leaves, in the order of leaving."""
    rows = await connection.fetch(
        "select decided_at + delay_ms * interval '1 ms' as leaves from decisions "
        "where verdict <> 'reject' order by 1"
    )
    return [row["leaves"] for row in rows]


async def left_in_the_order_of(connection: asyncpg.Connection, decisions: Sequence[Decision]) -> bool:
    """Whether these calls leave one after another."""
    ids = [decision.decision_id for decision in decisions]
    rows = await connection.fetch(
        "select decision_id from decisions where decision_id = any ($1) "
        "order by decided_at + delay_ms * interval '1 ms'",
        ids,
    )
    return [row["decision_id"] for row in rows] == ids


async def next_call(connection: asyncpg.Connection) -> datetime:
    found: datetime = await connection.fetchval("select next_call from counters where customer = 'acme'")
    return found


async def test_fifty_calls_at_once_leave_one_after_another_in_exact_steps(connection: asyncpg.Connection) -> None:
    await shape(connection, calls_per_second=5, max_delay_ms=10_000)
    decisions = await judge(connection, *[attempt() for _ in range(50)])
    assert [decision.verdict for decision in decisions] == [Verdict.ALLOW] + [Verdict.DELAY] * 49
    assert all(decision.allowed and decision.reason == "authorized" for decision in decisions)
    assert [decision.attestation for decision in decisions] == ["A"] * 50
    delays = [decision.delay_ms for decision in decisions]
    assert delays == sorted(delays)
    assert await left_in_the_order_of(connection, decisions)
    first = await connection.fetchval("select min(decided_at) from decisions")
    assert await next_call(connection) == first + timedelta(seconds=10)
    for place, leaves in enumerate(await leaving(connection)):
        slot = first + place * timedelta(milliseconds=200)
        assert slot <= leaves < slot + MS  # rounded up to a whole millisecond, and never down
    assert await connection.fetchval("select count(*) from leases") == 50
    assert await connection.fetchval("select sum(delay_ms) from decisions") == sum(delays)


async def test_a_burst_passes_at_once_and_what_follows_is_spaced(connection: asyncpg.Connection) -> None:
    await shape(connection, calls_per_second=10, max_delay_ms=10_000, burst=5)
    delays = [decision.delay_ms for decision in await judge(connection, *[attempt() for _ in range(10)])]
    assert delays[:5] == [0] * 5
    first = await connection.fetchval("select min(decided_at) from decisions")
    for place, leaves in enumerate((await leaving(connection))[5:], start=1):
        slot = first + place * timedelta(milliseconds=100)
        assert slot <= leaves < slot + MS


async def test_a_rate_that_divides_no_second_is_rounded_so_that_no_call_is_added(
    connection: asyncpg.Connection,
) -> None:
    await shape(connection, calls_per_second=7, max_delay_ms=10_000)
    await judge(connection, *[attempt() for _ in range(50)])
    first = await connection.fetchval("select min(decided_at) from decisions")
    assert await next_call(connection) == first + 50 * timedelta(microseconds=142_858)


async def test_a_call_is_held_up_at_most_so_long_and_refused_beyond(connection: asyncpg.Connection) -> None:
    await shape(connection, calls_per_second=10, max_delay_ms=250)
    decisions = await judge(connection, *[attempt() for _ in range(6)])
    assert [decision.verdict for decision in decisions] == [Verdict.ALLOW, Verdict.DELAY, Verdict.DELAY] + [
        Verdict.REJECT
    ] * 3
    assert max(decision.delay_ms for decision in decisions) <= 250
    assert {(decision.reason, decision.delay_ms) for decision in decisions[3:]} == {
        ("calls_per_second_exceeded", 0)
    }
    first = await connection.fetchval("select min(decided_at) from decisions")
    assert await next_call(connection) == first + timedelta(milliseconds=300)  # a refused call takes no slot


@pytest.mark.parametrize(
    ("before_slot", "verdict", "delay_ms"),
    [
        (timedelta(0), Verdict.ALLOW, 0),
        (MICROSECOND, Verdict.DELAY, 1),
        (MS, Verdict.DELAY, 1),
        (MS + MICROSECOND, Verdict.DELAY, 2),
        (250 * MS - MICROSECOND, Verdict.DELAY, 250),
        (250 * MS, Verdict.DELAY, 250),
        (250 * MS + MICROSECOND, Verdict.REJECT, 0),
    ],
)
async def test_the_longest_delay_is_exact_to_the_microsecond(
    connection: asyncpg.Connection, before_slot: timedelta, verdict: Verdict, delay_ms: int
) -> None:
    await shape(connection, calls_per_second=10, max_delay_ms=250)
    await judge(connection, attempt())
    moment = await next_call(connection) - before_slot
    [decision, _] = await dry_run(connection, replace(attempt(), asked_at=moment))
    assert (decision.verdict, decision.delay_ms) == (verdict, delay_ms)


async def test_without_shaping_a_call_over_the_rate_is_refused_at_once(connection: asyncpg.Connection) -> None:
    await shape(connection, calls_per_second=0.001, max_delay_ms=0)
    assert [await reason(connection) for _ in range(2)] == ["authorized", "calls_per_second_exceeded"]


async def test_a_call_that_another_cap_refuses_is_not_held_up_and_takes_no_slot(
    connection: asyncpg.Connection,
) -> None:
    await shape(connection, calls_per_second=1, max_delay_ms=10_000)
    await connection.execute("update limit_profiles set concurrent_calls = 1")
    await judge(connection, attempt())
    before = await next_call(connection)
    [refused] = await judge(connection, attempt())
    assert (refused.reason, refused.delay_ms) == ("concurrent_calls_exceeded", 0)
    assert await next_call(connection) == before


async def test_calls_of_several_customers_asked_about_at_once_keep_each_customers_order(
    connection: asyncpg.Connection,
) -> None:
    customers = ("acme", "beta", "gamma")
    for customer in customers:
        await shape(connection, customer, calls_per_second=100, max_delay_ms=10_000)
    asked = [attempt(customer.upper()) for _ in range(30) for customer in customers]
    decisions = await judge(connection, *asked)
    for customer in customers:
        own = [decision for decision in decisions if decision.customer == customer]
        assert len(own) == 30
        assert await left_in_the_order_of(connection, own)


async def test_daemons_at_once_never_give_two_calls_the_same_slot(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await shape(connection, calls_per_second=20, max_delay_ms=10_000)
    connections = 8

    async def daemon(pool: asyncpg.Pool) -> list[Decision]:
        async with pool.acquire() as mine:
            return [decision for _ in range(5) for decision in await judge(mine, attempt(), attempt())]

    async with asyncpg.create_pool(
        database.dsn, min_size=connections, max_size=connections, server_settings={"search_path": "ringfence"}
    ) as pool:
        answers = await asyncio.gather(*(daemon(pool) for _ in range(connections)))
    assert all(decision.allowed for decisions in answers for decision in decisions)
    times = await leaving(connection)
    assert len(times) == connections * 10
    assert min(later - earlier for earlier, later in pairwise(times)) > 49 * MS
    # Every slot from the first call on was given to somebody, if nobody was slower than the rate.
    assert await next_call(connection) - times[0] >= len(times) * 50 * MS
    for decisions in answers:
        delays = [decision.delay_ms for decision in decisions]
        assert max(delays) <= 10_000


# --- a rate that only reports, or is off ---------------------------------------------------------------------


async def test_a_rate_that_only_reports_lets_calls_pass_at_once_and_does_not_move_the_slot(
    connection: asyncpg.Connection,
) -> None:
    await shape(connection, calls_per_second=0.001, max_delay_ms=0)
    await connection.execute("update limit_profiles set report_rules = array['calls_per_second']")
    [first] = await judge(connection, attempt())
    slot = await next_call(connection)
    over = await judge(connection, *[attempt() for _ in range(5)])
    assert first.would_reject == ()
    assert {(d.verdict, d.delay_ms, d.would_reject) for d in over} == {
        (Verdict.ALLOW, 0, ("calls_per_second_exceeded",))
    }
    assert await next_call(connection) == slot
    assert await connection.fetchval("select count(*) from leases") == 6
    await connection.execute("update limit_profiles set report_rules = '{}'")
    later = replace(attempt(), asked_at=slot)
    assert (await dry_run(connection, later))[0].reason == "authorized"
    assert (await dry_run(connection, replace(later, asked_at=slot - MICROSECOND)))[0].reason == (
        "calls_per_second_exceeded"
    )


@pytest.mark.parametrize("mode", ["report", "off"])
async def test_a_rate_that_is_not_enforced_holds_no_call_up(connection: asyncpg.Connection, mode: str) -> None:
    await shape(connection, calls_per_second=0.1, max_delay_ms=10_000)
    await connection.execute(f"update limit_profiles set {mode}_rules = array['calls_per_second']")
    decisions = await judge(connection, *[attempt() for _ in range(5)])
    assert [(decision.verdict, decision.delay_ms) for decision in decisions] == [(Verdict.ALLOW, 0)] * 5


# --- a clock that was set back -------------------------------------------------------------------------------


async def test_a_clock_set_back_shuts_nobody_out(connection: asyncpg.Connection) -> None:
    await shape(connection, calls_per_second=10, max_delay_ms=500, burst=2)
    await judge(connection, attempt())
    slot = await next_call(connection)
    furthest = 2 * 100 * MS + 500 * MS  # where the counter of a right clock can be at most
    at_most = replace(attempt(), asked_at=slot - furthest)
    beyond = replace(attempt(), asked_at=slot - furthest - MICROSECOND)
    assert (await dry_run(connection, at_most))[0].reason == "calls_per_second_exceeded"
    assert (await dry_run(connection, beyond))[0].reason == "authorized"
    await connection.execute("update counters set next_call = now() + interval '1 day'")
    assert await reason(connection) == "authorized"
