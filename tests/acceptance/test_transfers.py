"""Transfers and forwards: each new leg is judged on behalf of the party who causes it (docs/transfers.md).

Alice and Bob have phones of this PBX and are customers of their own. Calls from outside show OUTSIDE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.acceptance.site import Party, SipCall, SipPhone, Site, wait_for
from tests.lab.process import wait_until

OUTSIDE = "14155550100"

Phones = Callable[..., tuple[Party, SipPhone]]


@pytest.fixture
def phones(site: Site, form: str) -> Iterator[Phones]:
    """Phones of the PBX, switched on."""
    with ExitStack() as stack:

        def switch_on(**behaviour: Any) -> tuple[Party, SipPhone]:
            party, phone = site.phone(form, **behaviour)
            return party, stack.enter_context(phone)

        yield switch_on


def carrier(site: Site, name: str = "answers") -> SipPhone:
    """One of the watched carriers: nothing may leave there without a decision."""
    found = site.carriers[f"watched-{name}"]
    assert isinstance(found, SipPhone)
    return found


def dial(site: Site, phone: SipPhone, number: str, caller: str = OUTSIDE) -> SipCall:
    """A call from a phone, or from outside, answered."""
    return phone.dial(number, site.asterisk.sip_address, caller=caller).wait_for("answered")


def incoming(phone: SipPhone) -> SipCall:
    """The call that came in to this phone."""
    (call,) = wait_for(lambda: [call for call in phone.calls if call.incoming], "a call comes in")
    return call.wait_for("answered")


def transfer(site: Site, call: SipCall, number: str, replaces: SipCall | None = None) -> None:
    """REFER the other side, once the switch has connected both: a phone is told a little earlier."""

    def connected() -> bool:
        channels = site.asterisk.cli("core show channels concise").splitlines()
        return all(line.split("!")[12] for line in channels if "!" in line)

    wait_until(connected, 10, "the switch has connected the calls", log=site.asterisk.log)
    call.refer(number, replaces)


def decisions_about(site: Site, *called: str) -> list[dict[str, Any]]:
    """The only decision about each of these numbers."""
    found = []
    for number in called:
        query = f"select * from ringfence.decisions where called = '{number}'"
        (row,) = wait_for(lambda query=query: site.rows(query), f"a decision on {number}", log=site.daemon.log)  # type: ignore[misc]
        found.append(row)
    return found


def assert_judged_for(site: Site, party: Party, called: str, passed: str = "") -> dict[str, Any]:
    """The call was asked about before it left, on behalf of this party, and shows its number."""
    (decision,) = decisions_about(site, called)
    who = (decision["entry"], decision["verdict"], decision["account"], decision["customer"], decision["caller"])
    assert who == ("hook", "allow", party.name, party.name, party.number)
    assert decision["attestation"] == "A"
    assert decision["places"].get("passed_through", "") == passed
    (invite,) = site.invites(called)
    assert (invite.from_user, invite.asserted_user) == (party.number, party.number)
    return decision


def assert_refused(site: Site, called: str, reason: str) -> None:
    """The call was asked about, and did not leave."""
    (decision,) = decisions_about(site, called)
    assert (decision["entry"], decision["verdict"], decision["reason"]) == ("hook", "reject", reason)
    site.wait_until_idle()
    assert site.invites(called) == []


def hang_up(site: Site, called: str) -> None:
    """The callee hangs up, and nothing is left."""
    carrier(site).call_to(called).wait_for("answered").hang_up()
    site.wait_until_idle()


# --- blind transfer -----------------------------------------------------------------------------------------


def test_a_blind_transfer_by_the_caller_is_the_callers(site: Site, phones: Phones) -> None:
    alice, phone = phones()
    first, second = site.new_number("1908"), site.new_number("1908")
    call = dial(site, phone, first, alice.number)
    transfer(site, call, second)
    carrier(site).call_to(second)
    assert_judged_for(site, alice, first)
    assert_judged_for(site, alice, second, passed=first)
    hang_up(site, second)
    site.wait_until_free(alice)


@pytest.mark.parametrize("privacy", [(), ("Privacy: id",)], ids=["shown", "withheld"])
def test_a_blind_transfer_shows_as_much_as_the_first_call(site: Site, form: str, privacy: tuple[str, ...]) -> None:
    party, first, second = site.customer(form), site.new_number(), site.new_number("1505")
    headers = [f"P-Asserted-Identity: <sip:{party.number}@127.0.0.1>", *privacy]
    options: dict[str, Any] = {
        "scenario": "customer-blind-transfer",
        "hold_ms": 200,
        "transfer_ms": 700,
        "headers": headers,
    }
    site.call(party, first, transfer_to=second, **options)
    ((before,), (after,)) = site.invites(first), site.invites(second)
    assert before.from_user == ("anonymous" if privacy else party.number)
    for header in ("Privacy", "P-Asserted-Identity"):
        assert after.values(header) == before.values(header)
    assert after.from_user == before.from_user


def test_a_blind_transfer_of_a_withheld_number_shows_the_callees_own(site: Site, phones: Phones) -> None:
    alice, phone = phones()
    called = site.new_number("1908")
    outside = carrier(site).dial(alice.number, site.asterisk.sip_address, caller="anonymous")
    outside.wait_for("answered")
    transfer(site, incoming(phone), called)
    carrier(site).call_to(called)
    assert_judged_for(site, alice, called)
    hang_up(site, called)


def test_a_blind_transfer_of_a_call_from_outside_is_the_callees(site: Site, phones: Phones) -> None:
    alice, phone = phones()
    called = site.new_number("1908")
    dial(site, carrier(site), alice.number)
    transfer(site, incoming(phone), called)
    carrier(site).call_to(called)
    decision = assert_judged_for(site, alice, called, passed=OUTSIDE)
    hang_up(site, called)
    assert site.end_of(decision)["sip_status"] == 200
    site.wait_until_free(alice)


def test_a_blind_transfer_by_a_suspended_callee_stays_inside(site: Site, phones: Phones) -> None:
    alice, phone = phones()
    called = site.new_number("1908")
    site.daemon.operator("customer", "suspend", alice.name, "--reason=robocalls")
    dial(site, carrier(site), alice.number)
    transfer(site, incoming(phone), called)
    assert_refused(site, called, "customer_suspended")


def test_a_blind_transfer_of_a_colleague_is_the_callees_and_not_the_colleagues(site: Site, phones: Phones) -> None:
    (alice, phone), (bob, bobs_phone) = phones(), phones()
    called = site.new_number("1908")
    dial(site, bobs_phone, alice.number, bob.number)
    transfer(site, incoming(phone), called)
    carrier(site).call_to(called)
    assert_judged_for(site, alice, called, passed=bob.number)
    hang_up(site, called)


def test_a_blind_transfer_by_a_colleague_is_the_colleagues(site: Site, phones: Phones) -> None:
    (alice, _), (bob, bobs_phone) = phones(), phones()
    called = site.new_number("1908")
    transfer(site, dial(site, bobs_phone, alice.number, bob.number), called)
    carrier(site).call_to(called)
    assert_judged_for(site, bob, called, passed=alice.number)
    hang_up(site, called)


def test_a_blind_transfer_by_a_party_outside_is_nobodys_and_stays_inside(site: Site, phones: Phones) -> None:
    alice, phone = phones()
    called = site.new_number("1908")
    call = dial(site, carrier(site), alice.number)
    incoming(phone)
    transfer(site, call, called)
    assert_refused(site, called, "endpoint_unknown")


# --- attended transfer --------------------------------------------------------------------------------------


def test_an_attended_transfer_asks_nothing_new_and_both_calls_go_on_being_counted(
    site: Site, phones: Phones
) -> None:
    alice, phone = phones()
    first, second = site.new_number("1908"), site.new_number("1908")
    held, consulted = dial(site, phone, first, alice.number), dial(site, phone, second, alice.number)
    decisions = [assert_judged_for(site, alice, number) for number in (first, second)]
    transfer(site, held, second, consulted)
    for call in (held, consulted):
        call.wait_for("ended")
    assert carrier(site).call_to(first).up
    assert carrier(site).call_to(second).up
    live = f"select live_calls from ringfence.counters where customer = '{alice.name}'"
    assert site.rows(live) == [{"live_calls": 2}]
    hang_up(site, first)
    assert len(site.decisions(alice.name)) == 2
    assert [len(site.invites(number)) for number in (first, second)] == [1, 1]
    assert [site.end_of(decision)["source"] for decision in decisions] == ["event", "event"]
    site.wait_until_free(alice)


def test_an_attended_transfer_of_a_call_from_outside_was_judged_when_it_was_placed(
    site: Site, phones: Phones
) -> None:
    alice, phone = phones()
    called = site.new_number("1908")
    dial(site, carrier(site), alice.number)
    held, consulted = incoming(phone), dial(site, phone, called, alice.number)
    transfer(site, held, called, consulted)
    held.wait_for("ended")
    decision = assert_judged_for(site, alice, called)
    assert carrier(site).call_to(called).up
    hang_up(site, called)
    assert len(site.decisions(alice.name)) == 1
    assert site.end_of(decision)["source"] == "event"


# --- forwards -----------------------------------------------------------------------------------------------


def forward(site: Site, party: Party, form: str, *numbers: str) -> str:
    """Have the dialplan forward this party's calls; the number to call."""
    where = "&".join(f"Local/{number}@from-{form}" for number in numbers)
    site.asterisk.cli(f"dialplan set global FORWARD_{party.number} {where}")
    return f"8{party.number}"


