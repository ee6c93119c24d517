"""One FreeSWITCH as the daemon's service sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence, Set
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from ringfence.config import FreeSwitchSettings
from ringfence.errors import SwitchError
from ringfence.escape import visible
from ringfence.model import CallEnd, Decision
from ringfence.switches.ends import log_call_ended
from ringfence.switches.freeswitch import channel, verdict
from ringfence.switches.freeswitch.bridge import Bridge
from ringfence.switches.freeswitch.calls import LiveCalls, utcnow
from ringfence.switches.freeswitch.channel import Question
from ringfence.switches.freeswitch.esl import EventSocket
from ringfence.switches.freeswitch.hook import Answer, HookServer
from ringfence.switches.freeswitch.legs import moment
from ringfence.switches.freeswitch.parties import on_behalf
from ringfence.switches.freeswitch.seal import Sealer, Terms
from ringfence.switches.freeswitch.sharing import SharedDecisions
from ringfence.switches.freeswitch.stock import Stock
from ringfence.switches.freeswitch.watch import EVENTS, Watch
from ringfence.switches.interface import CallRecorder, Gatekeeper

_CHORE_S = 0.5
_ALLOWING = ("allow", "delay")
_ENDS = ("CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY")


class FreeSwitch:
    """The gate's hook and the event socket of one FreeSWITCH, behind `switches.interface.Switch`."""

    def __init__(
        self,
        settings: FreeSwitchSettings,
        host: str,
        gate: Gatekeeper,
        recorder: CallRecorder,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._host = host
        self._gate = gate
        self._recorder = recorder
        self._log = log
        self._calls = LiveCalls()
        self._shared = SharedDecisions()
        self._connected = False
        self._bridge: Bridge | None = None
        self._hook: HookServer | None = None
        self._socket: EventSocket | None = None
        self._sealer: Sealer | None = None
        self._watch: Watch | None = None
        self._stock: Stock | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- Switch -------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name from the configuration."""
        return self._settings.name

    async def start(self) -> None:
        """Open the hook and log in to the event socket; see `Switch.start`."""
        self._bridge = bridge = Bridge()
        bridge.start()
        try:
            if self._settings.event_socket is not None:
                self._socket = EventSocket(self._settings.event_socket, bridge, self, self._log)
                self._begin_to_watch(self._socket, self._settings.event_socket.password)
                await self._socket.start()
            self._hook = HookServer(self._settings.hook, bridge, self, self._log)
            await self._hook.start()
        except BaseException:
            await self.stop()
            raise
        self._spawn(self._chores(), "freeswitch chores")

    def _begin_to_watch(self, event_socket: EventSocket, password: str) -> None:
        self._sealer = sealer = Sealer(password)
        self._watch = watch = Watch(
            *(self._settings, self._host, self._calls, sealer, self._gate, event_socket, self._tell, self._log)
        )
        self._stock = Stock(self._calls, sealer, watch, event_socket, self._tell)

    async def stop_accepting(self) -> None:
        """Take no new questions; those in hand are still answered."""
        if self._hook is not None:
            await self._hook.stop_accepting()

    async def stop(self) -> None:
        """Close everything. Idempotent."""
        hook, self._hook = self._hook, None
        event_socket, self._socket = self._socket, None
        bridge, self._bridge = self._bridge, None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            await self._watch.stop()
        if hook is not None:
            await hook.stop()
        if event_socket is not None:
            await event_socket.stop()
        if bridge is not None:
            await bridge.stop()
        self._connected = False

    def live_calls(self) -> Sequence[tuple[str, UUID]]:
        """Customer and decision of every allowed call that is live."""
        return self._calls.live()

    def connected(self) -> bool:
        """True while the event socket is up and compared with the switch's list."""
        return self._connected

    async def hang_up(self, decision_id: UUID, q850_cause: int, why: str) -> bool:
        """End a live call; see `Switch.hang_up`."""
        channels = self._calls.hanging_up(decision_id, why)
        if not channels or self._socket is None:
            return False
        for uuid in channels:
            answer = await self._socket.api(f"uuid_kill {uuid} {int(q850_cause)}")
            if not answer.startswith(("+OK", "-ERR No such channel")):
                raise SwitchError(f"the switch does not hang up: {visible(answer)}")
        return True

    # --- Answerer (hook) ------------------------------------------------------------------------------------

    async def answer(self, headers: Mapping[str, str], repeated: Set[str]) -> Answer:
        """The answer to one leg's question."""
        question = channel.read(
            headers,
            repeated,
            switch=self._settings.name,
            host=self._host,
            internal=self._settings.legs.internal,
        )
        if question.leg and question.from_gate and question.is_up:
            return verdict.pass_unjudged(question, "answered")  # user/ asks again after answer; nothing leaves
        if question.leg and question.stays_inside:
            return verdict.pass_unjudged(question, "internal")
        if self._watch is not None:
            question = on_behalf(question, self._calls, self._watch.parties)
        decision = await self._decide(question)
        if not decision.allowed:
            self._calls.refused(decision.decision_id)
            return verdict.answer(question, decision)
        if self._sealer is None:  # nobody would tell the end
            return verdict.answer(question, decision)
        party, called, asking = question.party, question.attempt.called, not question.from_gate
        self._calls.allowed(
            decision, question.leg, question.origin, utcnow(), asking=asking, party=party, called=called
        )
        terms = Terms(decision.decision_id, decision.customer, party, called, question.origin, asking)
        return verdict.answer(question, decision, self._sealer.seal(question.leg, terms))

    def delivered(self, answer: Answer, fault: str) -> None:
        """An allowed leg that was never told so has not left: its call is over."""
        if not fault or answer.context is None:
            return
        question, decision = answer.context
        self._log.warning(
            "hook.undelivered", decision=str(decision.decision_id), error=visible(fault), allowed=decision.allowed
        )
        if decision.allowed:
            self._spawn(self._check_delivery(question, decision), "freeswitch delivery")

    async def _check_delivery(self, question: Question, decision: Decision) -> None:
        """Only the acknowledgement may be lost: ask whether the leg has the verdict."""
        if self._socket is not None:
            try:
                verdict_there = await self._socket.api(f"uuid_getvar {question.leg} ringfence_verdict")
            except SwitchError:
                return  # what becomes of the leg is seen when the event socket is back
            if verdict_there.startswith(_ALLOWING):
                return
        self._tell(self._calls.undelivered(decision.decision_id, question.leg, utcnow()))
        if self._watch is not None:
            await self._watch.undelivered(question.leg)

    async def _decide(self, question: Question) -> Decision:
        if question.objection:
            return self._gate.refuse(question.attempt, question.objection)
        return await self._shared.decide(question.shared_by, lambda: self._gate.decide(question.attempt))

    # --- Listener (event socket) ------------------------------------------------------------------------------

    def came_up(self) -> None:
        """Every event arrives from now on; what was missed is made good."""
        self._spawn(self._take_stock(), "freeswitch take stock")

    def went_down(self) -> None:
        """Ends may be missed from now on."""
        self._connected = False

    def events(self, events: Sequence[dict[str, str]]) -> None:
        """What the switch told."""
        now = utcnow()
        for event in events:
            name, leg = event.get("Event-Name", ""), event.get("Unique-ID", "")
            if name in EVENTS and self._watch is not None:
                self._watch.seen(event, now)
            if name == "CHANNEL_ANSWER":
                if (call := self._calls.call_of(leg)) is not None:
                    self._shared.forget(call.decision_id)
            elif name in _ENDS:
                self._ended(event, leg, now)

    def _ended(self, event: Mapping[str, str], leg: str, now: datetime) -> None:
        if self._calls.call_of(leg) is None and self._sealer is not None:
            terms = self._sealer.read(event)
            if terms is not None:  # an earlier daemon's, that ends before it was adopted
                self._calls.adopt(terms, leg, moment(event, "Caller-Channel-Created-Time") or now)
        self._tell(self._calls.event(event, now))
        if self._watch is not None and event.get("Event-Name") == "CHANNEL_DESTROY":
            self._watch.forget(leg)

    async def _take_stock(self) -> None:
        """After a (new) connection."""
        await self._compare(take=True)

    async def _compare(self, *, take: bool) -> None:
        if self._stock is None:
            return
        before = utcnow()
        try:
            await (self._stock.take() if take else self._stock.check(before))
        except SwitchError as error:
            self._log.warning("esl.reconcile_failed", error=visible(str(error)))
            return
        self._connected = self._connected or take
        if self._connected:
            self._recorder.calls_listed(self.name, self._calls.live(), before)
        if take:
            self._log.info("esl.reconciled", live=len(self._calls))

    # --- own ----------------------------------------------------------------------------------------------------

    def _tell(self, ends: Sequence[CallEnd]) -> None:
        for end in ends:
            self._shared.forget(end.decision_id)
            if self._watch is not None and self._watch.ended(end):
                continue
            self._recorder.call_ended(end)
            log_call_ended(self._log, end)

    async def _chores(self) -> None:
        checked = utcnow()
        while True:
            await asyncio.sleep(_CHORE_S)
            self._tell(self._calls.due(utcnow()))
            self._shared.sweep()
            every = self._settings.event_socket.check_interval_s if self._settings.event_socket else 0.0
            if self._socket is not None and self._connected and utcnow() - checked >= timedelta(seconds=every):
                await self._compare(take=False)
                checked = utcnow()

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
