"""What the check-up reads in FreeSWITCH's global variables."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ringfence.config import Address
from ringfence.switches.findings import Report, look_at_emergency

HOOK = "execute_on_originate"
SCRIPT = "ringfence_gate.lua"
DEFAULT_DAEMON = "127.0.0.1:8084"
DEFAULT_EMERGENCY = "911,933,112,988"
MIN_SUFFIX = 12
_MIN_DISTINCT = 6
_TRUE = ("yes", "on", "true", "t", "enabled", "active", "allow")  # what switch_true takes, and numbers but 0


def look_at_hook(report: Report, variables: Mapping[str, str]) -> list[str]:
    """The names of the variables that run the gate."""
    every = {name: value for name, value in variables.items() if name.lower().startswith(HOOK)}
    hooks = [name for name, value in every.items() if SCRIPT in value]
    if not hooks:
        report.missing("hook", f"no global {HOOK}_… runs {SCRIPT}: 'ringfence hook freeswitch' prints it")
    elif len(hooks) > 1:
        report.unsafe(
            "hook", f"{len(hooks)} global variables run it, so each leg is asked about as often: keep one"
        )
    elif not every[hooks[0]].startswith("lua "):
        report.unsafe("hook", f"its variable does not begin with 'lua ': {every[hooks[0]]}")
    else:
        report.ok("hook", f"one global {HOOK}_… runs {SCRIPT}")
    for name in hooks:
        suffix = name[len(HOOK) :].strip("_")
        if is_guessable(suffix):
            report.unsafe(
                "hook suffix",
                f"{suffix!r} can be guessed, and a dial string that names it goes around the gate: take one that "
                "'ringfence hook freeswitch' prints",
            )
        else:
            report.ok("hook suffix", f"{len(suffix)} characters; it is not shown here")
    for name in every.keys() - hooks:
        report.unsafe("other hooks", f"{name} too runs on every leg and may change what was judged: {every[name]}")
    return hooks


def is_guessable(suffix: str) -> bool:
    """True for a suffix that is short or has few different characters."""
    return len(suffix) < MIN_SUFFIX or len(set(suffix.lower())) < _MIN_DISTINCT


def script(value: str) -> str:
    """The file that the hook's variable runs."""
    return next(iter(value.removeprefix("lua ").split()), SCRIPT)


def look_at_redirects(report: Report, variables: Mapping[str, str]) -> None:
    """Whether a carrier's 3xx ends the leg."""
    value = variables.get("outbound_redirect_fatal", "").strip().lower()
    if value in _TRUE or (value.isdecimal() and int(value)):
        report.ok("redirects", "outbound_redirect_fatal is set: a carrier's 3xx ends the leg")
    else:
        report.unsafe(
            "redirects", "a 3xx makes a new INVITE unasked: set outbound_redirect_fatal=true in vars.xml"
        )


def look_at_settings(report: Report, variables: Mapping[str, str], emergency: Collection[str]) -> None:
    """The gate's own settings against the daemon's."""
    if variables.get("ringfence_fail") == "open":
        report.ok("without a daemon", "legs leave unjudged (ringfence_fail=open)")
    else:
        report.ok("without a daemon", "legs are refused (ringfence_fail=closed)")
    known = words(variables.get("ringfence_emergency") or DEFAULT_EMERGENCY)
    look_at_emergency(report, known, emergency, setting="ringfence_emergency in vars.xml")
    for pattern in words(variables.get("ringfence_internal", "")):
        if pattern.startswith("sofia/") and "@" not in pattern:
            report.unsafe(
                "internal legs", f"{pattern} matches legs to gateways too: name a host, as sofia/…/*@HOST"
            )


def daemons(variables: Mapping[str, str]) -> tuple[Address, ...]:
    """Where the gate asks; what is no address is left out."""
    found = []
    for word in words(variables.get("ringfence_daemons") or DEFAULT_DAEMON):
        host, _, port = word.rpartition(":")
        if host and port.isascii() and port.isdecimal() and 0 < int(port) < 65_536:
            found.append(Address(host=host.strip("[]"), port=int(port)))
    return tuple(found)


def words(text: str) -> list[str]:
    """What stands between commas and blanks."""
    return [word for word in re.split(r"[,\s]+", text) if word]
