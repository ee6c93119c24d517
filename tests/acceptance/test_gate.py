"""What the gate lets out and what it refuses, seen from the customer, the carrier, the CDR and the database."""

from __future__ import annotations

from typing import Any

import pytest

from tests.acceptance.site import FORMS, Party, Site, wait_for
from tests.lab.process import wait_until
from tests.lab.sipp import Call
from tests.lab.sipp_values import statuses


def assert_refused(site: Site, party: Party, called: str, reason: str) -> None:
    """No INVITE left, and the only decision about the party says why."""
    assert site.invites(called) == []
    decision = site.decision(party)
    assert (decision["verdict"], decision["reason"]) == ("reject", reason)
    assert decision["called"] == called


def test_own_number_reaches_the_carrier_and_its_cdr_says_why(site: Site, form: str) -> None:
    party, called = site.customer(form), site.new_number()
    assert site.call(party, called).status == 200
    (invite,) = site.invites(called)
    assert (invite.from_user, invite.asserted_user) == (party.number, party.number)
    decision = site.decision(party)
    assert (decision["verdict"], decision["reason"]) == ("allow", "authorized")
    assert (decision["customer"], decision["caller"], decision["called"]) == (
        party.name,
        party.number,
        called,
    )
    (record,) = site.wait_for_cdrs(party.name)
    assert record["ringfence_decision"] == decision["decision_id"]
    assert record["ringfence_customer"] == party.name
    assert (record["ringfence_reason"], record["ringfence_attest"]) == ("authorized", "A")
    assert (record["src"], record["dst"], record["disposition"]) == (party.number, called, "ANSWERED")


def test_someone_elses_number_never_reaches_the_carrier(site: Site, form: str) -> None:
    owner, thief, called = site.customer(form), site.customer(form), site.new_number()
    assert site.call(thief, called, caller=owner.number).status == 403
    assert_refused(site, thief, called, "caller_id_not_authorized")
    (record,) = site.wait_for_cdrs(thief.name)
    assert record["ringfence_reason"] == "caller_id_not_authorized"
    assert record["ringfence_decision"] == site.decision(thief)["decision_id"]
    assert (record["dst"], record["disposition"] == "ANSWERED") == (called, False)


def test_an_anonymous_call_is_refused(site: Site, form: str) -> None:
    party, called = site.customer(form), site.new_number()
    assert site.call(party, called, caller="anonymous").status == 403
    assert_refused(site, party, called, "caller_id_withheld")


def test_an_anonymous_call_passes_if_the_network_asserts_an_own_number(site: Site, form: str) -> None:
    party, called = site.customer(form), site.new_number()
    headers = [f"P-Asserted-Identity: <sip:{party.number}@127.0.0.1>", "Privacy: id"]
    assert site.call(party, called, caller="anonymous", headers=headers).status == 200
    assert len(site.invites(called)) == 1
    decision = site.decision(party)
    assert (decision["reason"], decision["caller_withheld"]) == ("authorized", True)
    assert decision["caller_e164"] == int(party.number)


def test_an_anonymous_call_is_refused_if_the_network_asserts_someone_elses_number(site: Site, form: str) -> None:
    owner, thief, called = site.customer(form), site.customer(form), site.new_number()
    headers = [f"P-Asserted-Identity: <sip:{owner.number}@127.0.0.1>", "Privacy: id"]
    assert site.call(thief, called, caller="anonymous", headers=headers).status == 403
    assert_refused(site, thief, called, "caller_id_not_authorized")


def test_an_unknown_endpoint_is_refused(site: Site, form: str) -> None:
    owner, stranger, called = site.customer(form), site.stranger(form), site.new_number()
    assert site.call(stranger, called, caller=owner.number).status == 403
    assert_refused(site, stranger, called, "endpoint_unknown")


def test_a_suspended_customer_is_refused_until_reinstated(site: Site, form: str) -> None:
    party, called = site.customer(form), site.new_number()
    site.daemon.operator("customer", "suspend", party.name, "--reason=robocalls")
    assert site.call(party, called).status == 403
    assert_refused(site, party, called, "customer_suspended")
    site.rows(f"select ringfence.set_customer_state('{party.name}', 'active', 'explained', false, 'Ann')")
    assert site.call(party, called).status == 200
    assert len(site.invites(called)) == 1


def test_calls_over_the_rate_cap_get_480(site: Site, form: str) -> None:
    party = site.customer(form, calls_per_second=0.1, burst=2)
    calls = [Call(site.new_number(), party.number) for _ in range(5)]
    results = site.start_calls(party, calls, rate=50).wait()
    assert statuses(results) == {200: 2, 480: 3}
    passed = {result.call.called for result in results if result.status == 200}
    site.wait_until_idle()
    assert {call.called for call in calls if site.invites(call.called)} == passed
    reasons = [row["reason"] for row in site.decisions(party.name) if row["verdict"] == "reject"]
    assert reasons == ["calls_per_second_exceeded"] * 3


def test_a_call_over_the_concurrent_cap_gets_480_and_passes_after_a_hang_up(site: Site, form: str) -> None:
    party, first, second = site.customer(form, concurrent=1), site.new_number(), site.new_number()
    run = site.start_calls(party, [Call(first, party.number)], hold_ms=1500)
    wait_until(lambda: site.invites(first), 10, "the first call reached the carrier")
    (refused,) = site.start_calls(party, [Call(second, party.number)]).wait()
    assert refused.status == 480
    assert site.invites(second) == []
    assert run.wait()[0].status == 200
    site.wait_until_free(party)
    assert site.call(party, second).status == 200
    reasons = [row["reason"] for row in site.decisions(party.name)]
    assert reasons == ["authorized", "concurrent_calls_exceeded", "authorized"]


