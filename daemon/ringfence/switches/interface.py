"""The one small interface between a switch adapter and the rest: questions go in, facts about calls come out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from ringfence.model import Attempt, CallEnd, Decision


class Gatekeeper(Protocol):
    """What an adapter asks. Implemented by the gate."""

    async def decide(self, attempt: Attempt) -> Decision:
        """The answer to one attempt. Never raises and always returns within the decision deadline."""

    def refuse(self, attempt: Attempt, reason: str) -> Decision:
        """The refusal of a question that could not be read safely, recorded and logged like any decision."""


class CallRecorder(Protocol):
    """What an adapter tells. Implemented by the journal; never blocks and never raises."""

    def call_ended(self, end: CallEnd) -> None:
        """An allowed call is over. Told more than once for a decision, only the first is kept."""

    def calls_listed(self, switch: str, calls: Sequence[tuple[str, UUID]], asked_at: datetime) -> None:
        """The switch's own list of live allowed calls (customer, decision id), as it was at `asked_at`: every
        other call of that switch known by then is over."""


class Switch(Protocol):
    """One switch the daemon serves."""

    @property
    def name(self) -> str:
        """The name from the configuration; it stands in every decision and log line."""

    async def start(self) -> None:
        """Open the sockets and log in. Returns once questions are answered.

        Raises SwitchError if a socket cannot be opened or the switch refuses the login; an event socket that
        cannot be reached is not an error: it is tried again with back-off.
        """

    async def stop_accepting(self) -> None:
        """Take no new questions; those in hand are still answered."""

    async def stop(self) -> None:
        """Finish the questions in hand, then close everything. Idempotent."""

    def live_calls(self) -> Sequence[tuple[str, UUID]]:
        """Customer and decision id of every allowed call that is live now: their leases are renewed."""

    def connected(self) -> bool:
        """True while the event socket is up, so that `live_calls` is the truth."""

    async def hang_up(self, decision_id: UUID, q850_cause: int, why: str) -> bool:
        """End a live call; its end row says `why`. False if there is none. Raises SwitchError if the switch
        does not obey."""
