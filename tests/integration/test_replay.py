"""Recorded calls judged again: the same under the same policy, and told apart under another."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.model import Decision
from ringfence.reasons import BY_CODE
from ringfence.store import replay as replays
from ringfence.store.connect import connected
from ringfence.store.replay import Apply, Replay, Replayed
from tests.integration.calls import CALLED, FOREIGN, OWN, attempt, judge, make_customer
from tests.integration.command import Command
from tests.integration.dialing import ATLANTA, LONDON, LONDON_PREMIUM, SAN_FRANCISCO, know_the_plan

pytestmark = pytest.mark.integration

UNLISTED = 13055550999


@pytest.fixture
async def other(database: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """A second connection: the one that replays has temporary tables in the way."""
    async with connected(database, application="test", actor="tester") as opened:
        yield opened


async def replayed(
    connection: asyncpg.Connection, apply: Apply | None = None, *, as_if_active: bool = True, limit: int = 50
) -> Replayed:
    """The calls of the last hour, judged again."""
    run = Replay(connection, as_if_active=as_if_active, refused_call_s=60, limit=limit)
    await run.prepare(apply)
    now = datetime.now(UTC)
    return await run.run(now - timedelta(hours=1), now + timedelta(minutes=1))


def changing(statement: str) -> Apply:
    """The policy that this statement makes of the current one."""

    async def apply(connection: asyncpg.Connection) -> None:
        await connection.execute(statement)

    return apply


async def end(connection: asyncpg.Connection, decision: Decision, answered_s: float = 0) -> None:
    """Tell that a call is over now, after so many answered seconds."""
    now = datetime.now(UTC)
    answered_at = now - timedelta(seconds=answered_s) if answered_s else None
    await connection.fetchval(
        "select record_ends(array[row($1::uuid, $2::text, 'event', 'caller', $3::timestamptz, $3::timestamptz, "
        "$4::timestamptz, null, 16, 200, 't', 'c', '')::call_end])",
        decision.decision_id, decision.customer, answered_at, now,
    )  # fmt: skip


def reasons(found: Replayed) -> dict[tuple[str, str], int]:
    return {(was[1], would_be[1]): calls for (was, would_be), calls in found.changes.items()}


POLICY = """
update limit_profiles set max_delay_ms = 40 where profile = 'shaped';
update limit_profiles set calls_per_month = 15, off_rules = '{calls_per_second}' where profile = 'monthly';
update limit_profiles set minutes_per_day = 2 where profile = 'talker';
update limit_profiles set caller_id_calls_per_day = 6,
  report_rules = '{destination,concurrent_calls,calls_per_day}' where profile = 'dialler';
