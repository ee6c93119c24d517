"""Where calls may go: which rule wins, what it caps, and what an operator is told of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringfence.config import DatabaseSettings
from ringfence.errors import BadInputError, ExitCode
from ringfence.store import destinations
from ringfence.store.authorize import dry_run
from ringfence.store.destinations import CLASSES, Destination
from tests.integration import dialing
from tests.integration.calls import attempt, judge, make_customer, reason
from tests.integration.command import Command

pytestmark = pytest.mark.integration


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


@pytest.fixture
async def policy(connection: asyncpg.Connection) -> asyncpg.Connection:
    """The connection, with a known plan and two customers."""
    await dialing.know_the_plan(connection)
    await make_customer(connection)
    await make_customer(connection, "other")
    return connection


async def rule(
    connection: asyncpg.Connection, action: str, what: str, customer: str = "*", **caps: int | None
) -> int:
    """Make a rule; its number."""
    made = await destinations.set_rule(connection, destinations.parse(what), customer, action, caps)
    number: int = made["rule"]
    return number


# --- which rule wins -----------------------------------------------------------------------------------------

# What fits a called number, the strongest first.
FITTING: dict[int, list[str]] = {
    dialing.SAN_FRANCISCO: ["+14155550123", "+141555", "+1", "US", "domestic"],
    dialing.SAN_JUAN: ["+1787", "+1", "PR", "domestic"],
    dialing.PREMIUM: ["+1900", "+1", "US", "premium"],
    dialing.TOLL_FREE: ["+1800", "+1", "US", "toll_free"],
    dialing.LONDON: ["+44207", "+44", "+4", "GB", "international"],
    dialing.LONDON_PREMIUM: ["+44901", "+44", "GB", "premium", "international"],
    dialing.IRIDIUM: ["+88161", "+8", "satellite", "international"],
    dialing.UNKNOWN: ["+999", "international"],
    dialing.SERVICE: ["service"],
}


def _ranked(called: int) -> list[tuple[str, str]]:
    """Every rule there may be for the number, the strongest first: the customer's own, then those for all."""
    return [(whose, what) for whose in ("acme", "*") for what in FITTING[called]]


@pytest.mark.parametrize("called", FITTING)
async def test_a_rule_wins_over_every_one_below_it(policy: asyncpg.Connection, called: int) -> None:
    ranked = _ranked(called)
    for place, (whose, what) in enumerate(ranked):
        for winning, losing, expected in (
            ("deny", "allow", "destination_denied"),
            ("allow", "deny", "authorized"),
        ):
            await policy.execute("delete from destination_rules")
            for weaker_whose, weaker in ranked[place + 1 :]:
                await rule(policy, losing, weaker, weaker_whose)
            await rule(policy, winning, what, whose)
            assert await reason(policy, called=called) == expected, (whose, what)


@pytest.mark.parametrize("called", FITTING)
async def test_rules_that_do_not_fit_a_number_leave_it_alone(policy: asyncpg.Connection, called: int) -> None:
    for what in ("+1416", "+49", "MX", "+1415555012", *CLASSES):
        if what not in FITTING[called] and not str(called).startswith(what.removeprefix("+")):
            await rule(policy, "deny", what)
            await rule(policy, "deny", what, "other")
    await rule(policy, "deny", f"+{called}0")
    assert await reason(policy, called=called) == "authorized"


async def test_a_call_to_a_denied_country_is_refused_and_counts_nothing(policy: asyncpg.Connection) -> None:
    await rule(policy, "deny", "GB")
    [decision] = await judge(policy, attempt(called=dialing.LONDON))
    assert (decision.reason, decision.sip_status, decision.q850_cause) == ("destination_denied", 403, 21)
    assert await policy.fetchval("select count(*) from leases") == 0
    assert await reason(policy, called=dialing.SAN_FRANCISCO) == "authorized"


async def test_one_customers_rule_is_nothing_to_another(policy: asyncpg.Connection) -> None:
    await rule(policy, "deny", "+1415", "other")
    assert await reason(policy) == "authorized"
    assert await reason(policy, "OTHER") == "destination_denied"


@pytest.mark.parametrize(
    "called", [dialing.LONDON, dialing.LONDON_PREMIUM, dialing.LONDON_TOLL_FREE, dialing.IRIDIUM, dialing.UNKNOWN]
)
async def test_a_call_abroad_is_international_whatever_else_it_is(policy: asyncpg.Connection, called: int) -> None:
    await rule(policy, "deny", "international")
    assert await reason(policy, called=called) == "destination_denied"


