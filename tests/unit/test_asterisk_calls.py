"""How calls end, as read from the recorded events of real Asterisks 16 and 22."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.model import Attempt, CallEnd, Decision, EndSource, HungUpBy, Verdict
from ringfence.switches.asterisk.calls import Calls
from ringfence.switches.asterisk.channel import Form, Question
from ringfence.switches.asterisk.snapshot import Shown
from tests.unit.asterisk_stand_ins import START, recorded_events

FIRST = UUID("01a1fff0-0000-7000-8000-000000000001")  # the decision in the recorded RingfenceEnd events
SECOND = UUID("01a1fff0-0000-7000-8000-000000000002")

Events = list[tuple[datetime, dict[str, str]]]
both_versions = pytest.mark.parametrize("version", [16, 22])


def events_of(name: str, version: int) -> Events:
    return list(recorded_events(f"{name}_{version}"))


def allow(calls: Calls, event: dict[str, str], at: datetime, form: Form, decision_id: UUID = FIRST) -> None:
    """The gate allowed the call of this channel."""
    headers = {"agi_channel": event["Channel"], "agi_uniqueid": event["Uniqueid"], "agi_dnid": "1"}
    attempt = Attempt(
        decision_id, decision_id, "pbx", "here", event["Channel"], event["Linkedid"], "12125550123", "12025550100"
    )
    decision = Decision(decision_id, decision_id, Verdict.ALLOW, "authorized", "acme", "A")
    calls.started(attempt, decision, Question(headers, form, "12025550100"), at)


def is_new(event: dict[str, str], channel: str) -> bool:
    return event["Event"] == "Newchannel" and event["Channel"].startswith(channel)


def play(
    events: Iterable[tuple[datetime, dict[str, str]]],
    asking: str = "PJSIP/customer-",
    form: Form = Form.EXTENSION,
) -> tuple[Calls, list[CallEnd]]:
    """Feed a recording; every new channel with that name asks and is allowed at once."""
    calls, ends = Calls(), []
    decisions = (UUID(int=FIRST.int + number) for number in itertools.count())
    for at, event in events:
        if is_new(event, asking):
            allow(calls, event, at, form, next(decisions))
        ends += calls.feed(event, at)
    return calls, ends


def ended(name: str, version: int, **how: object) -> CallEnd:
    calls, ends = play(events_of(name, version), **how)  # type: ignore[arg-type]
    assert len(calls) == 0
    [end] = ends
    return end


@both_versions
def test_a_call_the_caller_hangs_up(version: int) -> None:
    end = ended("answered_caller_bye", version)
    assert (end.hung_up_by, end.q850_cause, end.sip_status) == (HungUpBy.CALLER, 16, 200)
    assert end.trunk == "carrier"
    assert end.trunk_channel.startswith("PJSIP/carrier-")
    assert end.source is EndSource.EVENT
    assert end.answered_at is not None
    assert 250 < end.billable_ms < 400
    assert end.post_dial_delay_ms is not None
    assert 50 < end.post_dial_delay_ms < 150


@both_versions
def test_a_call_the_callee_hangs_up(version: int) -> None:
    assert ended("answered_callee_bye", version).hung_up_by is HungUpBy.CALLEE


@both_versions
@pytest.mark.parametrize(("name", "cause", "status"), [("busy", 17, 486), ("congestion503", 34, 503)])
def test_a_call_the_carrier_refuses(name: str, cause: int, status: int, version: int) -> None:
    end = ended(name, version)
    assert (end.hung_up_by, end.q850_cause, end.sip_status) == (HungUpBy.CALLEE, cause, status)
    assert end.answered_at is None
    assert end.billable_ms == 0


@both_versions
def test_a_call_the_caller_gives_up_while_it_rings(version: int) -> None:
    end = ended("cancelled", version)
    assert (end.hung_up_by, end.sip_status, end.answered_at) == (HungUpBy.CALLER, 0, None)


@both_versions
def test_a_call_nobody_takes_until_the_dialplan_gives_up(version: int) -> None:
    end = ended("timeout", version)
    assert (end.hung_up_by, end.q850_cause, end.sip_status) == (HungUpBy.SWITCH, 16, 0)


@both_versions
@pytest.mark.parametrize("name", ["ami_hangup_trunk", "ami_hangup_asking", "ami_hangup_ringing"])
def test_a_call_somebody_else_hangs_up_through_the_manager(name: str, version: int) -> None:
    assert ended(name, version).hung_up_by is HungUpBy.SWITCH


@both_versions
@pytest.mark.parametrize("name", ["ami_hangup_trunk", "ami_hangup_ringing"])
def test_a_call_ringfence_hangs_up(name: str, version: int) -> None:
    calls = Calls()
    ends: list[CallEnd] = []
    for at, event in events_of(name, version):
        if is_new(event, "PJSIP/customer-"):
            allow(calls, event, at, Form.EXTENSION)
        if event["Event"] == "DialState":
            asking, leg = calls.hanging_up(FIRST, "why not")
            assert asking.startswith("PJSIP/customer-")
            assert leg.startswith("PJSIP/carrier-")
        ends += calls.feed(event, at)
    assert [(end.hung_up_by, end.q850_cause) for end in ends] == [(HungUpBy.RINGFENCE, 21)]


@both_versions
def test_a_call_that_was_asked_about_on_its_leg(version: int) -> None:
    end = ended("leg_answered", version, asking="PJSIP/carrier-", form=Form.LEG)
    assert (end.hung_up_by, end.sip_status, end.trunk) == (HungUpBy.CALLER, 200, "carrier")
    end = ended("leg_busy", version, asking="PJSIP/carrier-", form=Form.LEG)
    assert (end.hung_up_by, end.q850_cause, end.sip_status) == (HungUpBy.CALLEE, 17, 486)


@both_versions
def test_two_legs_of_one_call_end_each_for_itself(version: int) -> None:
    calls, ends = play(events_of("two_legs", version), asking="PJSIP/carrier", form=Form.LEG)
    assert len(calls) == 0
    refused, answered = ends
    assert (refused.trunk, refused.answered_at, refused.hung_up_by) == ("carrier", None, HungUpBy.CALLEE)
    assert (answered.trunk, answered.sip_status, answered.hung_up_by) == ("carrier2", 200, HungUpBy.CALLER)
    assert refused.ended_at is not None
    assert answered.answered_at is not None
    assert answered.ended_at is not None
    assert refused.ended_at < answered.ended_at


@both_versions
def test_the_leg_that_lost_the_race_was_ended_by_the_switch(version: int) -> None:
    _, ends = play(events_of("two_legs_both_ring", version), asking="PJSIP/carrier", form=Form.LEG)
    assert {end.answered_at is None: end.hung_up_by for end in ends} == {
        True: HungUpBy.SWITCH,
        False: HungUpBy.CALLER,
    }


@both_versions
def test_two_legs_under_one_decision_end_with_the_answered_one(version: int) -> None:
    end = ended("two_legs", version)
    assert (end.trunk, end.hung_up_by, end.sip_status) == ("carrier2", HungUpBy.CALLER, 200)


@both_versions
def test_a_transferred_call_lives_until_its_own_leg_ends(version: int) -> None:
    calls, ends = Calls(), []
    for at, event in events_of("blind", version):
        if is_new(event, "PJSIP/customer-"):
            allow(calls, event, at, Form.EXTENSION, FIRST)
        if is_new(event, "PJSIP/carrier-") and event["Uniqueid"] != first_leg(version):
            transferee = {**event, "Channel": "PJSIP/carrier-first", "Uniqueid": first_leg(version)}
            allow(calls, transferee, at, Form.EXTENSION, SECOND)
        if event["Event"] == "Hangup" and event["Channel"].startswith("PJSIP/customer-"):
            assert calls.feed(event, at) == []
            assert [decision for _, decision in calls.live()] == [FIRST]
            continue
        ends += calls.feed(event, at)
    by_decision = {end.decision_id: end for end in ends}
    assert set(by_decision) == {FIRST, SECOND}
    assert by_decision[FIRST].billable_ms > 1000
    assert by_decision[FIRST].trunk_channel != by_decision[SECOND].trunk_channel
    assert len(calls) == 0


def first_leg(version: int) -> str:
    return next(e["DestUniqueid"] for _, e in events_of("blind", version) if e["Event"] == "DialBegin")


@both_versions
def test_an_originate_through_a_local_channel(version: int) -> None:
    events = events_of("local_originate", version)
    calls, ends = Calls(), []
    for at, event in events:
        if event["Event"] == "Newchannel" and event["Channel"].endswith(";2"):
            allow(calls, event, at, Form.EXTENSION)
        ends += calls.feed(event, at)
    [end] = ends
    assert (end.trunk, end.sip_status) == ("carrier", 200)
    assert end.billable_ms > 900
    assert len(calls) == 0


@both_versions
def test_a_call_that_never_got_a_leg_ends_with_its_channel(version: int) -> None:
    events = [(at, e) for at, e in events_of("cancelled", version) if "customer" in e.get("Channel", "")]
    _, ends = play((at, e) for at, e in events if not e["Event"].startswith("Dial"))
    [end] = ends
    assert (end.hung_up_by, end.trunk, end.trunk_channel) == (HungUpBy.CALLER, "", "")


@both_versions
def test_a_second_trunk_may_be_tried_under_one_decision(version: int) -> None:
    """The busy call's channel dials again, as a dialplan with two carriers does, and that leg is answered."""
    calls, ends = Calls(), []
    busy = [
        (at, e)
        for at, e in events_of("busy", version)
        if "customer" not in e.get("Channel", "") or "Dial" in e["Event"]
    ]
    asking = next(e for _, e in events_of("busy", version) if is_new(e, "PJSIP/customer-"))
    allow(calls, asking, START, Form.EXTENSION)
    for at, event in busy:
        ends += calls.feed(event, at)
    assert ends == []
    assert len(calls) == 1
    later = START + timedelta(seconds=1)
    leg = {**asking, "DestUniqueid": "second", "DestChannel": "PJSIP/other-00000001"}
    calls.feed({**leg, "Event": "DialBegin"}, later)
    calls.feed({**leg, "Event": "DialEnd", "DialStatus": "ANSWER"}, later)
    [end] = calls.feed({"Event": "Hangup", "Uniqueid": "second", "Linkedid": "x", "Cause": "16"}, later)
    assert (end.trunk, end.sip_status) == ("other", 200)


