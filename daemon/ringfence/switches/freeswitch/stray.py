"""An outbound leg that nobody asked about, or that calls another number than it was allowed to, as an Attempt.

Measured on FreeSWITCH 1.10.12: CHANNEL_CREATE comes right after the INVITE and holds what the gate would have been
shown. sip_redirected_to comes with the new INVITE after a 3xx; no event tells of that, the next is the new
target's CHANNEL_PROGRESS or CHANNEL_ANSWER. Once sip_from_tag is there, sip_from_uri and the like are mod_sofia's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ringfence.config import LegRule
from ringfence.model import Attempt, Entry
from ringfence.switches.freeswitch import channel, places
from ringfence.switches.freeswitch.channel import Question
from ringfence.switches.sip import is_number, same_number, user_of

CREATED = "CHANNEL_CREATE"
REDIRECTED = "variable_sip_redirected_to"
_REWRITES = (
    *("variable_sip_invite_req_uri", "variable_sip_destination_prefix", "variable_origination_channel_name"),
    *("variable_sip_route_uri", "variable_sip_invite_route_uri", REDIRECTED),
)
_SHORT = 6
_OF_SOFIA = ("variable_sip_from_uri", "variable_sip_from_display")


def read(headers: Mapping[str, str], *, switch: str, host: str, internal: tuple[LegRule, ...]) -> Question:
    """What the leg would have asked, as far as an event or a dump still shows it."""
    shown = dict(headers)
    if "variable_sip_from_tag" in headers:
        for name in _OF_SOFIA:
            shown.pop(name, None)
    if headers.get("Caller-Logical-Direction") == "inbound":  # it dials itself by now: its callee is who called it
        shown[places.SHOWN] = headers.get("Caller-Callee-ID-Number", "")
    question = channel.read(shown, frozenset(), switch=switch, host=host, internal=internal, entry=Entry.WATCH)
    if target := redirected_to(headers):
        same_host = places.host_of(headers[REDIRECTED]) == places.host_of(headers.get(places.DESTINATION, ""))
        question = replace(question, stays_inside=question.stays_inside and same_host)
        if not same_number(target, question.attempt.called):
            question = replace(question, attempt=replace(question.attempt, called=target[: channel.MAX_TEXT]))
    return question


def may_be_emergency(question: Question, headers: Mapping[str, str]) -> bool:
    """True if the leg calls a short number, and nothing but its name says so: as the gate looks at it too."""
    called, named = (
        question.attempt.called,
        headers.get("Channel-Name", "").removeprefix("sofia/").partition("/")[2],
    )
    return len(called) <= _SHORT and user_of(named) == called and not any(name in headers for name in _REWRITES)


def redirected_to(headers: Mapping[str, str]) -> str:
    """The number that a 3xx sent this leg to, if one did. A leg that is just created has heard of none."""
    return "" if headers.get("Event-Name") == CREATED else user_of(headers.get(REDIRECTED, ""))


def went_elsewhere(question: Question, headers: Mapping[str, str], called: str, caller: str) -> str:
    """How the leg came to call, or to show, another number than was decided; empty if it did not.

    What it shows is looked at when it is created: later its own party's number may stand in the same place.
    """
    if not same_number(question.attempt.called, called):
        return "redirect" if redirected_to(headers) else "rewritten"
    if headers.get("Event-Name") != CREATED:
        return ""
    numbers = [text for text in question.callers.values() if is_number(text)]
    return "" if all(same_number(number, caller) for number in numbers) else "rewritten"


def created_by(headers: Mapping[str, str], asker: Mapping[str, str]) -> str:
    """How a leg came to be, from what it shows and what a dump of the channel that dials it shows."""
    if not (headers.get("Other-Leg-Unique-ID") or headers.get("variable_originating_leg_uuid")):
        return "api"
    if asker.get("Caller-Transfer-Source") or asker.get("variable_sip_refer_to"):
        return "transfer"
    return "api" if headers.get("Other-Leg-Direction") == "outbound" else "dialplan"


def known_by(attempt: Attempt, asker: Mapping[str, str]) -> Attempt:
    """The attempt with what the dialling channel says of its party, as the gate would have told it."""
    return replace(
        attempt,
        account=attempt.account or asker.get("variable_accountcode", ""),
        sip_user=attempt.sip_user or asker.get("variable_sip_auth_username", ""),
        trunk=attempt.trunk or asker.get("variable_sip_gateway_name", ""),
    )


def dumped(text: str) -> dict[str, str]:
    """The headers in the answer to `uuid_dump UUID json`; empty if there is no such channel."""
    with suppress(ValueError, RecursionError):
        fields = json.loads(text)
        if isinstance(fields, dict):
            return {name: value for name, value in fields.items() if isinstance(value, str)}
    return {}