@pytest.mark.parametrize(
    "called",
    [
        dialing.SAN_FRANCISCO,
        dialing.SAN_JUAN,
        dialing.PREMIUM,
        dialing.TOLL_FREE,
        dialing.SERVICE,
    ],
)
async def test_a_call_at_home_is_never_international(policy: asyncpg.Connection, called: int) -> None:
    await rule(policy, "deny", "international")
    assert await reason(policy, called=called) == "authorized"


async def test_the_home_country_says_what_is_domestic(policy: asyncpg.Connection) -> None:
    await rule(policy, "deny", "international")
    await policy.execute("update provider set home_country = 'GB'")
    assert await reason(policy, called=dialing.LONDON) == "authorized"
    assert await reason(policy, called=dialing.SAN_FRANCISCO) == "destination_denied"


async def test_a_short_code_is_no_prefix_of_anything(policy: asyncpg.Connection) -> None:
    await rule(policy, "deny", "+811")
    assert await reason(policy, called=dialing.SERVICE) == "authorized"
    assert await reason(policy, called=81123456789) == "destination_denied"


# --- what the operator is told -------------------------------------------------------------------------------

RULES = st.dictionaries(
    st.tuples(
        st.sampled_from(["acme", "other", "*"]),
        st.sampled_from(sorted({what for fitting in FITTING.values() for what in fitting} | {"MX", "+52"})),
    ),
    st.sampled_from(["allow", "deny"]),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rules=RULES, called=st.sampled_from([*FITTING, dialing.LONDON_TOLL_FREE, dialing.ATLANTA]))
async def test_the_explanation_names_the_rule_that_the_judge_goes_by(
    policy: asyncpg.Connection, rules: dict[tuple[str, str], str], called: int
) -> None:
    await policy.execute("delete from destination_rules")
    for (whose, what), action in rules.items():
        await rule(policy, action, what, whose)
    decision, judged = await dry_run(policy, attempt(called=called))
    [line] = [line for line in judged if line["rule"] == "destination"]
    told = await destinations.explain(policy, called, "acme")
    assert told["class"] == line["data"]["class"]
    assert told["country"] == line["data"]["country"]
    assert [fitting["rule"] for fitting in told["rules"] if fitting["outcome"] == "wins"] == (
        [line["data"]["destination_rule"]] if line["data"]["destination_rule"] else []
    )
    assert told["allowed"] == decision.allowed
    assert {fitting["customer"] for fitting in told["rules"]} <= {"acme", "*"}


async def test_the_explanation_says_why_each_rule_wins_or_loses(
    ringfence: Command, policy: asyncpg.Connection
) -> None:
    for what in ("GB", "premium", "international"):
        await rule(policy, "deny", what)
    told = ringfence.ok("destination", "explain", "+44 901 234 5678", "--json").json
    assert (told["number"], told["country"], told["class"]) == ("+449012345678", "GB", "premium")
    assert (told["allowed"], told["time_zones"]) == (False, ["Europe/London"])
    assert [(fitting["destination"], fitting["outcome"]) for fitting in told["rules"]] == [
        ("GB", "wins"),
        ("premium", "loses: a country goes before a class"),
        ("international", "loses: a country goes before a class"),
    ]
    await rule(policy, "cap", "+449", "acme", calls_per_day=3)
    await rule(policy, "allow", "+44", "acme")
    told = ringfence.ok("destination", "explain", "+449012345678", "--customer", "acme", "--json").json
    assert told["allowed"] is True
    assert [fitting["outcome"] for fitting in told["rules"]] == [
        "wins",
        "loses: the longer prefix goes before",
        *["loses: the customer's own rule goes before one for all"] * 3,
    ]
    shown = ringfence.ok("destination", "explain", "+449012345678", "--customer", "acme").out
    assert "holds: calls of acme to +449: allowed up to 3 calls per day" in shown


def test_a_number_that_no_rule_is_for_is_told_to_be_allowed(ringfence: Command) -> None:
    assert ringfence.ok("destination", "explain", "+14155550123", "--json").json["allowed"] is True
    assert "none: allowed" in ringfence.ok("destination", "explain", "+14155550123").out
    assert ringfence("destination", "explain", "hello").code == ExitCode.BAD_INPUT
    assert ringfence("destination", "explain", "+14155550123", "--customer", "who").code == ExitCode.NOT_FOUND


# --- caps ----------------------------------------------------------------------------------------------------


