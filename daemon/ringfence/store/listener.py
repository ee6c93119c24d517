"""Hearing of policy changes as they are committed (LISTEN/NOTIFY), on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import structlog

from ringfence.config import DatabaseSettings
from ringfence.errors import DatabaseError
from ringfence.store.connect import CONNECTION_FAULTS, connect

CHANNEL = "ringfence_policy"
_PROBE_EVERY_S = 10.0
_PROBE_TIMEOUT_S = 5.0
_RETRY_MIN_S = 0.2
_RETRY_MAX_S = 5.0


class PolicyListener:
    """Calls `on_change` after every committed policy change, and after every (re)connection, since changes may
    have been missed. Many changes at once are one call."""

    def __init__(
        self,
        settings: DatabaseSettings,
        on_change: Callable[[], Awaitable[None]],
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._on_change = on_change
        self._log = log
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Listen until cancelled."""
        pause_s = _RETRY_MIN_S
        while True:
            try:
                connection = await connect(self._settings, application="listener")
            except DatabaseError as error:
                self._log.warning("policy.listener_down", error=str(error), retry_in_s=pause_s)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RETRY_MAX_S)
                continue
            pause_s = _RETRY_MIN_S
            try:
                connection.add_termination_listener(lambda *_: self._changed.set())
                await connection.add_listener(CHANNEL, lambda *_: self._changed.set())
                await self._serve(connection)
            except (*CONNECTION_FAULTS, asyncpg.PostgresError) as error:
                self._log.warning("policy.listener_lost", error=str(error) or type(error).__name__)
            except Exception:  # what a change leads to failed; a listener that died would hear of no other
                self._log.exception("policy.listener_failed")
                await asyncio.sleep(_RETRY_MIN_S)
            finally:
                connection.terminate()

    async def _serve(self, connection: asyncpg.Connection) -> None:
        self._changed.set()
        while True:
            try:
                async with asyncio.timeout(_PROBE_EVERY_S):
                    await self._changed.wait()
            except TimeoutError:
                # A connection that hangs would hear nothing and say nothing.
                await connection.fetchval("select 1", timeout=_PROBE_TIMEOUT_S)
                continue
            self._changed.clear()
            if connection.is_closed():
                raise ConnectionError("the server closed the connection")
            await self._on_change()
