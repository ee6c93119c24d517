"""Records on their way to Postgres: written in batches, kept on disk while it is down, never lost silently."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any, Literal

import asyncpg
import structlog

from ringfence.config import DatabaseSettings, JournalSettings
from ringfence.errors import DatabaseError
from ringfence.model import CallEnd, Decision, NumberedAttempt
from ringfence.store.connect import CONNECTION_FAULTS, connect
from ringfence.store.rows import attempt_fields, call_end_fields, decision_fields, to_json
from ringfence.store.spool import Record, Spool

RECORD_DECISIONS = """
select ringfence.record_decisions(
  array(select jsonb_populate_record(null::ringfence.attempt, r.value->'attempt')
        from jsonb_array_elements($1::jsonb) with ordinality r order by r.ordinality),
  array(select jsonb_populate_record(null::ringfence.decision, r.value->'decision')
        from jsonb_array_elements($1::jsonb) with ordinality r order by r.ordinality))
"""
RECORD_ENDS = """
select ringfence.record_ends(
  array(select e from jsonb_populate_recordset(null::ringfence.call_end, $1::jsonb) e))
"""
_STATEMENT_TIMEOUT_MS = 4_000
_RECORDS_OWN_FAULT = ("22", "23")  # SQLSTATE classes: data exception, integrity constraint violation
_RETRY_MIN_S = 0.2
_RETRY_MAX_S = 5.0


class Journal:
    """Takes call ends and decisions made without the database, and writes them to Postgres.

    Taking never blocks and never raises. While Postgres is down records go to the spool on disk (fsynced) and
    are loaded when it returns; both SQL functions write a record once however often it is told, so a crash in
    between repeats work but not rows. A record that Postgres refuses or that the disk cannot hold is logged
    in full.
    """

    def __init__(
        self,
        settings: JournalSettings,
        database: DatabaseSettings,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._database = database
        self._log = log
        self._spool = Spool(settings.spool_directory)
        self._waiting: deque[Record] = deque()
        self._in_hand: list[Record] = []
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: asyncpg.Connection | None = None
        self._task: asyncio.Task[None] | None = None

    def decided_without_database(self, numbered: NumberedAttempt, decision: Decision) -> None:
        """Take a decision the judge did not record: an emergency call or a declared failure answer."""
        self._take(
            "decision",
            {
                "attempt": to_json(attempt_fields(numbered)),
                "decision": to_json(decision_fields(decision)),
            },
        )

    def call_ended(self, end: CallEnd) -> None:
        """Take the end of an allowed call."""
        self._take("end", to_json(call_end_fields(end)))

    async def start(self) -> None:
        """Begin writing; records spooled by an earlier run go first. Raises OSError if the spool is unusable."""
        await asyncio.to_thread(self._spool.open)
        self._task = asyncio.create_task(self._run(), name="journal")

    @property
    def settled(self) -> bool:
        """True if everything taken so far is in Postgres: nothing waits in memory or on disk."""
        return self._spool.empty and not self._waiting and not self._in_hand

    async def flush(self, timeout_s: float) -> bool:
        """Wait until everything taken so far is in Postgres or on disk; False if that took too long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self, timeout_s: float) -> None:
        """Flush, then put what is left on disk, and close. Idempotent."""
        if self._task is None:
            return
        await self.flush(timeout_s)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        # What was in hand may have been written; telling it again does no harm.
        if left := [*self._in_hand, *self._waiting]:
            await self._to_disk(left)
            self._waiting.clear()
        self._disconnect()

    def _take(self, kind: Literal["decision", "end"], fields: dict[str, Any]) -> None:
        record = Record(kind, fields)
        if len(self._waiting) >= self._settings.max_waiting:
            self._log.error("journal.overflow", record=record.as_json())
            return
        self._waiting.append(record)
        self._idle.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._write_on()
            except Exception:  # a journal that stopped would be noticed when the memory is full
                self._log.exception("journal.failed")
                self._disconnect()
                if self._in_hand:
                    await self._to_disk(self._in_hand)
                self._in_hand = []
                await asyncio.sleep(_RETRY_MIN_S)

    async def _write_on(self) -> None:
        pause_s = _RETRY_MIN_S
        while True:
            if not self._waiting:
                self._idle.set()
                if self._spool.empty:
                    self._wake.clear()
                    await self._wake.wait()
            if not await self._connected():
                await self._put_aside()
                await self._pause(pause_s)
                pause_s = min(pause_s * 2, _RETRY_MAX_S)
                continue
            pause_s = _RETRY_MIN_S
            await self._load_spool()
            count = min(self._settings.max_batch, len(self._waiting))
            self._in_hand = [self._waiting.popleft() for _ in range(count)]
            if self._in_hand and not await self._write(self._in_hand):
                await self._to_disk(self._in_hand)
            self._in_hand = []

    async def _pause(self, pause_s: float) -> None:
        """Wait before the next connection attempt, but take records to disk as they come."""
        until = asyncio.get_running_loop().time() + pause_s
        while True:
            self._wake.clear()
            try:
                # Only the waiting is cut short: a write to disk that was cut short would lose its records.
                async with asyncio.timeout_at(until):
                    await self._wake.wait()
            except TimeoutError:
                return
            await self._put_aside()

    async def _put_aside(self) -> None:
        batch = list(self._waiting)
        self._waiting.clear()
        if batch:
            await self._to_disk(batch)
        self._idle.set()

    async def _connected(self) -> bool:
        if self._connection is not None and not self._connection.is_closed():
            return True
        try:
            self._connection = await connect(
                self._database, application="journal", statement_timeout_ms=_STATEMENT_TIMEOUT_MS
            )
        except DatabaseError as error:
            self._log.warning("journal.database_down", error=str(error))
            return False
        return True

    async def _load_spool(self) -> None:
        while not self._spool.empty:
            try:
                name, records, damaged = await asyncio.to_thread(self._spool.oldest)
            except OSError as error:
                self._log.error("journal.spool_unreadable", file=self._spool.pass_over(), error=str(error))
                continue
            for line in damaged:
                self._log.error("journal.spool_damaged", file=name, line=line)
            for start in range(0, len(records), self._settings.max_batch):
                if not await self._write(records[start : start + self._settings.max_batch]):
                    return
            await asyncio.to_thread(self._spool.remove, name)
            self._log.info("journal.spool_loaded", file=name, records=len(records))

    async def _write(self, batch: list[Record]) -> bool:
        """Write a batch; False if the connection failed and nothing is known to be written."""
        connection = self._connection
        if connection is None:
            return False
        decisions = [record.fields for record in batch if record.kind == "decision"]
        ends = [record.fields for record in batch if record.kind == "end"]
        try:
            async with connection.transaction():
                # A decision goes before its end: the end of an undelivered answer looks for it.
                if decisions:
                    await connection.execute(RECORD_DECISIONS, json.dumps(decisions), timeout=15)
                if ends:
                    await connection.execute(RECORD_ENDS, json.dumps(ends), timeout=15)
        except (*CONNECTION_FAULTS, asyncpg.QueryCanceledError) as error:
            self._log.warning("journal.write_failed", error=str(error) or type(error).__name__, records=len(batch))
            self._disconnect()
            return False
        except (asyncpg.PostgresError, asyncpg.DataError) as error:
            if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] not in _RECORDS_OWN_FAULT:
                # Read-only, out of space, in the middle of an upgrade: it passes, and the records wait for that.
                self._log.warning("journal.write_failed", error=str(error), records=len(batch))
                self._disconnect()
                return False
            if len(batch) == 1:
                self._log.error("journal.record_refused", error=str(error), record=batch[0].as_json())
                return True
            for position, record in enumerate(batch):
                if not await self._write([record]):
                    await self._to_disk(batch[position:])
                    return True
        return True

    async def _to_disk(self, batch: list[Record]) -> None:
        # Shielded: the thread writes to its end even if this task is cancelled meanwhile.
        writing = asyncio.ensure_future(asyncio.to_thread(self._spool.append, batch))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise
        except OSError as error:
            for record in batch:
                self._log.error("journal.spool_failed", error=str(error), record=record.as_json())

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
