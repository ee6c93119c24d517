"""The one round trip of a decision: a batch of attempts to the SQL function `authorize` and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg

from ringfence.config import DatabaseSettings
from ringfence.errors import DatabaseError, RingfenceError
from ringfence.model import Decision, NumberedAttempt
from ringfence.store.connect import CONNECTION_FAULTS, connect
from ringfence.store.rows import attempt_fields, decision_from

_AUTHORIZE = "select * from ringfence.authorize($1::ringfence.attempt[], $2)"
_DRY_RUN = "select * from ringfence.authorize(array[$1::ringfence.attempt], 60, true)"


class RefusedByDatabaseError(RingfenceError):
    """Postgres works but would not judge this batch: nothing of it was recorded."""


class Lane:
    """One connection on the call's way. Used by one task at a time; reconnecting is its owner's business."""

    def __init__(self, settings: DatabaseSettings, deadline_ms: int) -> None:
        self._settings = settings
        self.deadline_ms = deadline_ms
        """May be changed at any time; it holds from the next batch on."""
        self._told_ms = 0  # the deadline that the server knows of
        self._connection: asyncpg.Connection | None = None

    @property
    def connected(self) -> bool:
        """False before `connect` and after a fault."""
        return self._connection is not None and not self._connection.is_closed()

    async def connect(self) -> None:
        """Connect and prepare. Raises DatabaseError."""
        await self.close()
        connection = await connect(
            self._settings, application="gate", statement_timeout_ms=_server_timeout_ms(self.deadline_ms)
        )
        self._told_ms = self.deadline_ms
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                # asyncpg learns the composite types, and the function's first plans are made, on nobody's time.
                await connection.fetch(_AUTHORIZE, [], 60)
        except (*CONNECTION_FAULTS, asyncpg.PostgresError) as error:
            connection.terminate()
            raise DatabaseError(f"the gate cannot call ringfence.authorize: {error}") from error
        self._connection = connection

    async def authorize(self, batch: Sequence[NumberedAttempt], lease_s: int) -> Mapping[UUID, Decision]:
        """The decisions on a batch, by decision id; each is durable.

        Raises DatabaseError if the connection failed or the deadline passed: the batch may have been
        committed or not. Raises RefusedByDatabaseError if Postgres refused the batch as a whole.
        """
        connection = self._connection
        if connection is None:
            raise DatabaseError("the gate is not connected")
        rows_in = [tuple(attempt_fields(numbered).values()) for numbered in batch]
        try:
            if self._told_ms != self.deadline_ms:
                await connection.execute(f"set statement_timeout = {_server_timeout_ms(self.deadline_ms)}")
                self._told_ms = self.deadline_ms
            rows = await connection.fetch(_AUTHORIZE, rows_in, lease_s, timeout=self.deadline_ms / 1000)
        except (*CONNECTION_FAULTS, asyncpg.QueryCanceledError) as error:
            self._drop()
            raise DatabaseError(f"authorize failed: {error or type(error).__name__}") from error
        except (asyncpg.PostgresError, asyncpg.DataError, ValueError, TypeError) as error:
            raise RefusedByDatabaseError(f"authorize refused the batch: {error}") from error
        except asyncio.CancelledError:
            self._drop()
            raise
        return {row["decision_id"]: decision_from(dict(row)) for row in rows}

    async def close(self) -> None:
        """Close the connection, if any. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            try:
                await connection.close(timeout=1)
            except CONNECTION_FAULTS:
                connection.terminate()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _server_timeout_ms(deadline_ms: int) -> int:
    """The server gives up first: a batch that the daemon no longer waits for must not commit later."""
    return max(20, deadline_ms * 9 // 10)


async def dry_run(
    connection: asyncpg.Connection, numbered: NumberedAttempt
) -> tuple[Decision, list[dict[str, Any]]]:
    """What the judge would answer, with each rule's outcome (`rule`, `failed`, `data`). Changes nothing."""
    row = await connection.fetchrow(_DRY_RUN, tuple(attempt_fields(numbered).values()))
    if row is None:
        raise DatabaseError("authorize gave no answer")
    return decision_from(dict(row)), json.loads(row["rules"])
