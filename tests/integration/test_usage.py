"""Caps on calls and minutes, by day and month of the customer's time zone: the last passes, the next does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import asyncpg
import pytest

from ringfence.model import CallEnd, Decision, EndSource, HungUpBy
from ringfence.store.authorize import dry_run
from ringfence.store.rows import call_end_fields
from tests.integration.calls import CALLED, OWN, attempt, judge, make_customer, reason

pytestmark = pytest.mark.integration

MICROSECOND = timedelta(microseconds=1)


def midday_zone() -> str:
    """A time zone in which it is now between 11 and 13 o'clock: no test runs across a change of day."""
    ahead = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT"


ZONE = midday_zone()


def midnight(day: date, zone: str = ZONE) -> datetime:
    """When the day begins there."""
    return datetime.combine(day, time(), ZoneInfo(zone))


def today(zone: str = ZONE) -> date:
    return datetime.now(ZoneInfo(zone)).date()


def next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


async def cap(connection: asyncpg.Connection, zone: str = ZONE, /, **caps: int) -> None:
    """The customer acme in that zone, with these caps."""
    await make_customer(connection, time_zone=zone)
    for column, value in caps.items():
        await connection.execute(f"update limit_profiles set {column} = $1 where profile = 'acme'", value)


async def reason_at(
    connection: asyncpg.Connection, moment: datetime, caller: int = OWN, called: int = CALLED
) -> str:
    asked = replace(attempt(caller=caller, called=called), asked_at=moment)
    return (await dry_run(connection, asked))[0].reason


async def end(
    connection: asyncpg.Connection,
    decisions: Sequence[Decision],
    answered_at: datetime | None,
    ended_at: datetime | None,
) -> int:
    """Tell how these calls ended; how many of the ends were new."""
    ends = [
        CallEnd(
            decision.decision_id,
            decision.customer,
            EndSource.EVENT,
            HungUpBy.CALLER,
            answered_at=answered_at,
            ended_at=ended_at,
        )
        for decision in decisions
    ]
    new: int = await connection.fetchval(
        "select record_ends($1::call_end[])", [tuple(call_end_fields(told).values()) for told in ends]
    )
    return new


async def talk(connection: asyncpg.Connection, seconds: float, ended_at: datetime | None = None) -> Decision:
    """One call that was answered for so long."""
    ended_at = ended_at or datetime.now(UTC)
    [decision] = await judge(connection, attempt())
    assert decision.allowed, decision.reason
    await end(connection, [decision], ended_at - timedelta(seconds=seconds), ended_at)
    return decision


async def seconds(connection: asyncpg.Connection) -> tuple[int, int]:
    row = await connection.fetchrow(
        "select seconds_today, seconds_this_month from counters where customer = 'acme'"
    )
    assert row is not None
    return row[0], row[1]


# --- calls ---------------------------------------------------------------------------------------------------

CALL_CAPS = {
    "calls_per_day": "calls_per_day_exceeded",
    "calls_per_month": "calls_per_month_exceeded",
    "caller_id_calls_per_day": "caller_id_cap_exceeded",
}


@pytest.mark.parametrize("column", CALL_CAPS)
@pytest.mark.parametrize("allowed", [0, 1, 3])
async def test_so_many_calls_pass_and_not_one_more(
    connection: asyncpg.Connection, column: str, allowed: int
) -> None:
    await cap(connection, **{column: allowed})
    decisions = await judge(connection, *[attempt() for _ in range(allowed + 2)])
    assert [decision.reason for decision in decisions] == ["authorized"] * allowed + [CALL_CAPS[column]] * 2
    assert {(d.sip_status, d.q850_cause) for d in decisions if not d.allowed} == {(480, 31)}
    assert await connection.fetchval("select calls_this_month from counters") == allowed


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu", ZONE])
@pytest.mark.parametrize("column", ["calls_per_day", "caller_id_calls_per_day"])
async def test_the_day_changes_at_the_customers_midnight(
    connection: asyncpg.Connection, column: str, zone: str
) -> None:
    await cap(connection, zone, **{column: 1})
    await judge(connection, attempt())
    tomorrow = midnight(await connection.fetchval("select day from counters") + timedelta(days=1), zone)
    assert await reason_at(connection, tomorrow - MICROSECOND) == CALL_CAPS[column]
    assert await reason_at(connection, tomorrow) == "authorized"


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", ZONE])
async def test_the_month_changes_at_the_customers_midnight(connection: asyncpg.Connection, zone: str) -> None:
    await cap(connection, zone, calls_per_month=1)
    await judge(connection, attempt())
    first = midnight(next_month(await connection.fetchval("select day from counters")), zone)
    assert await reason_at(connection, first - MICROSECOND) == "calls_per_month_exceeded"
    assert await reason_at(connection, first) == "authorized"


