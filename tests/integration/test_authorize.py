"""The judge: every rule, on both sides of its boundary, through SQL."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.model import Number, Verdict
from ringfence.reasons import BY_CODE
from ringfence.rules import RULES
from ringfence.store.authorize import dry_run
from ringfence.store.connect import connected
from tests.integration.calls import CALLED, FOREIGN, OWN, attempt, judge, make_customer, reason

pytestmark = pytest.mark.integration


async def test_a_call_showing_an_own_number_is_allowed_with_attestation_a(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    [decision] = await judge(connection, asked := attempt())
    assert decision.verdict is Verdict.ALLOW
    assert (decision.reason, decision.customer, decision.attestation) == ("authorized", "acme", "A")
    assert (decision.sip_status, decision.q850_cause, decision.delay_ms) == (0, 0, 0)
    row = await connection.fetchrow("select * from decisions")
    assert row is not None
    assert row["decision_id"] == decision.decision_id == asked.attempt.decision_id
    assert (row["caller_e164"], row["called_e164"], row["account"]) == (OWN, CALLED, "ACME")
    assert row["grant_id"] == await connection.fetchval("select grant_id from grants")
    lease = await connection.fetchrow("select * from leases")
    assert lease is not None
    assert lease["expires_at"] - lease["taken_at"] == timedelta(seconds=300)


async def test_someone_elses_number_is_refused_and_consumes_nothing(connection: asyncpg.Connection) -> None:
    await make_customer(connection, calls_per_second=1, burst=1, concurrent=1, per_day=1)
    for _ in range(5):
        [decision] = await judge(connection, attempt(caller=FOREIGN))
        assert decision.reason == "caller_id_not_authorized"
        assert (decision.sip_status, decision.q850_cause, decision.attestation) == (403, 21, "")
    assert await connection.fetchval("select count(*) from leases") == 0
    assert await reason(connection) == "authorized"


async def test_an_account_nobody_owns_is_refused(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    assert await reason(connection, "NOBODY") == "endpoint_unknown"
    assert await reason(connection, "") == "endpoint_unknown"
    assert await reason(connection, "acme") == "endpoint_unknown"
    assert await connection.fetchval("select count(*) from decisions where customer = ''") == 3


async def test_the_most_specific_identity_names_the_customer(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await make_customer(connection, "other")
    await connection.execute(
        "insert into endpoints (customer, kind, value, host) values ('other', 'trunk', 'shared', '*'), "
        "('acme', 'trunk', 'shared', 'host2'), ('other', 'source_address', '192.0.2.1', '*')"
    )
    decisions = await judge(
        connection,
        attempt("ACME", trunk="shared"),
        attempt("unheard-of", trunk="shared"),
        attempt("", trunk="shared", host="host2"),
        attempt("", source_address="192.0.2.1"),
    )
    assert [decision.customer for decision in decisions] == ["acme", "other", "acme", "other"]


async def test_a_disabled_endpoint_lets_nothing_out(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await connection.execute("update endpoints set enabled = false")
    assert await reason(connection) == "endpoint_disabled"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("active", "authorized"),
        ("suspended", "customer_suspended"),
        ("terminated", "customer_not_active"),
        ("prospect", "customer_not_active"),
        ("restricted", "authorized"),
    ],
)
async def test_only_an_active_or_restricted_customer_originates(
    connection: asyncpg.Connection, state: str, expected: str
) -> None:
    await make_customer(connection, state=state)
    assert await reason(connection) == expected


async def test_a_suspension_holds_from_the_next_call_and_so_does_reinstating(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection)
    assert await reason(connection) == "authorized"
    version = await connection.fetchval("select set_customer_state('acme', 'suspended', 'complaint 12')")
    [decision] = await judge(connection, attempt())
    assert (decision.reason, decision.policy_version) == ("customer_suspended", version)
    await connection.fetchval("select set_customer_state('acme', 'active', 'cleared', false, 'Kim')")
    assert await reason(connection) == "authorized"
    changes = await connection.fetch("select action, changed_by, detail from policy_changes order by version")
    assert [row["action"] for row in changes] == ["customer.suspended", "customer.active"]
    assert changes[0]["changed_by"] == "tester"
    assert json.loads(changes[0]["detail"]) == {
        "from": "active",
        "reason": "complaint 12",
        "hang_up": False,
        "approved_by": "",
    }


async def test_a_call_without_a_caller_id_is_refused_and_so_is_a_malformed_one(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection)
    assert await reason(connection, caller=None) == "caller_id_missing"
    malformed = replace(attempt(), caller=Number(None, "not_digits"))
    assert (await judge(connection, malformed))[0].reason == "caller_id_malformed"


async def test_a_called_number_that_is_none_is_refused(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    assert await reason(connection, called=None) == "called_number_missing"
    malformed = replace(attempt(), called=Number(None, "too_long"))
    [decision] = await judge(connection, malformed)
    assert (decision.reason, decision.sip_status, decision.q850_cause) == ("called_number_malformed", 484, 28)


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (12125549999, "caller_id_not_authorized"),
        (12125550000, "authorized"),
        (12125559999, "authorized"),
        (12125560000, "caller_id_not_authorized"),
    ],
)
async def test_a_block_grants_its_first_and_its_last_number_and_no_more(
    connection: asyncpg.Connection, caller: int, expected: str
) -> None:
    await make_customer(connection)
    assert await reason(connection, caller=caller) == expected


async def test_a_block_below_does_not_hide_the_grant_that_holds_the_number(connection: asyncpg.Connection) -> None:
    await make_customer(connection, grant=False)
    await connection.execute(
        "insert into grants (customer, first, last, attestation) values "
        "('acme', 12125550000, 12125550099, 'A'), ('acme', 12125550100, 12125550100, 'B')"
    )
    [decision] = await judge(connection, attempt(caller=12125550100))
    assert (decision.reason, decision.attestation) == ("authorized", "B")
    assert await reason(connection, caller=12125550101) == "caller_id_not_authorized"


async def test_another_customers_grant_is_of_no_use(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await make_customer(connection, "other", grant=False)
    assert await reason(connection, "OTHER") == "caller_id_not_authorized"


async def test_a_grant_holds_from_its_first_moment_to_before_its_last(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    for valid_from, valid_until, expected in (
        (now - hour, now + hour, "authorized"),
        (now + hour, now + 2 * hour, "caller_id_grant_not_in_date"),
        (now - 2 * hour, now - hour, "caller_id_grant_not_in_date"),
    ):
        await connection.execute("update grants set valid_from = $1, valid_until = $2", valid_from, valid_until)
        assert await reason(connection) == expected


async def test_the_first_failing_rule_is_the_reason(connection: asyncpg.Connection) -> None:
    await make_customer(connection, state="suspended", concurrent=0)
    assert await reason(connection, caller=FOREIGN, called=None) == "customer_suspended"
    await connection.execute("update customers set state = 'active'")
    assert await reason(connection, caller=FOREIGN, called=None) == "caller_id_not_authorized"
    assert await reason(connection, called=None) == "called_number_missing"
    assert await reason(connection) == "concurrent_calls_exceeded"


async def test_calls_over_the_burst_wait_for_their_spacing(connection: asyncpg.Connection) -> None:
    await make_customer(connection, calls_per_second=0.01, burst=3)
    reasons = [await reason(connection) for _ in range(4)]
    assert reasons == ["authorized"] * 3 + ["calls_per_second_exceeded"]
    [decision] = await judge(connection, attempt())
    assert (decision.sip_status, decision.q850_cause) == (480, 31)
    # 100 s later exactly one more call may come.
    await connection.execute("update counters set next_call = next_call - interval '100 s'")
    assert [await reason(connection) for _ in range(2)] == ["authorized", "calls_per_second_exceeded"]


async def test_a_clock_set_back_does_not_shut_a_customer_out(connection: asyncpg.Connection) -> None:
    await make_customer(connection, calls_per_second=1, burst=1)
    assert await reason(connection) == "authorized"
    await connection.execute("update counters set next_call = now() + interval '1 hour'")
    assert await reason(connection) == "authorized"


async def test_a_call_that_ends_makes_room_for_the_next(connection: asyncpg.Connection) -> None:
    await make_customer(connection, concurrent=2)
    first, _second, third = [(await judge(connection, attempt()))[0] for _ in range(3)]
    assert third.reason == "concurrent_calls_exceeded"
    assert await connection.fetchval("select end_call($1, 'acme')", first.decision_id) is True
    assert await connection.fetchval("select end_call($1, 'acme')", first.decision_id) is False
    assert await reason(connection) == "authorized"
    assert await reason(connection) == "concurrent_calls_exceeded"
    assert await connection.fetchval("select live_calls from counters") == 2


async def test_a_lease_nobody_renews_makes_room_at_the_cap(connection: asyncpg.Connection) -> None:
    await make_customer(connection, concurrent=1)
    [lost] = await judge(connection, attempt())
    assert await reason(connection) == "concurrent_calls_exceeded"
    await connection.execute("update leases set expires_at = now() - interval '1 s'")
    assert await reason(connection) == "authorized"
    assert await connection.fetchval("select live_calls from counters") == 1
    # How the first call ended is not known yet; when the switch tells, that is what is written down.
    assert await connection.fetchval("select count(*) from call_ends") == 0
    assert await connection.fetchval("select end_call($1, 'acme')", lost.decision_id) is True
    assert await connection.fetchval("select live_calls from counters") == 1


async def test_a_call_whose_switch_never_comes_back_is_ended_in_the_books(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    [lost] = await judge(connection, attempt())
    await connection.execute("update leases set expires_at = now() - interval '25 hours'")
    assert await connection.fetchval("select expire_leases()") == 1
    assert await connection.fetchval("select forget_leases()") == 1
    end = await connection.fetchrow("select decision_id, source from call_ends")
    assert end is not None
    assert (end["decision_id"], end["source"]) == (lost.decision_id, "lease_expired")
    assert await connection.fetchval("select count(*) from leases") == 0
    assert await connection.fetchval("select live_calls from counters") == 0


async def test_the_day_of_the_daily_cap_begins_at_the_customers_midnight(connection: asyncpg.Connection) -> None:
    await make_customer(connection, per_day=2, time_zone="Pacific/Kiritimati")
    assert [await reason(connection) for _ in range(3)] == ["authorized", "authorized", "calls_per_day_exceeded"]
    today = await connection.fetchval("select (now() at time zone 'Pacific/Kiritimati')::date")
    assert await connection.fetchval("select day from counters") == today
    await connection.execute("update counters set day = day - 1")
    assert await reason(connection) == "authorized"
    assert await connection.fetchval("select calls_today from counters") == 1


async def test_a_batch_is_judged_as_if_its_calls_came_one_by_one(connection: asyncpg.Connection) -> None:
    await make_customer(connection, concurrent=3)
    await make_customer(connection, "other", concurrent=2)
    accounts = ["ACME", "OTHER"] * 5
    decisions = await judge(connection, *[attempt(account) for account in accounts])
    allowed = [decision.customer for decision in decisions if decision.allowed]
    assert sorted(allowed) == ["acme"] * 3 + ["other"] * 2
    assert await connection.fetchval("select count(*) from decisions") == 10


async def test_the_operator_may_change_what_a_reason_answers(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await connection.execute(
        "update reasons set sip_status = 603, q850_cause = 31 where reason = 'caller_id_not_authorized'"
    )
    [decision] = await judge(connection, attempt(caller=FOREIGN))
    assert (decision.sip_status, decision.q850_cause) == (603, 31)


async def test_every_reason_is_in_the_database(connection: asyncpg.Connection) -> None:
    stored = {row["reason"] for row in await connection.fetch("select reason from reasons")}
    assert stored == set(BY_CODE)


async def test_a_dry_run_explains_every_rule_and_changes_nothing(connection: asyncpg.Connection) -> None:
    await make_customer(connection, concurrent=0)
    decision, rules = await dry_run(connection, attempt(caller=FOREIGN))
    assert (decision.verdict, decision.reason) == (Verdict.REJECT, "caller_id_not_authorized")
    assert {rule["rule"]: rule["failed"] for rule in rules if rule["failed"]} == {
        "grant": "caller_id_not_authorized",
        "concurrent_calls": "concurrent_calls_exceeded",
    }
    assert [rule["rule"] for rule in rules] == [rule.name for rule in RULES]
    for table in ("decisions", "leases", "counters"):
        assert await connection.fetchval(f"select count(*) from {table}") == 0


async def test_a_plain_sql_client_gets_the_same_judgement(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    for caller, called, expected in (
        ("12125550100", "+14155550123", "authorized"),
        ("13105550199", "14155550123", "caller_id_not_authorized"),
        (None, "14155550123", "caller_id_missing"),
        ("12125550100; drop", "14155550123", "caller_id_malformed"),
        ("12125550100", "", "called_number_missing"),
    ):
        row = await connection.fetchrow("select * from authorize_call('ACME', $1, $2)", caller, called)
        assert row is not None
        assert row["reason"] == expected
        assert row["decision_id"].version == 7
    assert await connection.fetchval("select distinct entry from decisions") == "sql"


async def test_records_are_never_changed(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    [decision] = await judge(connection, attempt())
    await connection.fetchval("select end_call($1, 'acme')", decision.decision_id)
    await connection.fetchval("select set_customer_state('acme', 'suspended', 'x')")
    for table in ("decisions", "call_ends", "policy_changes"):
        for statement in (f"delete from {table}", f"update {table} set customer = 'x'"):
            with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
                await connection.execute(statement)
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only: truncate refused"):
            await connection.execute(f"truncate {table}")


async def test_only_a_call_that_was_allowed_can_be_ended(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    [refused] = await judge(connection, attempt(caller=FOREIGN))
    assert await connection.fetchval("select end_call(new_decision_id(), 'nobody')") is False
    assert await connection.fetchval("select end_call($1, 'acme')", refused.decision_id) is False
    assert await connection.fetchval("select count(*) from call_ends") == 0


async def test_no_way_leads_out_of_a_suspension_without_a_reason_and_a_name(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection, state="suspended")
    for state in ("active", "restricted"):
        for reason_, by in (("", "Kim"), ("cleared", "")):
            with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match="needs a reason and the name"):
                await connection.fetchval(
                    "select set_customer_state('acme', $1, $2, false, $3)", state, reason_, by
                )


async def test_a_suspension_does_not_wait_for_an_import(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await make_customer(connection)
    async with connected(database, application="import") as importing, importing.transaction():
        await importing.execute(
            "insert into grants (customer, first, last) values ('acme', 13105550100, 13105550100)"
        )
        async with asyncio.timeout(2):
            await connection.fetchval("select set_customer_state('acme', 'suspended', 'x', true)")
    assert await reason(connection) == "customer_suspended"
