"""The switch's own list of channels (AMI action Status), as far as it tells which decisions are live."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

ACTION = {
    "Action": "Status",
    "AllVariables": "false",
    "Variables": "RINGFENCE_DECISION,RINGFENCE_CUSTOMER,RINGFENCE_VERDICT",
}

_CUSTOMER = re.compile(r"[A-Za-z0-9+/=._-]{1,255}", re.ASCII)
_LET_OUT = frozenset({"allow", "delay", ""})  # a leg inherits the decision but not the verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """One channel that exists now, with the decision it carries, if any."""

    uniqueid: str
    channel: str
    linkedid: str
    is_leg: bool
    is_up: bool
    decision_id: UUID | None = None
    customer: str = ""

    @property
    def decided_at(self) -> datetime:
        """When the decision was made, from its UUIDv7 (RFC 9562 section 5.7)."""
        ms = self.decision_id.int >> 80 if self.decision_id else 0
        return datetime.fromtimestamp(ms / 1000, UTC)


def read(events: Iterable[Mapping[str, object]]) -> list[Shown]:
    """The channels in the Status events of one answer; other messages are passed over."""
    return [_shown(event) for event in events if event.get("Event") == "Status" and event.get("Uniqueid")]


def _shown(event: Mapping[str, object]) -> Shown:
    variables = _variables(event.get("Variable"))
    decision_id = None
    customer = variables.get("RINGFENCE_CUSTOMER", "")
    if variables.get("RINGFENCE_VERDICT", "") in _LET_OUT and (not customer or _CUSTOMER.fullmatch(customer)):
        decision_id = _decision_id(variables.get("RINGFENCE_DECISION", ""))
    return Shown(
        uniqueid=str(event["Uniqueid"]),
        channel=str(event.get("Channel", "")),
        linkedid=str(event.get("Linkedid", "")),
        is_leg=event.get("Application") == "AppDial",
        is_up=event.get("ChannelStateDesc") == "Up",
        decision_id=decision_id,
        customer=customer,
    )


def _variables(lines: object) -> dict[str, str]:
    """`NAME=value`, one or several."""
    given = lines if isinstance(lines, list) else [lines] if isinstance(lines, str) else []
    pairs = (str(line).partition("=") for line in given)
    return {name: "" if value == "(null)" else value for name, _, value in pairs}


def _decision_id(text: str) -> UUID | None:
    try:
        found = UUID(text)
    except ValueError:
        return None
    return found if found.version == 7 else None
