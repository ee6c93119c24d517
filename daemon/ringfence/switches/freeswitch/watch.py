"""The watch: every outbound leg the switch tells of is matched with its decision; one without is judged now."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

import structlog

from ringfence.config import FreeSwitchSettings
from ringfence.errors import SwitchError
from ringfence.escape import visible
from ringfence.model import CallEnd, Decision, Verdict
from ringfence.reasons import CALLER_ID_CONFLICT, EMERGENCY, MALFORMED_ATTEMPT
from ringfence.switches.freeswitch import stray, verdict
from ringfence.switches.freeswitch.calls import LiveCalls, utcnow
from ringfence.switches.freeswitch.channel import Question, is_uuid
from ringfence.switches.freeswitch.parties import Parties, callee_of, caller_of
from ringfence.switches.freeswitch.seal import Sealer, Terms
from ringfence.switches.interface import Gatekeeper
from ringfence.switches.sip import is_number

EVENTS = (stray.CREATED, "CHANNEL_PROGRESS", "CHANNEL_PROGRESS_MEDIA", "CHANNEL_ANSWER")
_MAX_REMEMBERED = 20_000


class Api(Protocol):
    """What is asked of the switch (`esl.EventSocket`)."""

    async def api(self, command: str) -> str:
        """The text an API command answers. Raises SwitchError if it cannot be had in time."""


class Watch:
    """Sees legs on the event loop, in order; judges strays in tasks of their own."""

    def __init__(  # noqa: PLR0917 - the parts of one switch, put together once
        self,
        settings: FreeSwitchSettings,
        host: str,
        calls: LiveCalls,
        sealer: Sealer,
        gate: Gatekeeper,
        api: Api,
        tell: Callable[[Sequence[CallEnd]], None],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self.parties = Parties()
        self._settings = settings
        self._host = host
        self._calls = calls
        self._sealer = sealer
        self._gate = gate
        self._api = api
        self._tell = tell
        self._log = log
        self._out: OrderedDict[str, str] = OrderedDict()  # legs that left, and what a stray was judged about
        self._judging: dict[UUID, CallEnd | None] = {}  # strays, and their end if that came first
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Judge no more. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def seen(self, headers: Mapping[str, str], now: datetime) -> None:
        """A channel as one of `EVENTS`, or a dump, shows it."""
        leg = headers.get("Unique-ID", "")
        if not is_uuid(leg):
            return
        if headers.get("Call-Direction") != "outbound":
            if headers.get("Answer-State") == "answered":
                self.parties.remember(leg, caller_of(headers))
            return
        judged = self._out.get(leg, "")
        self._remember(leg, judged)
        call = self._calls.call_of(leg)
        if call is None:
            terms = self._sealer.read(headers)
            if terms is not None and not (self._calls.adopt(terms, leg, now) or self._went_on(terms, headers)):
                return  # its call is over, or it was judged and left alone
            call = self._calls.call_of(leg)
        if call is not None and headers.get("Event-Name") != stray.CREATED and not stray.redirected_to(headers):
            return  # nothing can have changed since it was created
        question = stray.read(
            headers, switch=self._settings.name, host=self._host, internal=self._settings.legs.internal
        )
        if call is not None:
            how = stray.went_elsewhere(question, headers, call.called, call.party.caller)
            if how and self._settings.watch.mode != "off":
                party = call.party
                self._tell(self._calls.went_on(leg, now))
                self._judge_soon(_known_as(question, party.account, party.sip_user), headers, now, how)
        elif question.stays_inside:
            if self.parties.of(leg) is None:
                self.parties.remember(leg, callee_of(headers))
        elif (
            self._settings.watch.mode != "off" and judged != _about(question) and not self._asked_before(question)
        ):
            self._judge_soon(question, headers, now, "redirect" if stray.redirected_to(headers) else "")

    def forget(self, leg: str) -> None:
        """This channel is gone."""
        self._out.pop(leg, None)

    async def undelivered(self, leg: str) -> None:
        """The leg never got its verdict: if it left all the same, it is a stray."""
        if leg in self._out:
            headers = await self._dump(leg)
            if headers and leg in self._out:
                self.seen(headers, utcnow())

    def ended(self, end: CallEnd) -> bool:
        """True if this call is still being judged: its end is kept until then."""
        if end.decision_id not in self._judging:
            return False
        self._judging[end.decision_id] = end
        return True

    # --- inside -----------------------------------------------------------------------------------------------

    def _asked_before(self, question: Question) -> bool:
        """The dialplan asked on the caller's channel, and this is the call it asked about."""
        numbers = [text for text in question.callers.values() if is_number(text)]
        return not question.objection and self._calls.covers(question.origin, question.attempt.called, numbers)

    def _went_on(self, terms: Terms, headers: Mapping[str, str]) -> bool:
        """A leg whose call is over or was refused, and that now calls somebody else."""
        target = stray.redirected_to(headers)
        return bool(target) and target != terms.called and f"to {target}" != self._out.get(headers["Unique-ID"])

    def _judge_soon(self, question: Question, headers: Mapping[str, str], at: datetime, how: str) -> None:
        self._remember(question.leg, _about(question))
        attempt = question.attempt
        undecided = Decision(attempt.decision_id, attempt.orig_id, Verdict.ALLOW, "")
        self._calls.allowed(
            undecided, question.leg, question.origin, at, party=question.party, called=attempt.called
        )
        self._judging[attempt.decision_id] = None
        task = asyncio.get_running_loop().create_task(self._judge(question, headers, at, how), name="watch")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _judge(self, question: Question, headers: Mapping[str, str], at: datetime, how: str) -> None:
        """One question to the gate, which bounds how many wait and for how long."""
        asker = await self._dump(question.origin) if question.origin and not how else {}
        how = how or stray.created_by(headers, asker)
        attempt = stray.known_by(question.attempt, asker)
        attempt = replace(attempt, places={**attempt.places, "created_by": how})
        if objection := question.objection:
            if objection == MALFORMED_ATTEMPT and stray.may_be_emergency(question, headers):
                objection = CALLER_ID_CONFLICT  # with which an emergency call passes
            decision = self._gate.refuse(attempt, objection)
        else:
            decision = await self._gate.decide(attempt)
        self._calls.judged(decision)
        end = self._judging.pop(attempt.decision_id, None)
        kill = not decision.allowed and self._settings.watch.mode == "kill"
        if end is not None:
            if decision.allowed:
                self._tell([replace(end, customer=decision.customer)])
        elif kill:
            await self._kill(question.leg, decision)
        if decision.reason != EMERGENCY:
            self._log.warning(
                "watch.bypass",
                decision=str(decision.decision_id),
                customer=decision.customer,
                verdict=decision.verdict.value,
                reason=decision.reason,
                created_by=how,
                channel=visible(attempt.channel, 128),
                hung_up=kill,
                known_for_ms=round((utcnow() - at).total_seconds() * 1000, 1),
            )
        if end is None and not kill:
            await self._mark(replace(question, attempt=attempt), decision)

    async def _kill(self, leg: str, decision: Decision) -> None:
        try:
            answer = await self._api.api(f"uuid_kill {leg} {int(decision.q850_cause) or 21}")
        except SwitchError as error:
            answer = str(error)
        if not answer.startswith(("+OK", "-ERR No such channel")):
            self._log.error("watch.kill_failed", decision=str(decision.decision_id), error=visible(answer))

    async def _mark(self, question: Question, decision: Decision) -> None:
        """Leave the decision with its leg, as the gate does: a daemon that starts later finds it there."""
        terms = Terms(
            *(decision.decision_id, decision.customer, question.party, question.attempt.called, question.origin),
            allowed=decision.allowed,
        )
        seal = self._sealer.seal(question.leg, terms)
        try:
            await self._api.api(verdict.mark(question.leg, decision, seal))
        except SwitchError:
            return  # most likely the connection is gone; otherwise it will be judged again

    async def _dump(self, channel: str) -> dict[str, str]:
        try:
            return stray.dumped(await self._api.api(f"uuid_dump {channel} json"))
        except SwitchError:
            return {}

    def _remember(self, leg: str, called: str) -> None:
        self._out[leg] = called
        if len(self._out) > _MAX_REMEMBERED:
            self._out.popitem(last=False)


def _about(question: Question) -> str:
    return f"to {question.attempt.called}"


def _known_as(question: Question, account: str, sip_user: str) -> Question:
    """A redirected leg is its caller's call still."""
    attempt = question.attempt
    attempt = replace(attempt, account=account or attempt.account, sip_user=sip_user or attempt.sip_user)
    return replace(question, attempt=attempt)
