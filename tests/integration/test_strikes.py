"""Showing somebody else's number: one warning, then suspension, counted by the judge itself."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.notices.text import render
from ringfence.store.connect import connected
from ringfence.store.notices import show_notice
from tests.integration.calls import FOREIGN, attempt, judge, make_customer, reason

pytestmark = pytest.mark.integration

NOT_THEIRS = "caller_id_not_authorized"


async def infractions(connection: asyncpg.Connection, customer: str = "acme") -> list[str]:
    """What followed from each infraction, in order."""
    found = await connection.fetch(
        "select consequence from infractions where customer = $1 order by infraction_id", customer
    )
    return [row["consequence"] for row in found]


async def state(connection: asyncpg.Connection) -> str:
    return str(await connection.fetchval("select state from customers where customer = 'acme'"))


async def told(connection: asyncpg.Connection) -> None:
    """Every notice has reached the customer."""
    await connection.execute("update notices set delivered_at = now() where delivered_at is null")


async def pass_days(connection: asyncpg.Connection, days: float) -> None:
    """So many days go by."""
    await connection.execute("update infractions set happened_at = happened_at - $1 * interval '1 day'", days)
    await connection.execute("update notices set delivered_at = delivered_at - $1 * interval '1 day'", days)


async def warned(connection: asyncpg.Connection, **provider: Any) -> None:
    """A customer that was warned two days ago, and told."""
    await connection.execute("set lock_timeout = '5s'")  # a call that waits shall fail, not hang
    await make_customer(connection)
    await rule(connection, **provider)
    await judge(connection, attempt(caller=FOREIGN))
    await told(connection)
    await pass_days(connection, 2)


async def rule(connection: asyncpg.Connection, **provider: Any) -> None:
    """Change what holds for every customer."""
    for column, value in provider.items():
        await connection.execute(f"update provider set {column} = $1", value)


async def waiting(connection: asyncpg.Connection) -> None:
    """Until another connection waits for a lock."""
    async with asyncio.timeout(10):
        while not await connection.fetchval(
            "select exists (select from pg_stat_activity where wait_event_type = 'Lock')"
        ):
            pass


# --- the first time -------------------------------------------------------------------------------------------


async def test_the_first_call_that_shows_somebody_elses_number_warns(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    [decision] = await judge(connection, attempt(caller=FOREIGN))
    assert decision.reason == NOT_THEIRS
    [infraction] = await connection.fetch("select * from infractions")
    assert (infraction["customer"], infraction["consequence"]) == ("acme", "warned")
    assert (infraction["decision_id"], infraction["caller"]) == (decision.decision_id, str(FOREIGN))
    [notice] = await connection.fetch("select * from notices")
    assert (notice["kind"], notice["customer"]) == ("warning", "acme")
    assert notice["notice_id"] == infraction["notice_id"]
    assert await state(connection) == "active"
    assert await reason(connection) == "authorized"


async def test_a_dialers_burst_of_a_thousand_attempts_is_one_infraction(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    for batch in range(10):
        numbers = [attempt(caller=FOREIGN + 100 * batch + number) for number in range(100)]
        assert {decision.reason for decision in await judge(connection, *numbers)} == {NOT_THEIRS}
    assert await connection.fetchval("select count(*) from decisions") == 1000
    assert await infractions(connection) == ["warned"]
    assert await connection.fetchval("select count(*) from notices") == 1


async def test_a_number_on_the_do_not_originate_list_that_is_not_theirs_counts_too(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection)
    await connection.execute(
        "insert into do_not_originate (prefix, category, source) values ($1, 'unused', 'test')", FOREIGN
    )
    assert await reason(connection, caller=FOREIGN) == "caller_id_do_not_originate"
    assert await infractions(connection) == ["warned"]


@pytest.mark.parametrize(
    "change",
    [
        "update provider set strikes = false",
        "update limit_profiles set report_rules = '{grant}'",
        "update limit_profiles set off_rules = '{grant}'",
        "update customers set state = 'suspended'",
        "update endpoints set enabled = false",
        "update customers set vetted_until = now()",
        "insert into grants (customer, first, last, valid_until) "
        f"values ('acme', {FOREIGN}, {FOREIGN}, now() - interval '1 day')",
    ],
)
async def test_what_is_not_the_customers_doing_is_no_infraction(
    connection: asyncpg.Connection, change: str
) -> None:
    await make_customer(connection)
    await connection.execute(change)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == []


async def test_a_missing_or_withheld_caller_id_and_an_unknown_account_are_no_infractions(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection)
    await judge(connection, attempt(caller=None), attempt("NOBODY", caller=FOREIGN))
    await connection.fetch("select * from authorize_call('ACME', '12', '14155550123')")
    assert await infractions(connection) == []


# --- and the next ---------------------------------------------------------------------------------------------


async def test_the_next_event_after_the_warning_was_delivered_suspends(connection: asyncpg.Connection) -> None:
    await warned(connection)
    assert await reason(connection, caller=FOREIGN) == NOT_THEIRS
    assert await infractions(connection) == ["warned", "suspended"]
    row = await connection.fetchrow("select state, state_reason, hang_up from customers")
    assert row is not None
    assert (row["state"], row["hang_up"]) == ("suspended", True)
    assert row["state_reason"] == (
        f"infraction 2: showed +{FOREIGN}, which is not assigned or granted to the customer"
    )
    kinds = await connection.fetch(
        "select kind from infractions join notices using (notice_id) order by infraction_id"
    )
    assert [row["kind"] for row in kinds] == ["warning", "suspension"]
    [notice] = await connection.fetch("select notice_id from notices where kind = 'suspension'")
    told_customer = render((await show_notice(connection, notice["notice_id"]))[0]).body
    assert f"showed the caller ID +{FOREIGN}. The caller ID +{FOREIGN} is not granted to you." in told_customer
    assert "the customer" not in told_customer
    assert await connection.fetchval("select moved_by from customer_states order by move_id desc limit 1") == (
        "ringfence"
    )
    assert await connection.fetchval("select current_setting('ringfence.actor')") == "tester"
    assert await reason(connection) == "customer_suspended"


async def test_nothing_more_counts_until_the_warning_is_delivered(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await judge(connection, attempt(caller=FOREIGN))
    await pass_days(connection, 100)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned"]
    await told(connection)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned", "suspended"]


async def test_attempts_within_the_hours_of_an_infraction_belong_to_it(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await rule(connection, infraction_hours=24)
    await judge(connection, attempt(caller=FOREIGN))
    await told(connection)
    await pass_days(connection, 23.9 / 24)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned"]
    await pass_days(connection, 0.2 / 24)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned", "suspended"]


async def test_a_suspension_may_leave_live_calls_alone(connection: asyncpg.Connection) -> None:
    await warned(connection, suspension_hangs_up=False)
    await judge(connection, attempt(caller=FOREIGN))
    assert await state(connection) == "suspended"
    assert await connection.fetchval("select hang_up from customers") is False


@pytest.mark.parametrize(
    ("warnings", "expected"),
    [(0, ["suspended"]), (1, ["warned", "suspended"]), (2, ["warned", "warned", "suspended"])],
)
async def test_so_many_infractions_only_warn(
    connection: asyncpg.Connection, warnings: int, expected: list[str]
) -> None:
    await make_customer(connection)
    await rule(connection, warnings_before_suspension=warnings)
    for _ in range(5):
        await judge(connection, attempt(caller=FOREIGN))
        await told(connection)
        await pass_days(connection, 2)
    assert await infractions(connection) == expected
    assert await state(connection) == "suspended"


async def test_an_infraction_that_was_taken_back_does_not_count(connection: asyncpg.Connection) -> None:
    await warned(connection)
    assert await connection.fetchval("select reverse_infraction(1, 'the letter came late')") == "acme"
    assert await connection.fetchval("select reverse_infraction(1, 'again')") is None
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned", "warned"]
    assert await state(connection) == "active"


async def test_an_infraction_counts_for_so_many_days(connection: asyncpg.Connection) -> None:
    await warned(connection, infractions_count_days=30)
    await pass_days(connection, 27)
    assert await connection.fetchval("select may_strike('acme')") is True
    await pass_days(connection, 2)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned", "warned"]


async def test_a_warning_that_never_arrived_and_counts_no_more_bars_no_new_one(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection)
    await judge(connection, attempt(caller=FOREIGN))
    await pass_days(connection, 366)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned", "warned"]


async def test_who_was_reinstated_is_suspended_at_the_next_event(connection: asyncpg.Connection) -> None:
    await warned(connection)
    await judge(connection, attempt(caller=FOREIGN))
    await connection.fetchval("select set_customer_state('acme', 'active', 'trained', false, 'Kim')")
    await judge(connection, attempt(caller=FOREIGN))
    assert await state(connection) == "active"  # it belongs to the same event
    await pass_days(connection, 2)
    await judge(connection, attempt(caller=FOREIGN))
    assert await infractions(connection) == ["warned", "suspended", "suspended"]
    assert await state(connection) == "suspended"


# --- at once --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("warnings", [0, 1])
async def test_two_transactions_at_once_strike_once(
    connection: asyncpg.Connection, database: DatabaseSettings, warnings: int
) -> None:
    await make_customer(connection)
    # No hours: only what the other transaction did can keep the second from striking.
    await rule(connection, infraction_hours=0, warnings_before_suspension=warnings)
    async with connected(database, application="one") as one, connected(database, application="two") as two:
        first = one.transaction()
        await first.start()
        await judge(one, attempt(caller=FOREIGN))
        second = asyncio.create_task(judge(two, attempt(caller=FOREIGN)))
        await waiting(connection)
        await first.commit()
        [decision] = await second
    assert decision.reason == NOT_THEIRS
    assert await infractions(connection) == ["warned" if warnings else "suspended"]
    assert await connection.fetchval("select count(*) from notices") == 1


async def test_a_call_does_not_wait_for_an_admin_who_holds_the_customer(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await warned(connection, infraction_hours=0)
    async with connected(database, application="admin") as admin, admin.transaction():
        await admin.execute("update customers set name = 'Acme Ltd' where customer = 'acme'")
        async with asyncio.timeout(5):
            for _ in range(3):
                assert await reason(connection, caller=FOREIGN) == NOT_THEIRS
            assert await connection.fetchval("select settle_infractions()") == 0
    assert await infractions(connection) == ["warned", "suspended"]
    assert await state(connection) == "active"
    assert await connection.fetchval("select settle_infractions()") == 1
    assert await state(connection) == "suspended"
    assert await connection.fetchval("select settle_infractions()") == 0
    assert await infractions(connection) == ["warned", "suspended"]


async def test_an_admin_who_suspends_at_that_moment_has_answered_the_infraction(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await warned(connection)
    async with connected(database, application="admin") as admin, admin.transaction():
        await admin.fetchval("select set_customer_state('acme', 'suspended', 'complaint')")
        assert await reason(connection, caller=FOREIGN) == NOT_THEIRS
    assert await infractions(connection) == ["warned", "suspended"]
    await connection.fetchval("select set_customer_state('acme', 'active', 'cleared', false, 'Kim')")
    assert await connection.fetchval("select settle_infractions()") == 0
    assert await state(connection) == "active"
    assert await connection.fetchval("select count(*) from notices where kind = 'suspension'") == 1


async def test_an_infraction_taken_back_before_it_could_suspend_does_not(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await warned(connection)
    async with connected(database, application="admin") as admin, admin.transaction():
        await admin.execute("select from customers for no key update")
        await judge(connection, attempt(caller=FOREIGN))
    await connection.fetchval("select reverse_infraction(2, 'our mistake')")
    assert await connection.fetchval("select settle_infractions()") == 0
    assert await state(connection) == "active"


async def test_who_was_suspended_while_a_call_waited_is_not_struck_as_well(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await warned(connection)
    async with connected(database, application="call") as caller, connected(database, application="x") as holder:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("insert into counters (customer) values ('acme') on conflict do nothing")
        await holder.execute("select from counters for no key update")
        call = asyncio.create_task(judge(caller, attempt(caller=FOREIGN)))
        await waiting(connection)
        await connection.fetchval("select set_customer_state('acme', 'suspended', 'complaint')")
        await transaction.commit()
        await call
    assert await infractions(connection) == ["warned"]
