"""The daemon: puts the parts together, starts them, reloads, stops, and tells systemd."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import sdnotify

from ringfence import __version__, config, telemetry
from ringfence.config import AsteriskSettings, Settings, SwitchSettings
from ringfence.errors import ConfigError, ExitCode
from ringfence.gate import Gate
from ringfence.model import CallEnd
from ringfence.notices.delivery import Courier
from ringfence.numbering import Numbering
from ringfence.store.authorize import Lane
from ringfence.store.journal import Journal
from ringfence.switches.asterisk.adapter import Asterisk
from ringfence.switches.interface import Switch
from ringfence.upkeep import Upkeep

RELOADABLE = ("gate", "numbering", "logging")
_STOP_WITHIN_S = 4.2


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
        self._log = telemetry.get_logger(host=settings.host)
        self._systemd = sdnotify.SystemdNotifier()
        self._journal = Journal(settings.journal, settings.database, self._log)
        self._upkeep = Upkeep(settings.gate, settings.database, settings.host, self._journal, self._log)
        self._courier = Courier(settings.notices, settings.database, settings.host, self._log)
        deadline_ms = settings.gate.deadline_ms
        self._lanes = [Lane(settings.database, deadline_ms) for _ in range(settings.database.connections)]
        self._gate = Gate(settings.gate, Numbering(settings.numbering), self._lanes, self._journal, self._log)
        self._switches = [self._switch(switch) for switch in settings.switches]

    def _switch(self, settings: SwitchSettings) -> Switch:
        log = telemetry.get_logger(host=self._settings.host, switch=settings.name)
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
        self._upkeep.calls_listed(switch, calls, asked_at)

    async def serve(self) -> None:
        """Start, run until told to stop, stop."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        watchdog = asyncio.create_task(self._watchdog(), name="watchdog")
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            await self._start()
            self._log.info("service.started", version=__version__, switches=[s.name for s in self._switches])
            self._systemd.notify(f"READY=1\nSTATUS=Serving {len(self._switches)} switch(es)")
            await stopping.wait()
            self._log.info("service.stopping")
            self._systemd.notify("STOPPING=1")
        finally:
            await self._stop()
            watchdog.cancel()
        self._log.info("service.stopped")

    async def _start(self) -> None:
        if not self._settings.switches:
            raise ConfigError("switches: names no switch to serve")
        try:
            await self._journal.start()
        except OSError as error:
            raise ConfigError(f"journal.spool_directory: cannot be used: {error}") from error
        await self._upkeep.prepare()
        await self._gate.start()
        for switch in self._switches:
            await switch.start()
        self._upkeep.start(self._switches)
        self._courier.start()
        # What was built at start stays: keep the collector from walking it while a caller waits.
        gc.collect()
        gc.freeze()

    async def _stop(self) -> None:
        """Stop accepting, answer what is in hand, flush. All of it shares one budget, well below 5 s."""
        until = asyncio.get_running_loop().time() + _STOP_WITHIN_S

        def left(reserve_s: float) -> float:
            return max(0.05, until - asyncio.get_running_loop().time() - reserve_s)

        await self._bounded("accepting", left(3.0), *(switch.stop_accepting() for switch in self._switches))
        await self._bounded("switches", left(2.0), *(switch.stop() for switch in self._switches))
        await self._gate.stop(left(1.5))
        await self._bounded("upkeep", left(1.2), self._upkeep.stop(), self._courier.stop())
        await self._bounded("journal", left(0.2), self._journal.stop(left(0.7)))

    async def _bounded(self, step: str, bound_s: float, *work: Coroutine[Any, Any, None]) -> None:
        """Give work so much time and no more, whatever it does about being cancelled."""
        tasks = [asyncio.create_task(each) for each in work]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=bound_s)
        if late:
            self._log.warning("service.stop_slow", step=step, bound_s=round(bound_s, 2))
            for task in late:
                task.cancel()
        for task in tasks:
            if task.done() and not task.cancelled() and (error := task.exception()):
                self._log.error("service.stop_failed", step=step, error=str(error))

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
            format_changed = fresh.logging.format != self._settings.logging.format
            self._settings = self._settings.model_copy(update={name: getattr(fresh, name) for name in RELOADABLE})
            self._gate.configure(self._settings.gate, Numbering(self._settings.numbering))
            self._upkeep.settings = self._settings.gate
            for lane in self._lanes:
                lane.deadline_ms = self._settings.gate.deadline_ms
            telemetry.set_level(self._settings.logging)
            self._log.info("config.reloaded", changed=[name for name in changed if name in RELOADABLE])
            waiting = [name for name in changed if name not in RELOADABLE]
            if waiting or format_changed:
                self._log.warning("config.needs_restart", changed=waiting + ["logging.format"] * format_changed)
        finally:
            self._systemd.notify("READY=1")

    async def _watchdog(self) -> None:
        """Tell systemd the event loop turns, at half of the interval it asks for (sd_watchdog_enabled(3))."""
        interval_us = os.environ.get("WATCHDOG_USEC", "")
        if not interval_us.isdigit() or int(interval_us) == 0:
            return
        while True:
            self._systemd.notify("WATCHDOG=1")
            await asyncio.sleep(int(interval_us) / 2_000_000)
