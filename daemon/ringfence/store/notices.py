"""Notices: taking, settling and planning their deliveries for the daemon, and reading them for people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from ringfence.config import DatabaseSettings
from ringfence.errors import ConflictError, DatabaseError, NotFoundError
from ringfence.store import policy
from ringfence.store.connect import CONNECTION_FAULTS, connect

CHANNEL = "ringfence_notice"
_STATEMENT_TIMEOUT_MS = 5_000

_LISTED = """
select n.notice_id, n.kind, n.customer, n.created_at, n.planned_at, n.delivered_at, n.delivered_how,
  coalesce((select array_agg(d.channel || case when d.sent_at is not null then ' sent'
      when d.gave_up_at is not null then ' given up' else ' waiting' end
      order by d.to_customer desc, d.channel, d.address)
    from notice_deliveries d where d.notice_id = n.notice_id), '{}') as ways
from notices n
where ($1::text is null or n.customer = $1) and (not $2 or n.delivered_at is null)
order by n.notice_id desc limit $3
"""

_SHOWN = """
select n.*, coalesce(c.name, n.customer) as customer_name, coalesce(c.contact_email, '') as contact_email,
  p.name as provider
from notices n left join customers c using (customer) cross join provider p
where n.notice_id = $1
"""


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody must be told. `provider` is who tells it; it may be empty."""

    notice_id: int
    kind: str
    customer: str
    customer_name: str
    provider: str
    created_at: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try to send a notice by one way.

    `told_by` is the way that reaches the customer: email, webhook, or empty if there is none. An `overdue` try is
    the last one.
    """

    notice: Notice
    channel: str
    address: str
    to_customer: bool
    told_by: str
    attempt: int
    overdue: bool


class Outbox:
    """The daemon's connection for notices, on which it also hears of new ones. Every method raises DatabaseError;
    then `open` makes another connection."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._connection: asyncpg.Connection | None = None
        self._in_use = asyncio.Lock()

    async def open(self, on_notice: Callable[[], None]) -> None:
        """Connect; `on_notice` is called for every new notice, and when the connection ends."""
        self.close()
        connection = await connect(
            self._settings, application="notices", statement_timeout_ms=_STATEMENT_TIMEOUT_MS
        )
        self._connection = connection
        connection.add_termination_listener(lambda *_: on_notice())
        try:
            await connection.add_listener(CHANNEL, lambda *_: on_notice())
        except (*CONNECTION_FAULTS, asyncpg.PostgresError) as error:
            raise DatabaseError(f"listening for notices failed: {error or type(error).__name__}") from error

    async def plan(self, *, mail: bool, operators: Sequence[str], webhook: str) -> int:
        """Decide where new notices go; how many. `webhook` is empty if there is none."""
        [[count]] = await self._fetch("select ringfence.plan_notices($1, $2, $3)", mail, list(operators), webhook)
        return int(count)

    async def claim(
        self, channel: str, webhook: str, *, limit: int, hold_s: float, give_up_s: float
    ) -> list[Delivery]:
        """Take up to `limit` deliveries that are due on a channel. Nobody else gets them for `hold_s`; what is
        then not settled is due again."""
        found = await self._fetch(
            "select * from ringfence.claim_deliveries($1, $2, $3, $4, $5)",
            channel,
            webhook,
            limit,
            hold_s,
            give_up_s,
        )
        return [
            Delivery(
                notice_from(row),
                channel=row["channel"],
                address=row["address"],
                to_customer=row["to_customer"],
                told_by=row["told_by"],
                attempt=row["attempts"],
                overdue=row["overdue"],
            )
            for row in found
        ]

    async def settle(
        self, delivery: Delivery, error: str | None, *, retry_in_s: float = 0.0, give_up: bool = False
    ) -> bool:
        """Write down how a try ended: `error` is None if it was accepted. False if it was settled before."""
        [[settled]] = await self._fetch(
            "select ringfence.settle_delivery($1, $2, $3, $4, $5, $6, $7, $8)",
            delivery.notice.notice_id,
            delivery.channel,
            delivery.address,
            delivery.attempt,
            error is None,
            error or "",
            retry_in_s,
            give_up,
        )
        return bool(settled)

    async def abandon(self, *, mail: bool, webhook: str, give_up_s: float) -> list[asyncpg.Record]:
        """Give up what is long overdue on ways that are configured no more; what that was."""
        return await self._fetch(
            "select * from ringfence.abandon_deliveries($1, $2, $3)", mail, webhook, give_up_s
        )

    def close(self) -> None:
        """Close the connection, if any. Idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        async with self._in_use:
            connection = self._connection
            if connection is None or connection.is_closed():
                raise DatabaseError("the connection for notices is gone")
            try:
                return list(await connection.fetch(query, *arguments))
            except (*CONNECTION_FAULTS, asyncpg.PostgresError) as error:
                name = query.partition("(")[0].rpartition(".")[2]
                raise DatabaseError(f"{name} failed: {error or type(error).__name__}") from error


def notice_from(row: asyncpg.Record) -> Notice:
    """A notice from a row that has its columns, and customer_name and provider."""
    return Notice(
        row["notice_id"],
        row["kind"],
        row["customer"],
        row["customer_name"],
        row["provider"],
        row["created_at"],
        json.loads(row["data"]),
    )


async def notices(
    connection: asyncpg.Connection, *, customer: str | None, undelivered: bool, limit: int
) -> list[policy.Row]:
    """Notices with the state of each way out, the newest first. Raises NotFoundError on an unknown customer."""
    if customer is not None:
        await policy.require_customer(connection, customer)
    return policy.rows(await connection.fetch(_LISTED, customer, undelivered, limit))


async def show_notice(connection: asyncpg.Connection, notice_id: int) -> tuple[Notice, policy.Row]:
    """One notice, and its row with `deliveries`. Raises NotFoundError."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow(_SHOWN, notice_id)
        if row is None:
            raise _unknown(notice_id)
        deliveries = await connection.fetch(
            "select channel, address, to_customer, attempts, sent_at, gave_up_at, "
            "case when sent_at is null and gave_up_at is null then next_attempt_at end as next_attempt_at, "
            "last_error from notice_deliveries where notice_id = $1 order by to_customer desc, channel, address",
            notice_id,
        )
    notice = notice_from(row)
    return notice, {**dict(row), "data": notice.data, "deliveries": policy.rows(deliveries)}


