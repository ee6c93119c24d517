"""The watch on its own: which legs it judges, once each, and what it does to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import structlog

from ringfence import reasons
from ringfence.config import FreeSwitchSettings, LegRule, LegsSettings
from ringfence.errors import SwitchError
from ringfence.ids import new_decision_id
from ringfence.model import Attempt, CallEnd, Decision, Verdict
from ringfence.switches.freeswitch.calls import LiveCalls, utcnow
from ringfence.switches.freeswitch.channel import Party
from ringfence.switches.freeswitch.seal import Sealer, Terms
from ringfence.switches.freeswitch.watch import Watch

CALLER, CALLED, OTHER = "12125550100", "12025550101", "12025550102"
PARTY = Party("acme", caller=CALLER)


class Gate:
    """Answers when it is told to."""

    def __init__(self, reason: str = "authorized") -> None:
        self.asked: list[Attempt] = []
        self.refused: list[str] = []
        self.reason = reason
        self.go = asyncio.Event()

    def _decision(self, attempt: Attempt) -> Decision:
        if self.reason in ("authorized", "emergency"):
            return Decision(attempt.decision_id, attempt.orig_id, Verdict.ALLOW, self.reason, "acme")
        return Decision(attempt.decision_id, attempt.orig_id, Verdict.REJECT, self.reason, "", "", 403, 21)

    async def decide(self, attempt: Attempt) -> Decision:
        self.asked.append(attempt)
        await self.go.wait()
        return self._decision(attempt)

    def refuse(self, attempt: Attempt, reason: str) -> Decision:
        self.asked.append(attempt)
        self.refused.append(reason)
        return replace(self._decision(attempt), verdict=Verdict.REJECT, reason=reason)


class Switch:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.dumps: dict[str, dict[str, str]] = {}
        self.down = False

    async def api(self, command: str) -> str:
        self.commands.append(command)
        if self.down:
            raise SwitchError("gone")
        name, _, rest = command.partition(" ")
        return json.dumps(self.dumps.get(rest.split(" ")[0], {})) if name == "uuid_dump" else "+OK"


class Scene:
    """A watch with everything around it."""

    def __init__(self, gate: Gate, mode: str = "kill") -> None:
        self.gate, self.switch, self.calls, self.ends = gate, Switch(), LiveCalls(), list[CallEnd]()
        settings = FreeSwitchSettings(
            kind="freeswitch",
            legs=LegsSettings(internal=(LegRule(profile="internal"),)),
            watch={"mode": mode},
        )
        self.sealer = Sealer("password")
        log = structlog.get_logger()
        self.watch = Watch(settings, "pbx", self.calls, self.sealer, gate, self.switch, self._tell, log)

    def _tell(self, ends: Sequence[CallEnd]) -> None:
        self.ends += [end for end in ends if not self.watch.ended(end)]

    def see(self, event: str = "CHANNEL_CREATE", **changes: str) -> None:
        self.watch.seen(leg(event, **changes), utcnow())

    def over(self) -> None:
        now = utcnow()
        self._tell(self.calls.event(leg("CHANNEL_HANGUP_COMPLETE"), now))
        self.watch.forget("leg")

    async def settle(self) -> None:
        self.gate.go.set()
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def kills(self) -> list[str]:
        return [command for command in self.switch.commands if command.startswith("uuid_kill")]


def leg(event: str, **changes: str) -> dict[str, str]:
    headers = {
        "Event-Name": event,
        "Unique-ID": "leg",
        "Call-Direction": "outbound",
        "Channel-Name": f"sofia/external/{CALLED}",
        "Caller-Caller-ID-Number": CALLER,
        "Caller-Destination-Number": CALLED,
        "variable_sip_destination_url": f"sip:{CALLED}@192.0.2.1",
        "variable_originate_endpoint": "sofia",
        "variable_accountcode": "acme",
    }
    return headers | {f"variable_{k}" if k.islower() else k.replace("_", "-"): v for k, v in changes.items()}


async def test_a_leg_without_a_decision_is_judged_once_and_hung_up() -> None:
    scene = Scene(Gate("caller_id_not_authorized"))
    for event in ("CHANNEL_CREATE", "CHANNEL_PROGRESS", "CHANNEL_ANSWER"):
        scene.see(event)
    await scene.settle()
    scene.see("CHANNEL_ANSWER")
    await scene.settle()
    (attempt,) = scene.gate.asked
    assert (attempt.entry, attempt.caller, attempt.called, attempt.account) == ("watch", CALLER, CALLED, "acme")
    assert attempt.places["created_by"] == "api"
    assert scene.kills == ["uuid_kill leg 21"]
    assert scene.calls.live() == []


async def test_an_allowed_one_lives_and_carries_its_seal() -> None:
    scene = Scene(Gate())
    scene.see()
    await scene.settle()
    assert scene.calls.live() == [("acme", scene.gate.asked[0].decision_id)]
    (mark,) = (command for command in scene.switch.commands if command.startswith("uuid_setvar_multi leg "))
    seal = mark.rpartition("ringfence_seal=")[2]
    terms = scene.sealer.open("leg", seal)
    assert terms is not None
    assert (terms.customer, terms.called, terms.allowed) == ("acme", CALLED, True)
    scene.over()
    assert [end.customer for end in scene.ends] == ["acme"]


async def test_one_that_ends_while_it_is_judged_ends_after_its_decision() -> None:
    scene = Scene(Gate())
    scene.see()
    await asyncio.sleep(0)
    scene.over()
    assert scene.ends == []
    await scene.settle()
    assert [end.customer for end in scene.ends] == ["acme"]
    assert scene.calls.live() == []


async def test_one_that_is_refused_and_over_is_not_hung_up() -> None:
    scene = Scene(Gate("endpoint_unknown"))
    scene.see()
    await asyncio.sleep(0)
    scene.over()
    await scene.settle()
    assert (scene.ends, scene.kills) == ([], [])


async def test_a_leg_that_asked_is_left_alone() -> None:
    scene = Scene(Gate())
    made = Decision(new_decision_id(), new_decision_id(), Verdict.ALLOW, "authorized", "acme")
    scene.calls.allowed(made, "leg", "", utcnow(), party=PARTY, called=CALLED)
    for event in ("CHANNEL_CREATE", "CHANNEL_PROGRESS", "CHANNEL_ANSWER"):
        scene.see(event, sip_from_uri="lab@192.0.2.1", sip_from_tag="x")
    await scene.settle()
    assert scene.gate.asked == []


async def test_a_sealed_leg_of_another_daemon_is_adopted() -> None:
    scene = Scene(Gate())
    terms = Terms(new_decision_id(), "acme", PARTY, CALLED)
    scene.see(ringfence_seal=scene.sealer.seal("leg", terms))
    await scene.settle()
    assert scene.gate.asked == []
    assert scene.calls.live() == [("acme", terms.decision_id)]


async def test_a_sealed_refusal_is_not_judged_again() -> None:
    scene = Scene(Gate())
    terms = Terms(new_decision_id(), "", PARTY, CALLED, allowed=False)
    scene.see("CHANNEL_DATA", ringfence_seal=scene.sealer.seal("leg", terms))
    await scene.settle()
    assert (scene.gate.asked, scene.calls.live()) == ([], [])


async def test_a_redirect_is_judged_anew_and_ends_the_first_decision() -> None:
    scene = Scene(Gate())
    made = Decision(new_decision_id(), new_decision_id(), Verdict.ALLOW, "authorized", "acme")
    scene.calls.allowed(made, "leg", "", utcnow(), party=PARTY, called=CALLED)
    scene.see()
    for event in ("CHANNEL_PROGRESS", "CHANNEL_ANSWER"):
        scene.see(event, sip_redirected_to=f"<sip:{OTHER}@192.0.2.9:5060>")
    await scene.settle()
    (attempt,) = scene.gate.asked
    assert (attempt.called, attempt.account, attempt.places["created_by"]) == (OTHER, "acme", "redirect")
    assert [end.decision_id for end in scene.ends] == [made.decision_id]
    assert scene.calls.live() == [("acme", attempt.decision_id)]


async def test_a_leg_inside_that_is_sent_outside_is_judged() -> None:
    scene = Scene(Gate("endpoint_unknown"))
    inside = {"Channel_Name": f"sofia/internal/{CALLED}"}
    scene.see(**inside)
    await scene.settle()
    assert scene.gate.asked == []
    scene.see("CHANNEL_PROGRESS", **inside, sip_redirected_to=f"sip:{CALLED}@192.0.2.1")
    await scene.settle()
    assert scene.gate.asked == []
    scene.see("CHANNEL_PROGRESS", **inside, sip_redirected_to=f"sip:{OTHER}@203.0.113.9")
    await scene.settle()
    assert [attempt.called for attempt in scene.gate.asked] == [OTHER]
    assert scene.kills == ["uuid_kill leg 21"]


async def test_a_leg_that_shows_another_number_than_was_decided_is_judged_anew() -> None:
    scene = Scene(Gate("caller_id_not_authorized"))
    made = Decision(new_decision_id(), new_decision_id(), Verdict.ALLOW, "authorized", "acme")
    scene.calls.allowed(made, "leg", "", utcnow(), party=PARTY, called=CALLED)
    scene.see(Caller_Caller_ID_Number="12125559999")
    await scene.settle()
    assert scene.gate.asked[0].places["created_by"] == "rewritten"
    assert scene.kills == ["uuid_kill leg 21"]


async def test_how_a_leg_came_to_be_is_read_off_the_channel_that_dials_it() -> None:
    for dump, direction, how in (
        ({}, "inbound", "dialplan"),
        ({"variable_sip_refer_to": "<sip:1@x>"}, "inbound", "transfer"),
        ({"Caller-Transfer-Source": "1:x:bl_xfer:1/d/XML"}, "outbound", "transfer"),
        ({}, "outbound", "api"),
    ):
        scene = Scene(Gate())
        scene.switch.dumps["asker"] = {"variable_accountcode": "theirs", **dump}
        scene.see(Other_Leg_Unique_ID="asker", Other_Leg_Direction=direction, accountcode="")
        await scene.settle()
        (attempt,) = scene.gate.asked
        assert (attempt.places["created_by"], attempt.account) == (how, "theirs")


async def test_an_unreadable_leg_is_refused_unless_it_may_be_an_emergency_call() -> None:
    unreadable = {"sip_from_display": "x%0d%0ay"}
    scene = Scene(Gate("malformed_attempt"))
    scene.see(**unreadable)
    await scene.settle()
    assert scene.gate.refused == [reasons.MALFORMED_ATTEMPT]
    scene = Scene(Gate("emergency"))
    short = {"Channel_Name": "sofia/external/911", "sip_destination_url": "sip:911@192.0.2.1"}
    scene.see(**unreadable, **short)
    await scene.settle()
    assert scene.gate.refused == [reasons.CALLER_ID_CONFLICT]  # with which the gate lets an emergency call pass


async def test_a_leg_whose_verdict_never_came_and_that_left_is_a_stray() -> None:
    scene = Scene(Gate("endpoint_unknown"))
    made = Decision(new_decision_id(), new_decision_id(), Verdict.ALLOW, "authorized", "acme")
    scene.calls.allowed(made, "leg", "", utcnow(), party=PARTY, called=CALLED)
    await scene.watch.undelivered("leg")  # it has not left
    scene.see()
    scene.calls.undelivered(made.decision_id, "leg", utcnow())
    scene.switch.dumps["leg"] = leg("CHANNEL_DATA")
    await scene.watch.undelivered("leg")
    await scene.settle()
    assert len(scene.gate.asked) == 1
    assert scene.kills == ["uuid_kill leg 21"]


async def test_report_records_and_off_does_not_look() -> None:
    for mode, asked in (("report", 1), ("off", 0)):
        scene = Scene(Gate("endpoint_unknown"), mode)
        scene.see()
        await scene.settle()
        assert (len(scene.gate.asked), scene.kills) == (asked, [])


async def test_a_switch_that_does_not_obey_is_logged() -> None:
    scene = Scene(Gate("endpoint_unknown"))
    scene.switch.down = True
    with structlog.testing.capture_logs() as logs:
        scene.watch._log = structlog.get_logger()
        scene.see()
        await scene.settle()
    assert [entry["event"] for entry in logs] == ["watch.kill_failed", "watch.bypass"]
    await scene.watch.stop()


async def test_what_cannot_be_named_is_not_looked_at() -> None:
    scene = Scene(Gate())
    scene.see(Unique_ID="x y")
    scene.see(Call_Direction="inbound", Unique_ID="caller", Answer_State="answered")
    await scene.settle()
    assert scene.gate.asked == []
    assert scene.watch.parties.of("caller") is not None