@both_versions
def test_a_new_question_on_the_same_channel_ends_the_call_before(version: int) -> None:
    calls = Calls()
    asking = next(e for _, e in events_of("busy", version) if is_new(e, "PJSIP/customer-"))
    allow(calls, asking, START, Form.EXTENSION)
    told = {**asking, "Event": "UserEvent", "UserEvent": "RingfenceEnd", "Decision": str(FIRST)}
    [end] = calls.feed({**told, "Tech": "SIP 404 Not Found", "Cause": "1"}, START)
    assert (end.q850_cause, end.sip_status) == (1, 0)  # there was no leg that a carrier could have answered


# --- verdicts that were never acknowledged ----------------------------------------------------------------


def asking_event() -> dict[str, str]:
    return {"Channel": "PJSIP/customer-00000001", "Uniqueid": "lab-1.1", "Linkedid": "lab-1.1"}


def test_a_caller_who_hung_up_during_the_question_leaves_the_decision_undelivered() -> None:
    calls = Calls()
    allow(calls, asking_event(), START, Form.EXTENSION)
    end = calls.undelivered(FIRST, HungUpBy.CALLER, START, proof=True)
    assert end is not None
    assert (end.source, end.hung_up_by) == (EndSource.UNDELIVERED, HungUpBy.CALLER)
    assert len(calls) == 0