async def mark_delivered(connection: asyncpg.Connection, notice_id: int, how: str) -> str:
    """Write down that the customer was told, and how; returns the customer.

    Raises BadInputError on a malformed `how`, NotFoundError, and ConflictError if it was delivered before.
    """
    policy.check_text("--how", how)
    async with connection.transaction():
        customer: str | None = await connection.fetchval("select ringfence.mark_delivered($1, $2)", notice_id, how)
        if customer is None:
            before = await connection.fetchrow(
                "select delivered_at, delivered_how from notices where notice_id = $1", notice_id
            )
            if before is None:
                raise _unknown(notice_id)
            raise ConflictError(
                f"notice {notice_id} was delivered at {before['delivered_at']:%Y-%m-%d %H:%M:%SZ} by "
                f"{before['delivered_how']}"
            )
    return customer


async def retry_notice(connection: asyncpg.Connection, notice_id: int) -> int:
    """Have a notice sent again by every way that did not work, and by ways that are new; how many old ones.

    Raises NotFoundError, and ConflictError if everything arrived.
    """
    async with connection.transaction():
        row = await connection.fetchrow(
            "select delivered_at is not null and not exists (select from notice_deliveries d "
            "where d.notice_id = n.notice_id and d.sent_at is null) as arrived "
            "from notices n where notice_id = $1",
            notice_id,
        )
        if row is None:
            raise _unknown(notice_id)
        if row["arrived"]:
            raise ConflictError(
                f"notice {notice_id} was delivered and waits nowhere: 'ringfence notice show {notice_id}' says how"
            )
        return int(await connection.fetchval("select ringfence.retry_notice($1)", notice_id))


def _unknown(notice_id: int) -> NotFoundError:
    return NotFoundError(f"there is no notice {notice_id}; 'ringfence notice list' shows the newest")