async def test_a_new_day_begins_at_nothing_and_the_month_goes_on(connection: asyncpg.Connection) -> None:
    await cap(connection, calls_per_day=2, calls_per_month=3)
    await judge(connection, attempt(), attempt())
    await connection.execute("update counters set day = day - 1")  # as if those had been yesterday
    assert [await reason(connection) for _ in range(2)] == ["authorized", "calls_per_month_exceeded"]
    row = await connection.fetchrow("select day, calls_today, calls_this_month from counters")
    assert row is not None
    assert tuple(row) == (today(), 1, 3)


async def test_a_new_month_begins_at_nothing(connection: asyncpg.Connection) -> None:
    await cap(connection, calls_per_month=1)
    await judge(connection, attempt())
    await connection.execute(
        "update counters set day = day - 31, month = date_trunc('month', month - interval '1 day')"
    )
    assert [await reason(connection) for _ in range(2)] == ["authorized", "calls_per_month_exceeded"]


async def test_each_caller_id_has_its_own_calls(connection: asyncpg.Connection) -> None:
    await cap(connection, caller_id_calls_per_day=2)
    reasons = [await reason(connection, caller=caller) for caller in (OWN, OWN, OWN, OWN + 1, OWN + 1, OWN + 1)]
    assert reasons == ["authorized", "authorized", "caller_id_cap_exceeded"] * 2


async def test_two_customers_that_share_a_number_do_not_share_its_cap(connection: asyncpg.Connection) -> None:
    await cap(connection, caller_id_calls_per_day=1)
    await make_customer(connection, "other")
    await connection.execute("update limit_profiles set caller_id_calls_per_day = 1")
    assert [await reason(connection, account) for account in ("ACME", "OTHER", "ACME", "OTHER")] == [
        *["authorized"] * 2,
        *["caller_id_cap_exceeded"] * 2,
    ]


async def test_caps_are_asked_in_their_order_and_the_first_is_the_reason(connection: asyncpg.Connection) -> None:
    order = ["concurrent_calls", "calls_per_day", "calls_per_month", "minutes_per_day", "minutes_per_month"]
    await cap(connection, **dict.fromkeys([*order, "caller_id_calls_per_day"], 0))
    await connection.execute("insert into destination_rules (prefix, action, calls_per_day) values (1, 'cap', 0)")
    for column in order:
        assert await reason(connection) == f"{column}_exceeded"
        await connection.execute(f"update limit_profiles set {column} = 1000 where profile = 'acme'")
    assert await reason(connection) == "destination_cap_exceeded"
    await connection.execute("delete from destination_rules")
    assert await reason(connection) == "caller_id_cap_exceeded"


async def test_a_refusal_under_a_cap_is_noticed_once_a_day(connection: asyncpg.Connection) -> None:
    await cap(connection, calls_per_day=1, caller_id_calls_per_day=0)
    await judge(connection, *[attempt() for _ in range(3)])
    await connection.execute("update limit_profiles set caller_id_calls_per_day = null")
    await judge(connection, *[attempt() for _ in range(3)])
    rows = await connection.fetch("select kind, data ->> 'rule' as rule from notices order by notice_id")
    assert [tuple(row) for row in rows] == [("breach", "caller_id_cap"), ("breach", "calls_per_day")]


# --- minutes -------------------------------------------------------------------------------------------------

MINUTE_CAPS = ("minutes_per_day", "minutes_per_month")


@pytest.mark.parametrize("column", MINUTE_CAPS)
@pytest.mark.parametrize(
    ("spoken", "allowed"), [(59, True), (59.000001, False), (60, False), (61, False), (0.5, True)]
)
async def test_a_minute_is_used_up_at_its_last_second_begun(
    connection: asyncpg.Connection, column: str, spoken: float, allowed: bool
) -> None:
    await cap(connection, **{column: 1})
    await talk(connection, spoken)
    assert await reason(connection) == ("authorized" if allowed else f"{column}_exceeded")


