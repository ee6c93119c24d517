"""The lists an operator keeps of numbers: no call may show them (do-not-originate), or telemarketing may not call
them (do-not-call). Each change is one transaction with its entry in policy_changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

import asyncpg
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

from ringfence.errors import BadInputError, NotFoundError
from ringfence.store import policy

CATEGORIES = ("subscriber_request", "invalid", "unallocated", "unused")  # 47 CFR 64.1200(o)
EVERYBODY = "*"
MAX_DIGITS = 15

_COUNTRY_CODES = tuple(str(code) for code in COUNTRY_CODE_TO_REGION_CODE)


@dataclass(frozen=True, slots=True)
class NumberList:
    """One list: a table's rows of one category or customer, from one source.

    `noun` is the command line's, `key` the column that holds its digits, and `names` the columns that tell this
    list
    from the others of the table.
    """

    noun: str
    table: str
    key: str
    names: tuple[str, str]
    values: tuple[str, str]

    @property
    def detail(self) -> policy.Row:
        """What names the list, for an entry in policy_changes."""
        return dict(zip(self.names, self.values, strict=True))


def do_not_originate(category: str, source: str) -> NumberList:
    """The do-not-originate list of one category and source. Raises BadInputError."""
    if category not in CATEGORIES:
        raise BadInputError(f"--category: {category!r} is none of {', '.join(CATEGORIES)}")
    policy.check_text("--source", source)
    return NumberList(
        "do-not-originate", "do_not_originate", "prefix", ("category", "source"), (category, source.strip())
    )


def do_not_call(customer: str, source: str) -> NumberList:
    """The do-not-call list of one source that holds for one customer, or for `EVERYBODY`. Raises BadInputError."""
    policy.check_text("--source", source)
    return NumberList("do-not-call", "do_not_call", "number", ("customer", "source"), (customer, source.strip()))


def prefixes(first: int, last: int) -> Iterator[int]:
    """The fewest leading digits that hold every number from `first` to `last`, which have the same number of
    digits, and no other of that length."""
    while first <= last:
        size = 1
        while first % (size * 10) == 0 and first + size * 10 - 1 <= last and first // (size * 10) > 0:
            size *= 10
        yield first // size
        first += size


def prefix_fault(prefix: int) -> str:
    """What bars leading digits from a do-not-originate list; empty if nothing does."""
    digits = str(prefix)
    if len(digits) > MAX_DIGITS:
        return f"has more than {MAX_DIGITS} digits"
    if any(code.startswith(digits) for code in _COUNTRY_CODES):
        return f"+{digits} would hold every number of a country: give more digits"
    return ""


async def require_list(connection: asyncpg.Connection, wanted: NumberList) -> None:
    """Raises NotFoundError if the list is to be of a customer that is not there."""
    if "customer" in wanted.names and wanted.values[0] != EVERYBODY:
        await policy.require_customer(connection, wanted.values[0])


async def add(connection: asyncpg.Connection, onto: NumberList, entry: int, listed_on: date | None) -> bool:
    """Put digits on the list; False if they are on it already, then nothing is changed. Raises NotFoundError."""
    async with connection.transaction():
        await require_list(connection, onto)
        await connection.execute("select ringfence.lock_number_lists()")
        added = await connection.fetchval(
            f"insert into {onto.table} ({onto.key}, {', '.join(onto.names)}, listed_on) "  # noqa: S608 - constants
            "values ($1, $2, $3, coalesce($4, current_date)) on conflict do nothing returning true",
            entry,
            *onto.values,
            listed_on,
        )
        if added:
            detail = {onto.key: entry, **onto.detail, "listed_on": listed_on}
            await policy.note_change(connection, f"{onto.noun}.add", _customer(onto), detail)
    return bool(added)


async def remove(connection: asyncpg.Connection, off: NumberList, entry: int, reason: str) -> None:
    """Take digits off the list. Raises NotFoundError, with what is on it instead, if they are not on it."""
    async with connection.transaction():
        await connection.execute("select ringfence.lock_number_lists()")
        gone = await connection.fetchrow(
            f"delete from {off.table} where {off.key} = $1 and {off.names[0]} = $2 and {off.names[1]} = $3 "  # noqa: S608 - constants
            "returning listed_on",
            entry,
            *off.values,
        )
        if gone is None:
            raise NotFoundError(
                f"+{entry} is not on the list of {off.names[0]} {off.values[0]!r} and source {off.values[1]!r}; "
                f"'ringfence {off.noun} list --number +{entry}' shows the lists that hold it"
            )
        detail = {off.key: entry, **off.detail, "listed_on": gone["listed_on"], "reason": reason}
        await policy.note_change(connection, f"{off.noun}.remove", _customer(off), detail)


async def listed_do_not_originate(
    connection: asyncpg.Connection, *, category: str | None, source: str | None, number: int | None, limit: int
) -> list[policy.Row]:
    """Entries of the do-not-originate lists, or those that hold `number`, the narrowest first."""
    if category is not None and category not in CATEGORIES:
        raise BadInputError(f"--category: {category!r} is none of {', '.join(CATEGORIES)}")
    holding = "prefix = any (ringfence.leading_digits($4)) order by prefix desc, category, source"
    every = "$4::bigint is null order by category, source, prefix"
    found = await connection.fetch(
        "select prefix, category, source, listed_on from do_not_originate "  # noqa: S608 - constants
        "where ($1::text is null or category = $1) and ($2::text is null or source = $2) "
        f"and {every if number is None else holding} limit $3",
        category,
        source,
        limit,
        number,
    )
    return policy.rows(found)


async def listed_do_not_call(
    connection: asyncpg.Connection, *, customer: str | None, source: str | None, number: int | None, limit: int
) -> list[policy.Row]:
    """Entries of the do-not-call lists: all, of one customer's own, of one source, or those that hold `number`."""
    found = await connection.fetch(
        "select number, customer, source, listed_on from do_not_call "  # noqa: S608 - constants
        "where ($1::text is null or customer = $1) and ($2::text is null or source = $2) "
        f"and {'$4::bigint is null' if number is None else 'number = $4'} "
        "order by customer, source, number limit $3",
        customer,
        source,
        limit,
        number,
    )
    return policy.rows(found)


async def sources(connection: asyncpg.Connection, table: str) -> list[policy.Row]:
    """Every list of `table` (do_not_originate, do_not_call) with how many entries it has, the newest date among
    them, and when it was last loaded."""
    name = "category" if table == "do_not_originate" else "customer"
    found = await connection.fetch(
        f"select l.*, p.loaded_at from ("  # noqa: S608 - constants
        f"select {name}, source, count(*) as entries, max(listed_on) as newest from {table} "
        f"group by {name}, source) l left join lateral (select max(changed_at) as loaded_at from policy_changes "
        f"where action = $1 and detail ->> '{name}' = l.{name} and detail ->> 'source' = l.source) p on true "
        f"order by {name}, source",
        f"{table.replace('_', '-')}.load",
    )
    return policy.rows(found)


def _customer(changed: NumberList) -> str:
    own = "customer" in changed.names and changed.values[0] != EVERYBODY
    return changed.values[0] if own else ""