update limit_profiles set minutes_per_month = 2 where profile = 'chatty';
update limit_profiles set report_rules = '{calls_per_second,grant}' where profile = 'lenient';
update endpoints set traffic = 'telemarketing' where customer = 'dialler';
update customers set time_zone = 'Pacific/Kiritimati' where customer = 'talker';
update customers set state = 'suspended' where customer = 'gone';
update customers set state = 'restricted' where customer = 'monthly';
update customers set restricted_profile = 'monthly' where customer = 'monthly';
update customers set vetted_until = null where customer = 'unvetted';
insert into destination_rules (customer, area, action) values ('*', 'premium', 'deny');
insert into destination_rules (customer, area, action, calls_per_day) values ('*', 'international', 'cap', 4);
insert into destination_rules (customer, area, action, minutes_per_day) values ('lenient', 'domestic', 'cap', 2);
insert into destination_rules (customer, prefix, action) values ('*', 1415555012, 'deny');
insert into do_not_originate (prefix, category, source) values (1305555, 'unallocated', 'test');
insert into do_not_call (number, source) values (442071234568, 'test');
update calling_hours set opens = '00:00', closes = '24:00';
insert into calling_hours (country, state, weekday, opens, closes)
select 'US', 'GA', d, '08:00', '08:00' from generate_series(0, 6) d;
insert into campaigns (customer, campaign, traffic) values ('dialler', 'news', 'conversational');
"""

CAPS = {code for code in BY_CODE if code.endswith("_exceeded")} - {"deadline_exceeded"}

PROFILES: dict[str, dict[str, Any]] = {
    "plain": {},
    "hasty": {"calls_per_second": 20, "burst": 2},
    "shaped": {"calls_per_second": 40, "burst": 2},
    "busy": {"concurrent": 3},
    "daily": {"per_day": 12},
    "monthly": {"calls_per_second": 1, "burst": 1},
    "talker": {"per_day": 60},
    "dialler": {"concurrent": 2, "per_day": 3},
    "lenient": {"calls_per_second": 0.5, "burst": 1},
    "chatty": {},
    "gone": {},
    "unvetted": {},
}


async def a_day_of_calls(connection: asyncpg.Connection, seed: int, calls: int) -> list[Decision]:
    """Calls of all kinds through the judge, some at once, and their ends, as they come."""
    chance = random.Random(seed)
    await know_the_plan(connection)
    for customer, caps in PROFILES.items():
        await make_customer(connection, customer, **caps)
    await connection.execute(POLICY)
    decisions = await judge(
        connection,
        attempt("NOBODY"), attempt("GONE"), attempt("UNVETTED"), attempt("PLAIN", campaign="none"),
        attempt("PLAIN", None), attempt("PLAIN", UNLISTED), attempt("PLAIN", FOREIGN), attempt("PLAIN", OWN, None),
        attempt("PLAIN", OWN, LONDON_PREMIUM), attempt("DIALLER", OWN, LONDON + 1),
        attempt("DIALLER", OWN, ATLANTA),
    )  # fmt: skip
    live: list[Decision] = []
    while len(decisions) < calls or not {decision.reason for decision in decisions} >= CAPS:
        assert len(decisions) < 10 * calls
        accounts = chance.choice([[*PROFILES, "nobody"], [chance.choice([*PROFILES])]])
        batch = [
            attempt(
                chance.choice(accounts).upper(),
                chance.choice([*[OWN] * 12, OWN + 1, OWN + 2, OWN + 3, FOREIGN, UNLISTED, None]),
                chance.choice(
                    [*[14155560000] * 12, SAN_FRANCISCO, *[LONDON] * 3, LONDON + 1, LONDON_PREMIUM, None]
                ),
                campaign=chance.choice([*[""] * 12, "news"]),
            )
            for _ in range(chance.choice([1, 2, 4, 8]))
        ]
        answers = await judge(connection, *batch)
        decisions += answers
        live += [answer for answer in answers if answer.allowed]
        chance.shuffle(live)
        for _ in range(chance.randint(0, 5)):
            if live:
                await end(connection, live.pop(), chance.choice([0, 0, 1.5, 30, 45]))
    return decisions


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("chunk", [7, 50_000])
async def test_replaying_real_decisions_under_the_policy_they_were_made_under_differs_in_nothing(
    connection: asyncpg.Connection,
    other: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    chunk: int,
) -> None:
    decisions = await a_day_of_calls(connection, seed, 600)
    assert {decision.reason for decision in decisions} >= CAPS | {
        "authorized", "endpoint_unknown", "customer_suspended", "customer_not_vetted", "campaign_unknown",
        "caller_id_missing", "caller_id_unallocated", "caller_id_not_authorized", "called_number_missing",
        "destination_denied", "called_number_do_not_call", "outside_calling_hours",
    }  # fmt: skip
    assert any(decision.verdict == "delay" for decision in decisions)
    monkeypatch.setattr(replays, "CHUNK", chunk)
    found = await replayed(other)
    assert found.changes == {}
    suspended = sum(decision.reason == "customer_suspended" for decision in decisions)
    assert (found.calls, found.skipped) == (len(decisions) - suspended, {"customer_state": suspended})


async def test_calls_to_a_destination_that_would_be_denied_are_named(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await make_customer(connection)
    await judge(connection, attempt(), attempt(called=CALLED + 1), attempt(caller=FOREIGN))
    denied = changing(f"insert into destination_rules (customer, prefix, action) values ('*', {CALLED}, 'deny')")
    found = await replayed(other, denied)
    assert (found.calls, found.differ) == (3, 1)
    assert reasons(found) == {("authorized", "destination_denied"): 1}
    assert found.customers == {"acme": {"refused": 1}}


async def test_a_tighter_cap_refuses_the_calls_that_overlap_and_not_those_that_follow(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await make_customer(connection)
    for overlap in (False, True, False):
        [first] = await judge(connection, attempt())
        if overlap:
            [second] = await judge(connection, attempt())
            await end(connection, second)
        await end(connection, first)
    found = await replayed(other, changing("update limit_profiles set concurrent_calls = 1"))
    assert reasons(found) == {("authorized", "concurrent_calls_exceeded"): 1}
    assert [difference.decision_id for difference in found.differing] == [second.decision_id]


async def test_a_call_that_would_be_refused_uses_up_nothing(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await make_customer(connection)
    for called in (CALLED, CALLED, CALLED + 1, CALLED + 1):
        await judge(connection, attempt(called=called))
    stricter = changing(
        "update limit_profiles set calls_per_day = 1;"
        f"insert into destination_rules (customer, prefix, action) values ('*', {CALLED}, 'deny')"
    )
    assert reasons(await replayed(other, stricter)) == {
        ("authorized", "destination_denied"): 2,
        ("authorized", "calls_per_day_exceeded"): 1,
    }


async def test_a_looser_cap_lets_out_what_was_refused_and_counts_it_for_as_long_as_was_said(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await make_customer(connection, concurrent=1)
    await judge(connection, attempt(), attempt(), attempt())
    found = await replayed(other, changing("update limit_profiles set concurrent_calls = 2"))
    assert reasons(found) == {("concurrent_calls_exceeded", "authorized"): 1}
    assert found.customers == {"acme": {"let_out": 1}}


async def test_what_no_policy_decides_is_left_out_and_counted(
    connection: asyncpg.Connection, other: asyncpg.Connection
) -> None:
    await make_customer(connection)
    await make_customer(connection, "gone", state="suspended", grant=False)
    await judge(connection, attempt(), attempt("GONE"))
    for reason, degraded in (("emergency", False), ("caller_id_conflict", False), ("database_unavailable", True)):
        await connection.execute(
            "insert into decisions select (d).* from (select jsonb_populate_record(d, jsonb_build_object("
            "'decision_id', new_decision_id(), 'reason', $1::text, 'degraded', $2::boolean)) as d "
            "from decisions d where customer = 'acme' and reason = 'authorized') x",
            reason, degraded,
        )  # fmt: skip
    found = await replayed(other, changing("delete from grants"))
    assert found.skipped == {"emergency": 1, "not_judged": 2, "customer_state": 1}
    assert reasons(found) == {("authorized", "caller_id_not_authorized"): 1}


async def test_a_customer_suspended_since_is_taken_as_active_unless_the_states_of_now_are_asked_for(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await make_customer(connection)
    await judge(connection, attempt())
    await connection.execute("update customers set state = 'suspended'")
    for as_if_active, expected in ((True, {}), (False, {("authorized", "customer_suspended"): 1})):
        async with connected(database, application="test") as other:
            assert reasons(await replayed(other, as_if_active=as_if_active)) == expected


async def test_calls_are_judged_at_once_and_by_the_policy_that_holds_while_another_is_tried(
    connection: asyncpg.Connection, other: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await make_customer(connection)
    await judge(connection, attempt())
    heard: list[str] = []
    await connection.add_listener("ringfence_policy", lambda *told: heard.append(str(told[-1])))
    await connection.execute("set statement_timeout = '2s'")

    async def a_call_passes(*_: object) -> None:
        [decision] = await judge(connection, attempt())
        assert decision.reason == "authorized"

    async def apply(trying: asyncpg.Connection) -> None:
        await trying.execute(
            "update customers set name = 'other'; update limit_profiles set concurrent_calls = 0;"
            "delete from grants; select note_change('policy.apply', '', '{}')"
        )
        await a_call_passes()

    run = Replay(other, as_if_active=True, refused_call_s=60, limit=50)
    await run.prepare(apply)
    await a_call_passes()
    # Nothing is held any more: an admin may change the very rows.
    await connection.execute("update customers set name = 'mine'")
    tasks: set[asyncio.Task[None]] = set()

    def progress(*_: object) -> None:
        tasks.add(asyncio.create_task(a_call_passes()))

    now = datetime.now(UTC)
    found = await run.run(now - timedelta(hours=1), now + timedelta(minutes=1), progress)
    await asyncio.gather(*tasks)
    assert tasks
    assert reasons(found) == {("authorized", "caller_id_not_authorized"): 3}
    assert await connection.fetchval("select count(*) from policy_changes") == 0
    assert heard == []


async def test_the_command_names_the_calls_that_a_file_would_refuse_and_changes_nothing(
    connection: asyncpg.Connection, database: DatabaseSettings, tmp_path: Path
) -> None:
    command = Command(database, tmp_path)
    await make_customer(connection)
    decisions: list[Decision] = []
    for _ in range(4):
        decisions += await judge(connection, attempt())
    file = tmp_path / "policy.yaml"
    command.ok("policy", "export", str(file))
    same = command("policy", "replay", "--since", "1h", str(file), "--json")
    assert (same.code, same.err) == (0, "")
    assert (same.json["calls"], same.json["differ"], same.json["differing"]) == (4, 0, [])
    text = file.read_text()
    stricter, changed = re.subn(r"(concurrent_calls: )1000\b", r"\g<1>2", text)
    assert changed == 1
    file.write_text(stricter)
    before = await connection.fetchval("select max(version) from policy_changes")
    ran = command("policy", "replay", "--since", "1h", str(file), "--limit", "1", "--json")
    assert ran.code == 1, ran.err
    assert ran.json["changes"] == [
        {"calls": 2, "was": "authorized", "was_verdict": "allow", "would_be": "concurrent_calls_exceeded",
         "would_be_verdict": "reject"}
    ]  # fmt: skip
    assert ran.json["customers"] == [{"customer": "acme", "refused": 2, "let_out": 0, "otherwise": 0}]
    [call] = ran.json["differing"]
    assert UUID(call["decision_id"]) == decisions[2].decision_id
    assert (call["caller_e164"], call["would_be_reason"]) == (f"+{OWN}", "concurrent_calls_exceeded")
    assert await connection.fetchval("select max(version) from policy_changes") == before
    assert await connection.fetchval("select concurrent_calls from limit_profiles where profile = 'acme'") == 1000
    people = command("policy", "replay", "--since", "1h", str(file))
    assert "2 of 4 calls would have fared otherwise" in people.out


async def test_an_auditor_may_replay_the_current_policy(
    connection: asyncpg.Connection, database: DatabaseSettings
) -> None:
    await make_customer(connection)
    await connection.execute("insert into do_not_call (number, source) values ($1, 'test')", CALLED)
    await connection.execute("update endpoints set traffic = 'telemarketing'")
    await judge(connection, attempt())
    async with connected(database, application="test") as auditor:
        await auditor.execute("set role ringfence_auditor")
        found = await replayed(auditor)
    assert (found.calls, found.differ) == (1, 0)


def test_a_time_in_the_future_is_refused_by_the_command(database: DatabaseSettings, tmp_path: Path) -> None:
    ran = Command(database, tmp_path)("policy", "replay", "--since", "2999-01-01")
    assert ran.code == 6
    assert "--since is not in the past" in ran.err
