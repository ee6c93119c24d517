"""Answers of the gate that need no Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest

from ringfence import reasons, telemetry
from ringfence.config import GateSettings, NumberingSettings
from ringfence.gate import Gate
from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Attempt, CallEnd, Decision, NumberedAttempt, Verdict
from ringfence.numbering import Numbering

ATTEMPT = Attempt(new_decision_id(), new_orig_id(), "pbx", "host", "x", "1", "12125550100", "14155550123")


@dataclass
class Records:
    """What the gate wrote down."""

    decisions: list[Decision] = field(default_factory=list)

    def decided_without_database(self, numbered: NumberedAttempt, decision: Decision) -> None:
        self.decisions.append(decision)

    def call_ended(self, end: CallEnd) -> None:
        raise AssertionError("no call was allowed")


class NoJudge:
    """A lane that must not be used."""

    connected = True

    async def connect(self) -> None:
        return

    async def authorize(self, batch: Sequence[NumberedAttempt], lease_s: int) -> Mapping[UUID, Decision]:
        raise AssertionError("the judge was asked")

    async def close(self) -> None:
        return


@pytest.fixture
def records() -> Records:
    """An empty book."""
    return Records()


@pytest.fixture
async def gate(records: Records) -> Gate:
    """A gate that nobody started."""
    return Gate(GateSettings(), Numbering(NumberingSettings()), [NoJudge()], records, telemetry.get_logger())


async def test_an_unreadable_question_is_refused_and_written_down(gate: Gate, records: Records) -> None:
    decision = gate.refuse(ATTEMPT, reasons.MALFORMED_ATTEMPT)
    assert (decision.allowed, decision.sip_status, decision.degraded) == (False, 403, False)
    assert records.decisions == [decision]


async def test_an_emergency_call_passes_whatever_caller_ids_it_shows(gate: Gate) -> None:
    decision = gate.refuse(replace(ATTEMPT, called="911"), reasons.CALLER_ID_CONFLICT)
    assert (decision.allowed, decision.reason) == (True, reasons.EMERGENCY)


async def test_an_emergency_number_in_an_unreadable_question_opens_nothing(gate: Gate) -> None:
    assert not gate.refuse(replace(ATTEMPT, called="911"), reasons.MALFORMED_ATTEMPT).allowed


async def test_without_a_lane_an_attempt_is_answered_at_once(gate: Gate, records: Records) -> None:
    decision = await gate.decide(ATTEMPT)
    assert (decision.reason, decision.sip_status, decision.degraded) == (reasons.DATABASE_UNAVAILABLE, 503, True)
    assert records.decisions == [decision]


class Prompt(NoJudge):
    """A lane that allows everything."""

    async def authorize(self, batch: Sequence[NumberedAttempt], lease_s: int) -> Mapping[UUID, Decision]:
        return {n.attempt.decision_id: _allowance(n.attempt) for n in batch}


def _allowance(attempt: Attempt) -> Decision:
    return Decision(attempt.decision_id, attempt.orig_id, Verdict.ALLOW, reasons.AUTHORIZED, customer="acme")


@asynccontextmanager
async def _strikes_at_the_end(_seconds: float) -> AsyncIterator[None]:
    yield
    raise TimeoutError


async def test_an_allowance_that_comes_in_the_moment_of_the_deadline_is_told_as_it_is_recorded(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(GateSettings(), Numbering(NumberingSettings()), [Prompt()], records, telemetry.get_logger())
    await gate.start()
    monkeypatch.setattr("ringfence.gate.asyncio.timeout", _strikes_at_the_end)
    decision = await gate.decide(ATTEMPT)
    monkeypatch.undo()
    await gate.stop(1)
    assert (decision.reason, records.decisions) == (reasons.AUTHORIZED, [])
