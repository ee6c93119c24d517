"""The live calls of one FreeSWITCH: allowed decisions, their legs, and how each call ends. Pure; no I/O."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from ringfence.model import CallEnd, Decision, EndSource, HungUpBy
from ringfence.switches.freeswitch.channel import Party
from ringfence.switches.freeswitch.legs import LegEnd, Side, hung_up_by, read_end
from ringfence.switches.freeswitch.seal import Terms
from ringfence.switches.sip import same_number

GRACE = timedelta(seconds=2)
_MAX_REMEMBERED = 20_000
_MAX_LIVE = 200_000  # beyond it the oldest is given up to its lease: the event socket has been down for long


@dataclass(slots=True, eq=False)
class LiveCall:
    """An allowed call from its verdict to its end: one decision, however many legs."""

    decision_id: UUID
    customer: str
    origin: str  # uuid of the leg that asked, empty for an API originate
    started_at: datetime
    asking: bool = False  # its one leg is the caller's own: the dialplan asked
    party: Party = field(default_factory=Party)  # who caused it
    called: str = ""
    legs: dict[str, LegEnd | None] = field(default_factory=dict)  # None: lives
    origin_side: Side | None = None  # who ended the asking leg
    idle_since: datetime | None = None  # when the last leg ended
    lost: bool = False  # a leg was gone when the switch's list was read
    ours: str = ""  # why Ringfence asked the switch to end it

    def answered(self) -> LegEnd | None:
        """The answered leg that is over, if there is one."""
        return next((leg for leg in self.legs.values() if leg and leg.answered_at), None)

    def idle(self) -> bool:
        """True while no leg lives."""
        return all(self.legs.values()) or not self.legs

    def settled(self) -> bool:
        """True once nothing can follow: the asking leg cannot try the next one, and who hung up is known."""
        if not self.idle():
            return False
        if not self.origin or self.origin_side is not None:
            return True
        answered = self.answered()
        return answered is not None and answered.side is Side.FAR

    def end(self, source: EndSource, at: datetime) -> CallEnd:
        """How the call ended: the answered leg speaks for it, else the one tried last."""
        ends = [leg for leg in self.legs.values() if leg]
        leg = self.answered() or (ends[-1] if ends else None)
        if leg is None or source is not EndSource.EVENT:
            return CallEnd(self.decision_id, self.customer, source, HungUpBy.UNKNOWN, self.started_at, None, at)
        return CallEnd(
            decision_id=self.decision_id,
            customer=self.customer,
            source=source,
            hung_up_by=HungUpBy.RINGFENCE if self.ours else hung_up_by(leg, self.origin_side, asking=self.asking),
            started_at=min(self.started_at, leg.created_at or self.started_at),
            answered_at=leg.answered_at,
            ended_at=leg.ended_at or at,
            post_dial_delay_ms=leg.post_dial_delay_ms,
            q850_cause=leg.q850_cause,
            sip_status=leg.sip_status,
            trunk=leg.trunk,
            trunk_channel=leg.channel,
            detail=self.ours or leg.detail,
        )


class LiveCalls:
    """The table. Its methods give the ends that follow from what they were told."""

    def __init__(self) -> None:
        self._calls: dict[UUID, LiveCall] = {}
        self._by_leg: dict[str, LiveCall] = {}
        self._by_origin: dict[str, list[LiveCall]] = {}
        self._ended: OrderedDict[UUID, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._calls)

    def live(self) -> list[tuple[str, UUID]]:
        """Customer and decision id of every live call that has a customer."""
        return [(call.customer, call.decision_id) for call in self._calls.values() if call.customer]

    def call_of(self, leg: str) -> LiveCall | None:
        """The live call this leg belongs to."""
        return self._by_leg.get(leg)

    def party_on(self, leg: str) -> tuple[Party, str] | None:
        """The party that caused this decided leg, and the channel it asked from."""
        call = self._by_leg.get(leg)
        return None if call is None or call.asking else (call.party, call.origin)

    def party_asking(self, channel: str) -> Party | None:
        """The party whose channel this is, if it asked for a live call."""
        asked = self._by_origin.get(channel, ())
        return next((call.party for call in asked if channel not in self._by_leg), None)

    def covers(self, channel: str, called: str, callers: Collection[str]) -> bool:
        """True if the dialplan asked on this channel for a call to that number, showing these."""
        call = self._by_leg.get(channel)
        if call is None or not call.asking or not same_number(call.called, called):
            return False
        return all(same_number(call.party.caller, shown) for shown in callers)

    def allowed(
        self,
        decision: Decision,
        leg: str,
        origin: str,
        now: datetime,
        *,
        asking: bool = False,
        party: Party | None = None,
        called: str = "",
    ) -> None:
        """This leg may leave under this decision, or is about to be told so; or it has left, and is judged now."""
        call = self._add(decision.decision_id, decision.customer, leg, origin, now)
        call.asking, call.party, call.called = asking, party or Party(), called

    def judged(self, decision: Decision) -> None:
        """A leg that left without asking has its decision: it is a call like any other, or none of ours."""
        call = self._calls.get(decision.decision_id)
        if call is None:
            return
        if decision.allowed:
            call.customer = decision.customer
        else:
            self._forget(call)

    def went_on(self, leg: str, now: datetime) -> list[CallEnd]:
        """This leg calls another number than its decision is about: as far as that goes, it is over."""
        call = self._by_leg.pop(leg, None)
        if call is None:
            return []
        del call.legs[leg]
        if call.legs:
            call.idle_since = now if call.idle() else None
            return []
        end = CallEnd(
            *(call.decision_id, call.customer, EndSource.EVENT, HungUpBy.CALLEE, call.started_at, None, now),
            detail="the leg went on to another number",
        )
        self._forget(call)
        return [end]

    def refused(self, decision_id: UUID) -> None:
        """This decision has no call, whatever a channel variable may say later."""
        self._remember(decision_id)

    def hanging_up(self, decision_id: UUID, why: str) -> list[str]:
        """The channels to end for a live call, the one that asked first: it might try the next leg. The end row
        will say `why`. Empty if the call is not live."""
        call = self._calls.get(decision_id)
        if call is None:
            return []
        call.ours = why
        return [*filter(None, (call.origin,)), *(leg for leg, over in call.legs.items() if over is None)]

    def undelivered(self, decision_id: UUID, leg: str, now: datetime) -> list[CallEnd]:
        """The leg never got the verdict. The call ends here unless another leg has it."""
        call = self._calls.get(decision_id)
        if call is None or self._by_leg.get(leg) is not call:
            return []
        call.legs.pop(leg, None)
        self._by_leg.pop(leg, None)
        if call.legs:
            call.idle_since = now if call.idle() else None
            return []
        end = call.end(EndSource.UNDELIVERED, now)
        self._forget(call)
        return [end]

    def event(self, event: Mapping[str, str], now: datetime) -> list[CallEnd]:
        """What follows from CHANNEL_HANGUP_COMPLETE, or from CHANNEL_DESTROY where that did not come."""
        if event.get("Event-Name") not in ("CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY"):
            return []
        uuid = event.get("Unique-ID", "")
        touched = list(self._by_origin.get(uuid, ()))
        for asked in touched:
            asked.origin_side = asked.origin_side or read_end(event).side
        of_leg = self._by_leg.get(uuid)
        if of_leg is not None:
            if of_leg.legs.get(uuid) is None:
                of_leg.legs[uuid] = read_end(event)
            if of_leg.idle() and of_leg.idle_since is None:
                of_leg.idle_since = now
            if of_leg not in touched:
                touched.append(of_leg)
        return [self._finish(call, now) for call in touched if call.settled()]

    def due(self, now: datetime) -> list[CallEnd]:
        """The ends of calls that have had no leg for `GRACE`: whoever asked will not try another one."""
        over = [
            call
            for call in self._calls.values()
            if call.idle_since and call.idle() and now - call.idle_since >= GRACE
        ]
        return [self._finish(call, now) for call in over]

    def adopt(self, terms: Terms, leg: str, now: datetime) -> bool:
        """A leg that was decided before this daemon started, or by another. False if that call is over."""
        if terms.decision_id in self._ended or not terms.allowed:
            return False
        if leg not in self._by_leg:
            call = self._add(terms.decision_id, terms.customer, leg, terms.origin, now)
            call.asking, call.party, call.called = terms.asking, terms.party, terms.called
        return True

    def missing(self, listed: Collection[str], before: datetime) -> list[str]:
        """Live legs, and the legs that asked for them, that were not in the switch's list asked for at `before`.

        A leg that waits at the gate is in no list yet: ask about each before `reconcile`.
        """
        there = frozenset(listed)
        uuids: dict[str, None] = {}
        for call in self._calls.values():
            if call.started_at < before:
                lives = [leg for leg, over in call.legs.items() if over is None]
                asker = [call.origin] if call.origin and call.origin_side is None else []
                uuids.update(dict.fromkeys(uuid for uuid in (*lives, *asker) if uuid not in there))
        return list(uuids)

    def reconcile(self, gone: Collection[str], now: datetime) -> list[CallEnd]:
        """What follows from legs that the switch has no more, and whose end was never told."""
        touched: dict[UUID, LiveCall] = {}
        for uuid in gone:
            for asked in self._by_origin.get(uuid, ()):
                asked.origin_side = asked.origin_side or Side.NEAR
                touched[asked.decision_id] = asked
            call = self._by_leg.get(uuid)
            if call is not None and call.legs.get(uuid) is None:
                call.lost = True
                call.legs[uuid] = read_end({})
                touched[call.decision_id] = call
        return [
            self._finish(call, now) for call in touched.values() if call.settled() or (call.lost and call.idle())
        ]

    def _add(self, decision_id: UUID, customer: str, leg: str, origin: str, now: datetime) -> LiveCall:
        call = self._calls.get(decision_id)
        if call is None:
            if len(self._calls) >= _MAX_LIVE:
                self._forget(next(iter(self._calls.values())))
            call = self._calls[decision_id] = LiveCall(decision_id, customer, origin, now)
            if origin:
                self._by_origin.setdefault(origin, []).append(call)
        call.legs[leg] = None
        call.idle_since = None
        self._by_leg[leg] = call
        return call

    def _finish(self, call: LiveCall, now: datetime) -> CallEnd:
        end = call.end(EndSource.RECONCILED if call.lost else EndSource.EVENT, now)
        self._forget(call)
        return end

    def _forget(self, call: LiveCall) -> None:
        self._calls.pop(call.decision_id, None)
        for leg in call.legs:
            if self._by_leg.get(leg) is call:
                del self._by_leg[leg]
        if call.origin:
            rest = [other for other in self._by_origin.get(call.origin, ()) if other is not call]
            if rest:
                self._by_origin[call.origin] = rest
            else:
                self._by_origin.pop(call.origin, None)
        self._remember(call.decision_id)

    def _remember(self, decision_id: UUID) -> None:
        self._ended[decision_id] = None
        if len(self._ended) > _MAX_REMEMBERED:
            self._ended.popitem(last=False)


def utcnow() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)
