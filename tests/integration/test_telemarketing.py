"""Telemarketing: calling hours, do-not-call lists, consents, and what says that a call is telemarketing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import DatabaseSettings
from ringfence.errors import BadInputError, ExitCode
from ringfence.store import calling_hours, campaigns
from ringfence.store.authorize import dry_run
from tests.integration import dialing
from tests.integration.calls import attempt, judge, make_customer, reason
from tests.integration.command import Command

pytestmark = pytest.mark.integration

EASTERN, CENTRAL, PACIFIC = "America/New_York", "America/Chicago", "America/Los_Angeles"
SECOND, MICROSECOND = timedelta(seconds=1), timedelta(microseconds=1)
LATE = "outside_calling_hours"
MON, WED, SAT, SUN = 0, 2, 5, 6  # as date.weekday() has it


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


@pytest.fixture
async def sales(connection: asyncpg.Connection) -> asyncpg.Connection:
    """The connection, with a known plan and a customer whose endpoint is telemarketing."""
    await dialing.know_the_plan(connection)
    await make_customer(connection)
    await connection.execute("update endpoints set traffic = 'telemarketing'")
    return connection


def next_day(weekday: int) -> date:
    """The next such day that is at least two days ahead."""
    day = datetime.now(UTC).date() + timedelta(days=2)
    return day + timedelta(days=(weekday - day.weekday()) % 7)


def at(weekday: int, clock: str, zone: str) -> datetime:
    """A moment by the clock on the wall of that zone."""
    return datetime.combine(next_day(weekday), time.fromisoformat(clock), ZoneInfo(zone))


async def reason_at(connection: asyncpg.Connection, moment: datetime, called: int, **more: Any) -> str:
    """What the judge would answer at that moment."""
    asked = replace(attempt(called=called, **more), asked_at=moment)
    return (await dry_run(connection, asked))[0].reason


# --- calling hours -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("00:00:00", LATE),
        ("07:59:59", LATE),
        ("07:59:59.999999", LATE),
        ("08:00:00", "authorized"),
        ("12:00:00", "authorized"),
        ("20:59:59", "authorized"),
        ("20:59:59.999999", "authorized"),
        ("21:00:00", LATE),
        ("23:59:59", LATE),
    ],
)
async def test_telemarketing_calls_from_eight_until_nine_by_the_called_partys_clock(
    sales: asyncpg.Connection, clock: str, expected: str
) -> None:
    for called, zone in ((dialing.SAN_FRANCISCO, PACIFIC), (dialing.ATLANTA, EASTERN)):
        for weekday in (WED, SUN):
            assert await reason_at(sales, at(weekday, clock, zone), called) == expected


async def test_a_late_call_may_be_tried_again_and_the_dry_run_tells_the_clock_there(
    sales: asyncpg.Connection,
) -> None:
    asked = replace(attempt(called=dialing.PANHANDLE), asked_at=at(WED, "08:30", EASTERN))
    decision, rules = await dry_run(sales, asked)
    assert (decision.sip_status, decision.q850_cause) == (480, 31)
    [line] = [rule for rule in rules if rule["rule"] == "calling_hours"]
    assert line["failed"] == LATE
    assert line["data"] == {"state": "FL", "local_times": {EASTERN: "Wed 08:30", CENTRAL: "Wed 07:30"}}


@pytest.mark.parametrize(
    ("clock", "zone", "expected"),
    [
        ("08:00:00", EASTERN, LATE),
        ("07:59:59", CENTRAL, LATE),
        ("08:00:00", CENTRAL, "authorized"),
        ("20:59:59", EASTERN, "authorized"),
        ("21:00:00", EASTERN, LATE),
        ("20:30:00", CENTRAL, LATE),
    ],
)
async def test_an_area_code_in_two_zones_is_called_only_when_both_allow(
    sales: asyncpg.Connection, clock: str, zone: str, expected: str
) -> None:
    assert await reason_at(sales, at(WED, clock, zone), dialing.PANHANDLE) == expected


async def test_a_states_hours_narrow_the_countrys_in_that_state_only(sales: asyncpg.Connection) -> None:
    every_day = calling_hours.parse_days("mon-sun")
    await calling_hours.set_hours(sales, "US", "FL", every_day, opens="09:00", closes="20:00")
    for clock, in_florida in (
        ("08:59:59", LATE),
        ("09:00:00", "authorized"),
        ("19:59:59", "authorized"),
        ("20:00:00", LATE),
    ):
        moment = at(WED, clock, EASTERN)
        assert await reason_at(sales, moment, dialing.MIAMI) == in_florida
        assert await reason_at(sales, moment, dialing.ATLANTA) == "authorized"
    assert await reason_at(sales, at(WED, "19:30", CENTRAL), dialing.PANHANDLE) == LATE


async def test_a_states_wider_hours_do_not_widen_the_countrys(sales: asyncpg.Connection) -> None:
    every_day = calling_hours.parse_days("mon-sun")
    await calling_hours.set_hours(sales, "US", "FL", every_day, opens="06:00", closes="24:00")
    assert await reason_at(sales, at(WED, "07:59:59", EASTERN), dialing.MIAMI) == LATE
    assert await reason_at(sales, at(WED, "21:00", EASTERN), dialing.MIAMI) == LATE


async def test_a_closed_sunday_is_the_called_partys_sunday(sales: asyncpg.Connection) -> None:
    await calling_hours.set_hours(
        sales, "US", "CA", calling_hours.parse_days("sun"), opens="00:00", closes="00:00"
    )
    for weekday, clock, expected in (
        (SAT, "20:59:59", "authorized"),  # Sunday in UTC
        (SUN, "12:00:00", LATE),
        (SUN, "20:59:59", LATE),  # Monday in UTC
        (MON, "08:00:00", "authorized"),
    ):
        assert await reason_at(sales, at(weekday, clock, PACIFIC), dialing.SAN_FRANCISCO) == expected
    assert await reason_at(sales, at(SUN, "12:00", EASTERN), dialing.ATLANTA) == "authorized"


async def test_a_territory_has_the_hours_of_the_country_and_may_have_its_own(sales: asyncpg.Connection) -> None:
    for clock, expected in (("07:59:59", LATE), ("08:00:00", "authorized"), ("21:00:00", LATE)):
        assert await reason_at(sales, at(WED, clock, "America/Puerto_Rico"), dialing.SAN_JUAN) == expected
    await calling_hours.set_hours(
        sales, "US", "PR", calling_hours.parse_days("wed"), opens="09:00", closes="12:00"
    )
    assert await reason_at(sales, at(WED, "12:00", "America/Puerto_Rico"), dialing.SAN_JUAN) == LATE


async def test_hours_until_midnight_hold_to_the_last_moment_of_the_day(sales: asyncpg.Connection) -> None:
    await calling_hours.clear(sales, "US", "", calling_hours.parse_days("mon-sun"))
    await calling_hours.set_hours(sales, "US", "", calling_hours.parse_days("wed"), opens="08:00", closes="24:00")
    assert await reason_at(sales, at(WED, "23:59:59.999999", PACIFIC), dialing.SAN_FRANCISCO) == "authorized"
    assert await reason_at(sales, at(WED, "07:59", PACIFIC), dialing.SAN_FRANCISCO) == LATE
    assert await reason_at(sales, at(SUN, "03:00", PACIFIC), dialing.SAN_FRANCISCO) == "authorized"


async def test_a_country_without_hours_may_be_called_at_any_time(sales: asyncpg.Connection) -> None:
    night = at(WED, "03:00", "Europe/London")
    assert await reason_at(sales, night, dialing.LONDON) == "authorized"
    await calling_hours.set_hours(
        sales, "GB", "", calling_hours.parse_days("mon-sun"), opens="08:00", closes="21:00"
    )
    assert await reason_at(sales, night, dialing.LONDON) == LATE
    assert await reason_at(sales, at(WED, "08:00", "Europe/London"), dialing.LONDON) == "authorized"


async def test_conversational_calls_have_no_hours_and_no_do_not_call_list(sales: asyncpg.Connection) -> None:
    await sales.execute("update endpoints set traffic = 'conversational'")
    await sales.execute("insert into do_not_call (number, source) values ($1, 'registry')", dialing.SAN_FRANCISCO)
    for clock in ("03:00", "12:00", "23:00"):
        assert await reason_at(sales, at(SUN, clock, PACIFIC), dialing.SAN_FRANCISCO) == "authorized"


# --- do-not-call ---------------------------------------------------------------------------------------------


@pytest.fixture
async def listing(sales: asyncpg.Connection) -> asyncpg.Connection:
    """As sales, at any hour."""
    await sales.execute("delete from calling_hours")
    await make_customer(sales, "other")
    await sales.execute("update endpoints set traffic = 'telemarketing'")
    return sales


async def list_number(connection: asyncpg.Connection, number: int, customer: str = "*") -> None:
    await connection.execute(
        "insert into do_not_call (number, customer, source) values ($1, $2, 'registry')", number, customer
    )


async def test_a_number_on_the_list_for_all_is_called_by_nobodys_telemarketing(
    listing: asyncpg.Connection,
) -> None:
    await list_number(listing, dialing.ATLANTA)
    [decision] = await judge(listing, attempt(called=dialing.ATLANTA))
    assert (decision.reason, decision.sip_status, decision.q850_cause) == ("called_number_do_not_call", 403, 21)
    assert await reason(listing, "OTHER", called=dialing.ATLANTA) == "called_number_do_not_call"
    assert await reason(listing, called=dialing.ATLANTA + 1) == "authorized"
    assert await reason(listing, called=dialing.ATLANTA // 10) == "authorized"


async def test_a_number_on_a_customers_own_list_is_closed_to_that_customer_only(
    listing: asyncpg.Connection,
) -> None:
    await list_number(listing, dialing.ATLANTA, "acme")
    assert await reason(listing, called=dialing.ATLANTA) == "called_number_do_not_call"
    assert await reason(listing, "OTHER", called=dialing.ATLANTA) == "authorized"


@pytest.mark.parametrize("whose", ["*", "acme"])
async def test_who_consented_may_be_called_while_the_consent_is_in_date(
    listing: asyncpg.Connection, whose: str
) -> None:
    await list_number(listing, dialing.ATLANTA, whose)
    given_at, until = at(MON, "10:00", EASTERN), at(MON, "10:00", EASTERN) + timedelta(days=30)
    await listing.execute(
        "insert into call_consents (customer, number, evidence, given_at, valid_until) "
        "values ('acme', $1, 'form 7', $2, $3)",
        dialing.ATLANTA, given_at, until,
    )  # fmt: skip
    for moment, expected in (
        (given_at - MICROSECOND, "called_number_do_not_call"),
        (given_at, "authorized"),
        (until - MICROSECOND, "authorized"),
        (until, "called_number_do_not_call"),
    ):
        assert await reason_at(listing, moment, dialing.ATLANTA) == expected


async def test_a_consent_is_for_one_customer_and_one_number(listing: asyncpg.Connection) -> None:
    await list_number(listing, dialing.ATLANTA)
    await list_number(listing, dialing.MIAMI)
    await listing.execute(
        "insert into call_consents (customer, number, evidence) values ('acme', $1, 'form 7')", dialing.ATLANTA
    )
    assert await reason(listing, called=dialing.ATLANTA) == "authorized"
    assert await reason(listing, "OTHER", called=dialing.ATLANTA) == "called_number_do_not_call"
    assert await reason(listing, called=dialing.MIAMI) == "called_number_do_not_call"


async def test_a_consent_does_not_open_the_hours(sales: asyncpg.Connection) -> None:
    await sales.execute(
        "insert into call_consents (customer, number, evidence, given_at) "
        "values ('acme', $1, 'form 7', now() - interval '1 day')",
        dialing.ATLANTA,
    )
    assert await reason_at(sales, at(WED, "22:00", EASTERN), dialing.ATLANTA) == LATE


# --- what a call is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", campaigns.TRAFFIC)
@pytest.mark.parametrize("campaign", campaigns.TRAFFIC)
async def test_the_campaign_decides_over_the_endpoint(
    listing: asyncpg.Connection, endpoint: str, campaign: str
) -> None:
    await list_number(listing, dialing.ATLANTA)
    await listing.execute("update endpoints set traffic = $1", endpoint)
    await campaigns.add(listing, "acme", "spring", traffic=campaign)
    refused = {"telemarketing": "called_number_do_not_call", "conversational": "authorized"}
    assert await reason(listing, called=dialing.ATLANTA, campaign="spring") == refused[campaign]
    assert await reason(listing, called=dialing.ATLANTA) == refused[endpoint]
    assert await listing.fetchval("select campaign from decisions order by decided_at limit 1") == "spring"


async def test_a_campaign_that_is_unknown_disabled_or_somebody_elses_is_refused(
    listing: asyncpg.Connection,
) -> None:
    await campaigns.add(listing, "acme", "spring", traffic="conversational")
    await campaigns.add(listing, "other", "autumn", traffic="conversational")
    assert await reason(listing, campaign="spring") == "authorized"
    for unknown in ("autumn", "Spring", "spring ", "x" * 64):
        [decision] = await judge(listing, attempt(campaign=unknown))
        assert (decision.reason, decision.sip_status) == ("campaign_unknown", 403)
    await campaigns.enable(listing, "acme", "spring", enabled=False)
    assert await reason(listing, campaign="spring") == "campaign_unknown"
    await campaigns.enable(listing, "acme", "spring", enabled=True)
    assert await reason(listing, campaign="spring") == "authorized"


# --- the command line ----------------------------------------------------------------------------------------


async def test_campaigns_are_added_disabled_enabled_and_listed_with_their_entry_in_the_books(
    ringfence: Command, listing: asyncpg.Connection
) -> None:
    added = ("campaign", "add", "acme", "spring", "--traffic", "telemarketing", "--description", "offers")
    assert ringfence.ok(*added, "--json").json["enabled"] is True
    ringfence.ok("campaign", "disable", "acme", "spring")
    [shown] = ringfence.ok("campaign", "list", "acme", "--json").json
    assert (shown["campaign"], shown["traffic"], shown["enabled"]) == ("spring", "telemarketing", False)
    ringfence.ok("campaign", "enable", "acme", "spring")
    assert "offers" in ringfence.ok("campaign", "list").out
    assert ringfence.ok("campaign", "list", "other", "--json").json == []
    entries = await listing.fetch("select action, customer, detail from policy_changes order by version")
    assert [(entry["action"], entry["customer"]) for entry in entries] == [
        ("campaign.add", "acme"),
        ("campaign.disable", "acme"),
        ("campaign.enable", "acme"),
    ]
    assert json.loads(entries[0]["detail"])["traffic"] == "telemarketing"
    for arguments, code, said in (
        (added[1:], ExitCode.CONFLICT, "has a campaign 'spring' already"),
        (
            ("add", "acme", "a b", "--traffic", "telemarketing"),
            ExitCode.BAD_INPUT,
            "cannot be the name of a campaign",
        ),
        (("add", "acme", "x", "--traffic", "marketing"), ExitCode.BAD_INPUT, "did you mean 'telemarketing'?"),
        (("add", "acne", "x", "--traffic", "telemarketing"), ExitCode.NOT_FOUND, "did you mean 'acme'?"),
        (("disable", "acme", "sprint"), ExitCode.NOT_FOUND, "did you mean 'spring'?"),
    ):
        ran = ringfence("campaign", *arguments)
        assert ran.code == code
        assert said in ran.err


async def test_an_endpoint_says_what_traffic_its_calls_are(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("customer", "add", "acme", "--name", "Acme")
    ringfence.ok("endpoint", "add", "acme", "--account", "1", "--trunk", "t", "--traffic", "telemarketing")
    ringfence.ok("endpoint", "add", "acme", "--account", "2")

    def traffic() -> dict[str, str]:
        return {row["value"]: row["traffic"] for row in ringfence.ok("endpoint", "list", "acme", "--json").json}

    assert traffic() == {"1": "telemarketing", "t": "telemarketing", "2": "conversational"}
    ringfence.ok("endpoint", "set", "acme", "--account", "1", "--account", "2", "--traffic", "conversational")
    assert traffic() == {"1": "conversational", "t": "telemarketing", "2": "conversational"}
    entry = await connection.fetchrow("select * from policy_changes where action = 'endpoint.set' limit 1")
    assert entry is not None
    assert json.loads(entry["detail"]) == {
        "kind": "account",
        "value": "1",
        "host": "*",
        "traffic": "conversational",
    }
    missing = ringfence(
        "endpoint", "set", "acme", "--account", "1", "--account", "9", "--traffic", "telemarketing"
    )
    assert missing.code == ExitCode.NOT_FOUND
    assert ringfence("endpoint", "set", "acme", "--account", "1", "--traffic", "x").code == ExitCode.BAD_INPUT
    assert ringfence("endpoint", "add", "acme", "--account", "3", "--traffic", "x").code == ExitCode.BAD_INPUT
    assert traffic() == {"1": "conversational", "t": "telemarketing", "2": "conversational"}


async def test_hours_are_set_closed_cleared_and_listed_with_their_entry_in_the_books(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    [federal] = ringfence.ok("hours", "list", "--json").json
    assert federal == {"country": "US", "state": "", "days": "mon-sun", "opens": "08:00", "closes": "21:00"}
    ringfence.ok(
        "hours", "set", "us", "--state", "fl", "--days", "mon-fri,sat", "--from", "08:00", "--until", "20:00"
    )
    closed = ringfence.ok("hours", "closed", "US", "--state", "FL", "--days", "sun", "--json").json
    florida = {"country": "US", "state": "FL"}
    assert sorted(closed, key=str) == sorted(
        [
            {**florida, "days": "mon-sat", "opens": "08:00", "closes": "20:00"},
            {**florida, "days": "sun", "opens": None, "closes": None},
        ],
        key=str,
    )
    assert "closed" in ringfence.ok("hours", "list").out
    cleared = ringfence.ok("hours", "clear", "US", "--state", "FL", "--days", "sat,sun", "--json").json
    assert cleared["days_cleared"] == 2
    ringfence.ok("hours", "clear", "US", "--state", "FL")
    assert ringfence.ok("hours", "list", "--json").json == [federal]
    entries = await connection.fetch("select action, detail from policy_changes order by version")
    assert [(entry["action"], json.loads(entry["detail"])["days"]) for entry in entries] == [
        ("hours.set", "mon-sat"),
        ("hours.closed", "sun"),
        ("hours.clear", "sat-sun"),
        ("hours.clear", "mon-fri"),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("set", "US", "--days", "mon", "--from", "8:00", "--until", "20:00"),
            ExitCode.BAD_INPUT,
            "--from: '8:00'",
        ),
        (
            ("set", "US", "--days", "mon", "--from", "08:00", "--until", "24:01"),
            ExitCode.BAD_INPUT,
            "--until: '24:01'",
        ),
        (
            ("set", "US", "--days", "mon", "--from", "20:00", "--until", "08:00"),
            ExitCode.BAD_INPUT,
            "is not after",
        ),
        (
            ("set", "US", "--days", "mon", "--from", "08:00", "--until", "08:00"),
            ExitCode.BAD_INPUT,
            "hours closed",
        ),
        (
            ("set", "XX", "--days", "mon", "--from", "08:00", "--until", "09:00"),
            ExitCode.BAD_INPUT,
            "is no country",
        ),
        (("closed", "US", "--days", "monday-fri"), ExitCode.BAD_INPUT, "--days: 'monday-fri' is not understood"),
        (
            ("closed", "US", "--state", "ZZ", "--days", "sun"),
            ExitCode.BAD_INPUT,
            "--state: 'ZZ' is no state of US",
        ),
        (
            ("closed", "GB", "--state", "FL", "--days", "sun"),
            ExitCode.BAD_INPUT,
            "only states of the US are known",
        ),
        (("closed", "PR", "--days", "sun"), ExitCode.BAD_INPUT, "for its own write US --state PR"),
        (("clear", "US", "--state", "FL"), ExitCode.NOT_FOUND, "there are no hours for US FL"),
    ],
)
def test_hours_that_cannot_be_are_refused(
    ringfence: Command, arguments: tuple[str, ...], code: ExitCode, said: str
) -> None:
    ran = ringfence("hours", *arguments)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert len(ringfence.ok("hours", "list", "--json").json) == 1


# --- reading -------------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 6), min_size=1))
def test_days_are_read_as_they_are_written(days: set[int]) -> None:
    assert calling_hours.parse_days(calling_hours.days_text(days)) == tuple(sorted(days))


def test_a_range_of_days_may_pass_the_end_of_the_week() -> None:
    assert calling_hours.parse_days("sat-mon") == (0, 1, 6)
    assert calling_hours.parse_days("Mon") == (1,)
    assert calling_hours.parse_days("sun-sat") == calling_hours.parse_days("mon-sun") == tuple(range(7))


@given(st.text(alphabet="monsatuewdhfri,- ", max_size=20))
def test_whatever_is_read_as_days_is_some(text: str) -> None:
    try:
        days = calling_hours.parse_days(text)
    except BadInputError:
        return
    assert set(days) <= set(range(7))
    assert days


@given(st.text(max_size=6), st.text(max_size=6))
def test_whatever_is_read_as_hours_is_in_order(opens: str, closes: str) -> None:
    try:
        calling_hours.check_times(opens, closes)
    except BadInputError:
        return
    assert time.fromisoformat(opens) < (time.max if closes == "24:00" else time.fromisoformat(closes))


@given(st.times(), st.times())
def test_any_two_times_in_order_are_hours(one: time, other: time) -> None:
    opens, closes = sorted([f"{one:%H:%M}", f"{other:%H:%M}"])
    if opens != closes:
        calling_hours.check_times(opens, closes)