def test_a_forward_by_the_dialplan_is_the_forwarding_partys(site: Site, form: str, phones: Phones) -> None:
    alice, _ = phones()
    called = site.new_number("1908")
    dial(site, carrier(site), forward(site, alice, form, called))
    decision = assert_judged_for(site, alice, called, passed=OUTSIDE)
    hang_up(site, called)
    assert site.end_of(decision)["sip_status"] == 200
    site.wait_until_free(alice)


def test_a_redirect_by_the_callees_phone_is_the_callees(site: Site, phones: Phones) -> None:
    called = site.new_number("1908")
    alice, _ = phones(forwards_to=called)
    dial(site, carrier(site), alice.number)
    decision = assert_judged_for(site, alice, called, passed=OUTSIDE)
    hang_up(site, called)
    assert site.end_of(decision)["sip_status"] == 200
    site.wait_until_free(alice)


def test_a_redirect_of_a_colleague_is_the_callees_and_not_the_colleagues(site: Site, phones: Phones) -> None:
    called = site.new_number("1908")
    (alice, _), (bob, bobs_phone) = phones(forwards_to=called), phones()
    dial(site, bobs_phone, alice.number, bob.number)
    assert_judged_for(site, alice, called, passed=bob.number)
    hang_up(site, called)


def test_a_redirect_by_a_suspended_callee_stays_inside(site: Site, phones: Phones) -> None:
    called = site.new_number("1908")
    alice, _ = phones(forwards_to=called)
    site.daemon.operator("customer", "suspend", alice.name, "--reason=robocalls")
    call = carrier(site).dial(alice.number, site.asterisk.sip_address, caller=OUTSIDE).wait_for("ended")
    assert call.status is not None
    assert call.status >= 400
    assert_refused(site, called, "customer_suspended")


