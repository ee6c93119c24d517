"""Who causes a leg: the party whose rights and number count, whichever channel FreeSWITCH has dial it.

A channel dials because its own party wants to, or because somebody sent it on. A REFER makes mod_sofia (1.10.12,
sofia_handle_sip_i_refer) set sip_refer_to on the channel that is sent on, and last_bridge_to still names the
channel that sent it. Both are the switch's own: no caller can set a variable of somebody else's channel.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from ringfence import reasons
from ringfence.switches.freeswitch import places
from ringfence.switches.freeswitch.channel import Party, Question, conflict, listed

STRANGER = Party()
"""Somebody who is no customer: the far end of a trunk, or a party that FreeSWITCH does not name."""

_MAX_REMEMBERED = 20_000
_PLAIN_NUMBER = re.compile(r"\+?[0-9]+", re.ASCII)


class Calls(Protocol):
    """What is asked of the live calls."""

    def party_on(self, leg: str) -> tuple[Party, str] | None:
        """The party that caused this decided leg, and the channel it asked from."""

    def party_asking(self, channel: str) -> Party | None:
        """The party whose channel this is, if it asked for a live call."""


class Parties:
    """The parties of channels that no decision is about: callers, and callees inside. Bounded; the oldest goes."""

    def __init__(self) -> None:
        self._parties: OrderedDict[str, Party] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parties)

    def of(self, channel: str) -> Party | None:
        """The party of this channel, which may be over by now."""
        return self._parties.get(channel)

    def remember(self, channel: str, party: Party) -> None:
        """This party is on this channel."""
        self._parties[channel] = party
        self._parties.move_to_end(channel)
        if len(self._parties) > _MAX_REMEMBERED:
            self._parties.popitem(last=False)


def caller_of(headers: Mapping[str, str]) -> Party:
    """The party of a channel that came in, as its CHANNEL_ANSWER shows it."""
    return Party(
        account=headers.get("variable_accountcode", ""),
        sip_user=headers.get("variable_sip_auth_username", ""),
        trunk=headers.get("variable_sip_gateway_name", ""),
        source_address=headers.get("Caller-Network-Addr", ""),
        caller=headers.get("variable_effective_caller_id_number") or headers.get(places.SHOWN, ""),
    )


def callee_of(headers: Mapping[str, str]) -> Party:
    """The party inside that this leg calls. Not by its account code: that may be its caller's, exported."""
    return Party(
        sip_user=headers.get("variable_dialed_user", ""),
        trunk=headers.get("variable_sip_gateway_name", ""),
        caller=headers.get("variable_effective_caller_id_number") or headers.get("Caller-Destination-Number", ""),
    )


def on_behalf(question: Question, calls: Calls, parties: Parties) -> Question:
    """The question as the party puts it that causes the leg.

    A leg that a decided leg dials is caused by the party of that decision, who transferred it (REFER,
    uuid_transfer) or has it bridged (click to call); the number it shows of its own, the callee's, only passes
    through. A leg dialled by a channel that was referred is caused by who sent the REFER. A leg dialled because
    a 3xx sent the caller on is caused by a stranger.
    """
    asker = question.asker
    on_leg = calls.party_on(question.origin)
    if asker.referred:
        party, own = _referrer(asker.bridged_to, on_leg, calls, parties), False
    elif asker.redirected:
        party, own = STRANGER, False
    elif on_leg is not None:
        party, own = on_leg[0], question.attempt.caller != asker.number
    else:
        return question
    return _put_by(question, party, keep_number=own)


def _referrer(sender: str, on_leg: tuple[Party, str] | None, calls: Calls, parties: Parties) -> Party:
    if not sender:
        return STRANGER
    if on_leg is not None and on_leg[1] == sender:
        return on_leg[0]
    if calls.party_on(sender) is not None:
        return STRANGER  # the far end of a trunk
    return calls.party_asking(sender) or parties.of(sender) or STRANGER


def _put_by(question: Question, party: Party, *, keep_number: bool) -> Question:
    attempt, callers = question.attempt, dict(question.callers)
    passed_through = callers.get(places.SHOWN_PLACE, "")
    caller = attempt.caller if keep_number else party.caller
    show = ""
    if not keep_number and question.from_gate:
        callers[places.SHOWN_PLACE] = show = caller
    objection = question.objection
    if objection in ("", reasons.CALLER_ID_CONFLICT):
        objection = reasons.CALLER_ID_CONFLICT if conflict(callers) or not _can_show(show) else ""
    if party == STRANGER:
        objection, show = "", ""  # the judge says why
    return replace(
        question,
        attempt=replace(
            attempt,
            caller=caller,
            account=party.account,
            sip_user=party.sip_user,
            trunk=party.trunk,
            source_address=party.source_address,
            places={**attempt.places, "passed_through": passed_through},
        ),
        callers=callers,
        shown=listed(callers),
        objection=objection,
        show=show,
    )


def _can_show(number: str) -> bool:
    return not number or _PLAIN_NUMBER.fullmatch(number) is not None
