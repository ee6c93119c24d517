"""A thousand calls at fifty a second, half of them with numbers that are not granted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.conftest import open_site
from tests.acceptance.site import Site, wait_for
from tests.lab.available import asterisk_versions
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.sipp import Call
from tests.lab.sipp_values import statuses

CALLS = 1_000
RATE = 50


@pytest.fixture(scope="module")
def busy_site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site of its own with Asterisk 22, or 16 where there is no 22."""
    yield from open_site(16 if asterisk_versions() == [16] else 22, postgres, tmp_path_factory)


def test_exactly_the_granted_half_of_a_thousand_calls_reaches_the_carrier(busy_site: Site) -> None:
    site = busy_site
    party = site.customer(numbers=CALLS // 2)
    granted = list(party.numbers)
    foreign = [f"1415{5_550_000 + index}" for index in range(CALLS // 2)]
    callers = [number for pair in zip(granted, foreign, strict=True) for number in pair]
    calls = [Call(site.new_number(), caller) for caller in callers]

    results = site.start_calls(party, calls, rate=RATE).wait()
    assert statuses(results) == {200: CALLS // 2, 403: CALLS // 2}

    invites = site.carriers["carrier"].invites()
    assert sorted(invite.from_user for invite in invites) == sorted(granted)
    expected = {call.called: call.caller for call in calls if call.caller in set(granted)}
    assert {invite.request_user: invite.from_user for invite in invites} == expected

    ends_query = f"select decision_id from ringfence.call_ends where customer = '{party.name}'"
    wait_for(lambda: len(site.rows(ends_query)) >= CALLS // 2, "the ends of the calls", timeout=20)
    ends = {row["decision_id"] for row in site.rows(ends_query)}
    decisions = site.decisions(party.name)
    allowed = {row["decision_id"] for row in decisions if row["verdict"] == "allow"}
    assert len(decisions) == CALLS
    assert {row["called"] for row in decisions if row["verdict"] == "allow"} == set(expected)
    assert ends == allowed

    records = site.wait_for_cdrs(party.name, CALLS)
    assert len(records) == CALLS
    assert {row["ringfence_decision"] for row in records if row["disposition"] == "ANSWERED"} == allowed
    assert {row["ringfence_decision"] for row in records} == {row["decision_id"] for row in decisions}
    site.wait_until_free(party)
