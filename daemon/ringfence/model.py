"""The words of the domain as plain frozen values: attempts, decisions and call ends. No I/O here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Verdict(StrEnum):
    """The answer to an attempt: let it out, refuse it, or let it out after a wait."""

    ALLOW = "allow"
    REJECT = "reject"
    DELAY = "delay"


class Entry(StrEnum):
    """How an attempt came to be judged."""

    HOOK = "hook"  # the dialplan asked and waits
    WATCH = "watch"  # a leg seen on the event socket without a decision
    CLI = "cli"  # an operator's dry run
    SQL = "sql"  # a plain SQL client


class HungUpBy(StrEnum):
    """Who ended the call."""

    CALLER = "caller"
    CALLEE = "callee"
    SWITCH = "switch"
    RINGFENCE = "ringfence"
    UNKNOWN = "unknown"


class EndSource(StrEnum):
    """How the end of a call became known."""

    EVENT = "event"  # the switch said so
    RECONCILED = "reconciled"  # the switch's channel list no longer held the call
    LEASE_EXPIRED = "lease_expired"  # nobody renewed the lease
    UNDELIVERED = "undelivered"  # allowed in Postgres, but the switch never got that answer


@dataclass(frozen=True, slots=True)
class Attempt:
    """One outbound call as the switch shows it.

    Every text is exactly what the switch sent, so it may come from an attacker: bounded in length by the
    adapter, but neither trimmed nor trusted. Empty means the switch showed nothing.
    """

    decision_id: UUID
    orig_id: UUID
    switch: str
    host: str
    channel: str
    call_ref: str
    caller: str
    called: str
    caller_name: str = ""
    account: str = ""
    sip_user: str = ""
    trunk: str = ""
    source_address: str = ""
    places: Mapping[str, str] = field(default_factory=dict)  # every other place a caller ID stood
    entry: Entry = Entry.HOOK
    campaign: str = ""  # what the dialplan says the call is for
    asserted: str = ""  # the user of P-Asserted-Identity (RFC 3325)
    withheld: bool = False  # the caller asked that its number not be shown


@dataclass(frozen=True, slots=True)
class Number:
    """A dialled or shown string read under a numbering plan: its E.164 digits, or the defect that bars it."""

    e164: int | None
    defect: str = ""


@dataclass(frozen=True, slots=True)
class NumberedAttempt:
    """An attempt with its caller ID and its called number in E.164: what `authorize` judges.

    `caller_withheld` says that the caller is anonymous to the callee; `caller` is then the number that stands
    behind it, if there is one. `asked_at` is for a dry run: the moment to judge it at.
    """

    attempt: Attempt
    caller: Number
    called: Number
    caller_withheld: bool = False
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The immutable answer to one attempt, as it is told to the switch.

    `sip_status` and `q850_cause` are 0 on an allowed call. `degraded` marks an answer that was given without
    the database.
    """

    decision_id: UUID
    orig_id: UUID
    verdict: Verdict
    reason: str
    customer: str = ""
    attestation: str = ""
    sip_status: int = 0
    q850_cause: int = 0
    delay_ms: int = 0
    policy_version: int = 0
    degraded: bool = False
    would_reject: tuple[str, ...] = ()  # reasons of rules that only report

    @property
    def allowed(self) -> bool:
        """True if the call may leave, at once or after `delay_ms`."""
        return self.verdict is not Verdict.REJECT


@dataclass(frozen=True, slots=True)
class CallEnd:
    """How an allowed call ended. Times are UTC; `q850_cause` and `sip_status` are 0 when never shown."""

    decision_id: UUID
    customer: str
    source: EndSource
    hung_up_by: HungUpBy
    started_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    post_dial_delay_ms: int | None = None
    q850_cause: int = 0
    sip_status: int = 0
    trunk: str = ""
    trunk_channel: str = ""
    detail: str = ""

    @property
    def duration_ms(self) -> int | None:
        """From the attempt to the end, in milliseconds."""
        return _between_ms(self.started_at, self.ended_at)

    @property
    def billable_ms(self) -> int:
        """From answer to end, in milliseconds; 0 for a call that nobody answered."""
        return _between_ms(self.answered_at, self.ended_at) or 0


def _between_ms(start: datetime | None, end: datetime | None) -> int | None:
    if start is None or end is None:
        return None
    return max(0, round((end - start).total_seconds() * 1000))
