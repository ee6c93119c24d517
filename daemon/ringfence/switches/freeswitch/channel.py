"""Wire to model: what the gate shows of a leg, read as the question it puts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ringfence import reasons
from ringfence.config import LegRule
from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Attempt, Entry
from ringfence.switches.freeswitch import places
from ringfence.switches.freeswitch.safety import HOOKS, unclear, unsafe
from ringfence.switches.sip import is_number, same_number, user_of

MAX_TEXT = 255
GATE_FORM = "2"  # ringfence_gate.lua's: it says how the asking channel came to dial, and shows a number it is told
_UUID = re.compile(r"[0-9A-Za-z-]{1,64}", re.ASCII)
_NONCE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NEVER_LEAVES = ("loopback", "error", "null")  # endpoints that send no INVITE themselves


@dataclass(frozen=True, slots=True)
class Party:
    """Who a call is judged for: what customers are known by, and the number that is this party's own."""

    account: str = ""
    sip_user: str = ""
    trunk: str = ""
    source_address: str = ""
    caller: str = ""


@dataclass(frozen=True, slots=True)
class Asker:
    """What is known of the channel that dials a leg: how it came to dial, and the number it shows of itself."""

    number: str = ""
    referred: bool = False  # somebody sent it on by REFER
    redirected: bool = False  # a 3xx did
    bridged_to: str = ""  # the channel it was last connected to


@dataclass(frozen=True, slots=True)
class Question:
    """One leg that may not leave yet.

    `leg` is its channel's uuid, `origin` that of the leg that asked for it, `nonce` what the verdict must echo;
    each is empty unless it is safe to put into a command. `objection` is the reason to refuse without asking.
    `is_up` says the leg was answered already, so that no INVITE will follow. `callers` is what each place shows,
    and `show` a number that the gate must make the leg show first.
    """

    attempt: Attempt
    leg: str
    origin: str
    origin_is_outbound: bool
    nonce: str
    stays_inside: bool
    is_up: bool
    from_gate: bool
    shown: tuple[str, ...] = ()
    objection: str = ""
    callers: Mapping[str, str] = field(default_factory=dict)
    asker: Asker = Asker()
    show: str = ""

    @property
    def party(self) -> Party:
        """The party it is judged for."""
        asked = self.attempt
        return Party(asked.account, asked.sip_user, asked.trunk, asked.source_address, asked.caller)

    @property
    def shared_by(self) -> tuple[str, ...]:
        """What the legs of one attempt have in common: who asked for them, and every number they show."""
        attempt = self.attempt
        return (self.origin or self.leg, attempt.called, attempt.caller, attempt.account, *self.shown)


