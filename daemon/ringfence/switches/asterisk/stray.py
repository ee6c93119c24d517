"""An outbound leg that nobody asked about, as the manager's DialBegin shows it, becomes an Attempt.

Measured on Asterisk 16 and 22: DialBegin comes about when the INVITE leaves. The leg's connected line is what its
From shows; its account code is inherited from the channel that dials, or given by the originate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Attempt, Entry
from ringfence.switches.asterisk.channel import endpoint_of

# What stands before the first @ of `PJSIP/123@trunk`, `PJSIP/trunk/sip:123@host` and the like.
_DIALLED = re.compile(r"(?:.*/)?(?:sips?:|tel:)?([^@;/]*)")


def created_by(event: Mapping[str, str]) -> str:
    """How the leg came to be: `originate` (AMI, CLI or call file: they look alike), `transfer` or `dialplan`."""
    if not event.get("Uniqueid"):
        return "originate"
    # A transferee's channel dials without ever having come in: its own dialled extension is not its caller's.
    return "transfer" if event.get("ChannelState") == "6" and event.get("ConnectedLineNum") else "dialplan"


def attempt_of(event: Mapping[str, str], *, switch: str, host: str) -> Attempt:
    """The attempt behind a DialBegin. The caller is the number the leg's INVITE shows."""
    channel, dial_string = event.get("DestChannel", ""), event.get("DialString", "")
    match = _DIALLED.match(dial_string)
    shown = {
        "connected_line": _known(event.get("DestConnectedLineNum")),
        "leg_caller_id": _known(event.get("DestCallerIDNum")) if not event.get("Uniqueid") else "",
        "asking_caller_id": _known(event.get("CallerIDNum")),
    }
    caller = next((number for number in shown.values() if number), "")
    places = {
        "created_by": created_by(event),
        "dial_string": dial_string,
        **{place: number for place, number in shown.items() if number},
    }
    return Attempt(
        new_decision_id(),
        new_orig_id(),
        switch,
        host,
        channel,
        event.get("DestLinkedid", ""),
        caller,
        match[1] if match else "",
        caller_name=_known(event.get("DestConnectedLineName")),
        account=event.get("DestAccountCode") or event.get("AccountCode", ""),
        trunk=endpoint_of(event.get("Channel", "")),
        places=places,
        entry=Entry.WATCH,
    )


def _known(value: str | None) -> str:
    return "" if value in (None, "<unknown>") else value