async def test_minutes_are_counted_when_a_call_ends_and_not_before(connection: asyncpg.Connection) -> None:
    await cap(connection, minutes_per_day=1)
    decisions = await judge(connection, attempt(), attempt(), attempt())
    now = datetime.now(UTC)
    assert await seconds(connection) == (0, 0)
    await end(connection, decisions[:1], now - timedelta(seconds=30), now)
    assert await seconds(connection) == (30, 30)
    assert await reason(connection) == "authorized"
    await end(connection, decisions[1:], now - timedelta(seconds=45), now)
    assert await seconds(connection) == (120, 120)
    assert await reason(connection) == "minutes_per_day_exceeded"


async def test_a_call_is_counted_once_however_often_its_end_is_told(connection: asyncpg.Connection) -> None:
    await cap(connection)
    decisions = await judge(connection, attempt(), attempt())
    now = datetime.now(UTC)
    answered = now - timedelta(seconds=30)
    assert await end(connection, [decisions[0], decisions[0]], answered, now) == 1
    assert await end(connection, [decisions[0]], answered - timedelta(hours=1), now) == 0
    assert await end(connection, decisions, answered, now) == 1
    assert await seconds(connection) == (60, 60)


@pytest.mark.parametrize(
    ("answered", "ended"),
    [(False, True), (True, False), (False, False)],
    ids=["nobody answered", "nobody knows when it ended", "nothing is known"],
)
async def test_a_call_that_was_not_answered_uses_no_minutes(
    connection: asyncpg.Connection, answered: bool, ended: bool
) -> None:
    await cap(connection, minutes_per_day=1)
    now = datetime.now(UTC)
    decisions = await judge(connection, attempt())
    await end(connection, decisions, now - timedelta(hours=1) if answered else None, now if ended else None)
    assert await seconds(connection) == (0, 0)
    assert await reason(connection) == "authorized"


async def test_an_answer_after_the_end_uses_no_minutes(connection: asyncpg.Connection) -> None:
    await cap(connection)
    now = datetime.now(UTC)
    await end(connection, await judge(connection, attempt()), now, now - timedelta(seconds=5))
    assert await seconds(connection) == (0, 0)


async def test_a_call_across_midnight_counts_wholly_for_the_day_on_which_it_ends(
    connection: asyncpg.Connection,
) -> None:
    await cap(connection, minutes_per_day=1)
    await talk(connection, 60, ended_at=midnight(today()) + timedelta(seconds=1))
    assert await connection.fetchval("select seconds_today from counters") == 60
    assert await reason(connection) == "minutes_per_day_exceeded"


async def test_a_call_that_ended_yesterday_uses_no_minute_of_today_but_of_the_month(
    connection: asyncpg.Connection,
) -> None:
    await cap(connection, minutes_per_day=1, minutes_per_month=2)
    yesterday = midnight(today()) - MICROSECOND
    await talk(connection, 60, ended_at=yesterday)
    same_month = yesterday.month == today().month
    assert await seconds(connection) == (0, 60 if same_month else 0)
    assert await connection.fetchval("select day from counters") == today()


async def test_a_call_that_ended_last_month_uses_no_minute_of_this(connection: asyncpg.Connection) -> None:
    await cap(connection, minutes_per_month=1)
    await talk(connection, 3600, ended_at=midnight(today().replace(day=1)) - MICROSECOND)
    assert await seconds(connection) == (0, 0)
    await talk(connection, 60, ended_at=midnight(today().replace(day=1)))
    assert (await seconds(connection))[1] == 60
    assert await reason(connection) == "minutes_per_month_exceeded"


async def test_the_first_end_of_a_new_day_begins_the_day(connection: asyncpg.Connection) -> None:
    await cap(connection, minutes_per_day=2, minutes_per_month=1000, calls_per_day=3)
    decisions = await judge(connection, attempt(), attempt(), attempt())
    await connection.execute("update counters set day = day - 1, seconds_today = 90, seconds_this_month = 90")
    now = datetime.now(UTC)
    await end(connection, decisions[:1], now - timedelta(seconds=60), now)
    row = await connection.fetchrow("select day, calls_today, seconds_today, seconds_this_month from counters")
    assert row is not None
    assert tuple(row) == (today(), 0, 60, 150)
    assert await reason(connection) == "authorized"


