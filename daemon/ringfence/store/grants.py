"""Grants: a customer's rights to show numbers. Each change is one transaction with its entry in policy_changes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ringfence.errors import BadInputError, ConflictError, NotFoundError
from ringfence.store import policy

SOURCES = ("assigned", "letter", "callback", "bill", "resporg")
ATTESTATIONS = ("A", "B", "C")
MAX_EVIDENCE = 500  # characters
MAX_BLOCK = 100_000_000  # numbers in one grant
MIN_NUMBER = 1_000_000

# Area codes for toll-free numbers, those kept for later included (as in the constraint resporg_is_for_toll_free).
_TOLL_FREE = frozenset({1800, 1822, 1833, 1844, 1855, 1866, 1877, *range(1880, 1890)})

_SHOWN = """grant_id, customer, first, last, source, evidence, attestation, shared,
nullif(valid_from, '-infinity') as valid_from, nullif(valid_until, 'infinity') as valid_until,
granted_at, granted_by, now() >= valid_from and now() < valid_until as in_date"""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what a grant rests, when it holds (from `valid_from` on and before `valid_until`; None is no bound), and
    whether other customers may hold the number too."""

    source: str = "assigned"
    evidence: str = ""
    attestation: str = "A"
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    shared: bool = False

    def fault(self) -> str:
        """What bars these terms, as `field: sentence`; empty if nothing does."""
        if self.source not in SOURCES:
            return f"source: {self.source!r} is none of {', '.join(SOURCES)}"
        if self.attestation not in ATTESTATIONS:
            return f"attestation: {self.attestation!r} is none of {', '.join(ATTESTATIONS)}"
        if len(self.evidence) > MAX_EVIDENCE:
            return f"evidence: longer than {MAX_EVIDENCE} characters"
        if not self.evidence.isprintable():
            return "evidence: holds a control character"
        if self.valid_from and self.valid_until and self.valid_until <= self.valid_from:
            return "valid_until: not after valid_from"
        return ""


def block_fault(first: int, last: int) -> str:
    """What bars `first` to `last` (E.164 digits) from being one grant; empty if nothing does."""
    if first < MIN_NUMBER:
        return f"+{first} is too short to be granted"
    if last < first:
        return f"the last number, +{last}, is before the first, +{first}"
    if last - first >= MAX_BLOCK:
        return f"+{first} to +{last} is more than {MAX_BLOCK:,} numbers: grant it in parts"
    if len(str(first)) != len(str(last)):
        return f"+{first} and +{last} do not have the same number of digits"
    return ""


