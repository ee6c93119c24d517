"""Who changed the policy, and which change the policy version of a decision names."""

from __future__ import annotations

import json
from pathlib import Path

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ExitCode
from ringfence.store.connect import connected
from ringfence.store.policy import note_change
from tests.integration.calls import attempt, judge, make_customer
from tests.integration.command import Command

pytestmark = pytest.mark.integration


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


async def aged_change(connection: asyncpg.Connection, age: str, action: str = "number.grant") -> int:
    """A change made some time ago; returns its version."""
    version: int = await connection.fetchval(
        "insert into policy_changes (changed_at, changed_by, action, customer) "
        "values (now() - $1::text::interval, 'kim', $2, '') returning version",
        age,
        action,
    )
    return version


def versions(ringfence: Command, *options: str) -> list[int]:
    return [entry["version"] for entry in ringfence.ok("policy", "log", *options, "--json").json]


async def test_what_the_command_line_changed_is_told_with_who_did_it_the_newest_first(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    assert "no changes match" in ringfence.ok("policy", "log").out
    await make_customer(connection)
    ringfence.ok("profile", "set", "acme", "--per-day", "100")
    ringfence.ok("number", "grant", "acme", "+13105550100")
    newest, oldest = ringfence.ok("policy", "log", "--json").json
    assert [newest["action"], newest["customer"], newest["changed_by"]] == ["number.grant", "acme", "tester"]
    assert [oldest["action"], oldest["customer"], oldest["changed_by"]] == ["profile.set", "", "tester"]
    assert newest["version"] > oldest["version"]
    assert isinstance(newest["detail"], dict)
    out = ringfence.ok("policy", "log").out
    assert out.index("number.grant") < out.index("profile.set")
    assert "13105550100" in out


async def test_the_log_is_narrowed_by_customer_action_and_number_of_entries(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    first = await note_change(connection, "endpoint.add", "acme", {})
    second = await note_change(connection, "do-not-call.load", "", {"source": "federal"})
    third = await note_change(connection, "endpoint.add", "acme", {})
    assert versions(ringfence) == [third, second, first]
    assert versions(ringfence, "--customer", "acme") == [third, first]
    assert versions(ringfence, "--action", "do-not-call.load") == [second]
    assert versions(ringfence, "--limit", "1") == [third]
    assert "the newest 1 are shown" in ringfence.ok("policy", "log", "--limit", "1").out


async def test_the_log_tells_the_last_seven_days_or_the_time_that_is_asked_for(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    old, recent = await aged_change(connection, "8 days"), await aged_change(connection, "6 days")
    assert versions(ringfence) == [recent]
    assert versions(ringfence, "--since", "9d") == [recent, old]
    assert versions(ringfence, "--since", "9d", "--until", "7d") == [old]


async def test_the_policy_version_of_a_decision_leads_to_the_change_and_the_one_before(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    ringfence.ok("number", "grant", "acme", "+13105550100")
    ringfence.ok("profile", "set", "acme", "--per-day", "none", "--per-month", "9000")
    [decision] = await judge(connection, attempt())
    await note_change(connection, "provider.set", "", {})
    told = ringfence.ok("policy", "log", "--version", str(decision.policy_version), "--json").json
    assert (told["version"], told["action"], told["changed_by"]) == (
        decision.policy_version,
        "profile.set",
        "tester",
    )
    assert (told["before"]["action"], told["before"]["customer"]) == ("number.grant", "acme")
    recorded = await connection.fetchval(
        "select detail from policy_changes where version = $1", decision.policy_version
    )
    assert told["detail"] == json.loads(recorded)
    out = ringfence.ok("policy", "log", "--version", str(decision.policy_version)).out
    assert "profile.set" in out
    assert "9000" in out
    before = told["before"]["version"]
    assert f"before: version {before}, number.grant of acme by tester" in out
    assert f"'ringfence policy log --version {before}' shows it" in out


async def test_a_change_is_shown_in_full_however_old_and_long_it_is(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    detail = {"cap": None, "skipped": [f"line {number}" for number in range(200)]}
    version = await note_change(connection, "number.import", "", detail)
    assert "line 199" not in ringfence.ok("policy", "log").out
    out = ringfence.ok("policy", "log", "--version", str(version)).out
    assert "line 199" in out
    assert "null" in out  # what became none is a change too
    assert "this is the first change" in out
    old = await aged_change(connection, "3 years")
    assert ringfence.ok("policy", "log", "--version", str(old), "--json").json["version"] == old


async def test_a_change_that_was_given_up_leaves_a_gap_that_is_told_with_its_neighbours(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    assert "nothing was ever changed" in ringfence("policy", "log", "--version", "7").err
    first = await note_change(connection, "provider.set", "", {})
    transaction = connection.transaction()
    await transaction.start()
    given_up = await note_change(connection, "provider.set", "", {})
    await transaction.rollback()
    last = await note_change(connection, "provider.set", "", {})
    ran = ringfence("policy", "log", "--version", str(given_up))
    assert ran.code == ExitCode.NOT_FOUND
    assert f"the nearest are {first} and {last}" in ran.err
    assert f"the nearest is {last}" in ringfence("policy", "log", "--version", str(last + 1)).err
    told = ringfence.ok("policy", "log", "--version", str(last), "--json").json
    assert told["before"]["version"] == first


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--customer", "nobody"), ExitCode.NOT_FOUND, "there is no customer 'nobody'"),
        (("--action", "grant"), ExitCode.BAD_INPUT, "--action: 'grant' is not NOUN.VERB"),
        (("--since", "1h", "--until", "2h"), ExitCode.BAD_INPUT, "--until is not after --since"),
        (("--since", "soon"), ExitCode.BAD_INPUT, "--since: 'soon' is not a time"),
        (("--version", "0"), ExitCode.BAD_INPUT, "the policy before its first change"),
        (("--version", "1", "--action", "number.grant"), ExitCode.BAD_INPUT, "--action: --version shows exactly"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_the_option_that_is_wrong(
    ringfence: Command, options: tuple[str, ...], code: ExitCode, said: str
) -> None:
    ran = ringfence("policy", "log", *options)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


async def test_an_auditor_may_read_the_log(
    connection: asyncpg.Connection, database: DatabaseSettings, tmp_path: Path
) -> None:
    await connection.execute(
        "do $$ begin create role login_ringfence_auditor login in role ringfence_auditor; "
        "exception when duplicate_object then null; end $$"
    )
    async with connected(database, application="test", actor="kim\x1b[31m") as admin:
        version = await note_change(admin, "provider.set", "", {"name": "\u202eevil"})
    auditor = Command(
        DatabaseSettings(dsn=database.dsn.replace("postgres@", "login_ringfence_auditor@")), tmp_path
    )
    assert versions(auditor) == [version]
    for options in ((), ("--version", str(version))):
        out = auditor.ok("policy", "log", *options).out
        assert "provider.set" in out
        assert "\x1b" not in out
        assert "\u202e" not in out
