"""What every change of policy shares: its entry in policy_changes, and names that are checked."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

import asyncpg

from ringfence.errors import BadInputError, ConflictError, NotFoundError

Row = dict[str, Any]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_NAME_RULE = "use at most 63 lower-case letters, digits, '-' and '_', beginning with a letter or digit"


async def note_change(connection: asyncpg.Connection, action: str, customer: str, detail: Row) -> int:
    """Write down who changed what; returns the new policy version. Call it in the transaction of the change."""
    version: int = await connection.fetchval(
        "select ringfence.note_change($1, $2, $3)", action, customer, json.dumps(detail, default=str)
    )
    return version


async def require_customer(connection: asyncpg.Connection, customer: str) -> None:
    """Raises NotFoundError, with the names that are close, if there is no such customer."""
    if not await connection.fetchval("select true from customers where customer = $1", customer):
        raise await unknown_customer(connection, customer)


async def lock_customer(connection: asyncpg.Connection, customer: str) -> str:
    """Lock a customer's row until the transaction ends, so that two admins see each other's changes; returns its
    state. Raises NotFoundError."""
    state: str | None = await connection.fetchval(
        "select state from customers where customer = $1 for no key update", customer
    )
    if state is None:
        raise await unknown_customer(connection, customer)
    return state


async def refuse_terminated(connection: asyncpg.Connection, customer: str) -> None:
    """Raises NotFoundError, and ConflictError if the customer is terminated: it gets nothing more.

    Call it with the customer locked, or for grants after lock_grants(), which a termination takes too.
    """
    state = await connection.fetchval("select state from customers where customer = $1", customer)
    if state is None:
        raise await unknown_customer(connection, customer)
    if state == "terminated":
        raise ConflictError(
            f"customer {customer!r} is terminated: that is for good, and it gets nothing more; "
            "a new customer needs a new name"
        )


async def unknown_customer(connection: asyncpg.Connection, customer: str) -> NotFoundError:
    """The error that says so, with the customer that may have been meant."""
    names = [
        row[0] for row in await connection.fetch("select customer from customers order by customer limit 20000")
    ]
    return NotFoundError(
        f"there is no customer {customer!r}{did_you_mean(customer, names)} 'ringfence customer list' shows all"
    )


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` if a known name is close, else `;`."""
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ";"


def rows(records: Sequence[asyncpg.Record]) -> list[Row]:
    """Records as plain dictionaries."""
    return [dict(record) for record in records]


def check_name(what: str, name: str) -> None:
    """Raises BadInputError, saying the rule, if `name` cannot be the name of `what`."""
    if _NAME.fullmatch(name) is None:
        raise BadInputError(f"{name!r} cannot be the name of a {what}: {_NAME_RULE}")


def check_text(option: str, text: str) -> None:
    """Raises BadInputError naming `option` unless the text has 1 to 200 printable characters."""
    if not 1 <= len(text.strip()) <= 200 or not text.isprintable():
        raise BadInputError(f"{option}: give 1 to 200 characters without control characters")
