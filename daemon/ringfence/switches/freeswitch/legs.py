"""One leg's end as CHANNEL_HANGUP_COMPLETE tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from ringfence.model import HungUpBy

MAX_DETAIL = 200
_CANCELLED = "487"


class Side(StrEnum):
    """Who ended a leg, as far as the leg itself shows."""

    FAR = "far"  # its other end sent BYE, CANCEL or a refusal
    NEAR = "near"  # this switch did, for a reason of its own or of the asking leg's


@dataclass(frozen=True, slots=True)
class LegEnd:
    """How one leg ended. Times are UTC; None where the switch shows none."""

    side: Side
    created_at: datetime | None
    progress_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    q850_cause: int
    sip_status: int
    trunk: str
    channel: str
    detail: str
    bridged: bool = False

    @property
    def post_dial_delay_ms(self) -> int | None:
        """From the leg's creation to the first ringing, media or answer."""
        first = self.progress_at or self.answered_at
        if first is None or self.created_at is None:
            return None
        return max(0, round((first - self.created_at).total_seconds() * 1000))


def read_end(event: Mapping[str, str]) -> LegEnd:
    """The end of a leg from its CHANNEL_HANGUP_COMPLETE or CHANNEL_DESTROY. Never raises."""
    answered_at = moment(event, "Caller-Channel-Answered-Time", "variable_answer_uepoch")
    phrase = event.get("variable_sip_invite_failure_phrase", "")
    analytics = event.get("variable_sip_603plus_reason", "")
    detail = "; ".join(text for text in (phrase, analytics and f"603+ {analytics}") if text)
    far = event.get("variable_sip_hangup_disposition", "").startswith("recv_")
    return LegEnd(
        side=Side.FAR if far else Side.NEAR,
        created_at=moment(event, "Caller-Channel-Created-Time", "variable_start_uepoch"),
        progress_at=min(
            filter(
                None,
                (
                    moment(event, "Caller-Channel-Progress-Time", "variable_progress_uepoch"),
                    moment(event, "Caller-Channel-Progress-Media-Time", "variable_progress_media_uepoch"),
                ),
            ),
            default=None,
        ),
        answered_at=answered_at,
        ended_at=moment(event, "Caller-Channel-Hangup-Time", "variable_end_uepoch")
        or moment(event, "Event-Date-Timestamp"),
        q850_cause=number(event.get("variable_hangup_cause_q850"), 127),
        sip_status=200 if answered_at else _failure_status(event),
        trunk=(event.get("variable_sip_gateway_name") or event.get("variable_sofia_profile_name", ""))[:255],
        channel=event.get("Channel-Name", "")[:255],
        detail=detail.replace("\x00", "")[:MAX_DETAIL],
        bridged="variable_last_bridge_to" in event,
    )


def hung_up_by(leg: LegEnd, asker: Side | None, *, asking: bool) -> HungUpBy:
    """Who ended the call of this leg.

    `asker` is who ended the leg that asked for it: None if that goes on or there is none. `asking` says that the
    leg is the caller's own.
    """
    if asking:
        if leg.side is Side.FAR:
            return HungUpBy.CALLER
        return HungUpBy.CALLEE if leg.bridged else HungUpBy.SWITCH
    if leg.side is Side.FAR:
        return HungUpBy.CALLEE
    return HungUpBy.CALLER if asker is Side.FAR else HungUpBy.SWITCH


def moment(event: Mapping[str, str], *names: str) -> datetime | None:
    """The first of these fields that holds a time: microseconds since 1970, 0 for never."""
    for name in names:
        if microseconds := number(event.get(name), 253_402_300_799_000_000):
            return datetime.fromtimestamp(microseconds / 1_000_000, UTC)
    return None


def number(text: str | None, most: int) -> int:
    """The number in an event's field; 0 if there is none or it is greater than `most`."""
    if not text or len(text) > 18 or not (text.isascii() and text.isdecimal()):
        return 0
    return value if (value := int(text)) <= most else 0


def decision_of(text: str | None) -> UUID | None:
    """The decision id in a channel variable, or None if it holds none."""
    try:
        return UUID(text) if text and len(text) == 36 else None
    except ValueError:
        return None


def _failure_status(event: Mapping[str, str]) -> int:
    status = event.get("variable_sip_invite_failure_status", "")
    if not status or status == _CANCELLED:
        told = event.get("variable_proto_specific_hangup_cause", "")
        status = told.removeprefix("sip:") if told.startswith("sip:") else status
    return value if (value := number(status, 699)) >= 300 else 0
