"""Campaigns: what a customer's calls are for. Each change is one transaction with its entry in policy_changes."""

from __future__ import annotations

import re

import asyncpg

from ringfence.errors import BadInputError, ConflictError, NotFoundError
from ringfence.store import policy

TRAFFIC = ("conversational", "telemarketing")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def check_traffic(option: str, traffic: str) -> None:
    """Raises BadInputError naming `option` unless `traffic` is one of TRAFFIC."""
    if traffic not in TRAFFIC:
        hint = policy.did_you_mean(traffic, TRAFFIC)
        raise BadInputError(f"{option}: {traffic!r} is no kind of traffic{hint} use {' or '.join(TRAFFIC)}")


async def add(
    connection: asyncpg.Connection, customer: str, campaign: str, *, traffic: str, description: str = ""
) -> None:
    """Add a campaign, enabled. Raises BadInputError, NotFoundError on an unknown customer, and ConflictError if it
    is there or the customer is terminated."""
    if _NAME.fullmatch(campaign) is None:
        raise BadInputError(
            f"{campaign!r} cannot be the name of a campaign: use at most 63 letters, digits, '.', '-' and '_', "
            "beginning with a letter or digit"
        )
    check_traffic("--traffic", traffic)
    if len(description) > 500 or not description.isprintable():
        raise BadInputError("--description: give at most 500 characters without control characters")
    async with connection.transaction():
        await policy.lock_customer(connection, customer)
        await policy.refuse_terminated(connection, customer)
        added = await connection.fetchval(
            "insert into campaigns (customer, campaign, traffic, description) values ($1, $2, $3, $4) "
            "on conflict do nothing returning true",
            customer,
            campaign,
            traffic,
            description,
        )
        if not added:
            raise ConflictError(
                f"customer {customer!r} has a campaign {campaign!r} already; "
                f"'ringfence campaign list {customer}' shows it"
            )
        await policy.note_change(
            connection,
            "campaign.add",
            customer,
            {"campaign": campaign, "traffic": traffic, "description": description},
        )


async def enable(connection: asyncpg.Connection, customer: str, campaign: str, *, enabled: bool) -> None:
    """Switch a campaign on or off; calls of one that is off are refused. Raises NotFoundError."""
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        done = await connection.fetchval(
            "update campaigns set enabled = $3 where customer = $1 and campaign = $2 returning true",
            customer,
            campaign,
            enabled,
        )
        if not done:
            names = [row["campaign"] for row in await listed(connection, customer)]
            raise NotFoundError(
                f"customer {customer!r} has no campaign {campaign!r}{policy.did_you_mean(campaign, names)} "
                f"'ringfence campaign list {customer}' shows all"
            )
        action = "campaign.enable" if enabled else "campaign.disable"
        await policy.note_change(connection, action, customer, {"campaign": campaign})


async def listed(connection: asyncpg.Connection, customer: str | None = None) -> list[policy.Row]:
    """The campaigns of one customer or of all. Raises NotFoundError on an unknown customer."""
    if customer is not None:
        await policy.require_customer(connection, customer)
    return policy.rows(
        await connection.fetch(
            "select customer, campaign, traffic, description, enabled, created_at from campaigns "
            "where $1::text is null or customer = $1 order by customer, campaign",
            customer,
        )
    )
