"""The policy in the database as a file."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import asyncpg

from ringfence.policy import canonical, database
from ringfence.store import policy, policy_files


@dataclass(slots=True)
class Exported:
    """What an export wrote, so far."""

    policy_version: int = 0
    customers: int = 0
    grants: int = 0


async def export(
    connection: asyncpg.Connection, done: Exported, *, customer: str | None = None, numbers: bool = True
) -> AsyncGenerator[str, None]:
    """The text of the file, part by part, as the policy is at one moment; `done` counts along.

    With `customer` it is theirs alone. Without `numbers` it says nothing about grants, and an apply leaves them as
    they are. Raises NotFoundError on an unknown customer.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        done.policy_version = await policy_files.version(connection)
        yield canonical.HEADER
        if customer is None:
            yield canonical.WHOLE
            for name, value in (
                ("provider", await database.provider(connection)),
                ("profiles", await database.profiles(connection, hidden=False)),
                ("destinations", await database.destinations(connection)),
                ("calling_hours", await database.calling_hours(connection)),
                ("reasons", await database.reasons(connection)),
            ):
                yield canonical.heading(name) + "\n".join(canonical.section(name, value)) + "\n"
        else:
            await policy.require_customer(connection, customer)
            yield canonical.SOME
        yield canonical.heading("customers")
        found = database.customers(connection, customer and [customer], numbers=numbers)
        async with contextlib.aclosing(found):
            async for name, held, hidden in found:
                if hidden and customer is None:
                    continue
                if not done.customers:
                    yield "customers:\n"
                done.customers += 1
                done.grants += len(held.get("grants", ()))
                yield "\n".join(canonical.customer(name, held)) + "\n"
        if not done.customers:
            yield "customers: {}\n"
