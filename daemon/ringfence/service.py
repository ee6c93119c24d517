"""The daemon: puts the parts together, starts them, reloads, stops, and tells systemd."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import sdnotify
import structlog

from ringfence import __version__, config, telemetry
from ringfence.config import AsteriskSettings, Settings, SwitchSettings
from ringfence.errors import ConfigError, DatabaseError, ExitCode, SwitchError
from ringfence.gate import Gate
from ringfence.model import CallEnd
from ringfence.numbering import Numbering
from ringfence.store.authorize import Lane
from ringfence.store.journal import Journal
from ringfence.store.listener import PolicyListener
from ringfence.store.office import Office
from ringfence.switches.asterisk.adapter import Asterisk
from ringfence.switches.interface import Switch

RELOADABLE = ("gate", "numbering", "logging")
_STOP_ACCEPTING_S = 1.0
_SWITCH_STOP_S = 1.5
_JOURNAL_STOP_S = 1.5
_PARTITION_EVERY_S = 3600
_Q850_CALL_REJECTED = 21
_ANSWER_ON_ITS_WAY = timedelta(seconds=2)


def run(settings: Settings, path: Path | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then exit 0. SIGHUP reads `path` again.

    Raises ConfigError, DatabaseError or SwitchError if it cannot start; then nothing is left open.
    """
    writer = telemetry.configure(settings.logging)
    try:
        asyncio.run(_Service(settings, path).serve())
    finally:
        writer.close()
    return ExitCode.OK


