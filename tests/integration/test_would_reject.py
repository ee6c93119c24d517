"""What a rule in report mode would have refused, as an operator reads it before enforcing the rule."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ExitCode
from ringfence.ids import new_decision_id
from ringfence.model import NumberedAttempt
from ringfence.store import records
from tests.integration.calls import CALLED, FOREIGN, OWN, attempt, judge, make_customer
from tests.integration.command import Command

pytestmark = pytest.mark.integration

LONDON = 442079460000
REPORTED = ("caller_id_not_authorized", "destination_denied")


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


@pytest.fixture
async def trial(connection: asyncpg.Connection) -> asyncpg.Connection:
    """Customer acme, whose grants and destinations are only reported, and globex, for which all is enforced."""
    await make_customer(connection)
    await make_customer(connection, "globex")
    await connection.execute("insert into destination_rules (prefix, action) values (4420, 'deny')")
    await connection.execute(
        "update limit_profiles set report_rules = array['grant', 'destination'] where profile = 'acme'"
    )
    return connection


def ids(*attempts: NumberedAttempt) -> list[str]:
    """Their decision ids, the newest first."""
    return sorted((str(numbered.attempt.decision_id) for numbered in attempts), reverse=True)


def found(ringfence: Command, *options: str) -> list[str]:
    return [row["decision_id"] for row in ringfence.ok("call", "list", *options, "--json").json]


# --- call list -----------------------------------------------------------------------------------------------


async def test_the_calls_a_reporting_rule_would_have_refused_are_listed_by_its_reason_or_all(
    ringfence: Command, trial: asyncpg.Connection
) -> None:
    foreign, london, both = attempt(caller=FOREIGN), attempt(called=LONDON), attempt(caller=FOREIGN, called=LONDON)
    enforced = attempt("GLOBEX", called=LONDON)
    await judge(trial, attempt(), foreign, london, both, enforced)
    assert found(ringfence, "--would-reject", "any") == ids(foreign, london, both)
    assert found(ringfence, "--would-reject", "destination_denied") == ids(london, both)
    assert found(ringfence, "--would-reject", "caller_id_not_authorized", "--called", f"+{CALLED}") == ids(foreign)
    assert found(ringfence, "--would-reject", "any", "--customer", "globex") == []
    assert found(ringfence, "--reason", "destination_denied") == ids(enforced)


def test_a_reason_that_is_none_is_refused_with_the_one_that_is_close(ringfence: Command) -> None:
    ran = ringfence("call", "list", "--would-reject", "destination_deny")
    assert ran.code == ExitCode.NOT_FOUND
    assert "did you mean 'destination_denied'?" in ran.err


async def test_the_table_has_a_column_for_what_is_reported_only_if_something_is(
    ringfence: Command, trial: asyncpg.Connection
) -> None:
    await judge(trial, attempt(), attempt("GLOBEX", called=LONDON))
    assert "would reject" not in ringfence.ok("call", "list").out
    await judge(trial, attempt(called=LONDON))
    out = ringfence.ok("call", "list", "--customer", "acme").out
    assert "would reject" in out
    assert "destination_denied" in out


async def test_the_table_tells_how_long_a_call_was_held_only_if_one_was(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection, calls_per_second=1, burst=1)
    await connection.execute("update limit_profiles set max_delay_ms = 9000")
    [first] = await judge(connection, attempt())
    assert first.delay_ms == 0
    assert "delay ms" not in ringfence.ok("call", "list").out
    [*_, held] = await judge(connection, attempt(), attempt())
    assert held.delay_ms > 0
    out = ringfence.ok("call", "list").out
    assert "delay ms" in out
    assert str(held.delay_ms) in out


# --- call summary --------------------------------------------------------------------------------------------


async def test_a_summary_counts_what_reporting_rules_would_have_refused_for_each_customer(
    ringfence: Command, trial: asyncpg.Connection
) -> None:
    await make_customer(trial, "initech", state="suspended")
    await trial.execute("update limit_profiles set report_rules = array['grant'] where profile = 'globex'")
    await judge(
        trial,
        attempt(),
        attempt(caller=FOREIGN),
        attempt(called=LONDON),
        attempt(called=LONDON + 1),
        attempt(caller=FOREIGN, called=LONDON),
        attempt("GLOBEX", caller=FOREIGN, called=LONDON),
        attempt("INITECH"),
    )
    told = ringfence.ok("call", "summary", "--json").json
    assert told["calls"] == 7
    assert told["answers"] == [
        {"customer": "acme", "verdict": "allow", "reason": "authorized", "calls": 5},
        {"customer": "globex", "verdict": "reject", "reason": "destination_denied", "calls": 1},
        {"customer": "initech", "verdict": "reject", "reason": "customer_suspended", "calls": 1},
    ]

    def row(customer: str, reason: str, *counts: int) -> dict[str, Any]:
        kinds = ("calls", "passed", "only", "refused")
        return {"customer": customer, "would_reject": reason, **dict(zip(kinds, counts, strict=True))}

    grant, destination = REPORTED
    assert told["would_reject"] == [
        row("acme", destination, 3, 3, 2, 0),
        row("acme", grant, 2, 2, 1, 0),
        row("globex", grant, 1, 0, 0, 1),
    ]
    one = ringfence.ok("call", "summary", "--customer", "globex", "--json").json
    assert (one["calls"], one["would_reject"]) == (1, [row("globex", grant, 1, 0, 0, 1)])


async def test_a_summary_predicts_what_enforcing_the_rule_refuses(
    ringfence: Command, trial: asyncpg.Connection
) -> None:
    day = [attempt(called=LONDON + n) if n % 3 else attempt(caller=FOREIGN - n) for n in range(20)]
    await judge(trial, *day)
    predicted = {
        row["would_reject"]: row["passed"]
        for row in ringfence.ok("call", "summary", "--json").json["would_reject"]
    }
    ringfence.ok("profile", "set", "acme", "--enforce", "destination", "--enforce", "grant")
    again = [replace(call, attempt=replace(call.attempt, decision_id=new_decision_id())) for call in day]
    reasons = [decision.reason for decision in await judge(trial, *again)]
    assert predicted == {reason: reasons.count(reason) for reason in REPORTED}
    assert sum(predicted.values()) == len(reasons) == 20


async def test_a_cap_that_only_reports_counts_the_calls_over_it(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection, per_day=2)
    await connection.execute("update limit_profiles set report_rules = array['calls_per_day']")
    await judge(connection, *(attempt() for _ in range(5)))
    [told] = ringfence.ok("call", "summary", "--json").json["would_reject"]
    assert (told["would_reject"], told["passed"]) == ("calls_per_day_exceeded", 3)


async def test_people_are_told_what_the_counts_mean_only_if_a_rule_reported(
    ringfence: Command, trial: asyncpg.Connection
) -> None:
    assert "no calls; --since 7d looks back further" in ringfence.ok("call", "summary").out
    await judge(trial, attempt())
    assert "only report" not in ringfence.ok("call", "summary").out
    await judge(trial, attempt(called=LONDON))
    out = ringfence.ok("call", "summary").out
    assert "reported by rules that only report" in out
    assert re.search(r"acme +destination_denied +1 +1 +1 +0", out)


def test_a_summary_of_no_time_or_of_nobody_is_refused(ringfence: Command) -> None:
    backwards = ringfence("call", "summary", "--since", "1h", "--until", "2h")
    assert (backwards.code, "--until is not after --since" in backwards.err) == (ExitCode.BAD_INPUT, True)
    assert ringfence("call", "summary", "--customer", "nobody").code == ExitCode.NOT_FOUND


async def test_a_summary_counts_from_its_first_moment_to_before_its_last(trial: asyncpg.Connection) -> None:
    call = attempt(called=LONDON)
    await judge(trial, call)
    at = await trial.fetchval("select ringfence.uuid_time($1)", call.attempt.decision_id)
    step = timedelta(milliseconds=1)
    assert (await records.summary(trial, at, at + step)).calls == 1
    assert (await records.summary(trial, at - step, at)).calls == 0
    assert (await records.summary(trial, at + step, at + 2 * step)).calls == 0


async def test_a_summary_reads_only_the_partitions_of_its_days(connection: asyncpg.Connection) -> None:
    now = datetime.now(UTC)
    plan = await connection.fetch("explain " + records._SUMMED, now - timedelta(minutes=1), now, None)
    read = set(re.findall(r"on (decisions_\w+)", "\n".join(row[0] for row in plan)))
    assert read == {f"decisions_{at:%Y%m%d}" for at in (now, now - timedelta(minutes=1))}


async def test_an_auditor_may_read_the_summary_and_the_list(
    trial: asyncpg.Connection, database: DatabaseSettings, tmp_path: Path
) -> None:
    await judge(trial, attempt(called=LONDON))
    await trial.execute(
        "do $$ begin create role login_ringfence_auditor login in role ringfence_auditor; "
        "exception when duplicate_object then null; end $$"
    )
    auditor = Command(
        DatabaseSettings(dsn=database.dsn.replace("postgres@", "login_ringfence_auditor@")), tmp_path
    )
    assert auditor.ok("call", "summary", "--json").json["calls"] == 1
    assert len(found(auditor, "--would-reject", "any")) == 1


# --- call show -----------------------------------------------------------------------------------------------


async def test_a_decision_shows_its_campaign_and_what_would_have_refused_it(
    ringfence: Command, trial: asyncpg.Connection
) -> None:
    await trial.execute(
        "insert into campaigns (customer, campaign, traffic) values ('acme', 'surveys', 'conversational')"
    )
    call = attempt(called=LONDON, campaign="surveys")
    await judge(trial, call)
    [decision_id] = ids(call)
    told = ringfence.ok("call", "show", decision_id, "--json").json
    assert (told["campaign"], told["would_reject"], told["caller_withheld"]) == (
        "surveys",
        ["destination_denied"],
        False,
    )
    out = ringfence.ok("call", "show", decision_id).out
    assert re.search(r"campaign +surveys", out)
    assert re.search(r"would reject +destination_denied", out)
    assert "caller withheld" not in out


async def test_a_decision_shows_that_its_caller_was_withheld_and_the_number_behind(
    ringfence: Command, trial: asyncpg.Connection
) -> None:
    call = replace(attempt(), caller_withheld=True)
    await judge(trial, call)
    out = ringfence.ok("call", "show", *ids(call)).out
    assert re.search(r"caller withheld +yes", out)
    assert re.search(rf"caller e164 +\+{OWN}", out)
    assert "would reject" not in out
    assert json.loads(ringfence.ok("call", "show", *ids(call), "--json").out)["caller_withheld"] is True
