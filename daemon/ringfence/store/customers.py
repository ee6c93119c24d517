"""Customers: each change is one transaction with its entry in policy_changes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence

import asyncpg

from ringfence.errors import BadInputError, ConflictError
from ringfence.store import endpoints, policy
from ringfence.store.connect import current_actor


async def add_customer(
    connection: asyncpg.Connection,
    customer: str,
    *,
    name: str,
    profile: str = policy.DEFAULT_PROFILE,
    time_zone: str = "UTC",
    recognised_by: Sequence[endpoints.Endpoint] = (),
) -> bool:
    """Add an active customer with its endpoints; True if the profile `default` had to be made for it.

    Raises BadInputError on a malformed field, NotFoundError on an unknown profile, and ConflictError if the
    customer or an endpoint exists. Then nothing was added.
    """
    policy.check_name("customer", customer)
    policy.check_text("--name", name)
    async with connection.transaction():
        await _check_time_zone(connection, time_zone)
        made = profile == policy.DEFAULT_PROFILE and await policy.make_default_profile(connection)
        await policy.require_profile(connection, profile)
        added = await connection.fetchval(
            "insert into customers (customer, name, profile, time_zone) values ($1, $2, $3, $4) "
            "on conflict do nothing returning true",
            customer,
            name,
            profile,
            time_zone,
        )
        if not added:
            raise ConflictError(
                f"there already is a customer {customer!r}; 'ringfence customer show {customer}' "
                "shows it, 'ringfence customer set' changes it"
            )
        await policy.note_change(
            connection, "customer.add", customer, {"name": name, "profile": profile, "time_zone": time_zone}
        )
        for endpoint in recognised_by:
            await endpoints.insert(connection, customer, endpoint)
    return made


async def change_customer(
    connection: asyncpg.Connection,
    customer: str,
    *,
    name: str | None,
    profile: str | None,
    time_zone: str | None,
) -> None:
    """Change what is given and leave the rest. Raises as `add_customer` does, and NotFoundError."""
    async with connection.transaction():
        await policy.lock_customer(connection, customer)
        if name is not None:
            policy.check_text("--name", name)
        if time_zone is not None:
            await _check_time_zone(connection, time_zone)
        if profile is not None:
            await policy.require_profile(connection, profile)
        await connection.execute(
            "update customers set name = coalesce($2, name), profile = coalesce($3, profile), "
            "time_zone = coalesce($4, time_zone) where customer = $1",
            customer,
            name,
            profile,
            time_zone,
        )
        changes = {"name": name, "profile": profile, "time_zone": time_zone}
        await policy.note_change(
            connection, "customer.set", customer, {k: v for k, v in changes.items() if v is not None}
        )


async def customers(connection: asyncpg.Connection) -> list[policy.Row]:
    """Every customer with its state, profile, and how many endpoints and grants it has."""
    return policy.rows(
        await connection.fetch(
            "select customer, name, state, profile, time_zone, "
            "(select count(*) from endpoints e where e.customer = c.customer) as endpoints, "
            "(select count(*) from grants g where g.customer = c.customer) as grants "
            "from customers c order by customer"
        )
    )


async def show_customer(connection: asyncpg.Connection, customer: str) -> policy.Row:
    """One customer with its caps, endpoints, grants in sum, counters and last ten policy changes.

    Raises NotFoundError.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await policy.require_customer(connection, customer)
        found = await connection.fetchrow(
            "select c.customer, c.name, c.state, c.state_reason, c.state_since, c.time_zone, c.created_at, "
            "p.profile, p.calls_per_second::float8 as calls_per_second, p.burst, p.concurrent_calls, "
            "p.calls_per_day, coalesce(k.live_calls, 0) as live_calls, "
            "case when k.day = (now() at time zone c.time_zone)::date then k.calls_today else 0 end "
            "as calls_today "
            "from customers c join limit_profiles p using (profile) left join counters k using (customer) "
            "where c.customer = $1",
            customer,
        )
        shown = dict(found or {})
        shown["endpoints"] = await endpoints.listed(connection, customer)
        shown["grants"] = policy.rows(
            await connection.fetch(
                "select source, attestation, count(*) as grants, sum(last - first + 1)::bigint as numbers, "
                "count(*) filter (where now() < valid_from or now() >= valid_until) as not_in_date, "
                "nullif(min(valid_until) filter (where valid_until > now()), 'infinity') as next_expiry "
                "from grants where customer = $1 group by source, attestation order by source, attestation",
                customer,
            )
        )
        shown["changes"] = policy.rows(
            await connection.fetch(
                "select version, changed_at, changed_by, action, detail from policy_changes where customer = $1 "
                "order by version desc limit 10",
                customer,
            )
        )
        for change in shown["changes"]:
            change["detail"] = json.loads(change["detail"])
    return shown


async def set_state(
    connection: asyncpg.Connection,
    customer: str,
    state: str,
    reason: str,
    *,
    hang_up: bool = False,
    approved_by: str = "",
) -> str:
    """Suspend a customer (`suspended`) or take it back (`active`, only from suspended); returns its old state.

    With `hang_up` every daemon ends the customer's live calls, emergency calls excepted. Reinstating is
    written down as approved by `approved_by`, by default the user at the keyboard.

    Raises NotFoundError, and ConflictError if the customer is in no state to be moved from.
    """
    policy.check_text("--reason", reason)
    async with connection.transaction():
        before = await policy.lock_customer(connection, customer)
        if state == "active" and before != "suspended":
            raise ConflictError(f"customer {customer!r} is {before}, not suspended: nothing to reinstate")
        hanging_up = await connection.fetchval("select hang_up from customers where customer = $1", customer)
        if state == before == "suspended" and (hanging_up or not hang_up):
            raise ConflictError(
                f"customer {customer!r} is suspended already; "
                f"'ringfence customer show {customer}' says since when and why"
            )
        await connection.fetchval(
            "select ringfence.set_customer_state($1, $2, $3, $4, $5)",
            customer,
            state,
            reason,
            hang_up,
            approved_by or current_actor(),
        )
    return before


async def _check_time_zone(connection: asyncpg.Connection, time_zone: str) -> None:
    names = [row[0] for row in await connection.fetch("select name from pg_timezone_names")]
    if time_zone not in names:
        close = difflib.get_close_matches(time_zone, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; write an IANA name such as America/New_York"
        raise BadInputError(f"--time-zone: Postgres knows no time zone {time_zone!r}{hint}")
