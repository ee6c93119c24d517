"""Limit profiles and the provider: what an operator sets, and what a rule in each mode does to a call."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import rules
from ringfence.cli import caps
from ringfence.config import DatabaseSettings
from ringfence.errors import BadInputError, ExitCode
from ringfence.store import profiles
from ringfence.store.authorize import dry_run
from tests.integration.calls import FOREIGN, attempt, judge, make_customer
from tests.integration.command import Command

pytestmark = pytest.mark.integration

SMALL = ("profile", "set", "small", "--calls-per-second", "2.5", "--concurrent", "5")


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


# --- rules ---------------------------------------------------------------------------------------------------


async def test_the_database_and_the_command_line_know_the_same_rules(connection: asyncpg.Connection) -> None:
    constraint = await connection.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'rules_exist'"
    )
    assert tuple(re.findall(r"'(\w+)'", constraint)) == rules.WITH_MODE


async def test_a_dry_run_tells_every_rule_in_the_order_of_the_list(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    _, told = await dry_run(connection, attempt())
    assert [rule["rule"] for rule in told] == [rule.name for rule in rules.RULES]


async def test_a_dry_run_tells_the_mode_of_a_rule_and_that_it_fails_in_any(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    for mode in (rules.ENFORCE, rules.REPORT, rules.OFF):
        await profiles.set_profile(connection, "acme", {}, {"grant": mode})
        decision, told = await dry_run(connection, attempt(caller=FOREIGN))
        modes = {line["rule"]: (line["mode"], line["failed"]) for line in told}
        assert modes.pop("grant") == (mode, "caller_id_not_authorized")
        assert set(modes.values()) == {(rules.ENFORCE, None)}
        assert decision.allowed == (mode != rules.ENFORCE)


@pytest.mark.parametrize("mode", [rules.REPORT, rules.OFF])
async def test_a_number_let_through_without_a_right_to_it_is_not_vouched_for_as_the_customers(
    connection: asyncpg.Connection, mode: str
) -> None:
    await make_customer(connection)
    await connection.execute(f"update limit_profiles set {mode}_rules = array['grant']")
    [foreign, own] = await judge(connection, attempt(caller=FOREIGN), attempt())
    assert (foreign.attestation, own.attestation) == ("B", "A")


async def test_the_first_rule_that_is_enforced_refuses_and_those_that_report_are_told_with_it(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection)
    await connection.execute("insert into destination_rules (prefix, action) values (1415, 'deny')")
    await connection.execute("update limit_profiles set report_rules = array['grant']")
    [decision] = await judge(connection, attempt(caller=FOREIGN))
    assert decision.reason == "destination_denied"
    assert decision.would_reject == ("caller_id_not_authorized",)


async def test_the_modes_of_a_restricted_customer_are_those_of_its_restricted_profile(
    connection: asyncpg.Connection,
) -> None:
    await make_customer(connection)
    await connection.execute("update limit_profiles set off_rules = array['grant'] where profile = 'acme'")
    [active] = await judge(connection, attempt(caller=FOREIGN))
    await connection.execute("update customers set state = 'restricted'")
    [restricted] = await judge(connection, attempt(caller=FOREIGN))
    assert (active.reason, restricted.reason) == ("authorized", "caller_id_not_authorized")


# --- the command line ----------------------------------------------------------------------------------------


def test_a_new_profile_needs_its_rate_and_its_live_calls_and_takes_its_burst_from_its_rate(
    ringfence: Command,
) -> None:
    for missing in (SMALL[:5], SMALL[:3] + SMALL[5:]):
        ran = ringfence(*missing)
        assert (ran.code, ran.out) == (ExitCode.BAD_INPUT, "")
        assert "a new one needs --calls-per-second and --concurrent" in ran.err
    made = ringfence.ok(*SMALL, "--json").json
    assert made["created"] is True
    assert (made["calls_per_second"], made["burst"], made["concurrent_calls"]) == (2.5, 3, 5)
    assert (made["calls_per_day"], made["minutes_per_month"], made["max_delay_ms"]) == (None, None, 0)
    assert made["report_rules"] == made["off_rules"] == []


def test_a_profile_that_was_mistyped_is_not_made_but_the_right_one_is_suggested(ringfence: Command) -> None:
    ringfence.ok(*SMALL)
    ran = ringfence("profile", "set", "smal", "--per-day", "100")
    assert ran.code == ExitCode.BAD_INPUT
    assert "there is no profile 'smal'; did you mean 'small'?" in ran.err


def test_what_is_not_given_stays_as_it_is_and_none_lifts_a_cap(ringfence: Command) -> None:
    more = ("--per-day", "100", "--per-month", "1000", "--minutes-per-day", "60", "--minutes-per-month", "600")
    ringfence.ok(*SMALL, *more, "--per-caller-id-per-day", "9", "--delay-up-to-ms", "1500", "--burst", "7")
    before = ringfence.ok("profile", "show", "small", "--json").json
    assert before["calls_per_month"] == 1000
    assert (before["minutes_per_day"], before["minutes_per_month"]) == (60, 600)
    assert (before["caller_id_calls_per_day"], before["max_delay_ms"], before["burst"]) == (9, 1500, 7)
    changed = ringfence.ok(
        "profile",
        "set",
        "small",
        "--per-month",
        "none",
        "--delay-up-to-ms",
        "0",
        "--calls-per-second",
        "1",
        "--json",
    ).json
    assert changed.pop("created") is False
    assert changed == {**before, "calls_per_month": None, "max_delay_ms": 0, "calls_per_second": 1.0}


async def test_a_change_of_a_profile_says_in_the_books_what_was_given(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok(*SMALL)
    ringfence.ok("profile", "set", "small", "--per-day", "none", "--report", "grant")
    entries = await connection.fetch("select action, changed_by, detail from policy_changes order by version")
    assert [(entry["action"], entry["changed_by"]) for entry in entries] == [("profile.set", "tester")] * 2
    assert [json.loads(entry["detail"]) for entry in entries] == [
        {"profile": "small", "calls_per_second": 2.5, "burst": 3, "concurrent_calls": 5},
        {"profile": "small", "calls_per_day": None, "modes": {"grant": "report"}},
    ]


def test_a_rule_moves_from_mode_to_mode_and_others_stay(ringfence: Command) -> None:
    ringfence.ok(*SMALL, "--report", "grant", "--report", "vetting", "--off", "do_not_call")
    moved = ringfence.ok("profile", "set", "small", "--off", "grant", "--enforce", "do_not_call", "--json").json
    assert (moved["report_rules"], moved["off_rules"]) == (["vetting"], ["grant"])
    modes = {line["rule"]: line["mode"] for line in moved["rules"]}
    assert (modes["vetting"], modes["grant"], modes["do_not_call"]) == ("report", "off", "enforce")
    assert list(modes) == [rule.name for rule in rules.RULES]
    shown = ringfence.ok("profile", "show", "small").out
    assert "The caller ID is granted to the customer and in date." in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--off", "grants"), "--off: there is no rule 'grants'; did you mean 'grant'? rules are vetting"),
        (("--report", "endpoint"), "--report: the rule 'endpoint' is always enforced"),
        (("--report", "grant", "--off", "grant"), "--off: the rule 'grant' is given to --report too"),
        (("--per-day", "-1"), "--per-day: '-1' is no cap: give a whole number from 0 to 2,000,000,000, or 'none'"),
        (("--minutes-per-month", "lots"), "--minutes-per-month: 'lots' is no cap"),
        ((), "nothing to set"),
    ],
)
def test_what_a_profile_cannot_be_is_refused_and_changes_nothing(
    ringfence: Command, options: tuple[str, ...], said: str
) -> None:
    ringfence.ok(*SMALL)
    before = ringfence.ok("profile", "show", "small", "--json").json
    ran = ringfence("profile", "set", "small", *options)
    assert (ran.code, ran.out) == (ExitCode.BAD_INPUT, "")
    assert said in ran.err
    assert ringfence.ok("profile", "show", "small", "--json").json == before


def test_a_delay_is_at_most_ten_seconds(ringfence: Command) -> None:
    assert ringfence(*SMALL, "--delay-up-to-ms", "10001").code == ExitCode.USAGE
    ringfence.ok(*SMALL, "--delay-up-to-ms", "10000")


def test_a_profile_that_is_not_there_is_not_shown(ringfence: Command) -> None:
    ran = ringfence("profile", "show", "restrikted")
    assert ran.code == ExitCode.NOT_FOUND
    assert "did you mean 'restricted'?" in ran.err


def test_the_list_counts_the_customers_of_each_profile(ringfence: Command) -> None:
    ringfence.ok("customer", "add", "acme", "--name", "Acme")
    listed = {row["profile"]: row for row in ringfence.ok("profile", "list", "--json").json}
    assert (listed["default"]["customers"], listed["default"]["customers_if_restricted"]) == (1, 0)
    assert (listed["restricted"]["customers"], listed["restricted"]["customers_if_restricted"]) == (0, 1)
    assert "restricted" in ringfence.ok("profile", "list").out


@given(st.text(max_size=20))
def test_a_cap_is_a_whole_number_or_none_or_is_refused(text: str) -> None:
    try:
        cap = caps.given({"--per-day": text})["--per-day"]
    except BadInputError:
        assert text.strip().lower() != "none"
        assert not re.fullmatch("[0-9]{1,9}", text)
    else:
        assert cap is None or (cap == int(text) and 0 <= cap <= caps.MAX_CAP)


# --- the provider --------------------------------------------------------------------------------------------

FILED: dict[str, tuple[tuple[str, ...], Any]] = {
    "name": (("--name", "Example Voice LLC"), "Example Voice LLC"),
    "role": (("--role", "gateway"), "gateway"),
    "frn": (("--frn", "0012345678"), "0012345678"),
    "ocn": (("--ocn", "123a"), "123A"),
    "rmd_number": (("--rmd-number", "RMD0001234"), "RMD0001234"),
    "home_country": (("--home-country", "ca"), "CA"),
    "assigned_numbers_only": (("--assigned-numbers-only",), True),
    "aup_version": (("--aup-version", "2026-11"), "2026-11"),
    "vetting_valid_days": (("--vetting-valid-days", "180"), 180),
    "expiry_notice_days": (("--expiry-notice-days", "14"), 14),
    "strikes": (("--no-strikes",), False),
    "warnings_before_suspension": (("--warnings-before-suspension", "0"), 0),
    "infraction_hours": (("--infraction-hours", "1"), 1),
    "infractions_count_days": (("--infractions-count-days", "90"), 90),
    "suspension_hangs_up": (("--suspension-lets-calls-finish",), False),
}


async def test_every_column_of_the_provider_has_an_option(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    before = ringfence.ok("provider", "show", "--json").json
    columns = await connection.fetch(
        "select column_name from information_schema.columns "
        "where table_name = 'provider' and column_name <> 'only_row'"
    )
    assert {row[0] for row in columns} == set(FILED) == set(before)
    options = [word for words, _ in FILED.values() for word in words]
    after = {column: value for column, (_, value) in FILED.items()}
    assert before != after
    assert ringfence.ok("provider", "set", *options, "--json").json == after
    assert ringfence.ok("provider", "show", "--json").json == after
    detail = await connection.fetchval("select detail from policy_changes where action = 'provider.set'")
    assert json.loads(detail) == after
    assert "Example Voice LLC" in ringfence.ok("provider", "show").out


def test_what_is_not_given_of_the_provider_stays(ringfence: Command) -> None:
    ringfence.ok("provider", "set", "--name", "Example Voice LLC", "--frn", "0012345678")
    ringfence.ok("provider", "set", "--frn", "")
    shown = ringfence.ok("provider", "show", "--json").json
    assert (shown["name"], shown["frn"], shown["strikes"]) == ("Example Voice LLC", "", True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--home-country", "XX"), "--home-country: 'XX' is no country"),
        (("--home-country", "USA"), "--home-country: 'USA' is no country"),
        (("--role", "orginating"), "--role: 'orginating' is no role; did you mean 'originating'?"),
        (("--frn", "123"), "--frn: '123': an FCC Registration Number has 10 digits"),
        (("--rmd-number", "1234"), "--rmd-number: '1234': write it as RMD"),
        (("--ocn", "12345"), "--ocn: '12345': an Operating Company Number"),
        (("--name", "a\nb"), "--name: give at most 200 characters"),
        ((), "nothing to set"),
    ],
)
def test_what_the_provider_cannot_be_is_refused(ringfence: Command, options: tuple[str, ...], said: str) -> None:
    ran = ringfence("provider", "set", *options)
    assert (ran.code, ran.out) == (ExitCode.BAD_INPUT, "")
    assert said in ran.err


async def test_a_provider_that_lets_only_assigned_numbers_out_refuses_validated_ones(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    await connection.execute("update grants set source = 'letter', evidence = 'LOA 1'")
    [before] = await judge(connection, attempt())
    ringfence.ok("provider", "set", "--assigned-numbers-only")
    [after] = await judge(connection, attempt())
    ringfence.ok("provider", "set", "--validated-numbers-too")
    [again] = await judge(connection, attempt())
    assert [before.reason, after.reason, again.reason] == ["authorized", "caller_id_not_assigned", "authorized"]
