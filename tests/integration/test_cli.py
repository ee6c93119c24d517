"""The command line against a real database, each command a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ExitCode
from ringfence.store import records
from tests.integration.command import PROGRAM, Command
from tests.lab.postgres import EmbeddedPostgres

pytestmark = pytest.mark.integration


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


@pytest.fixture
def acme(ringfence: Command) -> Command:
    ringfence.ok("customer", "add", "acme", "--name", "Acme", "--account", "1001", "--vetted-by", "Kim")
    ringfence.ok("number", "grant", "acme", "+12025550123", "--evidence", "LOA 7")
    return ringfence


async def authorize(connection: asyncpg.Connection, account: str, caller: str) -> str:
    return await connection.fetchval(
        "select (ringfence.authorize_call($1, $2, '+13125550199')).decision_id::text", account, caller
    )


# --- errors and exit codes -----------------------------------------------------------------------------------


def test_a_missing_configuration_is_one_sentence_and_exit_code_3(ringfence: Command) -> None:
    ran = ringfence("--config", "/nowhere/ringfence.yaml", "customer", "list")
    assert (ran.code, ran.out) == (ExitCode.CONFIG, "")
    assert ran.err.startswith("ringfence: /nowhere/ringfence.yaml: cannot be read")
    assert ran.err.count("\n") == 1


def test_the_configuration_may_be_named_before_the_noun_or_after_the_verb(ringfence: Command) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RINGFENCE_CONFIG"}
    config = ["--config", str(ringfence.config)]
    for arguments in ([*config, "db", "status"], ["db", "status", *config]):
        done = subprocess.run([*PROGRAM, *arguments], env=environment, capture_output=True, check=False)
        assert done.returncode == 0


def test_an_unreachable_database_is_exit_code_4(tmp_path: Path) -> None:
    ran = Command(DatabaseSettings(dsn="postgresql://nobody@127.0.0.1:1/none"), tmp_path)("customer", "list")
    assert ran.code == ExitCode.DATABASE
    assert ran.err.startswith("ringfence: cannot use the database")


def test_a_database_without_schema_says_to_migrate_and_migrating_it_works(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    name = f"bare_{uuid4().hex}"
    ringfence = Command(DatabaseSettings(dsn=postgres.create_database(name)), tmp_path)
    refused = ringfence("customer", "list")
    assert refused.code == ExitCode.DATABASE
    assert "run 'ringfence db migrate'" in refused.err
    assert ringfence("db", "status", "--json").code == ExitCode.DATABASE
    assert "0002_customers" in ringfence.ok("db", "migrate", "--json").json["migrations"]
    assert ringfence.ok("db", "migrate", "--json").json == {"migrations": [], "functions": [], "data": []}
    assert ringfence.ok("db", "status", "--json").json["current"] is True
    assert ringfence.ok("customer", "list", "--json").json == []


def test_a_wrong_option_is_exit_code_2_and_invalid_utf8_is_6(ringfence: Command) -> None:
    assert ringfence("customer", "add", "--nonsense").code == ExitCode.USAGE
    done = subprocess.run(
        [*PROGRAM, "customer", "show", b"\xff\xfe"], env=ringfence.environment, capture_output=True, check=False
    )
    assert done.returncode == ExitCode.BAD_INPUT
    assert b"argument 3 is not valid UTF-8" in done.stderr


def test_a_customer_that_is_nearly_there_is_suggested(acme: Command) -> None:
    ran = acme("customer", "show", "acm")
    assert (ran.code, ran.out) == (ExitCode.NOT_FOUND, "")
    assert ran.err == (
        "ringfence: there is no customer 'acm'; did you mean 'acme'? 'ringfence customer list' shows all\n"
    )


# --- profiles and customers ----------------------------------------------------------------------------------


def test_a_profile_takes_its_burst_from_its_rate(ringfence: Command) -> None:
    made = ringfence.ok("profile", "set", "small", "--calls-per-second", "2.5", "--concurrent", "5", "--json").json
    expected = {"created": True, "calls_per_second": 2.5, "burst": 3, "concurrent_calls": 5, "calls_per_day": None}
    assert {key: made[key] for key in expected} == expected
    again = ("--calls-per-second", "0.5", "--burst", "9", "--concurrent", "5", "--per-day", "0")
    assert ringfence.ok("profile", "set", "small", *again, "--json").json["created"] is False
    listed = next(row for row in ringfence.ok("profile", "list", "--json").json if row["profile"] == "small")
    assert (listed["burst"], listed["calls_per_day"], listed["customers"]) == (9, 0, 0)
    assert "small" in ringfence.ok("profile", "list").out


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("Acme", "--name", "A"), ExitCode.BAD_INPUT, "cannot be the name of a customer"),
        (("acme", "--name", "a\nb"), ExitCode.BAD_INPUT, "control characters"),
        (("acme", "--name", "A", "--time-zone", "Europe/Pariss"), ExitCode.BAD_INPUT, "mean 'Europe/Paris'?"),
        (("acme", "--name", "A", "--profile", "big"), ExitCode.NOT_FOUND, "there is no profile 'big'"),
        (("acme", "--name", "A", "--source-address", "10.0.0.0/8"), ExitCode.BAD_INPUT, "not an IP address"),
        (("acme", "--name", "A", "--account", "1", "--account", "1"), ExitCode.CONFLICT, "already belongs"),
    ],
)
def test_a_customer_that_cannot_be_added_leaves_nothing_behind(
    ringfence: Command, options: tuple[str, ...], code: ExitCode, said: str
) -> None:
    ran = ringfence("customer", "add", *options)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert ringfence.ok("customer", "list", "--json").json == []
    assert [row["profile"] for row in ringfence.ok("profile", "list", "--json").json] == ["restricted"]


async def test_adding_a_customer_says_what_it_made_and_writes_down_who_did_it(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ran = ringfence.ok(
        "customer",
        "add",
        "acme",
        "--name",
        "Acme [red]Ltd",
        "--time-zone",
        "America/New_York",
        "--sip-user",
        "alice",
        "--source-address",
        "2001:DB8::0001",
    )
    assert "profile default made: 10 calls per second, burst 10, 30 at once" in ran.out
    assert "customer acme added" in ran.out
    changes = await connection.fetch("select action, changed_by from ringfence.policy_changes order by version")
    assert [row["action"] for row in changes] == [
        "profile.set",
        "customer.add",
        "endpoint.add",
        "endpoint.add",
    ]
    assert {row["changed_by"] for row in changes} == {"tester"}
    shown = ringfence.ok("customer", "show", "acme", "--json").json
    assert [endpoint["value"] for endpoint in shown["endpoints"]] == ["alice", "2001:db8::1"]
    assert "Acme [red]Ltd" in ringfence.ok("customer", "show", "acme").out
    again = ringfence("customer", "add", "acme", "--name", "Other")
    assert again.code == ExitCode.CONFLICT
    assert "there already is a customer 'acme'" in again.err


async def test_showing_a_customer_counts_live_calls_and_todays_calls(
    acme: Command, connection: asyncpg.Connection
) -> None:
    await authorize(connection, "1001", "+12025550123")
    shown = acme.ok("customer", "show", "acme", "--json").json
    assert (shown["live_calls"], shown["calls_today"]) == (1, 1)
    [grants] = shown["grants"]
    assert (grants["source"], grants["grants"], grants["numbers"]) == ("assigned", 1, 1)


def test_a_customer_is_suspended_once_and_reinstated_only_from_suspension(acme: Command) -> None:
    early = acme("customer", "reinstate", "acme", "--reason", "x")
    assert early.code == ExitCode.CONFLICT
    assert "customer 'acme' is active: possible are 'ringfence customer restrict acme'" in early.err
    acme.ok("customer", "suspend", "acme", "--reason", "complaint", "--let-calls-finish")
    acme.ok("customer", "suspend", "acme", "--reason", "robocalls")  # now its live calls are to end, too
    assert acme("customer", "suspend", "acme", "--reason", "again").code == ExitCode.CONFLICT
    shown = acme.ok("customer", "show", "acme", "--json").json
    assert (shown["state"], shown["state_reason"]) == ("suspended", "robocalls")
    acme.ok("customer", "reinstate", "acme", "--reason", "vetted again")
    assert acme.ok("customer", "list", "--json").json[0]["state"] == "active"


def test_a_customer_moves_to_another_profile(acme: Command) -> None:
    acme.ok("profile", "set", "big", "--calls-per-second", "100", "--concurrent", "500")
    assert acme.ok("customer", "set", "acme", "--profile", "big", "--json").json["profile"] == "big"
    assert acme("customer", "set", "acme").code == ExitCode.BAD_INPUT


# --- endpoints -----------------------------------------------------------------------------------------------


def test_endpoints_are_added_disabled_enabled_and_removed(acme: Command) -> None:
    acme.ok("endpoint", "add", "acme", "--trunk", "t1", "--trunk", "t2", "--host", "pbx1")
    acme.ok("endpoint", "disable", "acme", "--trunk", "t1", "--host", "pbx1")
    listed = acme.ok("endpoint", "list", "acme", "--json").json
    assert [(e["kind"], e["value"], e["host"], e["enabled"]) for e in listed] == [
        ("account", "1001", "*", True),
        ("trunk", "t1", "pbx1", False),
        ("trunk", "t2", "pbx1", True),
    ]
    acme.ok("endpoint", "enable", "acme", "--trunk", "t1", "--host", "pbx1")
    missing = acme("endpoint", "remove", "acme", "--trunk", "t1")
    assert missing.code == ExitCode.NOT_FOUND
    assert "has no trunk 't1'" in missing.err
    acme.ok("endpoint", "remove", "acme", "--trunk", "t1", "--trunk", "t2", "--host", "pbx1")
    assert len(acme.ok("endpoint", "list", "--json").json) == 1
    assert acme("endpoint", "add", "acme").code == ExitCode.BAD_INPUT


def test_an_endpoint_belongs_to_one_customer(acme: Command) -> None:
    acme.ok("customer", "add", "zeta", "--name", "Zeta")
    ran = acme("endpoint", "add", "zeta", "--sip-user", "bob", "--account", "1001")
    assert ran.code == ExitCode.CONFLICT
    assert "account '1001' already belongs to customer 'acme'" in ran.err
    assert acme.ok("endpoint", "list", "zeta", "--json").json == []


# --- numbers -------------------------------------------------------------------------------------------------


def test_granting_the_same_again_changes_nothing_and_an_overlap_is_refused(acme: Command) -> None:
    again = acme.ok("number", "grant", "acme", "(202) 555-0123", "--evidence", "LOA 7", "--json").json
    assert again["already_there"] is True
    overlap = acme("number", "grant", "acme", "+12025550100", "+12025550199")
    assert overlap.code == ExitCode.CONFLICT
    assert "overlaps grant" in overlap.err
    assert "ringfence number revoke acme +12025550123" in overlap.err


def test_a_block_is_found_by_each_of_its_numbers_and_revoked_as_a_whole(acme: Command) -> None:
    block = ("+442079460000", "+442079469999")
    terms = ("--source", "letter", "--attestation", "b", "--from", "2020-01-01", "--until", "2999-01-01")
    acme.ok("number", "grant", "acme", *block, *terms)
    [found] = acme.ok("number", "list", "--number", "+442079461234", "--json").json
    assert (found["first"], found["last"], found["attestation"]) == (*block, "B")
    assert (found["valid_until"], found["in_date"]) == ("2999-01-01T00:00:00Z", True)
    assert acme.ok("number", "list", "--number", "+442079470000", "--json").json == []
    part = acme("number", "revoke", "acme", block[0], "--reason", "ported away")
    assert part.code == ExitCode.CONFLICT
    assert "lies only partly within" in part.err
    assert acme.ok("number", "revoke", "acme", *block, "--reason", "ported away", "--json").json["revoked"] == 1
    assert acme("number", "revoke", "acme", *block, "--reason", "again").code == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("numbers", "options", "said"),
    [
        (("12ab",), (), "FIRST: '12ab' is not a telephone number"),
        (("+12025550199", "+12025550100"), (), "is before the first"),
        (("+442079460000", "+449079460000"), (), "more than 100,000,000 numbers"),
        (("+12025550123",), ("--source", "hearsay"), "--source: 'hearsay' is none of assigned, letter"),
        (("+12025550123",), ("--attestation", "D"), "--attestation: 'D' is none of A, B, C"),
        (("+12025550123",), ("--until", "soon"), "--until: 'soon' is not a time"),
        (("+12025550123",), ("--from", "2026-01-02", "--until", "2026-01-01"), "--until: not after --from"),
        (("+12025550123",), ("--evidence", "x" * 501), "--evidence: longer than 500 characters"),
    ],
)
def test_a_grant_that_cannot_be_is_named(
    acme: Command, numbers: tuple[str, ...], options: tuple[str, ...], said: str
) -> None:
    ran = acme("number", "grant", "acme", *numbers, *options)
    assert (ran.code, ran.out) == (ExitCode.BAD_INPUT, "")
    assert said in ran.err


# --- check ---------------------------------------------------------------------------------------------------


def test_check_tells_each_rule_and_exits_by_the_verdict(acme: Command) -> None:
    allowed = acme.ok("check", "--account", "1001", "--caller", "2025550123", "--called", "3125550199", "--json")
    assert (allowed.json["verdict"], allowed.json["attestation"]) == ("allow", "A")
    assert [rule["rule"] for rule in allowed.json["rules"]][:3] == ["emergency", "endpoint", "customer"]
    refused = acme("check", "--account", "1001", "--caller", "+12025550124", "--called", "+13125550199")
    assert refused.code == ExitCode.REFUSED
    assert "reject: caller_id_not_authorized (SIP 403). The caller ID is not granted to this customer." in (
        refused.out
    )


async def test_check_leaves_no_trace(acme: Command, connection: asyncpg.Connection) -> None:
    acme.ok("check", "--account", "1001", "--caller", "2025550123", "--called", "3125550199")
    assert await connection.fetchval("select count(*) from ringfence.decisions") == 0
    assert await connection.fetchval("select count(*) from ringfence.leases") == 0


def test_check_lets_emergency_pass_without_a_database(tmp_path: Path) -> None:
    nowhere = Command(DatabaseSettings(dsn="postgresql://nobody@127.0.0.1:1/none"), tmp_path)
    assert nowhere.ok("check", "--called", "911", "--json").json["reason"] == "emergency"


# --- calls and tail ------------------------------------------------------------------------------------------


async def test_calls_are_found_by_number_verdict_reason_and_time(
    acme: Command, connection: asyncpg.Connection
) -> None:
    allowed = await authorize(connection, "1001", "+12025550123")
    refused = await authorize(connection, "1001", "+12025550124")
    await connection.execute("select ringfence.end_call($1::text::uuid, 'acme', now())", allowed)

    def found(*options: str) -> list[str]:
        return [row["decision_id"] for row in acme.ok("call", "list", *options, "--json").json]

    assert found() == [refused, allowed]
    assert found("--caller", "(202) 555-0123") == [allowed]
    assert found("--verdict", "reject", "--customer", "acme", "--since", "1h") == [refused]
    assert found("--reason", "authorized", "--called", "+13125550199", "--limit", "1") == [allowed]
    assert found("--since", "2020-01-01", "--until", "2020-01-02") == []
    assert acme("call", "list", "--reason", "authorised").err.count("did you mean 'authorized'?") == 1
    shown = acme.ok("call", "show", allowed, "--json").json
    assert (shown["verdict"], shown["end"]["source"], shown["grant"]["first"]) == (
        "allow",
        "event",
        "+12025550123",
    )
    assert "caller_id_not_authorized" in acme.ok("call", "show", refused).out
    assert acme("call", "show", str(uuid4())).code == ExitCode.NOT_FOUND
    assert acme("call", "show", "yesterday").code == ExitCode.BAD_INPUT


async def test_a_search_by_time_reads_only_the_partitions_of_those_days(connection: asyncpg.Connection) -> None:
    now = datetime.now(UTC)
    everything = (None,) * 8
    plan = await connection.fetch("explain " + records._FOUND, now - timedelta(minutes=1), now, *everything, 100)
    read = set(re.findall(r"on (decisions_\w+|call_ends_\w+)", "\n".join(row[0] for row in plan)))
    days = {f"{at:%Y%m%d}" for at in (now, now - timedelta(minutes=1))}
    assert {name for name in read if name.startswith("decisions")} == {f"decisions_{day}" for day in days}


async def test_what_an_attacker_shows_reaches_the_terminal_escaped(
    acme: Command, connection: asyncpg.Connection
) -> None:
    await authorize(connection, "1001", "x")
    await connection.execute(
        "alter table decisions disable trigger all"
    )  # what another program might have written
    await connection.execute("update decisions set caller = $1", "\x1b]0;owned\x07[bold]\u202e")
    out = acme.ok("call", "list").out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert r"\x1b]0;owned\x07[bold]\u202e" in out.replace("\\\\", "\\")
    assert "\x1b" not in acme.ok("call", "list", "--json").out


async def test_tail_shows_each_new_decision_once_and_ends_cleanly(
    acme: Command, connection: asyncpg.Connection
) -> None:
    await authorize(connection, "1001", "+12025550123")
    tail = acme.start("tail", "--verdict", "reject", "--json")
    assert tail.stdout is not None
    try:
        await _until_listening(connection)
        ids = [await authorize(connection, "1001", f"+1202555020{digit}") for digit in range(3)]
        await authorize(connection, "1001", "+12025550123")
        told = [json.loads(tail.stdout.readline())["decision_id"] for _ in ids]
        assert told == ids
        await asyncio.sleep(1.5)
    finally:
        tail.send_signal(signal.SIGINT)
        out, err = tail.communicate(timeout=10)
    assert (tail.returncode, out, err) == (ExitCode.INTERRUPTED, "", "")


async def _until_listening(connection: asyncpg.Connection) -> None:
    for _ in range(100):
        asked = await connection.fetchval(
            "select count(*) from pg_stat_activity where datname = current_database() "
            "and application_name = 'ringfence cli' and query like '%order by d.decision_id limit%'"
        )
        if asked:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("tail did not start")


# --- the configuration ---------------------------------------------------------------------------------------


def test_check_config_shows_what_the_file_says_and_tries_the_database(ringfence: Command) -> None:
    shown = ringfence.ok("check-config", "--connect", "--json").json
    assert shown["ok"] is True
    assert shown["host"] == "pbx1"
    assert shown["database_answer"].endswith("schema current")
    ringfence.config.write_text("hots: pbx1\n")
    wrong = ringfence("check-config")
    assert wrong.code == ExitCode.CONFIG
    assert "hots: is not a setting; did you mean 'host'?" in wrong.err


def test_check_config_names_a_switch_that_does_not_answer(ringfence: Command, tmp_path: Path) -> None:
    secret = tmp_path / "ami-secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    with ringfence.config.open("a") as config:
        config.write(
            "switches:\n  - kind: asterisk\n    name: pbx\n"
            f"    ami: {{address: '127.0.0.1:1', secret_file: {secret}, connect_timeout_s: 0.5}}\n"
        )
    ran = ringfence("check-config", "--connect", "--json")
    assert (ran.code, ran.json["ok"]) == (ExitCode.SWITCH, False)
    assert ran.json["database_answer"].endswith("schema current")
    assert ran.err == "ringfence: switches.pbx.ami: the manager at 127.0.0.1:1 cannot be reached\n"


def test_help_and_version_answer_without_a_configuration() -> None:
    for arguments in (["--help"], ["number", "import", "--help"], ["--version"]):
        done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert done.stdout
