"""Live calls and their ends, from recorded events."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from uuid import UUID

import pytest

from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import CallEnd, Decision, EndSource, HungUpBy, Verdict
from ringfence.switches.freeswitch.calls import GRACE, LiveCalls
from ringfence.switches.freeswitch.channel import Party
from ringfence.switches.freeswitch.framing import Limits, MessageReader, json_event
from ringfence.switches.freeswitch.legs import Side, moment, read_end
from ringfence.switches.freeswitch.seal import Terms
from tests.lab.freeswitch_standin import RECORDINGS

NOW = datetime(2026, 11, 21, 19, 30, tzinfo=UTC)


@cache
def recorded(name: str) -> list[dict[str, str]]:
    data = (RECORDINGS / f"in_json_{name}.s2c.bin").read_bytes()
    return [json_event(m) for m in MessageReader(Limits()).feed(data) if m.kind == "text/event-json"]


def legs_of(name: str) -> list[str]:
    """The outbound legs of a recording, in the order they were made."""
    made = [e["Unique-ID"] for e in recorded(name) if e["Event-Name"] == "CHANNEL_OUTGOING"]
    return list(dict.fromkeys(made))


def origin_of(name: str) -> str:
    return next((e["Other-Leg-Unique-ID"] for e in recorded(name) if e.get("Other-Leg-Unique-ID")), "")


def decision(customer: str = "acme") -> Decision:
    return Decision(new_decision_id(), new_orig_id(), Verdict.ALLOW, "authorized", customer)


def play(name: str, *, origin: bool = True) -> tuple[LiveCalls, list[CallEnd], UUID]:
    """One decision for all legs of a recording, then its events as they came."""
    calls, made = LiveCalls(), decision()
    ends = []
    asked = iter(legs_of(name))
    for event in recorded(name):
        if event["Event-Name"] == "CHANNEL_OUTGOING" and (leg := next(asked, None)):
            calls.allowed(made, leg, origin_of(name) if origin else "", NOW)
        ends += calls.event(event, NOW)
    return calls, ends, made.decision_id


def test_an_answered_call_that_the_caller_ends() -> None:
    calls, (end,), decision_id = play("a1_answered_bridge")
    assert end.decision_id == decision_id
    assert (end.hung_up_by, end.source, end.sip_status, end.q850_cause) == (
        HungUpBy.CALLER,
        EndSource.EVENT,
        200,
        16,
    )
    assert end.answered_at == datetime.fromtimestamp(1795289404.402147, UTC)
    assert end.ended_at == datetime.fromtimestamp(1795289405.222149, UTC)
    assert (end.billable_ms, end.post_dial_delay_ms, end.trunk) == (820, 0, "internal")
    assert len(calls) == 0


def test_a_call_that_the_carrier_refuses() -> None:
    _, (end,), _ = play("a2_rejected_by_carrier_486")
    assert (end.hung_up_by, end.sip_status, end.q850_cause) == (HungUpBy.CALLEE, 486, 17)
    assert (end.answered_at, end.detail) == (None, "Busy Here")


@pytest.mark.parametrize("name", ["a8_bridge_simultaneous", "a9_bridge_sequential"])
def test_forks_and_failover_are_one_call_and_the_answered_leg_speaks_for_it(name: str) -> None:
    calls, (end,), _ = play(name)
    assert (end.hung_up_by, end.sip_status) == (HungUpBy.CALLER, 200)
    assert end.answered_at is not None
    assert len(calls) == 0


def test_an_originate_of_the_api_is_ended_by_the_switch() -> None:
    _, (end,), _ = play("a4_bgapi_originate_park", origin=False)
    assert (end.hung_up_by, end.sip_status) == (HungUpBy.SWITCH, 200)


def test_a_user_that_is_gated_twice_is_one_call() -> None:
    calls, (end,), _ = play("a6_originate_user", origin=False)
    assert end.answered_at is not None
    assert len(calls) == 0


def test_a_call_waits_for_the_next_leg_no_longer_than_the_grace() -> None:
    calls, made = LiveCalls(), decision()
    leg, origin = legs_of("a9_bridge_sequential")[0], origin_of("a9_bridge_sequential")
    calls.allowed(made, leg, origin, NOW)
    for event in recorded("a9_bridge_sequential"):
        if event["Unique-ID"] == leg:
            assert calls.event(event, NOW) == []
    assert calls.live() == [("acme", made.decision_id)]
    assert calls.due(NOW + GRACE / 2) == []
    (end,) = calls.due(NOW + GRACE)
    assert (end.sip_status, end.hung_up_by) == (486, HungUpBy.CALLEE)
    assert calls.due(NOW + GRACE * 2) == []


def test_events_that_come_again_or_late_end_nothing_twice() -> None:
    calls, (_,), decision_id = play("a1_answered_bridge")
    for event in recorded("a1_answered_bridge"):
        late = {**event, "variable_ringfence_decision": str(decision_id), "variable_ringfence_verdict": "allow.0"}
        assert calls.event(late, NOW) == []


def terms(**changes: object) -> Terms:
    made = {"decision_id": new_decision_id(), "customer": "acme", "party": Party("acme"), "called": "12025550100"}
    return Terms(**{**made, **changes})  # type: ignore[arg-type]


def test_a_leg_of_an_earlier_daemon_is_adopted_before_it_ends() -> None:
    calls, sealed = LiveCalls(), terms(origin=origin_of("a1_answered_bridge"))
    (leg,) = legs_of("a1_answered_bridge")
    assert calls.adopt(sealed, leg, NOW)
    ends = [end for event in recorded("a1_answered_bridge") for end in calls.event(event, NOW)]
    (end,) = ends + calls.due(NOW + GRACE)
    assert (end.decision_id, end.customer, end.source) == (sealed.decision_id, "acme", EndSource.EVENT)
    assert not calls.adopt(sealed, leg, NOW)  # it is over


def test_no_variable_that_is_not_sealed_ends_a_call() -> None:
    calls, decision_id = LiveCalls(), new_decision_id()
    told = {"variable_ringfence_decision": str(decision_id), "variable_ringfence_verdict": "allow"}
    for event in recorded("a1_answered_bridge"):
        assert calls.event({**event, **told}, NOW) == []
    assert calls.due(NOW + GRACE) == []


def test_a_refused_decision_has_no_call_whatever_the_leg_says() -> None:
    calls, refused = LiveCalls(), terms()
    calls.refused(refused.decision_id)
    assert not calls.adopt(refused, "leg", NOW)
    assert not calls.adopt(terms(allowed=False), "leg", NOW)
    assert calls.call_of("leg") is None


def test_a_leg_that_goes_on_to_another_number_ends_its_call_unless_others_go_on() -> None:
    calls, made = LiveCalls(), decision()
    calls.allowed(made, "one", "a", NOW)
    calls.allowed(made, "two", "a", NOW)
    assert calls.went_on("one", NOW) == []
    assert calls.went_on("one", NOW) == []
    (end,) = calls.went_on("two", NOW)
    assert (end.decision_id, end.detail) == (made.decision_id, "the leg went on to another number")
    assert calls.live() == []


def test_a_stray_leg_counts_from_its_judgement_on() -> None:
    calls, allowed, refused = LiveCalls(), decision(), decision()
    for made, leg in ((allowed, "one"), (refused, "two")):
        calls.allowed(replace(made, customer=""), leg, "", NOW)
    assert calls.live() == []
    calls.judged(allowed)
    calls.judged(replace(refused, verdict=Verdict.REJECT))
    assert calls.live() == [("acme", allowed.decision_id)]
    assert calls.call_of("two") is None


def test_the_party_of_a_call_is_known_by_its_leg_and_by_the_channel_that_asked() -> None:
    calls, party = LiveCalls(), Party("acme", caller="12125550100")
    calls.allowed(decision(), "leg", "asker", NOW, party=party, called="12025550100")
    calls.allowed(decision(), "own", "", NOW, asking=True, party=party, called="12025550100")
    assert calls.party_on("leg") == (party, "asker")
    assert calls.party_asking("asker") == party
    assert calls.party_on("own") is None
    assert calls.party_asking("leg") is None
    assert calls.covers("own", "12025550100", ["12125550100"])
    assert not calls.covers("own", "12025550199", ["12125550100"])
    assert not calls.covers("own", "12025550100", ["12125550199"])
    assert not calls.covers("leg", "12025550100", [])


def test_an_undelivered_verdict_ends_the_call_unless_another_leg_has_it() -> None:
    calls, made = LiveCalls(), decision()
    calls.allowed(made, "one", "a", NOW)
    calls.allowed(made, "two", "a", NOW)
    assert calls.undelivered(made.decision_id, "two", NOW) == []
    assert calls.undelivered(made.decision_id, "two", NOW) == []
    (end,) = calls.undelivered(made.decision_id, "one", NOW)
    assert end.source is EndSource.UNDELIVERED
    assert calls.live() == []


def test_what_the_switch_has_no_more_is_reconciled() -> None:
    calls, gone, lives, young = LiveCalls(), decision(), decision(), decision()
    calls.allowed(gone, "gone", "a-gone", NOW)
    calls.allowed(lives, "lives", "", NOW)
    later = NOW + timedelta(seconds=5)
    calls.allowed(young, "young", "", later)
    assert calls.missing(["lives"], later) == ["gone", "a-gone"]
    (end,) = calls.reconcile(["gone", "a-gone"], later)
    assert (end.decision_id, end.source, end.hung_up_by) == (
        gone.decision_id,
        EndSource.RECONCILED,
        HungUpBy.UNKNOWN,
    )
    assert {d for _, d in calls.live()} == {lives.decision_id, young.decision_id}


def test_a_live_leg_is_adopted_once() -> None:
    calls, sealed = LiveCalls(), terms(origin="a")
    assert calls.adopt(sealed, "leg", NOW)
    assert calls.adopt(sealed, "leg", NOW)
    assert calls.live() == [("acme", sealed.decision_id)]
    assert calls.missing([], NOW + GRACE) == ["leg", "a"]


def test_a_call_that_ringfence_ends_says_so() -> None:
    calls, made, name = LiveCalls(), decision(), "a1_answered_bridge"
    calls.allowed(made, legs_of(name)[0], origin_of(name), NOW)
    assert calls.hanging_up(made.decision_id, "suspended") == [origin_of(name), legs_of(name)[0]]
    (end,) = [end for event in recorded(name) for end in calls.event(event, NOW)]
    assert (end.hung_up_by, end.detail) == (HungUpBy.RINGFENCE, "suspended")
    assert calls.hanging_up(made.decision_id, "again") == []


def test_the_dialplans_own_channel_is_the_callers() -> None:
    name = "a1_answered_bridge"
    calls, made = LiveCalls(), decision()
    calls.allowed(made, origin_of(name), "", NOW, asking=True)
    (end,) = [end for event in recorded(name) for end in calls.event(event, NOW)]
    assert (end.hung_up_by, end.sip_status) == (HungUpBy.CALLER, 200)


def test_hostile_fields_are_read_as_nothing() -> None:
    end = read_end(
        {
            "Caller-Channel-Answered-Time": "9" * 30,
            "Caller-Channel-Created-Time": "-1",
            "variable_hangup_cause_q850": "999",
            "variable_sip_invite_failure_status": "\u0663\u0663\u0663",
            "variable_sip_603plus_reason": "spam\x00" + "x" * 1000,
            "Caller-Channel-Hangup-Time": "253402300799999999999",
        }
    )
    assert (end.answered_at, end.created_at, end.ended_at, end.q850_cause, end.sip_status) == (
        None,
        None,
        None,
        0,
        0,
    )
    assert end.side is Side.NEAR
    assert end.detail.startswith("603+ spam")
    assert len(end.detail) <= 200
    assert moment({"x": "1"}, "y", "x") is not None
