"""The two example providers of docs/examples, loaded as an admin loads them and driven by real calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.conftest import open_site
from tests.acceptance.site import Party, Site, wait_for
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.sipp import Call
from tests.lab.sipp_values import statuses

_EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
_VERSION = 22

Seat = Callable[[str], Party]


@contextmanager
def _provider(
    example: str, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, Seat]]:
    """A site under the example's policy, and where its customers sit: on endpoints of the lab."""
    sites = open_site(_VERSION, postgres, tmp_path_factory)
    site = next(sites)
    try:
        site.daemon.operator("policy", "apply", str(_EXAMPLES / f"{example}.yaml"))
        seats: dict[str, Party] = {}

        def seat(customer: str) -> Party:
            if customer not in seats:
                seats[customer] = seated = site.stranger()
                [traffic] = site.rows(
                    f"select distinct traffic from ringfence.endpoints where customer = '{customer}'"
                )
                site.daemon.operator(
                    "endpoint", "add", customer, f"--account={seated.name}", f"--traffic={traffic['traffic']}"
                )
            return seats[customer]

        yield site, seat
    finally:
        sites.close()


@pytest.fixture(scope="module")
def strict(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Seat]]:
    with _provider("strict", postgres, tmp_path_factory) as provider:
        yield provider


@pytest.fixture(scope="module")
def validated(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Seat]]:
    with _provider("validated", postgres, tmp_path_factory) as provider:
        yield provider


def reason(site: Site, called: str) -> str:
    """Why the only call to this number was let out or refused."""
    [row] = site.rows(f"select reason from ringfence.decisions where called = '{called}'")
    return str(row["reason"])


def refused(site: Site, party: Party, called: str, caller: str) -> tuple[int, str]:
    """The answer to a call that must not reach any carrier."""
    status = site.call(party, called, caller=caller).status
    assert site.invites(called) == []
    return status, reason(site, called)


# --- the strict one -------------------------------------------------------------------------------------------


def test_the_strict_provider_lets_assigned_numbers_out_and_attests_them(strict: tuple[Site, Seat]) -> None:
    site, seat = strict
    called = site.new_number()
    assert site.call(seat("office"), called, caller="12125550100").status == 200
    [invite] = site.invites(called)
    assert invite.from_user == "12125550100"
    [row] = site.rows(f"select attestation from ringfence.decisions where called = '{called}'")
    assert row["attestation"] == "A"


def test_the_strict_provider_refuses_a_number_that_is_only_validated(strict: tuple[Site, Seat]) -> None:
    site, seat = strict
    site.daemon.operator("number", "grant", "office", "+16465550150", "--source=letter", "--evidence=loa 9")
    answer = refused(site, seat("office"), site.new_number(), "16465550150")
    assert answer == (403, "caller_id_not_assigned")


@pytest.mark.parametrize("called", ["19005550123", "8816123456789"])
def test_the_strict_provider_refuses_premium_and_satellite_numbers(strict: tuple[Site, Seat], called: str) -> None:
    site, seat = strict
    dialled = called if called.startswith("1") else f"011{called}"
    answer = refused(site, seat("office"), dialled, "12125550101")
    assert answer == (403, "destination_denied")


def test_every_account_of_the_strict_provider_has_its_rate_and_session_limits(strict: tuple[Site, Seat]) -> None:
    site, seat = strict
    caps = site.rows(
        "select customer, calls_per_second, concurrent_calls "
        "from ringfence.customers join ringfence.limit_profiles using (profile)"
    )
    assert {row["customer"] for row in caps} == {"office", "centre", "wholesale"}
    assert all(float(row["calls_per_second"]) > 0 and int(row["concurrent_calls"]) > 0 for row in caps)
    office = seat("office")
    # 2 a second with a burst of 4: of eight at once, four leave, or one more if a machine is slow.
    results = site.start_calls(office, [Call(site.new_number(), "12125550102") for _ in range(8)], rate=100).wait()
    passed = statuses(results).get(200, 0)
    assert passed in (4, 5)
    assert statuses(results) == {200: passed, 480: 8 - passed}
    site.wait_until_idle()