class _Service:
    def __init__(self, settings: Settings, path: Path | None) -> None:
        self._settings = settings
        self._path = path
        self._log: structlog.typing.FilteringBoundLogger = telemetry.get_logger(host=settings.host)
        self._systemd = sdnotify.SystemdNotifier()
        self._journal = Journal(settings.journal, settings.database, self._log)
        self._office = Office(settings.database)
        self._office_hours = asyncio.Lock()
        self._listed: dict[str, tuple[Sequence[tuple[str, UUID]], datetime]] = {}
        self._listed_anew = asyncio.Event()
        self._later: set[asyncio.Task[None]] = set()
        lanes = [Lane(settings.database, settings.gate.deadline_ms) for _ in range(settings.database.connections)]
        self._gate = Gate(settings.gate, Numbering(settings.numbering), lanes, self._journal, self._log)
        self._switches = [self._switch(switch) for switch in settings.switches]

    def _switch(self, settings: SwitchSettings) -> Switch:
        log = self._log.bind(switch=settings.name)
        if isinstance(settings, AsteriskSettings):
            return Asterisk(settings, self._settings.host, self._gate, self, log)
        # gevent takes half a second to import: only who serves a FreeSWITCH pays for it.
        from ringfence.switches.freeswitch.adapter import FreeSwitch

        return FreeSwitch(settings, self._settings.host, self._gate, self, log)

    def call_ended(self, end: CallEnd) -> None:
        """For the switches: an allowed call is over."""
        self._journal.call_ended(end)

    def calls_listed(self, switch: str, calls: Sequence[tuple[str, UUID]], asked_at: datetime) -> None:
        """For the switches: their own list of live calls."""
        self._listed[switch] = (calls, asked_at)
        self._listed_anew.set()

    async def serve(self) -> None:
        """Start, run until told to stop, stop."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        chores: list[asyncio.Task[None]] = []
        listener = PolicyListener(self._settings.database, self._policy_changed, self._log)
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            await self._start()
            chores = [
                asyncio.create_task(self._every(self._lease_chore_s, self._leases), name="leases"),
                asyncio.create_task(self._every(lambda: _PARTITION_EVERY_S, self._partitions), name="partitions"),
                asyncio.create_task(self._reconcile(), name="reconcile"),
                asyncio.create_task(listener.run(), name="listener"),
                asyncio.create_task(self._watchdog(), name="watchdog"),
            ]
            self._log.info("service.started", version=__version__, switches=[s.name for s in self._switches])
            self._systemd.notify(f"READY=1\nSTATUS=Serving {len(self._switches)} switch(es)")
            await stopping.wait()
            self._log.info("service.stopping")
            self._systemd.notify("STOPPING=1")
        finally:
            for chore in (*chores, *self._later):
                chore.cancel()
            await asyncio.gather(*chores, *self._later, return_exceptions=True)
            await self._stop()
        self._log.info("service.stopped")

    async def _start(self) -> None:
        if not self._settings.switches:
            raise ConfigError("switches: names no switch to serve")
        try:
            await self._journal.start()
        except OSError as error:
            raise ConfigError(f"journal.spool_directory: cannot be used: {error}") from error
        await self._office.require_schema()
        await self._office.ensure_partitions()
        await self._gate.start()
        for switch in self._switches:
            await switch.start()
        # What was built at start stays: keep the collector from walking it while a caller waits.
        gc.collect()
        gc.freeze()

    async def _stop(self) -> None:
        """Stop accepting, answer what is in hand, flush: each step bounded, so that it all ends within 5 s."""
        for bound_s, step in (
            (_STOP_ACCEPTING_S, [switch.stop_accepting for switch in self._switches]),
            (_SWITCH_STOP_S, [switch.stop for switch in self._switches]),
            (_STOP_ACCEPTING_S, [self._gate.stop]),
        ):
            try:
                async with asyncio.timeout(bound_s):
                    await asyncio.gather(*(stop() for stop in step))
            except TimeoutError:
                self._log.warning("service.stop_slow", bound_s=bound_s)
        await self._journal.stop(_JOURNAL_STOP_S)
        await self._office.close()

    def _reload(self) -> None:
        """Take over what can change while calls are judged; say what cannot, and keep everything on a fault."""
        self._systemd.notify("RELOADING=1")
        try:
            if self._path is None:
                raise ConfigError("there is no configuration file to read again")
            fresh = config.load(self._path)
        except ConfigError as error:
            self._log.error("config.reload_refused", error=str(error))
        else:
            changed = [
                name for name in Settings.model_fields if getattr(fresh, name) != getattr(self._settings, name)
            ]
            self._settings = self._settings.model_copy(update={name: getattr(fresh, name) for name in RELOADABLE})
            self._gate.configure(self._settings.gate, Numbering(self._settings.numbering))
            telemetry.set_level(self._settings.logging)
            self._log.info("config.reloaded", changed=[name for name in changed if name in RELOADABLE])
            if waiting := [name for name in changed if name not in RELOADABLE]:
                self._log.warning("config.needs_restart", changed=waiting)
        self._systemd.notify("READY=1")

    def _lease_chore_s(self) -> float:
        return self._settings.gate.lease_s / 4

    async def _leases(self) -> None:
        calls = [call for switch in self._switches if switch.connected() for call in switch.live_calls()]
        async with self._office_hours:
            if calls:
                await self._office.renew_leases(calls, self._settings.gate.lease_s)
            expired = await self._office.expire_leases()
        if expired:
            self._log.warning("lease.expired", count=expired)
        await self._hang_up_suspended()  # should a change have been missed

    async def _partitions(self) -> None:
        async with self._office_hours:
            await self._office.ensure_partitions()

    async def _reconcile(self) -> None:
        """Bring the leases in line with each list a switch gave; a list that cannot be used now is kept."""
        while True:
            await self._listed_anew.wait()
            self._listed_anew.clear()
            # A decision that was on its way to the switch when it was asked is not in its list.
            on_its_way = timedelta(milliseconds=self._settings.gate.deadline_ms) + _ANSWER_ON_ITS_WAY
            for name, (calls, asked_at) in list(self._listed.items()):
                # Ends on their way say more than "reconciled" does: let them be written first.
                await self._journal.flush(_JOURNAL_STOP_S)
                try:
                    async with self._office_hours:
                        ended = await self._office.reconcile_leases(
                            self._settings.host, name, calls, asked_at - on_its_way, self._settings.gate.lease_s
                        )
                except DatabaseError as error:
                    self._log.warning("lease.reconcile_failed", switch=name, error=str(error))
                    continue
                self._listed.pop(name, None)
                if ended:
                    self._log.warning("lease.reconciled", switch=name, ended=ended, live=len(calls))

    async def _policy_changed(self) -> None:
        await self._hang_up_suspended()
        # A call that was allowed at that very moment is on the switch when its answer has arrived.
        again = asyncio.create_task(self._hang_up_later(self._settings.gate.deadline_ms / 1000 + 0.5))
        self._later.add(again)
        again.add_done_callback(self._later.discard)

    async def _hang_up_later(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        await self._hang_up_suspended()

    async def _hang_up_suspended(self) -> None:
        """End the live calls of customers whose suspension says so. Emergency calls have no customer."""
        live = [
            (customer, decision, switch) for switch in self._switches for customer, decision in switch.live_calls()
        ]
        customers = {customer for customer, _, _ in live if customer}
        if not customers:
            return
        try:
            async with self._office_hours:
                to_end = await self._office.customers_to_hang_up(customers)
        except DatabaseError as error:
            self._log.error("suspension.failed", error=str(error))
            return
        calls = [(decision, switch) for customer, decision, switch in live if customer in to_end]
        if calls:
            self._log.warning("suspension.hanging_up", customers=sorted(to_end), calls=len(calls))
            await asyncio.gather(*(self._hang_up(decision, switch) for decision, switch in calls))

    async def _hang_up(self, decision: UUID, switch: Switch) -> None:
        try:
            await switch.hang_up(decision, _Q850_CALL_REJECTED, "the customer was suspended")
        except SwitchError as error:
            self._log.error("suspension.failed", decision=str(decision), switch=switch.name, error=str(error))

    async def _every(self, period_s: Callable[[], float], chore: Callable[[], Any]) -> None:
        while True:
            await asyncio.sleep(period_s())
            try:
                await chore()
            except DatabaseError as error:
                self._log.warning("service.chore_failed", chore=chore.__name__.strip("_"), error=str(error))
            except Exception:  # it has another chance at its next turn; a dead chore would have none
                self._log.exception("service.chore_crashed", chore=chore.__name__.strip("_"))

    async def _watchdog(self) -> None:
        """Tell systemd the event loop turns, at half of the interval it asks for (sd_watchdog_enabled(3))."""
        interval_us = os.environ.get("WATCHDOG_USEC", "")
        if not interval_us.isdigit() or int(interval_us) == 0:
            return
        while True:
            self._systemd.notify("WATCHDOG=1")
            await asyncio.sleep(int(interval_us) / 2_000_000)
