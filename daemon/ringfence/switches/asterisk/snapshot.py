"""The switch's own list of channels (AMI action Status): which decisions are live, which legs have none.

Measured on Asterisk 16 and 22, which show the same: a leg that was dialled has no DNID, whatever application it is
in (AppDial for Dial, AppDial2 for an originate that rings, anything once an originate was answered); what came in
has one. What was dialled stands in DIALEDPEERNUMBER of a leg of Dial, and nowhere for an originate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from ringfence.switches.asterisk.live import number

ACTION = {
    "Action": "Status",
    "AllVariables": "false",
    "Variables": "RINGFENCE_DECISION,RINGFENCE_CUSTOMER,RINGFENCE_VERDICT,DIALEDPEERNUMBER",
}

_OF_A_LEG = (
    "Channel",
    "Uniqueid",
    "Linkedid",
    "CallerIDNum",
    "ConnectedLineNum",
    "ConnectedLineName",
    "AccountCode",
)
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
    undecided: Mapping[str, str] | None = None  # an outbound leg that carries no decision, as a DialBegin shows it
    age_s: int = 0

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
    outbound = not event.get("DNID") and not str(event.get("Channel", "")).startswith("Local/")
    undecided = outbound and not variables.get("RINGFENCE_DECISION")
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
        undecided=_dial_begin(event, variables) if undecided else None,
        age_s=number(str(event.get("Seconds", ""))),
    )


def _dial_begin(event: Mapping[str, object], variables: Mapping[str, str]) -> Mapping[str, str]:
    """The DialBegin of a leg that is already out, as far as Status tells. An originate has no dialling channel."""
    shown = {f"Dest{name}": str(event.get(name, "")) for name in _OF_A_LEG}
    dialled = variables.get("DIALEDPEERNUMBER", "")
    return {**shown, "DialString": dialled, "Uniqueid": shown["DestLinkedid"] if dialled else ""}


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