def read(
    headers: Mapping[str, str],
    repeated: Set[str],
    *,
    switch: str,
    host: str,
    internal: tuple[LegRule, ...] = (),
    entry: Entry = Entry.HOOK,
) -> Question:
    """Read the reply to `connect`, or an event with the same fields: the values decoded, `repeated` the names that
    came twice. Never raises."""
    leg = _safe(headers.get("Unique-ID", ""))
    is_up = headers.get("Answer-State") == "answered"
    # A leg that was answered and asks without the gate's nonce is in a dialplan, where somebody transferred it to.
    from_gate = headers.get("Call-Direction") != "inbound" and not (
        entry is Entry.HOOK and is_up and not _nonce(headers)
    )
    shown = places.callers(headers)
    caller = _first_number(shown) or headers.get(places.SHOWN, "")
    called, agree = _called(headers, from_gate)
    if not from_gate:
        caller = headers.get("variable_effective_caller_id_number", "") or caller
    to = places.called_by_to(headers) if from_gate else ""
    objection = ""
    clear = leg and agree and _same_called(to, called) and not unclear(shown)
    # What runs after the gate has run already when the watch sees the leg.
    if not clear or unsafe(headers, repeated, hooks=from_gate and entry is Entry.HOOK):
        objection = reasons.MALFORMED_ATTEMPT
    elif conflict(shown):
        objection = reasons.CALLER_ID_CONFLICT
    origin = headers.get("Other-Leg-Unique-ID", "") or headers.get("variable_originating_leg_uuid", "")
    attempt = Attempt(
        decision_id=new_decision_id(),
        orig_id=new_orig_id(),
        switch=switch,
        host=host,
        channel=_bounded(headers.get("Channel-Name", "")),
        call_ref=_bounded(leg or headers.get("Unique-ID", "")),
        caller=_bounded(caller),
        called=_bounded(called),
        caller_name=_bounded(headers.get("Caller-Caller-ID-Name", "")),
        account=_bounded(
            headers.get("variable_accountcode") or headers.get("variable_ringfence_asker_account", "")
        ),
        sip_user=_bounded(
            headers.get("variable_ringfence_asker_sip_user") or headers.get("variable_sip_auth_username", "")
        ),
        trunk=_bounded(_asking_trunk(headers, from_gate)),
        source_address=_bounded(
            headers.get("Other-Leg-Network-Addr", "") or headers.get("Caller-Network-Addr", "")
        ),
        places=_noted(headers, shown, called),
        entry=entry,
        campaign=_bounded(headers.get("variable_ringfence_campaign", "")),
        withheld=_withheld(headers),
    )
    return Question(
        attempt=attempt,
        leg=leg,
        origin=_safe(origin) if from_gate else "",
        origin_is_outbound=headers.get("Other-Leg-Direction") == "outbound",
        nonce=_nonce(headers),
        stays_inside=from_gate and _stays_inside(headers, internal),
        is_up=is_up,
        from_gate=from_gate,
        shown=listed(shown),
        objection=objection,
        callers=shown,
        asker=_asker(headers),
    )


def listed(callers: Mapping[str, str]) -> tuple[str, ...]:
    """What each place shows, in an order."""
    return tuple(sorted(f"{place}={text}" for place, text in callers.items()))


def _asker(headers: Mapping[str, str]) -> Asker:
    # A gate that does not know how to make a leg show another number is told nothing of one.
    if headers.get("variable_ringfence_asker_form") != GATE_FORM:
        return Asker()
    return Asker(
        number=headers.get("Other-Leg-Caller-ID-Number", ""),
        referred=bool(headers.get("variable_ringfence_asker_referred")),
        redirected=bool(headers.get("variable_ringfence_asker_redirected")),
        bridged_to=_safe(headers.get("variable_ringfence_asker_bridged", "")),
    )


def _first_number(shown: Mapping[str, str]) -> str:
    return next((text for text in shown.values() if is_number(text)), "")


def _called(headers: Mapping[str, str], from_gate: bool) -> tuple[str, bool]:
    """The number in the Request-URI, and whether the places that tell it agree."""
    dialled = headers.get("Caller-Destination-Number", "").partition("^")[0]
    if not from_gate:
        return headers.get("variable_ringfence_number") or dialled, True
    if headers.get("variable_sip_invite_tel_params"):
        return dialled, False
    if request := headers.get(places.REQUEST_URI, ""):
        return _whole_user(request), True
    url = headers.get(places.DESTINATION, "")
    if not url:
        return dialled, True
    called = _whole_user(url)
    # The channel's name is made by mod_sofia of the dial string, and unlike the URL no variable overrides it. The
    # URL may have a prefix before it: the gateway's, or sip_destination_prefix.
    named = user_of(headers.get("Channel-Name", "").removeprefix("sofia/").partition("/")[2])
    agree = called.endswith(named) if named else not called
    return called, agree and "variable_origination_channel_name" not in headers


def _withheld(headers: Mapping[str, str]) -> bool:
    """True if the leg keeps its number from the callee. A number that stands behind it is in another place."""
    shown = headers.get(places.SHOWN, "")
    return headers.get("Caller-Privacy-Hide-Number") == "true" or (bool(shown) and not is_number(shown))


