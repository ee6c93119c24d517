"""How a call is recognised as a customer's: each change is one transaction with its entry in policy_changes."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from ringfence.errors import BadInputError, ConflictError, NotFoundError
from ringfence.store import campaigns, policy

_THIS_ONE = "where customer = $1 and kind = $2 and value = $3 and host = $4"
_REMOVE = f"delete from endpoints {_THIS_ONE}"  # noqa: S608 - constants only
_ENABLE = f"update endpoints set enabled = true {_THIS_ONE}"  # noqa: S608
_DISABLE = f"update endpoints set enabled = false {_THIS_ONE}"  # noqa: S608
_SET_TRAFFIC = f"update endpoints set traffic = $5 {_THIS_ONE}"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How a call is recognised: `kind` is account, sip_user, trunk or source_address; `host` `*` is every host."""

    kind: str
    value: str
    host: str = "*"

    def __str__(self) -> str:
        where = "" if self.host == "*" else f" on host {self.host!r}"
        return f"{self.kind.replace('_', ' ')} {self.value!r}{where}"

    def checked(self) -> Endpoint:
        """The endpoint as it is stored: addresses in their canonical form. Raises BadInputError."""
        if not 1 <= len(self.value) <= 255:
            raise BadInputError(f"an endpoint's {self.kind.replace('_', ' ')} has 1 to 255 characters")
        if not self.value.isprintable() or not self.host.isprintable() or not self.host:
            raise BadInputError(f"{self}: control characters are refused")
        if self.kind != "source_address":
            return self
        try:
            return Endpoint(self.kind, str(ipaddress.ip_address(self.value)), self.host)
        except ValueError:
            raise BadInputError(
                f"{self}: not an IP address; it is compared exactly, so give one address"
            ) from None


async def listed(connection: asyncpg.Connection, customer: str | None = None) -> list[policy.Row]:
    """The endpoints of one customer or of all. Raises NotFoundError on an unknown customer."""
    if customer is not None:
        await policy.require_customer(connection, customer)
    return policy.rows(
        await connection.fetch(
            "select endpoint, customer, kind, value, host, traffic, enabled, created_at from endpoints "
            "where $1::text is null or customer = $1 order by customer, kind, value, host",
            customer,
        )
    )


async def add(
    connection: asyncpg.Connection,
    customer: str,
    added: Sequence[Endpoint],
    *,
    traffic: str = "conversational",
) -> None:
    """Add all of them or, with BadInputError, ConflictError or NotFoundError, none. A customer that is terminated
    gets none."""
    campaigns.check_traffic("--traffic", traffic)
    async with connection.transaction():
        await policy.lock_customer(connection, customer)
        await policy.refuse_terminated(connection, customer)
        for endpoint in added:
            await insert(connection, customer, endpoint, traffic=traffic)


async def remove(connection: asyncpg.Connection, customer: str, removed: Sequence[Endpoint]) -> None:
    """Remove all of them or, with NotFoundError, none."""
    await _change(connection, customer, removed, "endpoint.remove", _REMOVE)


async def enable(
    connection: asyncpg.Connection, customer: str, changed: Sequence[Endpoint], *, enabled: bool
) -> None:
    """Switch all of them on or off or, with NotFoundError, none. Calls of one that is off are refused."""
    action = "endpoint.enable" if enabled else "endpoint.disable"
    await _change(connection, customer, changed, action, _ENABLE if enabled else _DISABLE)


async def set_traffic(
    connection: asyncpg.Connection, customer: str, changed: Sequence[Endpoint], traffic: str
) -> None:
    """Say of all of them what traffic their calls are or, with BadInputError or NotFoundError, of none."""
    campaigns.check_traffic("--traffic", traffic)
    await _change(connection, customer, changed, "endpoint.set", _SET_TRAFFIC, traffic=traffic)


async def _change(
    connection: asyncpg.Connection,
    customer: str,
    changed: Sequence[Endpoint],
    action: str,
    statement: str,
    **more: str,
) -> None:
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        for endpoint in (named.checked() for named in changed):
            key = (customer, endpoint.kind, endpoint.value, endpoint.host)
            done = await connection.execute(statement, *key, *more.values())
            if done.endswith(" 0"):
                raise NotFoundError(
                    f"customer {customer!r} has no {endpoint}; "
                    f"'ringfence endpoint list {customer}' shows what it has"
                )
            await policy.note_change(connection, action, customer, {**_endpoint_detail(endpoint), **more})


async def insert(
    connection: asyncpg.Connection, customer: str, named: Endpoint, *, traffic: str = "conversational"
) -> None:
    """Add one endpoint in the caller's transaction. Raises BadInputError, and ConflictError if it exists."""
    endpoint = named.checked()
    added = await connection.fetchval(
        "insert into endpoints (customer, kind, value, host, traffic) values ($1, $2, $3, $4, $5) "
        "on conflict do nothing returning true",
        customer,
        endpoint.kind,
        endpoint.value,
        endpoint.host,
        traffic,
    )
    if not added:
        owner = await connection.fetchval(
            "select customer from endpoints where kind = $1 and value = $2 and host = $3",
            endpoint.kind,
            endpoint.value,
            endpoint.host,
        )
        raise ConflictError(
            f"{endpoint} already belongs to customer {owner!r}: 'ringfence endpoint remove {owner} "
            f"…' takes it away first"
        )
    detail = {**_endpoint_detail(endpoint), "traffic": traffic}
    await policy.note_change(connection, "endpoint.add", customer, detail)


def _endpoint_detail(endpoint: Endpoint) -> policy.Row:
    return {"kind": endpoint.kind, "value": endpoint.value, "host": endpoint.host}