def source_fault(first: int, last: int, source: str) -> str:
    """What bars `source` for `first` to `last`, as `source: sentence`; empty if nothing does.

    The right to a toll-free number is proven by its RespOrg alone, and nothing else is proven by one.
    """
    if source == "assigned":
        return ""
    kinds = {first >= 10**10 and code in _TOLL_FREE for code in range(first // 10**7, last // 10**7 + 1)}
    if len(kinds) == 2:
        return f"source: {_block(first, last)} holds toll-free numbers and others: grant them apart"
    if True in kinds and source != "resporg":
        return (
            f"source: {_block(first, last)} is toll-free, for which {source!r} is no proof: "
            "use 'resporg', or 'assigned' if the number is ours"
        )
    if False in kinds and source == "resporg":
        return f"source: {_block(first, last)} is not toll-free, and 'resporg' is proof for toll-free numbers only"
    return ""


async def grant(connection: asyncpg.Connection, customer: str, first: int, last: int, terms: Terms) -> int | None:
    """Grant a block and return its grant's number, or None if exactly this was granted already.

    Raises NotFoundError, BadInputError, and ConflictError if the customer is terminated, or if the block overlaps
    a grant of this customer, or one of another customer unless both are shared.
    """
    if fault := block_fault(first, last) or terms.fault() or source_fault(first, last, terms.source):
        raise BadInputError(fault)
    async with connection.transaction():
        await connection.execute("select ringfence.lock_grants()")
        await policy.refuse_terminated(connection, customer)
        clash = await connection.fetchrow(
            "select *, first = $2 and last = $3 and source = $4 and evidence = $5 and attestation = $6 "
            "and valid_from = coalesce($7, '-infinity'::timestamptz) "
            "and valid_until = coalesce($8, 'infinity'::timestamptz) and shared = $9 as same from grants "
            "where customer = $1 and first <= $3 and last >= $2 order by first limit 1",
            customer,
            first,
            last,
            terms.source,
            terms.evidence,
            terms.attestation,
            terms.valid_from,
            terms.valid_until,
            terms.shared,
        )
        if clash is not None and clash["same"]:
            return None
        if clash is not None:
            raise ConflictError(
                f"{_block(first, last)} overlaps grant {clash['grant_id']} "
                f"({_block(clash['first'], clash['last'])}) of customer {customer!r}: 'ringfence number revoke "
                f"{customer} +{clash['first']} +{clash['last']} --reason …' takes that back first"
            )
        await _refuse_other_customers(connection, customer, first, last, shared=terms.shared)
        grant_id: int = await connection.fetchval(
            "insert into grants (customer, first, last, source, evidence, attestation, valid_from, valid_until, "
            "shared, granted_by) values ($1, $2, $3, $4, $5, $6, "
            "coalesce($7, '-infinity'::timestamptz), coalesce($8, 'infinity'::timestamptz), $9, "
            "ringfence.actor()) returning grant_id",
            customer,
            first,
            last,
            terms.source,
            terms.evidence,
            terms.attestation,
            terms.valid_from,
            terms.valid_until,
            terms.shared,
        )
        detail: policy.Row = {"grant": grant_id, "first": first, "last": last, "source": terms.source}
        detail |= {"evidence": terms.evidence, "attestation": terms.attestation}
        detail |= {"valid_from": terms.valid_from, "valid_until": terms.valid_until}
        detail |= {"shared": terms.shared}
        await policy.note_change(connection, "number.grant", customer, detail)
    return grant_id


async def revoke(connection: asyncpg.Connection, customer: str, first: int, last: int, reason: str) -> int:
    """Take back every grant within the block; returns how many.

    Raises BadInputError, NotFoundError if there is none, and ConflictError if a grant lies partly outside:
    then nothing was taken back.
    """
    policy.check_text("--reason", reason)
    if last < first:
        raise BadInputError(block_fault(first, last))
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        await connection.execute("select ringfence.lock_grants()")
        await _refuse_part(
            connection, customer, first, last, "revoke the whole of it, then grant again what stays"
        )
        count: int = await connection.fetchval(
            "select ringfence.revoke_grants($1, $2, $3, $4)", customer, first, last, reason
        )
        if count == 0:
            raise _no_grant(customer, first, last)
    return count


async def set_shared(connection: asyncpg.Connection, customer: str, first: int, last: int, *, shared: bool) -> int:
    """Let other customers hold the numbers of every grant within the block too, or no longer; returns how many
    grants that changed.

    Raises BadInputError, NotFoundError if there is no grant, and ConflictError if a grant lies partly outside or
    if another customer holds numbers that are not to be shared any more.
    """
    if last < first:
        raise BadInputError(block_fault(first, last))
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        await connection.execute("select ringfence.lock_grants()")
        await _refuse_part(connection, customer, first, last, "name the whole of it")
        there: int = await connection.fetchval(
            "select count(*) from grants where customer = $1 and first >= $2 and last <= $3", customer, first, last
        )
        if there == 0:
            raise _no_grant(customer, first, last)
        if not shared:
            await _refuse_if_shared_by_others(connection, customer, first, last)
        count: int = await connection.fetchval(
            "select ringfence.share_grants($1, $2, $3, $4)", customer, first, last, shared
        )
    return count


async def listed(
    connection: asyncpg.Connection, *, customer: str | None, number: int | None, limit: int
) -> list[policy.Row]:
    """Grants in the order of customers and numbers: of one customer, or those that hold one number, or all.

    Raises NotFoundError on an unknown customer.
    """
    if customer is not None:
        await policy.require_customer(connection, customer)
    if number is None:
        found = await connection.fetch(
            f"select {_SHOWN} from grants where $1::text is null or customer = $1 "  # noqa: S608 - a constant
            "order by customer, first limit $2",
            customer,
            limit,
        )
    else:  # one index descent for each customer
        found = await connection.fetch(
            f"select {_SHOWN} from (select customer as owner from customers) c cross join lateral ("  # noqa: S608 - a constant
            "select * from grants g where g.customer = c.owner and g.first <= $2 "
            "order by g.first desc limit 1) g where g.last >= $2 and ($1::text is null or c.owner = $1) "
            "order by customer limit $3",
            customer,
            number,
            limit,
        )
    return policy.rows(found)


async def expiring(
    connection: asyncpg.Connection, *, customer: str | None, days: int, limit: int
) -> list[policy.Row]:
    """Grants in date that end within `days`, the next to end first. Raises NotFoundError on no customer."""
    if customer is not None:
        await policy.require_customer(connection, customer)
    found = await connection.fetch(
        f"select {_SHOWN} from grants where valid_until <> 'infinity' and valid_until > now() "  # noqa: S608 - a constant
        "and valid_until <= now() + make_interval(days => $2) and ($1::text is null or customer = $1) "
        "order by valid_until, customer, first limit $3",
        customer,
        days,
        limit,
    )
    return policy.rows(found)


async def _refuse_part(connection: asyncpg.Connection, customer: str, first: int, last: int, instead: str) -> None:
    """Raises ConflictError if a grant of the customer lies only partly within the block."""
    part = await connection.fetchrow(
        "select * from grants where customer = $1 and first <= $3 and last >= $2 "
        "and not (first >= $2 and last <= $3) order by first limit 1",
        customer,
        first,
        last,
    )
    if part is not None:
        raise ConflictError(
            f"grant {part['grant_id']} ({_block(part['first'], part['last'])}) lies only partly within "
            f"{_block(first, last)}: {instead}"
        )


async def _refuse_other_customers(
    connection: asyncpg.Connection, customer: str, first: int, last: int, *, shared: bool
) -> None:
    """Raises ConflictError, naming the other, if a grant of another customer bars this block, which no grant of
    its own meets."""
    # Grants that are not shared overlap no other, so the nearest one below is the one to look at.
    other = await connection.fetchrow(
        "select * from (select * from grants where not shared and first <= $2 order by first desc limit 1) g "
        "where last >= $1",
        first,
        last,
    )
    if other is None and not shared:
        other = await connection.fetchrow(
            "select * from grants where shared and first between $1::bigint - 99999999 and $2 and last >= $1 "
            "and customer <> $3 order by first limit 1",
            first,
            last,
            customer,
        )
    if other is None:
        return
    here = "" if shared else "give --shared"
    block = f"{other['customer']} {_arguments(other)}"
    there = "" if other["shared"] else f"'ringfence number share {block}' first"
    raise ConflictError(
        f"{_block(first, last)} meets {_named(other)}, and a number belongs to one customer unless both grants "
        f"are shared: 'ringfence number revoke {block} --reason …' takes it from that customer; "
        f"if both may show it, {' and '.join(way for way in (here, there) if way)}"
    )


async def _refuse_if_shared_by_others(
    connection: asyncpg.Connection, customer: str, first: int, last: int
) -> None:
    """Raises ConflictError, naming the other, if another customer holds numbers of a grant within the block."""
    other = await connection.fetchrow(
        "select o.* from grants g join grants o on o.shared and o.customer <> g.customer "
        "and o.first between g.first - 99999999 and g.last and o.last >= g.first "
        "where g.customer = $1 and g.shared and g.first >= $2 and g.last <= $3 limit 1",
        customer,
        first,
        last,
    )
    if other is not None:
        raise ConflictError(
            f"{_named(other)} holds numbers of it too: 'ringfence number revoke {other['customer']} "
            f"{_arguments(other)} --reason …' takes that back first"
        )


def _named(grant: asyncpg.Record) -> str:
    return f"grant {grant['grant_id']} ({_block(grant['first'], grant['last'])}) of customer {grant['customer']!r}"


def _arguments(grant: asyncpg.Record) -> str:
    return f"+{grant['first']}" if grant["first"] == grant["last"] else f"+{grant['first']} +{grant['last']}"


def _no_grant(customer: str, first: int, last: int) -> NotFoundError:
    return NotFoundError(
        f"customer {customer!r} has no grant within {_block(first, last)}; "
        f"'ringfence number list {customer}' shows what it has"
    )


def _block(first: int, last: int) -> str:
    return f"+{first}" if first == last else f"+{first} to +{last}"