def test_a_verdict_whose_acknowledgement_was_lost_counts_if_the_call_is_dialled_all_the_same() -> None:
    calls = Calls()
    allow(calls, asking_event(), START, Form.EXTENSION)
    assert calls.undelivered(FIRST, HungUpBy.UNKNOWN, START, proof=True) is None
    leg = {"DestUniqueid": "lab-1.2", "DestChannel": "PJSIP/carrier-00000002"}
    calls.feed({**asking_event(), **leg, "Event": "DialBegin"}, START)
    calls.feed({**asking_event(), "Event": "Hangup", "Cause": "16"}, START)
    [end] = calls.feed({"Event": "Hangup", "Uniqueid": "lab-1.2", "Linkedid": "lab-1.1", "Cause": "16"}, START)
    assert end.source is EndSource.EVENT


@pytest.mark.parametrize("form", list(Form))
def test_a_verdict_whose_acknowledgement_was_lost_is_undelivered_if_the_channel_just_ends(form: Form) -> None:
    calls = Calls()
    allow(calls, asking_event(), START, form)
    assert calls.undelivered(FIRST, HungUpBy.UNKNOWN, START, proof=True) is None
    [end] = calls.feed({**asking_event(), "Event": "Hangup", "Cause": "16"}, START)
    assert (end.source, end.hung_up_by) == (EndSource.UNDELIVERED, HungUpBy.UNKNOWN)


def test_without_an_event_socket_an_unacknowledged_verdict_is_undelivered_at_once() -> None:
    calls = Calls()
    allow(calls, asking_event(), START, Form.EXTENSION)
    assert calls.undelivered(FIRST, HungUpBy.UNKNOWN, START, proof=False) is not None


# --- the switch's own list --------------------------------------------------------------------------------


def shown(
    event: dict[str, str], decision_id: UUID | None = None, customer: str = "", *, is_leg: bool = False
) -> Shown:
    return Shown(event["Uniqueid"], event["Channel"], event["Linkedid"], is_leg, True, decision_id, customer)


