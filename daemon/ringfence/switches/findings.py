"""What a check-up of a switch finds: one line for each thing that was looked at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address

from ringfence.config import Address

_CONNECT_S = 2.0


class State(StrEnum):
    """How it is. `unseen`: it cannot be told from here; the sentence says how it can."""

    OK = "ok"
    MISSING = "missing"
    UNSAFE = "unsafe"
    UNSEEN = "unseen"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, how it is, and in one sentence what is known or to be done."""

    switch: str
    check: str
    state: State
    sentence: str


@dataclass
class Report:
    """The findings about one switch, in the order they were made."""

    switch: str
    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, sentence: str) -> None:
        """It is as it should be."""
        self._add(check, State.OK, sentence)

    def missing(self, check: str, sentence: str) -> None:
        """Something that must be there is not."""
        self._add(check, State.MISSING, sentence)

    def unsafe(self, check: str, sentence: str) -> None:
        """Calls could leave unjudged, or somebody has more power than needed."""
        self._add(check, State.UNSAFE, sentence)

    def unseen(self, check: str, sentence: str) -> None:
        """It cannot be told from here."""
        self._add(check, State.UNSEEN, sentence)

    def unreachable(self, check: str, sentence: str) -> None:
        """The switch cannot be asked."""
        self._add(check, State.UNREACHABLE, sentence)

    def _add(self, check: str, state: State, sentence: str) -> None:
        self.findings.append(Finding(self.switch, check, state, sentence))


def is_loopback(host: str) -> bool:
    """True for localhost and loopback addresses; every other name counts as far away."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def plain_error(error: OSError) -> str:
    """What went wrong, without what asyncio adds."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error) or "no answer in time"


async def refusal(address: Address) -> str:
    """Why nobody takes a TCP connection at an address; empty if somebody does."""
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except TimeoutError:
        return f"no connection within {_CONNECT_S:g} s"
    except OSError as error:
        return plain_error(error)
    writer.close()
    return ""


async def look_for_daemon(
    report: Report, listed: tuple[Address, ...], own: Address, *, near: bool, setting: str
) -> None:
    """Whether a daemon answers where the switch asks. `near`: the switch runs on this host."""
    if not near:
        text = ", ".join(str(address) for address in listed)
        report.unseen("daemon", f"it is asked at {text} from the switch's host: try it there ({setting})")
        return
    for address in listed:
        if why := await refusal(address):
            report.missing("daemon", f"nobody answers at {address} ({why}): start it, or correct {setting}")
        else:
            report.ok("daemon", f"something answers at {address}, where {setting} says")
    if own.port not in {address.port for address in listed}:
        report.missing("daemon address", f"this configuration listens on {own}, which {setting} does not name")


def look_at_emergency(report: Report, hook: Collection[str], daemon: Collection[str], *, setting: str) -> None:
    """Whether the hook and the daemon let the same emergency numbers pass."""
    if forgotten := sorted(set(daemon) - set(hook)):
        report.missing(
            "emergency", f"{', '.join(forgotten)} cannot be called without the daemon: add to {setting}"
        )
    elif strange := sorted(set(hook) - set(daemon)):
        report.unsafe("emergency", f"{', '.join(strange)} leave unasked and are not in numbering.emergency")
    else:
        report.ok("emergency", f"{', '.join(sorted(hook))} leave without asking")
