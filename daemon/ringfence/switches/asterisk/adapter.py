"""One Asterisk as a Switch: FastAGI asks the gate, AMI tells how calls end, the table of live calls joins them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from uuid import UUID

from structlog.typing import FilteringBoundLogger

from ringfence.config import AsteriskSettings
from ringfence.errors import SwitchError
from ringfence.escape import visible
from ringfence.model import Attempt, CallEnd, Decision, HungUpBy
from ringfence.reasons import EMERGENCY
from ringfence.switches.asterisk import snapshot, stray
from ringfence.switches.asterisk.ami import Ami
from ringfence.switches.asterisk.calls import EVENTS, Calls, undelivered_end
from ringfence.switches.asterisk.channel import Question
from ringfence.switches.asterisk.fastagi import FastAgi
from ringfence.switches.ends import log_call_ended
from ringfence.switches.interface import CallRecorder, Gatekeeper

MAX_LIVE_CALLS = 50_000  # more than any one Asterisk carries: beyond it, ends are being missed
_RECONCILE_EVERY_S = 60.0
_RECONCILE_AGAIN_S = 5.0  # after a connection: what was on its way at the first comparison has arrived by then
_UNASKED_AFTER_S = 4  # the age at which a leg without a decision is no longer one that is being asked about


class Asterisk:
    """Implements `ringfence.switches.interface.Switch`."""

    def __init__(
        self,
        settings: AsteriskSettings,
        host: str,
        gatekeeper: Gatekeeper,
        recorder: CallRecorder,
        log: FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._host = host
        self._gatekeeper = gatekeeper
        self._recorder = recorder
        self._log = log
        self._calls = Calls()
        self._too_many = False
        self._torn = 0
        self._fastagi: FastAgi | None = None
        self._judging: dict[UUID, CallEnd | None] = {}  # stray calls, and their end if that came first
        self._watching: set[asyncio.Task[None]] = set()
        self._reconciler: asyncio.Task[None] | None = None
        self._reconciling = asyncio.Lock()
        self._fresh = asyncio.Event()
        self._ami = (
            Ami(
                settings.ami,
                log,
                switch=settings.name,
                events=EVENTS,
                on_event=self._event,
                on_connected=self._connected,
            )
            if settings.ami is not None
            else None
        )

    # --- Switch -----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name from the configuration."""
        return self._settings.name

    @property
    def agi_port(self) -> int:
        """The TCP port questions are taken on; 0 when not started."""
        return self._fastagi.port if self._fastagi is not None else 0

    async def start(self) -> None:
        """Log in to the manager if it can be reached, then listen for questions. Raises SwitchError."""
        self._fastagi = FastAgi(
            self._settings.fastagi, self._gatekeeper, self, self._log, switch=self.name, host=self._host
        )
        try:
            if self._ami is not None:
                await self._ami.start()
                self._reconciler = asyncio.create_task(self._reconcile_always(), name=f"reconcile {self.name}")
            await self._fastagi.start()
        except BaseException:
            await self.stop()
            raise

    async def stop_accepting(self) -> None:
        """Take no new questions; those in hand are still answered."""
        if self._fastagi is not None:
            await self._fastagi.stop_accepting()

    async def stop(self) -> None:
        """Finish the questions in hand, then close everything. Idempotent."""
        try:
            if self._fastagi is not None:
                await self._fastagi.stop()
        finally:
            reconciler, self._reconciler = self._reconciler, None
            if reconciler is not None:
                reconciler.cancel()
                await asyncio.gather(reconciler, return_exceptions=True)
            await asyncio.gather(*self._watching, return_exceptions=True)
            if self._ami is not None:
                await self._ami.stop()

    def live_calls(self) -> Sequence[tuple[str, UUID]]:
        """Customer and decision id of every allowed call that is live now."""
        return self._calls.live()

    def connected(self) -> bool:
        """True while the manager connection is up."""
        return self._ami is not None and self._ami.connected

    async def hang_up(self, decision_id: UUID, q850_cause: int, why: str = "") -> bool:
        """End a live call; its end row says `why`. False if there is none. Raises SwitchError if the switch
        does not obey."""
        channels = self._calls.hanging_up(decision_id, why)
        if not channels or self._ami is None:
            return False
        # The asking channel first: left to itself it might dial the next trunk.
        for channel in channels:
            try:
                await self._ami.hang_up(channel, q850_cause)
            except SwitchError:
                if channel is channels[-1] and decision_id in {live for _, live in self._calls.live()}:
                    raise
        return True

    # --- Witness: from the gate ---------------------------------------------------------------------------------

    def allowed(self, attempt: Attempt, decision: Decision, question: Question, at: datetime) -> None:
        """A call is about to be told that it may leave."""
        if self._ami is None:
            return  # nobody would ever tell of its end
        self._calls.started(attempt, decision, question, at)
        if len(self._calls) <= MAX_LIVE_CALLS:
            self._too_many = False
        elif not self._too_many:
            self._too_many = True
            self._log.error("calls.too_many", live=len(self._calls), expected_at_most=MAX_LIVE_CALLS)

    def undelivered(self, attempt: Attempt, decision: Decision, by: HungUpBy, at: datetime) -> None:
        """That answer was never acknowledged."""
        now = datetime.now(UTC)
        if self._ami is None:
            self._end(undelivered_end(decision.decision_id, decision.customer, by, at, now))
        elif end := self._calls.undelivered(decision.decision_id, by, now, proof=self.connected()):
            self._end(end)

    # --- from the manager -------------------------------------------------------------------------------------

    def _event(self, event: Mapping[str, str]) -> None:
        at = datetime.now(UTC)
        for end in self._calls.feed(event, at):
            if end.decision_id in self._judging:
                self._judging[end.decision_id] = end
            else:
                self._end(end)
        if event.get("Event") == "DialBegin":
            self._watch_leg(event, at)

    # --- the watch: legs that nobody asked about ----------------------------------------------------------------

    def _watch_leg(self, event: Mapping[str, str], at: datetime) -> None:
        if self._watches(event) and not self._calls.knows_leg(event["DestUniqueid"]):
            self._watched(stray.attempt_of(event, switch=self.name, host=self._host), event, at)

    def _watches(self, event: Mapping[str, str]) -> bool:
        watch = self._settings.watch
        leg, trunk = event.get("DestUniqueid", ""), event.get("DestChannel", "").rpartition("-")[0]
        return watch.mode != "off" and bool(leg) and any(fnmatchcase(trunk, pattern) for pattern in watch.trunks)

    def _watched(self, attempt: Attempt, event: Mapping[str, str], at: datetime, *, is_up: bool = False) -> None:
        self._calls.stray(attempt, event, at, is_up=is_up)
        self._judging[attempt.decision_id] = None
        task = asyncio.create_task(self._judge(attempt, at), name="watch")
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def _watch_shown(self, shown: snapshot.Shown, at: datetime) -> None:
        """A leg that went out while nobody was looking."""
        event = shown.undecided
        if event is None or shown.age_s < _UNASKED_AFTER_S or not self._watches(event):
            return
        if not event["DialString"]:
            event = {**event, "DialString": await self._remote_uri(shown.channel)}
        if not self._calls.knows_leg(shown.uniqueid):
            attempt = stray.attempt_of(event, switch=self.name, host=self._host)
            self._watched(attempt, event, at, is_up=shown.is_up)

    async def _remote_uri(self, channel: str) -> str:
        """What an originate dialled, as PJSIP remembers it: no event or list shows it any more."""
        assert self._ami is not None
        if not channel.startswith("PJSIP/"):
            return ""
        asked = {"Action": "Getvar", "Channel": channel, "Variable": "CHANNEL(pjsip,remote_uri)"}
        try:
            return str((await self._ami.action(asked)).value or "").strip("<>")
        except SwitchError:
            return ""

    async def _mark(self, attempt: Attempt, decision: Decision) -> None:
        """Leave the decision with its leg, as the hook does: a daemon that starts later finds it there."""
        assert self._ami is not None
        marks = {
            "CUSTOMER": decision.customer,
            "VERDICT": decision.verdict.value,
            "DECISION": str(decision.decision_id),
        }
        for name, value in marks.items():
            set_variable = {"Channel": attempt.channel, "Variable": f"RINGFENCE_{name}", "Value": value}
            try:
                await self._ami.action({"Action": "Setvar", **set_variable})
            except SwitchError:
                return  # most likely it is over; otherwise it will be judged again

    async def _judge(self, attempt: Attempt, at: datetime) -> None:
        """One question to the gate, which bounds how many wait and for how long."""
        decision = await self._gatekeeper.decide(attempt)
        self._calls.judged(decision)
        end = self._judging.pop(attempt.decision_id, None)
        kill = not decision.allowed and self._settings.watch.mode == "kill"
        if decision.allowed:
            if end is not None:
                self._end(replace(end, customer=decision.customer))
        elif end is None and kill and self._ami is not None:
            try:
                await self._ami.hang_up(attempt.channel, decision.q850_cause)
            except SwitchError as error:
                self._log.error("watch.kill_failed", decision=str(decision.decision_id), error=str(error))
        if decision.reason != EMERGENCY:
            self._log.warning(
                "watch.bypass",
                decision=str(decision.decision_id),
                customer=decision.customer,
                verdict=decision.verdict.value,
                reason=decision.reason,
                created_by=attempt.places["created_by"],
                channel=visible(attempt.channel, 128),
                hung_up=kill,
                known_for_ms=round((datetime.now(UTC) - at).total_seconds() * 1000, 1),
            )
        if end is None and not kill:
            await self._mark(attempt, decision)

    async def _connected(self) -> None:
        await self._reconcile(adopt=True)
        self._fresh.set()

    async def _reconcile_always(self) -> None:
        """A missed event must not keep a call, and its lease, alive for ever."""
        while True:
            try:
                async with asyncio.timeout(_RECONCILE_EVERY_S):
                    await self._fresh.wait()
                self._fresh.clear()
                await asyncio.sleep(_RECONCILE_AGAIN_S)
            except TimeoutError:
                pass
            if self.connected():
                await self._reconcile(adopt=False)

    async def _reconcile(self, *, adopt: bool) -> None:
        async with self._reconciling:
            await self._reconcile_now(adopt=adopt)

    async def _reconcile_now(self, *, adopt: bool) -> None:
        if self._ami is None:
            return
        asked_at = datetime.now(UTC)
        self._calls.snapshot_asked()
        try:
            shown = snapshot.read(await self._ami.action_list(snapshot.ACTION))
        except SwitchError as error:
            self._calls.snapshot_failed()
            self._log.warning("ami.snapshot_failed", error=str(error))
            return
        undecided = self._calls.undecided(shown)
        before = len(self._calls)
        ends = self._calls.reconcile(shown, asked_at, datetime.now(UTC), adopt=adopt)
        adopted = len(self._calls) + len(ends) - before
        if ends or adopted:
            self._log.info("calls.reconciled", live=len(self._calls), ended=len(ends), adopted=adopted)
        for end in ends:
            self._end(end)
        self._recorder.calls_listed(self.name, self._calls.live(), asked_at)
        if self._ami.torn > self._torn:
            self._log.warning("ami.malformed", messages=self._ami.torn - self._torn)
        self._torn = self._ami.torn
        for leg in undecided:
            await self._watch_shown(leg, datetime.now(UTC))

    def _end(self, end: CallEnd) -> None:
        self._recorder.call_ended(end)
        log_call_ended(self._log, end)