LEG = {"Channel": "PJSIP/carrier-00000002", "Uniqueid": "lab-1.2", "Linkedid": "lab-1.1"}
LATER = START + timedelta(minutes=1)


def test_a_call_that_ended_while_nobody_watched_is_reconciled() -> None:
    calls = Calls()
    allow(calls, asking_event(), START, Form.EXTENSION)
    assert calls.reconcile([shown(asking_event())], LATER, LATER, adopt=True) == []
    [end] = calls.reconcile([], LATER, LATER, adopt=True)
    assert (end.source, end.hung_up_by, end.ended_at) == (EndSource.RECONCILED, HungUpBy.UNKNOWN, LATER)


def test_a_call_that_began_after_the_list_was_asked_for_is_not_ended_by_it() -> None:
    calls = Calls()
    allow(calls, asking_event(), LATER, Form.EXTENSION)
    assert calls.reconcile([], START, LATER, adopt=True) == []
    assert len(calls) == 1


def test_calls_of_an_earlier_daemon_process_are_adopted_and_end_as_usual() -> None:
    calls = Calls()
    channels = [
        shown(LEG, is_leg=True, decision_id=FIRST, customer="acme"),
        shown(asking_event(), decision_id=FIRST, customer="acme"),
        shown({**asking_event(), "Uniqueid": "lab-9.9"}),
    ]
    calls.snapshot_asked()
    assert calls.reconcile(channels, START, START, adopt=True) == []
    assert list(calls.live()) == [("acme", FIRST)]
    [end] = calls.feed({**LEG, "Event": "Hangup", "Cause": "16"}, LATER)
    assert (end.trunk, end.detail, end.sip_status) == ("carrier", "adopted", 200)
    assert end.billable_ms == 60_000
    assert end.started_at is not None


def test_a_channel_that_ended_while_the_list_was_on_its_way_is_not_adopted() -> None:
    calls = Calls()
    calls.snapshot_asked()
    calls.feed({**asking_event(), "Event": "Hangup", "Cause": "16"}, START)
    calls.reconcile([shown(asking_event(), decision_id=FIRST)], START, START, adopt=True)
    assert len(calls) == 0


def test_a_leg_whose_beginning_was_missed_is_found_in_the_list() -> None:
    calls = Calls()
    allow(calls, asking_event(), START, Form.EXTENSION)
    channels = [shown(asking_event(), decision_id=FIRST), shown(LEG, is_leg=True, decision_id=FIRST)]
    calls.reconcile(channels, LATER, LATER, adopt=False)
    assert calls.feed({**asking_event(), "Event": "Hangup", "Cause": "16"}, LATER) == []
    [end] = calls.feed({**LEG, "Event": "Hangup", "Cause": "16"}, LATER)
    assert end.trunk == "carrier"


# --- events that come twice, late or never ----------------------------------------------------------------

RECORDINGS = (
    "answered_caller_bye", "answered_callee_bye", "busy", "cancelled", "blind", "two_legs", "leg_answered",
    "ami_hangup_ringing",
)  # fmt: skip


def disturbed(events: Events, seed: int) -> Events:
    """Some events dropped, some doubled, some later than they were; never the first, so that there is a call."""
    chance = random.Random(seed)
    first, rest = events[0], [event for event in events[1:] if chance.random() > 0.2]
    rest += [event for event in rest if chance.random() < 0.2]
    keyed: Callable[[int], float] = lambda position: position + chance.uniform(0, 4)  # noqa: E731
    order = sorted(range(len(rest)), key=keyed)
    return [first, *(rest[position] for position in order)]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(RECORDINGS), st.sampled_from([16, 22]), st.sampled_from(list(Form)), st.integers(0, 10**6))
def test_events_that_come_twice_late_or_never_end_a_call_at_most_once(
    name: str, version: int, form: Form, seed: int
) -> None:
    asking = "PJSIP/customer-" if form is Form.EXTENSION else "PJSIP/carrier"
    calls, ends = play(disturbed(events_of(name, version), seed), asking, form)
    ended_ids = [end.decision_id for end in ends]
    live_ids = [decision for _, decision in calls.live()]
    assert len(set(ended_ids + live_ids)) == len(ended_ids) + len(live_ids)
    # Whatever was missed, the switch's own list settles it, and nothing is left behind.
    settled = calls.reconcile([], START + timedelta(hours=1), START + timedelta(hours=1), adopt=True)
    assert {end.decision_id for end in settled} == set(live_ids)
    assert len(calls) == 0
    assert not any((calls._by_channel, calls._by_link, calls._by_local))
