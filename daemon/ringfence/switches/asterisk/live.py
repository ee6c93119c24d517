"""One live call as the table in `calls` keeps it, and how it reads when it is over."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from ringfence.model import CallEnd, EndSource, HungUpBy
from ringfence.switches.asterisk.channel import Form, endpoint_of

_TECH = re.compile(r"SIP ([3-6][0-9]{2})\b", re.ASCII)


@dataclass(slots=True)
class Leg:
    """One outbound leg of a call."""

    uniqueid: str
    channel: str
    answered: bool = False
    requested: bool = False  # its own far end hung up or refused
    cause: int = 0  # Q.850
    sip_status: int = 0
    ended: bool = False

    @property
    def is_local(self) -> bool:
        """True for a Local channel, which only stands before a real leg."""
        return self.channel.startswith("Local/")


@dataclass(slots=True)
class LiveCall:
    """An allowed call from its verdict to its end. In the form `leg` the asking channel is the only leg."""

    decision_id: UUID
    customer: str
    form: Form
    asking: str  # unique id
    asking_channel: str
    linkedid: str
    started_at: datetime
    known_since: datetime
    adopted: bool = False
    uncertain: bool = False  # the verdict was sent but never acknowledged
    legs: dict[str, Leg] = field(default_factory=dict)
    parent: str = ""  # form `leg`: unique id of the channel that dials
    first_sign_at: datetime | None = None
    answered_at: datetime | None = None
    asking_ended: bool = False
    asking_cause: int = 0
    caller_requested: bool = False
    ours: bool = False  # Ringfence asked the switch to hang it up
    why: str = ""
    transferred: bool = False
    told_status: int = 0
    told_cause: int = 0

    def leg_added(self, uniqueid: str, channel: str) -> Leg:
        """The leg with this unique id, made if it is new. That there is one proves the verdict arrived."""
        self.uncertain = False
        return self.legs.setdefault(uniqueid, Leg(uniqueid, channel))

    def over(self) -> bool:
        """True once nothing of the call can go on.

        While no leg was answered, the asking channel may still dial another one. After an answer, the end of
        the last leg is the end, even if the asking channel lives on; and a leg lives on without the asking
        channel when its party was transferred.
        """
        if any(not leg.ended for leg in self.legs.values()):
            return False
        return self.asking_ended or any(leg.answered for leg in self.legs.values())

    def told(self, event: Mapping[str, str]) -> None:
        """What the dialplan's RingfenceEnd event says of the carrier's last answer."""
        if match := _TECH.search(event.get("Tech", "")):
            self.told_status = int(match[1])
        self.told_cause = number(event.get("Cause")) or self.told_cause

    def end(self, source: EndSource, at: datetime) -> CallEnd:
        """How the call ended."""
        leg = self._deciding_leg()
        proven = not self.uncertain
        if not proven and source is EndSource.EVENT:
            source = EndSource.UNDELIVERED
        sign = self.first_sign_at
        return CallEnd(
            decision_id=self.decision_id,
            customer=self.customer,
            source=source,
            hung_up_by=self._hung_up_by(leg) if source is EndSource.EVENT else HungUpBy.UNKNOWN,
            started_at=self.started_at,
            answered_at=self.answered_at,
            ended_at=at,
            post_dial_delay_ms=max(0, round((sign - self.started_at).total_seconds() * 1000)) if sign else None,
            q850_cause=(leg.cause if leg else 0) or self.told_cause or self.asking_cause,
            sip_status=self._sip_status(leg),
            trunk=endpoint_of(leg.channel) if leg else "",
            trunk_channel=leg.channel if leg else "",
            detail=self.why or ("adopted" if self.adopted else ""),
        )

    def _deciding_leg(self) -> Leg | None:
        """The answered leg, else the one tried last; a real one before a Local one."""
        legs = list(self.legs.values())
        return max(reversed(legs), key=lambda leg: (leg.answered, not leg.is_local), default=None)

    def _sip_status(self, leg: Leg | None) -> int:
        if leg is None:
            return 0
        return 200 if leg.answered else leg.sip_status or self.told_status

    def _hung_up_by(self, leg: Leg | None) -> HungUpBy:
        if leg is not None and leg.requested:
            return HungUpBy.CALLEE
        if self.ours:
            return HungUpBy.RINGFENCE
        return HungUpBy.CALLER if self.caller_requested else HungUpBy.SWITCH


def number(text: str | None) -> int:
    """The number in an event's field, 0 if there is none."""
    return int(text) if text and len(text) <= 9 and text.isascii() and text.isdecimal() else 0