def test_follow_me_rings_everywhere_on_behalf_of_whom_it_follows(site: Site, form: str, phones: Phones) -> None:
    alice, _ = phones()
    taken, missed = site.new_number("1907"), site.new_number("1909")
    call = dial(site, carrier(site), forward(site, alice, form, taken, missed))
    decisions = [assert_judged_for(site, alice, number, passed=OUTSIDE) for number in (taken, missed)]
    assert carrier(site, "rings").call_to(taken).up
    carrier(site, "silent").call_to(missed).wait_for("CANCEL")
    call.hang_up()
    site.wait_until_idle()
    assert [site.end_of(decision)["answered_at"] is not None for decision in decisions] == [True, False]
    site.wait_until_free(alice)


# --- click to call ------------------------------------------------------------------------------------------


def click(site: Site, channel: str, context: str, exten: str, party: Party) -> None:
    """AMI Originate of a channel that is then connected with an extension."""
    who = {"CallerID": f"<{party.number}>", "Account": party.name}
    where = {"Context": context, "Exten": exten, "Priority": "1"}
    site.manager({"Action": "Originate", "Channel": channel, "Async": "true", **where, **who})


def test_click_to_call_that_rings_the_agent_first_is_the_agents(site: Site, form: str, phones: Phones) -> None:
    alice, phone = phones()
    called = site.new_number("1908")
    click(site, f"PJSIP/{alice.number}", f"from-{form}", called, alice)
    incoming(phone)
    carrier(site).call_to(called)
    decision = assert_judged_for(site, alice, called)
    hang_up(site, called)
    assert len(site.decisions(alice.name)) == 1
    assert site.end_of(decision)["sip_status"] == 200


def test_click_to_call_that_rings_the_customer_first_is_the_agents(site: Site, form: str, phones: Phones) -> None:
    alice, phone = phones()
    called = site.new_number("1908")
    click(site, f"Local/{called}@from-{form}", "from-carrier", alice.number, alice)
    incoming(phone)
    decision = assert_judged_for(site, alice, called)
    hang_up(site, called)
    assert len(site.decisions(alice.name)) == 1
    assert site.end_of(decision)["sip_status"] == 200


def test_click_to_call_between_two_outside_numbers_is_two_calls_of_the_agents(
    site: Site, form: str, phones: Phones
) -> None:
    alice, _ = phones()
    mobile, called = site.new_number("1908"), site.new_number("1908")
    click(site, f"Local/{mobile}@from-{form}", f"from-{form}", called, alice)
    carrier(site).call_to(called)
    decisions = [assert_judged_for(site, alice, mobile), assert_judged_for(site, alice, called, passed=mobile)]
    hang_up(site, called)
    assert [site.end_of(decision)["sip_status"] for decision in decisions] == [200, 200]
    site.wait_until_free(alice)


def test_click_to_call_without_an_account_is_nobodys_and_stays_inside(site: Site, form: str) -> None:
    party, called = site.customer(form), site.new_number("1908")
    where = {"Application": "Wait", "Data": "1", "CallerID": f"<{party.number}>"}
    site.manager({"Action": "Originate", "Channel": f"Local/{called}@from-{form}", "Async": "true", **where})
    assert_refused(site, called, "endpoint_unknown")
    wait_until(lambda: site.asterisk.active_channels() == 0, 10, "nothing is left")
