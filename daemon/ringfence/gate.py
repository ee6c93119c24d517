"""Attempt to decision: emergency first, then one shared round trip to the judge, within one deadline."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import structlog

from ringfence import reasons
from ringfence.config import GateSettings
from ringfence.errors import DatabaseError, RingfenceError
from ringfence.escape import visible
from ringfence.model import Attempt, CallEnd, Decision, EndSource, HungUpBy, Number, NumberedAttempt, Verdict
from ringfence.numbering import Numbering

_RECONNECT_MIN_S = 0.1
_RECONNECT_MAX_S = 2.0
_DATABASE_DOWN = (reasons.DATABASE_UNAVAILABLE, reasons.DEADLINE_EXCEEDED)


class Judge(Protocol):
    """One connection to the judge (`store.authorize.Lane`)."""

    @property
    def connected(self) -> bool: ...
    async def connect(self) -> None: ...
    async def authorize(self, batch: Sequence[NumberedAttempt], lease_s: int) -> Mapping[UUID, Decision]: ...
    async def close(self) -> None: ...


class Recorder(Protocol):
    """Where the gate writes what the judge did not (`store.journal.Journal`). Never blocks, never raises."""

    def decided_without_database(self, numbered: NumberedAttempt, decision: Decision) -> None: ...
    def call_ended(self, end: CallEnd) -> None: ...


@dataclass(slots=True)
class _Waiting:
    numbered: NumberedAttempt
    answer: asyncio.Future[Decision]
    taken: bool = False  # a round trip carries it, so what is recorded is known only when that is over
    told: Decision | None = None  # the declared failure answer its caller got meanwhile


class Gate:
    """Answers attempts. Those that wait while a round trip is in flight share the next one; there is no timer.

    Bounds: `max_waiting` attempts wait, a round trip carries `max_batch`, and every answer comes within
    `deadline_ms` of the question.
    """

    def __init__(
        self,
        settings: GateSettings,
        numbering: Numbering,
        lanes: Sequence[Judge],
        recorder: Recorder,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._numbering = numbering
        self._lanes = lanes
        self._recorder = recorder
        self._log = log
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._lanes_up = 0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def configure(self, settings: GateSettings, numbering: Numbering) -> None:
        """Judge later attempts under other settings."""
        self._settings = settings
        self._numbering = numbering

    async def start(self) -> None:
        """Connect every lane, then take attempts. Raises DatabaseError if a lane cannot connect."""
        for lane in self._lanes:
            await lane.connect()
        self._lanes_up = len(self._lanes)
        self._tasks = [asyncio.create_task(self._serve(lane), name="gate lane") for lane in self._lanes]

    async def stop(self, timeout_s: float) -> None:
        """Answer what waits, take no more, and close the lanes. What is not judged within `timeout_s` is refused,
        and recorded so. Idempotent."""
        self._stopping = True
        self._wake.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=min(timeout_s, self._settings.deadline_ms / 1000))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_waiting(reasons.SHUTTING_DOWN)
        for lane in self._lanes:
            await lane.close()

    async def decide(self, attempt: Attempt) -> Decision:
        """The answer to one attempt, within the deadline. Never raises."""
        started = time.perf_counter()
        if self._numbering.is_emergency(attempt):
            decision = _emergency(attempt)
            self._recorder.decided_without_database(_unread(attempt), decision)
        else:
            try:
                decision = await self._judge(attempt)
            except Exception:
                self._log.exception("gate.failed", decision=str(attempt.decision_id))
                decision = self._unjudged(_unread(attempt), reasons.INTERNAL_ERROR)
        latency_ms = (time.perf_counter() - started) * 1000
        # After the answer is on its way: nothing is written on the caller's time.
        asyncio.get_running_loop().call_soon(self._log_decision, attempt, decision, latency_ms)
        return decision

    def refuse(self, attempt: Attempt, reason: str) -> Decision:
        """A refusal that needs no judge: a question that could not be read safely. Recorded and logged.

        An emergency call passes whatever caller IDs it shows; but of a question that cannot be read, the called
        number is no more to be trusted than the rest.
        """
        if reason == reasons.CALLER_ID_CONFLICT and self._numbering.is_emergency(attempt):
            decision = _emergency(attempt)
        else:
            decision = _refusal(attempt, reason)
        self._recorder.decided_without_database(_unread(attempt), decision)
        self._log_decision(attempt, decision, 0.0)
        return decision

    async def _judge(self, attempt: Attempt) -> Decision:
        numbered = self._numbering.number(attempt)
        if barred := self._barred():
            return self._unjudged(numbered, barred)
        waiting = _Waiting(numbered, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        try:
            async with asyncio.timeout(self._settings.deadline_ms / 1000):
                return await waiting.answer
        except TimeoutError:
            if waiting.answer.done() and not waiting.answer.cancelled():
                return waiting.answer.result()  # it came in the very moment of the deadline, and is recorded
            if not waiting.taken:
                return self._unjudged(numbered, reasons.DEADLINE_EXCEEDED)
            waiting.told = self._failure_answer(attempt, reasons.DEADLINE_EXCEEDED)
            return waiting.told

    def _barred(self) -> str:
        """Why no attempt can be taken now, or nothing."""
        if self._stopping:
            return reasons.SHUTTING_DOWN
        if self._lanes_up == 0:
            return reasons.DATABASE_UNAVAILABLE
        return reasons.GATE_OVERLOADED if len(self._waiting) >= self._settings.max_waiting else ""

    def _failure_answer(self, attempt: Attempt, reason: str) -> Decision:
        decision = _refusal(attempt, reason)
        if self._settings.on_database_down == "allow" and reason in _DATABASE_DOWN:
            return replace(decision, verdict=Verdict.ALLOW, sip_status=0, q850_cause=0)
        return decision

    def _unjudged(self, numbered: NumberedAttempt, reason: str) -> Decision:
        """The declared failure answer, recorded as soon as Postgres can be written to."""
        decision = self._failure_answer(numbered.attempt, reason)
        self._recorder.decided_without_database(numbered, decision)
        return decision

    async def _serve(self, lane: Judge) -> None:
        """Carry batches over one lane for as long as the gate runs."""
        while not (self._stopping and not self._waiting):
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            count = min(self._settings.max_batch, len(self._waiting))
            batch = [self._waiting.popleft() for _ in range(count)]
            batch = [waiting for waiting in batch if not waiting.answer.done()]
            for waiting in batch:
                waiting.taken = True
            if batch and not await self._carry(lane, batch):
                await self._reconnect(lane)

    async def _carry(self, lane: Judge, batch: list[_Waiting]) -> bool:
        """One round trip; False if the lane is down after it."""
        try:
            decisions = await lane.authorize([w.numbered for w in batch], self._settings.lease_s)
        except DatabaseError as error:
            self._log.error("gate.lane_lost", error=str(error), attempts=len(batch))
            for waiting in batch:
                self._settle_unjudged(waiting, reasons.DATABASE_UNAVAILABLE)
            return False
        except RingfenceError as error:
            return await self._carry_singly(lane, batch, error)
        except asyncio.CancelledError:
            for waiting in batch:
                self._settle_unjudged(waiting, reasons.SHUTTING_DOWN)
            raise
        except Exception:  # a lane that died of it would be missed by nobody until the last one
            self._log.exception("gate.failed", attempts=len(batch))
            for waiting in batch:
                self._settle_unjudged(waiting, reasons.INTERNAL_ERROR)
            return lane.connected
        for waiting in batch:
            decision = decisions.get(waiting.numbered.attempt.decision_id)
            if decision is None:
                self._settle_unjudged(waiting, reasons.INTERNAL_ERROR)
            else:
                self._settle(waiting, decision)
        return True

    async def _carry_singly(self, lane: Judge, batch: list[_Waiting], error: RingfenceError) -> bool:
        """Postgres refused the batch: one poisoned attempt must not take the others with it."""
        if len(batch) > 1:
            for position, waiting in enumerate(batch):
                if not await self._carry(lane, [waiting]):
                    for stranded in batch[position + 1 :]:
                        self._settle_unjudged(stranded, reasons.DATABASE_UNAVAILABLE)
                    return False
            return True
        self._log.error("gate.refused_by_database", error=str(error))
        self._settle_unjudged(batch[0], reasons.INTERNAL_ERROR)
        return True

    def _settle(self, waiting: _Waiting, decision: Decision) -> None:
        """Deliver what the judge recorded, or put right what came too late."""
        if not waiting.answer.done():
            waiting.answer.set_result(decision)
            return
        told_to_go = waiting.told is not None and waiting.told.allowed
        if decision.allowed and not told_to_go:
            self._undelivered(waiting, decision.customer, "allowed, but after the deadline")
        elif told_to_go and not decision.allowed:
            self._log.error(
                "gate.allowed_unjudged",
                decision=str(decision.decision_id),
                customer=decision.customer,
                reason=decision.reason,
            )

    def _settle_unjudged(self, waiting: _Waiting, reason: str) -> None:
        """The round trip failed, and perhaps was committed all the same: answer, record, free what it took."""
        if waiting.answer.done():
            told = waiting.told or self._failure_answer(waiting.numbered.attempt, reason)
            self._recorder.decided_without_database(waiting.numbered, told)
        else:
            told = self._unjudged(waiting.numbered, reason)
            waiting.answer.set_result(told)
        if not told.allowed:
            self._undelivered(waiting, "", "the round trip to the database failed")

    def _undelivered(self, waiting: _Waiting, customer: str, detail: str) -> None:
        now = datetime.now(UTC)
        decision_id = waiting.numbered.attempt.decision_id
        self._recorder.call_ended(
            CallEnd(
                decision_id,
                customer,
                EndSource.UNDELIVERED,
                HungUpBy.RINGFENCE,
                now,
                None,
                now,
                detail=detail,
            )
        )

    async def _reconnect(self, lane: Judge) -> None:
        self._lanes_up -= 1
        if self._lanes_up == 0:
            self._fail_waiting(reasons.DATABASE_UNAVAILABLE)
        pause_s = _RECONNECT_MIN_S
        while not self._stopping:
            try:
                await lane.connect()
            except Exception as error:  # whatever it is: without lanes nothing is judged
                self._log.warning("gate.reconnect_failed", error=str(error), retry_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RECONNECT_MAX_S)
            else:
                self._lanes_up += 1
                self._log.info("gate.lane_restored")
                return

    def _fail_waiting(self, reason: str) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                waiting.answer.set_result(self._unjudged(waiting.numbered, reason))

    def _log_decision(self, attempt: Attempt, decision: Decision, latency_ms: float) -> None:
        self._log.info(
            "call.decided",
            verdict=decision.verdict.value,
            reason=decision.reason,
            decision=str(decision.decision_id),
            customer=decision.customer,
            caller=visible(attempt.caller, 64),
            called=visible(attempt.called, 64),
            switch=attempt.switch,
            channel=visible(attempt.channel, 128),
            latency_ms=round(latency_ms, 3),
            **({"degraded": True} if decision.degraded else {}),
            **({"delay_ms": decision.delay_ms} if decision.delay_ms else {}),
            **({"would_reject": list(decision.would_reject)} if decision.would_reject else {}),
        )


def _emergency(attempt: Attempt) -> Decision:
    return Decision(attempt.decision_id, attempt.orig_id, Verdict.ALLOW, reasons.EMERGENCY)


def _unread(attempt: Attempt) -> NumberedAttempt:
    """The attempt with neither number looked at."""
    return NumberedAttempt(attempt, Number(None), Number(None))


def _refusal(attempt: Attempt, reason: str) -> Decision:
    shown = reasons.BY_CODE[reason]
    return Decision(
        attempt.decision_id,
        attempt.orig_id,
        Verdict.REJECT,
        reason,
        sip_status=shown.sip_status,
        q850_cause=shown.q850_cause,
        degraded=reason not in (reasons.MALFORMED_ATTEMPT, reasons.CALLER_ID_CONFLICT),
    )
