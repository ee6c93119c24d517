"""What is asked of SIPp and what it tells, as values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_HEADER_FIELDS = 4  # columns for extra headers in the file that SIPp injects calls from
_INVITE = re.compile(r"--- invite (\d+)\s*\n(.*?)\n--- end", re.DOTALL)
_EVENT = re.compile(r"^(\w+)\|(\d+)\|([^|\n]*)\|(\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Call:
    """What a customer sends in one INVITE: From user and display name, To user, and extra header lines."""

    called: str
    caller: str = "442071838750"
    display: str = ""
    headers: tuple[str, ...] = ()

    def row(self, index: int) -> str:
        """The call as one line of SIPp's injection file."""
        name = f'"{self.display}" ' if self.display else ""
        extra = [*self.headers, *[""] * (_HEADER_FIELDS - len(self.headers))]
        columns = [str(index), self.caller, name, self.called, *extra]
        if len(extra) > _HEADER_FIELDS or any(set(column) & set(";\r\n") for column in columns):
            raise ValueError(
                f"a call holds at most {_HEADER_FIELDS} headers and no semicolon or line end; "
                "headers that need them go to the whole run (`headers=`)"
            )
        return ";".join(columns) + ";"


@dataclass(frozen=True)
class CallResult:
    """What became of one call.

    `status` is the final SIP status of the INVITE, or None if there was none before SIPp gave up or was
    stopped. `setup_ms` is the time from INVITE to that answer. `ended_by` is who hung up an answered call.
    `transfer` are the statuses told about a REFER, its own answer (202, or "refused") first.
    """

    index: int
    call: Call
    call_id: str = ""
    status: int | None = None
    setup_ms: int | None = None
    ended_by: str | None = None
    transfer: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReceivedInvite:
    """One INVITE as the carrier got it, retransmissions left out."""

    text: str
    at_ms: int
    request_line: str
    headers: tuple[tuple[str, str], ...] = field(default=())

    def values(self, name: str) -> list[str]:
        """All values of a header, in order; the name in any case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str | None:
        """The first value of a header, or None."""
        return next(iter(self.values(name)), None)

    @property
    def request_user(self) -> str:
        """The user part of the Request-URI: the number really called."""
        return _user(self.request_line)

    @property
    def from_user(self) -> str:
        """The user part of From: the caller ID on the wire."""
        return _user(self.value("From") or "")

    @property
    def to_user(self) -> str:
        """The user part of To."""
        return _user(self.value("To") or "")

    @property
    def asserted_user(self) -> str | None:
        """The user part of P-Asserted-Identity, or None without that header."""
        asserted = self.value("P-Asserted-Identity")
        return None if asserted is None else _user(asserted)

    @property
    def identity(self) -> str | None:
        """The Identity header, or None."""
        return self.value("Identity")

    @property
    def call_id(self) -> str:
        """The Call-ID of this leg (not the customer's: the switch makes its own)."""
        return self.value("Call-ID") or ""


def _user(text: str) -> str:
    found = re.search(r"(?:sips?|tel):(?:([^@;>\s]*)@)?([^;>\s]*)", text)
    if found is None:
        return ""
    return (found[2] if "tel:" in found[0] else found[1]) or ""


def parse_invites(log: str) -> list[ReceivedInvite]:
    """The INVITEs in a carrier's log; one that is still being written is left for later."""
    found = []
    for tick, body in _INVITE.findall(log.replace("\r", "")):
        lines = body.strip("\n").split("\n\n")[0].split("\n")
        headers: list[tuple[str, str]] = []
        for line in lines[1:]:
            if line[:1] in " \t" and headers:
                headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}")
            else:
                name, _, value = line.partition(":")
                headers.append((name.strip(), value.strip()))
        found.append(ReceivedInvite(body, int(tick), lines[0], tuple(headers)))
    return found


def read_results(calls: Sequence[Call], log: str) -> list[CallResult]:
    """The results that a customer's log tells."""
    told: list[dict[str, tuple[str, int]]] = [{} for _ in calls]
    transfers: list[list[str]] = [[] for _ in calls]
    for what, index, value, tick in _EVENT.findall(log):
        if what == "refer":
            transfers[int(index)].append(value.removeprefix("SIP/2.0 "))
        else:
            told[int(index)].setdefault(what, (value, int(tick)))
    results = []
    for index, call in enumerate(calls):
        sent, final, ended = (told[index].get(what) for what in ("sent", "final", "ended"))
        results.append(
            CallResult(
                index,
                call,
                call_id=sent[0] if sent else "",
                status=int(final[0]) if final else None,
                setup_ms=final[1] - sent[1] if final and sent else None,
                ended_by=ended[0] if ended else None,
                transfer=tuple(transfers[index]),
            )
        )
    return results


def statuses(results: Sequence[CallResult]) -> Counter[int | None]:
    """How many calls got which final status."""
    return Counter(result.status for result in results)