@pytest.mark.parametrize("column", MINUTE_CAPS)
async def test_used_minutes_are_forgotten_with_their_day_or_month(
    connection: asyncpg.Connection, column: str
) -> None:
    await cap(connection, **{column: 1})
    await talk(connection, 60)
    day = await connection.fetchval("select day from counters")
    renewed = midnight(day + timedelta(days=1) if column == "minutes_per_day" else next_month(day))
    assert await reason_at(connection, renewed - MICROSECOND) == f"{column}_exceeded"
    assert await reason_at(connection, renewed) == "authorized"


async def test_an_end_told_by_a_clock_that_runs_ahead_counts_for_today(connection: asyncpg.Connection) -> None:
    await cap(connection, minutes_per_day=1, calls_per_day=2)
    await talk(connection, 60, ended_at=datetime.now(UTC) + timedelta(days=1))
    assert await reason(connection) == "minutes_per_day_exceeded"
    assert await connection.fetchval("select calls_today from counters") == 1


# --- minutes under a destination rule ------------------------------------------------------------------------


async def rule(connection: asyncpg.Connection, **caps: int) -> None:
    """A rule with caps for calls to the NANP."""
    columns = ("calls_per_day", "calls_per_month", "minutes_per_day", "minutes_per_month")
    await connection.execute(
        "insert into destination_rules (prefix, action, calls_per_day, calls_per_month, minutes_per_day, "
        "minutes_per_month) values (1, 'cap', $1, $2, $3, $4)",
        *[caps.get(column) for column in columns],
    )


@pytest.mark.parametrize("column", MINUTE_CAPS)
@pytest.mark.parametrize(("spoken", "allowed"), [(59, True), (60, False)])
async def test_minutes_under_a_destination_rule_count_at_the_end_exactly_once(
    connection: asyncpg.Connection, column: str, spoken: int, allowed: bool
) -> None:
    await cap(connection)
    await rule(connection, **{column: 1})
    decision = await talk(connection, spoken)
    now = datetime.now(UTC)
    await end(connection, [decision], now - timedelta(hours=1), now)
    assert await connection.fetchval("select seconds_today from usage") == spoken
    assert await reason(connection) == ("authorized" if allowed else "destination_cap_exceeded")
    assert await reason(connection, called=442071234567) == "authorized"


@pytest.mark.parametrize(
    ("column", "monthly"),
    [("calls_per_day", False), ("calls_per_month", True), ("minutes_per_day", False), ("minutes_per_month", True)],
)
async def test_a_destination_cap_is_renewed_at_the_customers_midnight(
    connection: asyncpg.Connection, column: str, monthly: bool
) -> None:
    await cap(connection)
    await rule(connection, **{column: 1})
    await talk(connection, 60)
    day = await connection.fetchval("select day from usage")
    renewed = midnight(next_month(day) if monthly else day + timedelta(days=1))
    assert await reason_at(connection, renewed - MICROSECOND) == "destination_cap_exceeded"
    assert await reason_at(connection, renewed) == "authorized"


async def test_an_end_counts_for_the_rule_that_held_when_the_call_was_allowed(
    connection: asyncpg.Connection,
) -> None:
    await cap(connection)
    await rule(connection, minutes_per_day=5)
    [decision] = await judge(connection, attempt())
    await connection.execute("insert into destination_rules (prefix, action) values (1415, 'allow')")
    now = datetime.now(UTC)
    await end(connection, [decision], now - timedelta(seconds=60), now)
    assert await connection.fetchval("select seconds_today from usage") == 60


async def test_an_end_told_by_a_clock_that_runs_ahead_does_not_lift_a_destination_cap(
    connection: asyncpg.Connection,
) -> None:
    await cap(connection)
    await rule(connection, calls_per_day=2)
    await talk(connection, 1, ended_at=datetime.now(UTC) + timedelta(days=1))
    assert await reason(connection) == "authorized"
    assert await reason(connection) == "destination_cap_exceeded"


@pytest.mark.parametrize("kind", ["calls_per_day", "destination_cap", "caller_id_cap"])
async def test_a_time_zone_moved_west_does_not_lift_a_cap(connection: asyncpg.Connection, kind: str) -> None:
    column = {"calls_per_day": "calls_per_day", "caller_id_cap": "caller_id_calls_per_day"}.get(kind)
    await cap(connection, "Pacific/Kiritimati", **({column: 2} if column else {}))
    if column is None:
        await rule(connection, calls_per_day=2)
    await judge(connection, attempt())
    await connection.execute("update customers set time_zone = 'Pacific/Pago_Pago'")  # always a day behind
    assert [await reason(connection) for _ in range(3)][-1] == f"{kind}_exceeded"
