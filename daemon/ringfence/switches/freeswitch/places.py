"""Where on a SIP call a caller's and a called number can stand, and what they show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote

from ringfence.switches.sip import user_of

# What mod_sofia (1.10.12, sofia_glue_do_invite) makes From of, the strongest first. The last is the default.
FROM = (
    "variable_sip_invite_full_from",
    "variable_sip_force_full_from",
    "variable_sip_handle_full_from",
    "variable_sip_invite_from_uri",
    "variable_sip_from_uri",
)
SHOWN = "Caller-Caller-ID-Number"  # From by default, and always what Remote-Party-ID or P-Asserted-Identity show
SHOWN_PLACE = "caller_id_number"
# Headers of the dial string that show a caller, by their names in lower case.
IDENTITY_HEADERS = ("p-asserted-identity", "p-preferred-identity", "remote-party-id")
# The same for To.
TO = (
    "variable_sip_invite_full_to",
    "variable_sip_force_full_to",
    "variable_sip_handle_full_to",
    "variable_sip_invite_to_uri",
)
REQUEST_URI = "variable_sip_invite_req_uri"
DESTINATION = "variable_sip_destination_url"
EXTRA_HEADER = "variable_sip_h_"
# A second one of these beside what the switch writes itself would make the INVITE say two things.
OWN_HEADERS = frozenset(
    (
        *("from", "f", "to", "t", "contact", "m", "via", "v", "route", "record-route"),
        *("call-id", "i", "cseq", "content-length", "l", "content-type", "c"),
    )
)
# Recorded because an auditor asks for them; none of them changes what is judged.
NOTED = {
    "origination": "variable_origination_caller_id_number",
    "effective": "variable_effective_caller_id_number",
    "ani": "Caller-ANI",
    "cid_type": "variable_sip_cid_type",
    "from_display": "variable_sip_from_display",
    "asking_leg": "Other-Leg-Caller-ID-Number",
}


def callers(headers: Mapping[str, str]) -> dict[str, str]:
    """Every place that shows a caller on the wire: what it is called, and the text it shows."""
    found: dict[str, str] = {}
    for name in FROM:
        if text := headers.get(name, ""):
            found[name.removeprefix("variable_")] = user_of(text)
    if shown := headers.get(SHOWN, ""):
        found[SHOWN_PLACE] = shown
    for name, text in headers.items():
        header = name.removeprefix(EXTRA_HEADER).lower() if name.startswith(EXTRA_HEADER) else ""
        if header in IDENTITY_HEADERS and text:
            found[header.replace("-", "_")] = user_of(text)
    return found


def called_by_to(headers: Mapping[str, str]) -> str:
    """The number in To where something other than the Request-URI makes it, else empty."""
    for name in TO:
        if text := headers.get(name, ""):
            return user_of(text)
    return user_of(headers.get("Caller-Destination-Number", "").partition("^")[2])


def host_of(uri: str) -> str:
    """The host of a SIP URI, in lower case, without port and parameters."""
    rest = uri.partition("@")[2] or uri.partition(":")[2] or uri
    rest = rest.partition(";")[0].partition("?")[0].partition(">")[0]
    if rest.startswith("["):
        return rest.partition("]")[0].removeprefix("[").lower()
    return rest.partition(":")[0].lower()


def route_hosts(headers: Mapping[str, str]) -> list[str]:
    """The hosts an INVITE passes before it comes to its Request-URI's."""
    hosts = [
        host_of(headers[name])
        for name in ("variable_sip_route_uri", "variable_sip_invite_route_uri")
        if headers.get(name)
    ]
    for match in re.finditer(r"fs_path=([^;>]*)", headers.get(DESTINATION, ""), re.IGNORECASE):
        hosts.append(host_of(unquote(match[1], errors="replace")))
    return hosts
