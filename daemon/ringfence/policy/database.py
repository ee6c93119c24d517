"""The policy that is in the database, in canonical form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import asyncpg

from ringfence import rules
from ringfence.policy import model, tree
from ringfence.policy.fields import hours_written, time_of_day, written
from ringfence.reasons import BY_CODE
from ringfence.store import policy_files

ALL = "*"


async def provider(connection: asyncpg.Connection) -> tree.Tree:
    """The provider."""
    return tree.provider(await policy_files.provider(connection))


async def profiles(connection: asyncpg.Connection, *, hidden: bool) -> dict[str, tree.Tree]:
    """Limit profiles by name; those that only customers refer to who are no policy any more if `hidden`."""
    found = {}
    for row in await policy_files.profiles(connection):
        modes = dict.fromkeys(row["report_rules"], rules.REPORT) | dict.fromkeys(row["off_rules"], rules.OFF)
        if hidden or not row["hidden"] or row["profile"] == "restricted":
            found[row["profile"]] = tree.profile(row, modes)
    return found


async def destinations(connection: asyncpg.Connection) -> tree.Tree:
    """The destination rules for all customers."""
    return tree.destinations(await policy_files.destinations(connection, [ALL]))


async def calling_hours(connection: asyncpg.Connection) -> tree.Tree:
    """The calling hours."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in await policy_files.calling_hours(connection):
        opens, closes = time_of_day(row["opens"]), time_of_day(row["closes"])
        found[row["place"]][model.DAYS[row["weekday"]]] = hours_written(opens, closes)
    return tree.calling_hours(found)


async def reasons(connection: asyncpg.Connection) -> tree.Tree:
    """What the operator changed of the reasons."""
    rows = {row["reason"]: row for row in await policy_files.reasons(connection)}
    changed = {
        code: tree.reason(rows[code], BY_CODE[code]) for code in sorted(rows) if code in BY_CODE
    }  # fmt: skip
    return {code: said for code, said in changed.items() if said}


async def customers(
    connection: asyncpg.Connection, only: Sequence[str] | None = None, *, numbers: bool = True
) -> AsyncGenerator[tuple[str, tree.Tree, bool], None]:
    """All customers, or only some, in their order, with what they hold and whether they are no policy any more.

    Needs a transaction. Without `numbers` they have no key for their grants.
    """
    async for batch in policy_files.customers(connection, only):
        names = [row["customer"] for row in batch]
        held = await policy_files.held(connection, names, numbers=numbers)
        of = {kind: _by_customer(rows) for kind, rows in held.items()}
        for row in batch:
            name = row["customer"]
            found = tree.customer(row)
            newest = of["vettings"][name][0] if of["vettings"][name] else None
            if row["contact_email"] != (newest["contact_email"] if newest else ""):
                found["contact_email"] = row["contact_email"]
            found["endpoints"] = tree.endpoints(of["endpoints"][name])
            found["campaigns"] = tree.campaigns({each["campaign"]: each for each in of["campaigns"][name]})
            found["destinations"] = tree.destinations(of["destinations"][name])
            if numbers:
                found["grants"] = [_grant(each) for each in of["grants"][name]]
            if newest:
                found["vetting"] = tree.vetting(newest)
            yield name, found, row["hidden"]


def _by_customer(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["customer"]].append(row)
    return found


def _grant(row: Mapping[str, Any]) -> tree.Grant:
    return tree.Grant(
        row["first"],
        row["last"],
        row["source"],
        row["evidence"],
        row["attestation"],
        written(row["valid_from"]) if row["valid_from"] else "",
        written(row["valid_until"]) if row["valid_until"] else "",
        row["shared"],
    )