def _whole_user(uri: str) -> str:
    """The user part with its parameters: one such as `rn` makes a carrier call another number."""
    user = user_of(uri)
    given = uri.partition("@")[0].partition(";")[2] if "@" in uri else ""
    return f"{user};{given}" if given else user


def conflict(shown: Mapping[str, str]) -> bool:
    """True if two places show different numbers."""
    numbers = [text for text in shown.values() if is_number(text)]
    return any(not same_number(numbers[0], other) for other in numbers[1:])


def _same_called(to: str, called: str) -> bool:
    """True if To shows what the Request-URI calls, with or without a prefix of the carrier's, or no number."""
    if not is_number(to):
        return True
    to, called = to.lstrip("+"), called.lstrip("+")
    return to.endswith(called) if len(called) >= 7 and len(to) > len(called) else called.endswith(to)


def _stays_inside(headers: Mapping[str, str], rules: tuple[LegRule, ...]) -> bool:
    endpoint = headers.get("variable_originate_endpoint", "")  # written after the dial string's variables
    if endpoint in _NEVER_LEAVES:
        return True
    if "variable_origination_channel_name" in headers or any(name.startswith(HOOKS) for name in headers):
        return False
    technology, _, rest = headers.get("Channel-Name", "").partition("/")
    profile = rest.partition("/")[0] if technology == "sofia" else ""
    gateway = headers.get("variable_sip_gateway_name", "")
    request = headers.get(places.REQUEST_URI) or headers.get(places.DESTINATION, "")
    hosts = [places.host_of(request), *places.route_hosts(headers)] if request else []
    return any(
        (rule.endpoint is None or fnmatchcase(endpoint, rule.endpoint))
        and (rule.profile is None or (bool(profile) and fnmatchcase(profile, rule.profile)))
        and (rule.gateway is None or (bool(gateway) and fnmatchcase(gateway, rule.gateway)))
        and (rule.domain is None or (bool(hosts) and all(fnmatchcase(h, rule.domain.lower()) for h in hosts)))
        for rule in rules
    )


def _asking_trunk(headers: Mapping[str, str], from_gate: bool) -> str:
    if from_gate:
        return headers.get("variable_ringfence_asker_trunk", "")
    return headers.get("variable_sip_gateway_name", "")


def _noted(headers: Mapping[str, str], shown: Mapping[str, str], called: str) -> dict[str, str]:
    noted = dict(shown)
    for place, name in places.NOTED.items():
        if text := headers.get(name, ""):
            noted[place] = text
    for name, text in headers.items():
        if name.lower() in (f"{places.EXTRA_HEADER}privacy", f"{places.EXTRA_HEADER}diversion") and text:
            noted[name.removeprefix(places.EXTRA_HEADER).lower()] = text
    if headers.get("Caller-Privacy-Hide-Number") == "true":
        noted["hide_number"] = "true"
    if (to := places.called_by_to(headers)) and to != called:
        noted["to"] = to
    if (dialled := headers.get("Caller-Destination-Number", "")) != called:
        noted["dialled"] = dialled
    if gateway := headers.get("variable_sip_gateway_name", ""):
        noted["gateway"] = gateway
    return {place: _bounded(text) for place, text in noted.items()}


def _nonce(headers: Mapping[str, str]) -> str:
    nonce = headers.get("variable_ringfence_nonce", "")
    return nonce if _NONCE.fullmatch(nonce) else ""


def is_uuid(text: str) -> bool:
    """True for a channel's uuid that is safe to put into a command."""
    return _UUID.fullmatch(text) is not None


def _safe(uuid: str) -> str:
    return uuid if is_uuid(uuid) else ""


def _bounded(text: str) -> str:
    return text.replace("\x00", "�")[:MAX_TEXT]
