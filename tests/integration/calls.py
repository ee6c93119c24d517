"""A small policy and attempts against it, for tests of the judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Attempt, Decision, Number, NumberedAttempt
from ringfence.store.rows import attempt_fields, decision_from

OWN = 12125550100
FOREIGN = 13105550199
CALLED = 14155550123


async def make_customer(
    connection: asyncpg.Connection,
    customer: str = "acme",
    *,
    calls_per_second: float = 1000,
    burst: int = 1000,
    concurrent: int = 1000,
    per_day: int | None = None,
    state: str = "active",
    time_zone: str = "UTC",
    grant: bool = True,
) -> None:
    """A customer with its own profile, the account code of its name in capitals, and one block of numbers."""
    await connection.execute(
        "insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls, calls_per_day) "
        "values ($1, $2, $3, $4, $5)",
        customer, calls_per_second, burst, concurrent, per_day,
    )  # fmt: skip
    await connection.execute(
        "insert into customers (customer, name, profile, state, time_zone, vetted_until) "
        "values ($1, $1, $1, $2, $3, now() + interval '1 year')",
        customer, state, time_zone,
    )  # fmt: skip
    await connection.execute(
        "insert into endpoints (customer, kind, value) values ($1, 'account', $2)", customer, customer.upper()
    )
    if grant:
        await connection.execute(
            "insert into grants (customer, first, last, shared) values ($1, 12125550000, 12125559999, true)",
            customer,
        )


def attempt(
    account: str = "ACME", caller: int | None = OWN, called: int | None = CALLED, **more: Any
) -> NumberedAttempt:
    """An attempt whose numbers are read already; `more` are fields of Attempt."""
    return NumberedAttempt(
        Attempt(
            new_decision_id(),
            new_orig_id(),
            **{
                "switch": "pbx",
                "host": "host1",
                "channel": "PJSIP/customer-00000001",
                "call_ref": "1.1",
                "caller": str(caller or ""),
                "called": str(called or ""),
                "account": account,
                **more,
            },
        ),
        Number(caller, "" if caller else "missing"),
        Number(called, "" if called else "missing"),
    )


async def judge(connection: asyncpg.Connection, *attempts: NumberedAttempt, lease_s: int = 300) -> list[Decision]:
    """The decisions on attempts judged in one batch, in the order of the attempts."""
    rows: Sequence[asyncpg.Record] = await connection.fetch(
        "select * from authorize($1::attempt[], $2)",
        [tuple(attempt_fields(numbered).values()) for numbered in attempts],
        lease_s,
    )
    by_id = {row["decision_id"]: decision_from(dict(row)) for row in rows}
    return [by_id[numbered.attempt.decision_id] for numbered in attempts]


async def reason(connection: asyncpg.Connection, *args: Any, **more: Any) -> str:
    """The reason of one attempt's decision."""
    return (await judge(connection, attempt(*args, **more)))[0].reason
