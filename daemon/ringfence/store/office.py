"""Work in the database that no call waits for: renewing leases, ending lost ones, making partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from ringfence.config import DatabaseSettings
from ringfence.errors import DatabaseError
from ringfence.store import migrate
from ringfence.store.connect import CONNECTION_FAULTS, connect

_STATEMENT_TIMEOUT_MS = 5_000


class Office:
    """One connection for the daemon's own chores, made when first needed. Used by one task at a time."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._connection: asyncpg.Connection | None = None
        self._claims: set[tuple[str, str]] = set()

    async def require_schema(self) -> None:
        """Raises DatabaseError if Postgres cannot be used or lacks a migration of this version."""
        connection = await self._connected()
        try:
            current = await migrate.is_current(connection)
        except asyncpg.PostgresError as error:
            raise DatabaseError(f"cannot read the schema: {error}") from error
        if not current:
            raise DatabaseError("the database lacks a migration of this version: run 'ringfence db migrate'")

    async def renew_leases(self, calls: Sequence[tuple[str, UUID]], lease_s: int) -> int:
        """Keep the leases of live calls (customer, decision id); how many were still there."""
        customers = [customer for customer, _ in calls]
        decisions = [decision for _, decision in calls]
        return await self._value("select ringfence.renew_leases($1, $2, $3)", customers, decisions, lease_s)

    async def expire_leases(self) -> int:
        """End every lease nobody renewed; how many."""
        return await self._value("select ringfence.expire_leases()")

    async def forget_leases(self) -> int:
        """End the calls whose lease expired a day ago and whose switch never told; how many."""
        return await self._value("select ringfence.forget_leases()")

    async def claim(self, host: str, switch: str) -> bool:
        """Be the one daemon that speaks for this switch of this host, for as long as this connection lasts.

        False if another one does: two machines have the same name.
        """
        if (host, switch) not in self._claims:
            lock = f"ringfence {host}/{switch}"
            connection = await self._connected()
            try:
                held = await connection.fetchval("select pg_try_advisory_lock(hashtextextended($1, 0))", lock)
            except (*CONNECTION_FAULTS, asyncpg.PostgresError) as error:
                await self.close()
                raise DatabaseError(f"claiming {host}/{switch} failed: {error or type(error).__name__}") from error
            if not held:
                return False
            self._claims.add((host, switch))
        return True

    async def reconcile_leases(
        self, host: str, switch: str, calls: Sequence[tuple[str, UUID]], asked_at: datetime, lease_s: int
    ) -> int:
        """Compare a switch's own list of live calls, as it was at `asked_at`, with its leases: live ones are
        renewed, the others end as reconciled; how many ended."""
        customers = [customer for customer, _ in calls]
        decisions = [decision for _, decision in calls]
        return await self._value(
            "select count(*) from ringfence.reconcile_leases($1, $2, $3, $4, $5, $6)",
            host, switch, customers, decisions, asked_at, lease_s,
        )  # fmt: skip

    async def customers_to_hang_up(self, customers: Collection[str]) -> set[str]:
        """Those whose live calls are to be ended."""
        connection = await self._connected()
        try:
            rows = await connection.fetch("select ringfence.customers_to_hang_up($1)", list(customers), timeout=5)
        except (*CONNECTION_FAULTS, asyncpg.PostgresError) as error:
            await self.close()
            raise DatabaseError(f"customers_to_hang_up failed: {error or type(error).__name__}") from error
        return {row[0] for row in rows}

    async def ensure_partitions(self) -> int:
        """Make the records' partitions for the days ahead; how many were new."""
        return await self._value("select ringfence.ensure_partitions()")

    async def settle_infractions(self) -> int:
        """Carry out the suspensions that a call could not, because the customer's row was held; how many."""
        return await self._value("select ringfence.settle_infractions()")

    async def forget_usage(self) -> int:
        """Drop counters of months that are over, some at a time; how many."""
        return await self._value("select ringfence.forget_usage()")

    async def raise_expiries(self) -> int:
        """Write a notice for what runs out soon, and for what has run out; how many."""
        return await self._value("select ringfence.raise_expiries()")

    async def close(self) -> None:
        """Close the connection, if any. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _value(self, query: str, *arguments: object) -> int:
        connection = await self._connected()
        try:
            return int(await connection.fetchval(query, *arguments))
        except CONNECTION_FAULTS as error:
            await self.close()
            raise DatabaseError(f"{query.partition('(')[0]} failed: {error or type(error).__name__}") from error
        except asyncpg.PostgresError as error:
            raise DatabaseError(f"{query.partition('(')[0]} failed: {error}") from error
        except asyncio.CancelledError:
            await self.close()
            raise

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._claims.clear()
            self._connection = await connect(
                self._settings, application="office", statement_timeout_ms=_STATEMENT_TIMEOUT_MS
            )
        return self._connection