async def test_a_destination_cap_is_for_each_customer_by_itself(policy: asyncpg.Connection) -> None:
    await rule(policy, "cap", "GB", calls_per_day=2)
    asked = [attempt(called=dialing.LONDON) for _ in range(3)] + [attempt("OTHER", called=dialing.LONDON)]
    reasons = [(await judge(policy, one))[0].reason for one in asked]
    assert reasons == ["authorized", "authorized", "destination_cap_exceeded", "authorized"]
    assert await reason(policy, called=dialing.SAN_FRANCISCO) == "authorized"


@pytest.mark.parametrize("cap", ["calls_per_day", "calls_per_month"])
@pytest.mark.parametrize("allowed", [0, 1, 3])
async def test_so_many_calls_pass_and_not_one_more(policy: asyncpg.Connection, cap: str, allowed: int) -> None:
    await rule(policy, "cap", "international", "acme", **{cap: allowed})
    numbers = [dialing.LONDON, dialing.IRIDIUM, dialing.UNKNOWN, dialing.LONDON_PREMIUM, dialing.LONDON]
    decisions = await judge(policy, *[attempt(called=called) for called in numbers])
    assert [decision.allowed for decision in decisions].count(True) == allowed
    refused = {decision.reason for decision in decisions if not decision.allowed}
    assert refused == {"destination_cap_exceeded"}
    counted = await policy.fetchval("select calls_today from usage where scope like 'destination:%'")
    assert (counted or 0) == allowed


async def test_a_more_special_rule_takes_its_calls_out_of_the_wider_cap(policy: asyncpg.Connection) -> None:
    await rule(policy, "cap", "international", calls_per_day=1)
    await rule(policy, "allow", "GB")
    assert [await reason(policy, called=dialing.LONDON) for _ in range(3)] == ["authorized"] * 3
    assert await reason(policy, called=dialing.UNKNOWN) == "authorized"
    assert await reason(policy, called=dialing.UNKNOWN) == "destination_cap_exceeded"


async def test_a_call_that_another_cap_refuses_uses_up_nothing_of_the_destinations(
    policy: asyncpg.Connection,
) -> None:
    await rule(policy, "cap", "US", calls_per_day=5)
    await policy.execute("update limit_profiles set concurrent_calls = 1")
    assert [await reason(policy) for _ in range(3)] == ["authorized", *["concurrent_calls_exceeded"] * 2]
    assert await policy.fetchval("select calls_today from usage") == 1


async def test_a_rule_that_is_changed_keeps_its_number_and_its_counters(policy: asyncpg.Connection) -> None:
    number = await rule(policy, "cap", "US", calls_per_day=2)
    assert [await reason(policy) for _ in range(3)] == ["authorized", "authorized", "destination_cap_exceeded"]
    assert await rule(policy, "cap", "US", calls_per_day=3) == number
    assert [await reason(policy) for _ in range(2)] == ["authorized", "destination_cap_exceeded"]
    assert await rule(policy, "deny", "US") == number
    assert await rule(policy, "cap", "US", calls_per_day=4) == number
    assert [await reason(policy) for _ in range(2)] == ["authorized", "destination_cap_exceeded"]


async def test_a_rule_that_is_removed_and_made_again_counts_from_nothing(policy: asyncpg.Connection) -> None:
    number = await rule(policy, "cap", "US", calls_per_day=1)
    assert [await reason(policy) for _ in range(2)] == ["authorized", "destination_cap_exceeded"]
    await destinations.remove(policy, Destination(area="US"), "*")
    assert await rule(policy, "cap", "US", calls_per_day=1) != number
    assert await reason(policy) == "authorized"


# --- the command line ----------------------------------------------------------------------------------------