def test_a_call_over_the_daily_cap_gets_480(site: Site, form: str) -> None:
    party, called = site.customer(form, per_day=2), site.new_number()
    calls = [Call(called, party.number)] * 3
    results = site.start_calls(party, calls, limit=1).wait()
    assert [result.status for result in results] == [200, 200, 480]
    site.wait_until_idle()
    assert len(site.invites(called)) == 2
    assert site.decisions(party.name)[-1]["reason"] == "calls_per_day_exceeded"


def test_a_call_from_the_manager_through_a_local_channel_is_judged(site: Site, form: str) -> None:
    party, called, refused = site.customer(form), site.new_number(), site.new_number()
    for number, caller in ((called, party.number), (refused, "12125559999")):
        channel = f"Local/{number}@{party.context}"
        answer = site.originate(channel, caller=f'"Desk" <{caller}>', account=party.name, variables={})
        assert ("Success" in answer.split("Authentication accepted")[1]) == (number == called)
    assert [invite.from_user for invite in site.invites(called)] == [party.number]
    assert site.invites(refused) == []
    reasons = [row["reason"] for row in site.decisions(party.name)]
    assert reasons == ["authorized", "caller_id_not_authorized"]


def test_a_blind_transfer_is_judged_on_the_transferring_party(site: Site, form: str) -> None:
    party, first, second = site.customer(form), site.new_number(), site.new_number("1505")
    site.call(party, first, scenario="customer-blind-transfer", transfer_to=second, hold_ms=200, transfer_ms=700)
    (invite,) = site.invites(second)
    assert (invite.from_user, invite.asserted_user) == (party.number, party.number)
    decisions = site.decisions(party.name)
    assert [row["called"] for row in decisions] == [first, second]
    assert {row["caller"] for row in decisions} == {party.number}
    assert {row["verdict"] for row in decisions} == {"allow"}
    assert decisions[1]["places"]["passed_through"] == first
    assert decisions[0]["decision_id"] != decisions[1]["decision_id"]
    for row in decisions:
        assert site.end_of(row)["sip_status"] == 200


def test_a_blind_transfer_that_may_not_be_stays_inside(site: Site, form: str) -> None:
    party, first, second = site.customer(form, per_day=1), site.new_number(), site.new_number()
    site.call(party, first, scenario="customer-blind-transfer", transfer_to=second, hold_ms=200, transfer_ms=700)
    assert len(site.invites(first)) == 1
    assert site.invites(second) == []
    assert [row["reason"] for row in site.decisions(party.name)] == ["authorized", "calls_per_day_exceeded"]


def test_two_forms_of_the_hook_are_two_ways_to_the_same_judge(site: Site) -> None:
    rows = []
    for form in FORMS:
        party, called = site.customer(form), site.new_number()
        site.call(party, called)
        row = site.decision(party)
        rows.append({key: row[key] for key in ("verdict", "reason", "attestation", "entry", "switch", "host")})
        assert (row["trunk"], row["source_address"]) == (party.name, party.source_ip)
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    ("prefix", "options", "expected"),
    [
        pytest.param("1202", {"hold_ms": 400}, ("caller", 200, True), id="caller-hangs-up"),
        pytest.param("1505", {"hold_ms": 9000}, ("callee", 200, True), id="callee-hangs-up"),
        pytest.param("1303", {}, ("callee", 486, False), id="busy"),
        pytest.param("1404", {}, ("switch", None, False), id="no-answer"),
        pytest.param(
            "1606",
            {"scenario": "customer-cancels", "cancel_ms": 400},
            ("caller", None, False),
            id="cancelled",
        ),
    ],
)
def test_the_end_of_a_call_is_recorded(
    site: Site, form: str, prefix: str, options: dict[str, Any], expected: tuple[str, int | None, bool]
) -> None:
    party, called = site.customer(form), site.new_number(prefix)
    result = site.call(party, called, **options)
    end = site.end_of(site.decision(party))
    hung_up_by, sip_status, answered = expected
    assert (end["source"], end["customer"], end["hung_up_by"]) == ("event", party.name, hung_up_by)
    assert (end["answered_at"] is not None, end["billable_ms"] > 0) == (answered, answered)
    assert end["duration_ms"] >= end["billable_ms"]
    if answered:
        assert result.status == 200
        assert 250 <= end["billable_ms"] < 2_000
        assert 0 <= end["post_dial_delay_ms"] < 1_000
        assert end["q850_cause"] == 16
    if prefix == "1303":
        assert end["q850_cause"] == 17
    if sip_status is not None:
        assert end["sip_status"] == sip_status
    assert end["trunk"] in site.carriers
    site.wait_until_free(party)


def test_every_allowed_call_has_exactly_one_end(site: Site) -> None:
    """Runs last in this file: nothing that was allowed above is left open, and nothing refused has an end."""
    query = """
        select d.verdict, count(*) as calls, count(e.decision_id) as ends
        from ringfence.decisions d left join ringfence.call_ends e using (customer, decision_id)
        where d.customer <> '' group by d.verdict
    """

    def settled() -> bool:
        rows = {row["verdict"]: row for row in site.rows(query)}
        return bool(rows["allow"]["calls"] == rows["allow"]["ends"] and rows["reject"]["ends"] == 0)

    wait_for(settled, "every allowed call has one end and no refused one has any", log=site.daemon.log)