def test_telemarketing_outside_the_calling_hours_is_refused_and_other_calls_are_not(
    strict: tuple[Site, Seat],
) -> None:
    site, seat = strict
    centre = seat("centre")
    days = "sun,mon,tue,wed,thu,fri,sat"
    site.daemon.operator("hours", "closed", "US", "--days", days)
    assert refused(site, centre, site.new_number(), "13125550110") == (480, "outside_calling_hours")
    for campaign, expected in (("callbacks", "authorized"), ("renewals", "outside_calling_hours")):
        called = site.new_number()
        site.originate(
            f"Local/{called}@{centre.context}",
            caller="13125550110",
            account=centre.name,
            variables={"_RINGFENCE_CAMPAIGN": campaign},
        )
        assert reason(site, called) == expected
    site.daemon.operator("hours", "set", "US", "--days", days, "--from=00:00", "--until=24:00")
    called = site.new_number()
    assert site.call(centre, called, caller="13125550110").status == 200
    site.daemon.operator("do-not-call", "add", f"+{called}", "--source=own list")
    again = site.call(centre, called, caller="13125550110")
    assert again.status == 403


def test_the_second_spoofed_caller_id_suspends_the_customer(strict: tuple[Site, Seat]) -> None:
    site, seat = strict
    wholesale = seat("wholesale")
    for _ in range(3):  # one event, however many calls it takes
        answer = refused(site, wholesale, site.new_number(), "12125550100")
        assert answer == (403, "caller_id_not_authorized")
    assert site.call(wholesale, site.new_number(), caller="16055550100").status == 200
    [notice] = site.rows("select notice_id, kind from ringfence.notices where customer = 'wholesale'")
    assert notice["kind"] == "warning"
    site.daemon.operator("notice", "delivered", str(notice["notice_id"]), "--how=call with Kim Olsen")
    # The next day:
    site.postgres.psql(
        "update ringfence.infractions set happened_at = happened_at - interval '25 hours'", site.database
    )
    live = site.start_calls(wholesale, [Call(site.new_number("1505"), "16055550101")], hold_ms=20_000)
    wait_for(
        lambda: site.rows("select 1 as one from ringfence.leases where customer = 'wholesale'"),
        "a call is up",
        log=site.daemon.log,
    )
    refused(site, wholesale, site.new_number(), "12125550100")
    site.wait_until_idle()  # the call that was up has been hung up, long before its time
    live.wait()
    answer = refused(site, wholesale, site.new_number(), "16055550100")
    assert answer == (403, "customer_suspended")


# --- the one that accepts validated numbers -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("customer", "caller", "attestation"),
    [
        ("office", "12135550101", "A"),
        ("office", "12135550102", "A"),
        ("office", "12135550103", "A"),
        ("office", "12135550110", "A"),
        ("centre", "12135550110", "B"),
        ("centre", "13035550120", "B"),
        ("centre", "18335550140", "A"),
    ],
)
def test_the_validating_provider_lets_proven_numbers_out(
    validated: tuple[Site, Seat], customer: str, caller: str, attestation: str
) -> None:
    site, seat = validated
    called = site.new_number()
    assert site.call(seat(customer), called, caller=caller).status == 200
    assert [invite.from_user for invite in site.invites(called)] == [caller]
    [row] = site.rows(f"select attestation from ringfence.decisions where called = '{called}'")
    assert row["attestation"] == attestation


def test_the_validating_provider_refuses_what_nobody_has_proven(validated: tuple[Site, Seat]) -> None:
    site, seat = validated
    answer = refused(site, seat("centre"), site.new_number(), "12135550101")
    assert answer == (403, "caller_id_not_authorized")


def test_a_prospect_of_the_validating_provider_calls_nobody(validated: tuple[Site, Seat]) -> None:
    site, seat = validated
    answer = refused(site, seat("newcomer"), site.new_number(), "12135550101")
    assert answer == (403, "customer_not_active")


def test_a_new_rule_of_the_validating_provider_only_reports(validated: tuple[Site, Seat]) -> None:
    site, seat = validated
    called = "19005550124"
    assert site.call(seat("office"), called, caller="12135550101").status == 200
    [row] = site.rows(f"select would_reject from ringfence.decisions where called = '{called}'")
    assert row["would_reject"] == ["destination_denied"]


def test_a_burst_of_the_validating_provider_is_shaped_in_order(validated: tuple[Site, Seat]) -> None:
    site, seat = validated
    centre = seat("centre")  # 10 a second, burst 1, held for up to 3 s
    calls = [Call(site.new_number(), "13035550121") for _ in range(10)]
    results = site.start_calls(centre, calls, rate=100).wait()
    assert statuses(results) == {200: 10}
    rows = site.rows(
        "select verdict, delay_ms from ringfence.decisions where caller = '13035550121' order by decided_at"
    )
    delays = [int(row["delay_ms"]) for row in rows]
    assert delays == sorted(delays)
    assert delays[-1] >= 500
    assert {row["verdict"] for row in rows[1:]} == {"delay"}
    site.wait_until_idle()
