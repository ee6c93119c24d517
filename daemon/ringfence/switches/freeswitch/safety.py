"""What makes a leg's question one that cannot be judged: its INVITE might not be what the channel data show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from urllib.parse import unquote

from ringfence.switches.freeswitch import places
from ringfence.switches.sip import is_number

# They run after the gate, in the same thread, and may change what was judged.
HOOKS = ("variable_execute_on_originate", "variable_api_on_originate")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = re.compile(r"[A-Za-z0-9+._~*#-]{0,64}", re.ASCII)
_NAMES = ("Caller-Caller-ID-Name", "variable_sip_from_display")
_QUOTABLE = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL)
_PARAMETERS = tuple(f"variable_sip_invite_{name}params" for name in ("", "to_", "from_", "pid_", "contact_"))
_PARAMETER = re.compile(r"[A-Za-z0-9;=._+-]*", re.ASCII)
_URIS = (places.REQUEST_URI, places.DESTINATION)
_IN_HEADERS = (
    *("Caller-Caller-ID", "Caller-Destination", "Caller-ANI"),
    *("variable_sip_", "variable_alert_info", "variable_max_forwards"),
)
# Texts that have line breaks by nature and do not become header lines.
_MULTILINE = re.compile(r"variable_(.*sdp.*|sip_multipart)", re.ASCII)


def unclear(shown: Mapping[str, str]) -> bool:
    """True if a place shows what is neither a number nor a plain name: somebody may read a number in it."""
    return not all(is_number(text) or _PLAIN.fullmatch(text) for text in shown.values())


def unsafe(headers: Mapping[str, str], repeated: Set[str], *, hooks: bool) -> bool:
    """True if the dial string may add lines or addresses of its own to the INVITE.

    `repeated` names the headers that came twice; `hooks` says whether variables that run something after the
    gate count.
    """
    return any(not name.startswith("variable_") for name in repeated) or any(
        (hooks and name.startswith(HOOKS))
        or _is_header_of_the_switch(name)
        or _breaks_out(name, value)
        or (name in _PARAMETERS and _PARAMETER.fullmatch(value) is None)
        or (name in _URIS and "?" in value)  # headers in a URI become headers of the INVITE
        for name, value in headers.items()
    )


def _is_header_of_the_switch(name: str) -> bool:
    if not name.startswith(places.EXTRA_HEADER):
        return False
    header = name.removeprefix(places.EXTRA_HEADER).lower()
    return header in places.OWN_HEADERS or ":" in header or _CONTROL.search(header) is not None


def _breaks_out(name: str, value: str) -> bool:
    """True if a value ends the line or the quotes it is put into. mod_sofia decodes %0d%0a and %22 once more."""
    if not name.startswith(_IN_HEADERS) or _MULTILINE.fullmatch(name):
        return False
    return any(
        _CONTROL.search(text) or (name in _NAMES and not _QUOTABLE.fullmatch(text))
        for text in (value, unquote(value))
    )