async def test_rules_are_set_listed_and_removed_with_their_entry_in_the_books(
    ringfence: Command, policy: asyncpg.Connection
) -> None:
    denied = ringfence.ok("destination", "deny", "gb", "--json").json
    assert (denied["customer"], denied["destination"], denied["action"]) == ("*", "GB", "deny")
    capped = ringfence.ok(
        "destination",
        "cap",
        "+1 (900)",
        "--customer",
        "acme",
        "--calls-per-day",
        "5",
        "--minutes-per-month",
        "9",
        "--json",
    ).json
    assert (capped["destination"], capped["calls_per_day"], capped["minutes_per_month"]) == ("+1900", 5, 9)
    again = ringfence.ok(
        "destination", "cap", "+1900", "--customer", "acme", "--minutes-per-month", "none", "--json"
    ).json
    assert again == {**capped, "minutes_per_month": None}
    assert [listed["rule"] for listed in ringfence.ok("destination", "list", "--json").json] == [
        denied["rule"],
        capped["rule"],
    ]
    assert [row["rule"] for row in ringfence.ok("destination", "list", "--customer", "other", "--json").json] == [
        denied["rule"]
    ]
    allowed = ringfence.ok("destination", "allow", "+1900", "--customer", "acme", "--json").json
    assert (allowed["rule"], allowed["calls_per_day"]) == (capped["rule"], None)
    ringfence.ok("destination", "remove", "GB")
    assert "+1900" in ringfence.ok("destination", "list").out
    entries = await policy.fetch("select action, customer, detail from policy_changes order by version")
    assert [(entry["action"], entry["customer"]) for entry in entries] == [
        ("destination.deny", ""),
        ("destination.cap", "acme"),
        ("destination.cap", "acme"),
        ("destination.allow", "acme"),
        ("destination.remove", ""),
    ]
    assert json.loads(entries[1]["detail"]) == {
        "rule": capped["rule"],
        "destination": "+1900",
        "calls_per_day": 5,
        "minutes_per_month": 9,
    }


async def test_the_list_for_a_customer_tells_what_it_has_used(
    ringfence: Command, policy: asyncpg.Connection
) -> None:
    await rule(policy, "cap", "US", calls_per_day=5)
    await judge(policy, attempt(), attempt())
    [listed] = ringfence.ok("destination", "list", "--customer", "acme", "--json").json
    assert (listed["calls_today"], listed["calls_this_month"], listed["minutes_today"]) == (2, 2, 0)
    [listed] = ringfence.ok("destination", "list", "--customer", "other", "--json").json
    assert (listed["calls_today"], listed["calls_this_month"]) == (0, 0)
    await policy.execute("update usage set day = day - 40, month = month - 40")
    [listed] = ringfence.ok("destination", "list", "--customer", "acme", "--json").json
    assert (listed["calls_today"], listed["calls_this_month"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("deny", "1900"), ExitCode.BAD_INPUT, "'1900' is no prefix: write + and up to 15 digits"),
        (("deny", "+0900"), ExitCode.BAD_INPUT, "'+0900' is no prefix"),
        (("deny", "premum"), ExitCode.BAD_INPUT, "did you mean 'premium'?"),
        (("deny", "XX"), ExitCode.BAD_INPUT, "'XX' is no country"),
        (("deny", "GB", "--customer", "acm"), ExitCode.NOT_FOUND, "did you mean 'acme'?"),
        (("cap", "GB"), ExitCode.BAD_INPUT, "give a cap: --calls-per-day"),
        (("cap", "GB", "--calls-per-day", "none"), ExitCode.BAD_INPUT, "GB: no cap is left"),
        (("cap", "GB", "--calls-per-day", "1.5"), ExitCode.BAD_INPUT, "--calls-per-day: '1.5' is no cap"),
        (("remove", "GB"), ExitCode.NOT_FOUND, "there is no rule for all customers for GB"),
    ],
)
async def test_a_rule_that_cannot_be_is_refused_and_leaves_nothing(
    ringfence: Command, policy: asyncpg.Connection, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    ran = ringfence("destination", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert await policy.fetchval("select count(*) from destination_rules") == 0
    assert await policy.fetchval("select count(*) from policy_changes") == 0


async def test_an_admin_may_make_rules_and_a_daemon_may_not(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute("set role ringfence_admin")
    await rule(connection, "deny", "GB")
    await connection.execute("set role ringfence_daemon")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await rule(connection, "allow", "GB")
    await connection.execute("reset role")


# --- reading -------------------------------------------------------------------------------------------------


@given(
    st.one_of(
        st.from_regex(r"\A\+[1-9][0-9]{0,14}\Z"),
        st.sampled_from([*CLASSES, "US", "GB", "MX"]),
    ),
    st.booleans(),
)
def test_a_destination_is_written_as_it_is_read(text: str, lower: bool) -> None:
    assert str(destinations.parse(text.lower() if lower else text)) == text


@given(st.text(max_size=20))
def test_whatever_is_read_as_a_destination_is_one(text: str) -> None:
    try:
        read: Any = destinations.parse(text)
    except BadInputError:
        return
    assert (read.prefix == 0) != (read.area == "")
    assert 0 <= read.prefix <= 999_999_999_999_999
    assert re.fullmatch("[A-Z]{2}|" + "|".join(CLASSES), read.area or "US")
    assert destinations.parse(str(read)) == read
