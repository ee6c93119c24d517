"""The table of live calls: allowed calls go in, the switch's events are fed to it, call ends come out. No I/O.

Events may come twice, late, out of order between channels, or not at all; the switch's own channel list
(`reconcile`) has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from ringfence.model import Attempt, CallEnd, Decision, EndSource, HungUpBy
from ringfence.switches.asterisk.channel import Form, Question
from ringfence.switches.asterisk.live import LiveCall, number
from ringfence.switches.asterisk.snapshot import Shown

EVENTS = (
    "AttendedTransfer",
    "BlindTransfer",
    "DialBegin",
    "DialEnd",
    "DialState",
    "Hangup",
    "HangupRequest",
    "UserEvent",
)
"""The manager events that `feed` understands (Asterisk, AMI events)."""

USER_EVENT = "RingfenceEnd"


class Calls:
    """Every allowed call that is not over, by its decision."""

    def __init__(self) -> None:
        self._calls: dict[UUID, LiveCall] = {}
        self._by_channel: dict[str, list[LiveCall]] = {}  # unique ids of asking channels and of legs
        self._by_link: dict[str, list[LiveCall]] = {}
        self._by_local: dict[str, LiveCall] = {}  # `Local/…-00000001` of legs `Local/…-00000001;1`
        self._gone: set[str] | None = None  # channels that ended while a snapshot is on its way
        self._handlers: dict[str, Callable[[Mapping[str, str], datetime], Iterable[LiveCall]]] = {
            "AttendedTransfer": self._transfer,
            "BlindTransfer": self._transfer,
            "DialBegin": self._dial_begin,
            "DialEnd": self._dial_end,
            "DialState": self._dial_state,
            "Hangup": self._hangup,
            "HangupRequest": self._hangup_request,
            "UserEvent": self._user_event,
        }

    def __len__(self) -> int:
        return len(self._calls)

    def live(self) -> Sequence[tuple[str, UUID]]:
        """Customer and decision id of every live call."""
        return [(call.customer, call.decision_id) for call in self._calls.values()]

    # --- from the gate --------------------------------------------------------------------------------------

    def started(self, attempt: Attempt, decision: Decision, question: Question, at: datetime) -> None:
        """This call was allowed; `at` is when it was asked. Said before the switch is told."""
        call = LiveCall(
            decision_id=decision.decision_id,
            customer=decision.customer,
            form=question.form,
            asking=question.uniqueid,
            asking_channel=question.channel,
            linkedid=attempt.call_ref,
            started_at=at,
            known_since=at,
        )
        if question.form is Form.LEG:
            call.leg_added(question.uniqueid, question.channel)
        self._add(call)

    def stray(self, attempt: Attempt, event: Mapping[str, str], at: datetime, *, is_up: bool = False) -> None:
        """This leg is out without a decision: keep its course while it is judged."""
        leg = event["DestUniqueid"]
        call = LiveCall(
            decision_id=attempt.decision_id,
            customer="",
            form=Form.LEG,
            asking=leg,
            asking_channel=attempt.channel,
            linkedid=attempt.call_ref,
            started_at=at,
            known_since=at,
            parent=event.get("Uniqueid", ""),
        )
        call.leg_added(leg, attempt.channel).answered = is_up
        call.answered_at = at if is_up else None  # or earlier: nobody was there to see
        self._add(call)

    def judged(self, decision: Decision) -> None:
        """A stray call has its decision: from now on it is a call like any other, or none of ours."""
        call = self._calls.get(decision.decision_id)
        if call is None:
            return
        if decision.allowed:
            call.customer = decision.customer
        else:
            self._forget(call)

    def knows_leg(self, uniqueid: str) -> bool:
        """True if a decided call, or one that is being judged, has this leg."""
        return bool(self._calls_with_leg(uniqueid))

    def undecided(self, shown: Iterable[Shown]) -> list[Shown]:
        """The outbound legs of a snapshot that no decided call knows and that are still there."""
        gone = self._gone or set()
        legs = [channel for channel in shown if channel.undecided is not None and channel.uniqueid not in gone]
        return [channel for channel in legs if not self._calls_of(channel.uniqueid)]

    def undelivered(self, decision_id: UUID, by: HungUpBy, at: datetime, *, proof: bool) -> CallEnd | None:
        """The verdict was not acknowledged. The end, unless it is still to be proven by events.

        A caller who hung up is proof. Otherwise, if `proof` can be expected from events, the call stays: a leg
        that is dialled shows that the verdict did arrive.
        """
        call = self._calls.get(decision_id)
        if call is None or (call.form is Form.EXTENSION and call.legs) or call.parent:
            return None
        if by is HungUpBy.UNKNOWN and proof:
            call.uncertain = True
            return None
        self._forget(call)
        return undelivered_end(call.decision_id, call.customer, by, call.started_at, at)

    def hanging_up(self, decision_id: UUID, why: str = "") -> list[str]:
        """Ringfence is about to hang this call up: the channels to hang up, none if the call is over."""
        call = self._calls.get(decision_id)
        if call is None:
            return []
        call.ours, call.why = True, why
        legs = [leg.channel for leg in call.legs.values() if not leg.ended]
        asking = [] if call.asking_ended or call.asking_channel in legs else [call.asking_channel]
        return [*asking, *legs]

    # --- from the event socket ------------------------------------------------------------------------------

    def feed(self, event: Mapping[str, str], at: datetime) -> list[CallEnd]:
        """Take one manager event, received at `at`; the calls that are over because of it."""
        handler = self._handlers.get(event.get("Event", ""))
        if handler is None:
            return []
        touched = list(handler(event, at))
        return [self._ended(call, EndSource.EVENT, at) for call in touched if call.over()]

    def snapshot_asked(self) -> None:
        """The switch is about to be asked for its channels: from now on, remember which ones end."""
        self._gone = set()

    def snapshot_failed(self) -> None:
        """There will be no snapshot."""
        self._gone = None

    def reconcile(self, shown: Iterable[Shown], asked_at: datetime, at: datetime, *, adopt: bool) -> list[CallEnd]:
        """Compare with the switch's channel list, asked for at `asked_at`: end what is gone, at an unknown time
        before `at`, and with `adopt` take over calls that this process does not know (it was restarted).
        """
        gone, self._gone = self._gone or set(), None
        channels = {channel.uniqueid: channel for channel in shown if channel.uniqueid not in gone}
        for channel in channels.values():
            if channel.decision_id is not None and (adopt or channel.decision_id in self._calls):
                self._seen(channel, channel.decision_id, asked_at, at)
        ends = []
        for call in list(self._calls.values()):
            if call.known_since >= asked_at:
                continue
            call.asking_ended = call.asking_ended or call.asking not in channels
            for leg in call.legs.values():
                leg.ended = leg.ended or leg.uniqueid not in channels
            if call.over():
                ends.append(self._ended(call, EndSource.RECONCILED, at))
        return ends

    # --- one handler for each event: the calls it touches ------------------------------------------------------

    def _dial_begin(self, event: Mapping[str, str], at: datetime) -> Iterable[LiveCall]:
        asking, leg = event.get("Uniqueid", ""), event.get("DestUniqueid", "")
        for call in self._calls_of(leg):
            if call.form is Form.LEG and call.asking == leg:
                call.uncertain, call.parent = False, asking
        calls = [call for call in self._calls_of(asking) if call.form is Form.EXTENSION and call.asking == asking]
        channel = event.get("Channel", "")
        if channel.endswith(";2") and (behind := self._by_local.get(channel.removesuffix(";2"))) is not None:
            calls.append(behind)
        for call in calls:
            if leg and leg not in call.legs:
                self._leg(call, leg, event.get("DestChannel", ""))
        return ()

    def _dial_state(self, event: Mapping[str, str], at: datetime) -> Iterable[LiveCall]:
        if event.get("DialStatus") in ("RINGING", "PROGRESS"):
            for call in self._calls_with_leg(event.get("DestUniqueid", "")):
                call.first_sign_at = call.first_sign_at or at
        return ()

    def _dial_end(self, event: Mapping[str, str], at: datetime) -> Iterable[LiveCall]:
        if event.get("DialStatus") == "ANSWER":
            leg = event.get("DestUniqueid", "")
            for call in self._calls_with_leg(leg):
                call.legs[leg].answered = True
                call.answered_at = call.answered_at or at
                call.first_sign_at = call.first_sign_at or at
        return ()

    def _hangup_request(self, event: Mapping[str, str], at: datetime) -> Iterable[LiveCall]:
        """Sent when a channel's far end hung up or refused; never for what the switch does itself."""
        channel = event.get("Uniqueid", "")
        known = self._calls_of(channel)
        for call in self._calls_with_leg(channel):
            leg = call.legs[channel]
            leg.requested = True
            leg.cause = number(event.get("Cause")) or leg.cause
            # Asterisk 22; on Hangup events it is only Asterisk's own translation of the cause.
            status = number(event.get("TechCause"))
            leg.sip_status = status if 300 <= status < 700 else leg.sip_status
        for call in self._by_link.get(event.get("Linkedid", ""), ()):
            theirs = channel in (call.asking, call.parent) or call.transferred or not known
            if theirs and channel not in call.legs:
                call.caller_requested = True
        return ()

    def _hangup(self, event: Mapping[str, str], at: datetime) -> Iterable[LiveCall]:
        channel = event.get("Uniqueid", "")
        if self._gone is not None:
            self._gone.add(channel)
        calls = list(self._calls_of(channel))
        for call in calls:
            if leg := call.legs.get(channel):
                leg.ended = True
                leg.cause = number(event.get("Cause")) or leg.cause
            if call.asking == channel:
                call.asking_ended = True
                call.asking_cause = number(event.get("Cause"))
        return calls

    def _transfer(self, event: Mapping[str, str], at: datetime) -> Iterable[LiveCall]:
        """From here on, whoever asked is no longer the one the callee talks to."""
        names = ("TransfererUniqueid", "TransfereeUniqueid", "OrigTransfererUniqueid", "SecondTransfererUniqueid")
        for name in names:
            for call in self._calls_of(event.get(name, "")):
                if not call.transferred:
                    call.transferred, call.caller_requested = True, False
        return ()

    def _user_event(self, event: Mapping[str, str], at: datetime) -> Iterable[LiveCall]:
        """RingfenceEnd: the asking channel is at its end, or is about to ask about another call."""
        if event.get("UserEvent") != USER_EVENT:
            return ()
        try:
            call = self._calls.get(UUID(event.get("Decision", "")))
        except ValueError:
            return ()
        if call is None:
            return ()
        call.told(event)
        if call.form is Form.EXTENSION:
            call.asking_ended = True
        return (call,)

    # --- the table --------------------------------------------------------------------------------------------

    def _seen(self, channel: Shown, decision_id: UUID, asked_at: datetime, at: datetime) -> None:
        """A channel of the snapshot that carries this decision."""
        call = self._calls.get(decision_id)
        if call is None:
            call = LiveCall(
                decision_id=decision_id,
                customer=channel.customer,
                form=Form.EXTENSION,
                asking="" if channel.is_leg else channel.uniqueid,
                asking_channel="" if channel.is_leg else channel.channel,
                linkedid=channel.linkedid,
                started_at=channel.decided_at,
                known_since=asked_at,
                adopted=True,
                asking_ended=channel.is_leg,
            )
            self._add(call)
        elif call.adopted and not call.asking and not channel.is_leg:
            call.asking, call.asking_channel, call.asking_ended = channel.uniqueid, channel.channel, False
            self._by_channel.setdefault(channel.uniqueid, []).append(call)
        if channel.is_leg and channel.uniqueid not in call.legs:
            self._leg(call, channel.uniqueid, channel.channel)
            if channel.is_up:
                call.legs[channel.uniqueid].answered = True
                call.answered_at = call.answered_at or at  # or earlier: nobody was there to see

    def _calls_of(self, channel: str) -> Sequence[LiveCall]:
        return self._by_channel.get(channel, ())

    def _calls_with_leg(self, channel: str) -> list[LiveCall]:
        return [call for call in self._calls_of(channel) if channel in call.legs]

    def _add(self, call: LiveCall) -> None:
        self._calls[call.decision_id] = call
        self._by_channel.setdefault(call.asking, []).append(call)
        self._by_link.setdefault(call.linkedid, []).append(call)

    def _leg(self, call: LiveCall, uniqueid: str, channel: str) -> None:
        call.leg_added(uniqueid, channel)
        self._by_channel.setdefault(uniqueid, []).append(call)
        if channel.startswith("Local/") and channel.endswith(";1"):
            self._by_local[channel.removesuffix(";1")] = call

    def _ended(self, call: LiveCall, source: EndSource, at: datetime) -> CallEnd:
        self._forget(call)
        return call.end(source, at)

    def _forget(self, call: LiveCall) -> None:
        self._calls.pop(call.decision_id, None)
        for key in {call.asking, *call.legs}:
            _remove(self._by_channel, key, call)
        _remove(self._by_link, call.linkedid, call)
        for leg in call.legs.values():
            self._by_local.pop(leg.channel.removesuffix(";1"), None)


def undelivered_end(decision_id: UUID, customer: str, by: HungUpBy, started_at: datetime, at: datetime) -> CallEnd:
    """The end of a call that was allowed, but whose switch never got that answer."""
    return CallEnd(decision_id, customer, EndSource.UNDELIVERED, by, started_at=started_at, ended_at=at)


def _remove(index: dict[str, list[LiveCall]], key: str, call: LiveCall) -> None:
    remaining = [other for other in index.get(key, ()) if other is not call]
    if remaining:
        index[key] = remaining
    else:
        index.pop(key, None)
