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

_SHOWN = """grant_id, customer, first, last, source, evidence, attestation,
nullif(valid_from, '-infinity') as valid_from, nullif(valid_until, 'infinity') as valid_until,
granted_at, granted_by, now() >= valid_from and now() < valid_until as in_date"""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what a grant rests and when it holds: from `valid_from` on and before
    `valid_until`; None is no bound."""

    source: str = "assigned"
    evidence: str = ""
    attestation: str = "A"
    valid_from: datetime | None = None
    valid_until: datetime | None = None

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


async def grant(connection: asyncpg.Connection, customer: str, first: int, last: int, terms: Terms) -> int | None:
    """Grant a block and return its grant's number, or None if exactly this was granted already.

    Raises NotFoundError, BadInputError, and ConflictError if the block overlaps a grant of this customer.
    """
    if fault := block_fault(first, last) or terms.fault():
        raise BadInputError(fault)
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        await connection.execute("select ringfence.lock_grants()")
        clash = await connection.fetchrow(
            "select *, first = $2 and last = $3 and source = $4 and evidence = $5 and attestation = $6 "
            "and valid_from = coalesce($7, '-infinity'::timestamptz) "
            "and valid_until = coalesce($8, 'infinity'::timestamptz) as same from grants "
            "where customer = $1 and first <= $3 and last >= $2 order by first limit 1",
            customer,
            first,
            last,
            terms.source,
            terms.evidence,
            terms.attestation,
            terms.valid_from,
            terms.valid_until,
        )
        if clash is not None and clash["same"]:
            return None
        if clash is not None:
            raise ConflictError(
                f"{_block(first, last)} overlaps grant {clash['grant_id']} "
                f"({_block(clash['first'], clash['last'])}) of customer {customer!r}: 'ringfence number revoke "
                f"{customer} +{clash['first']} +{clash['last']} --reason …' takes that back first"
            )
        grant_id: int = await connection.fetchval(
            "insert into grants (customer, first, last, source, evidence, attestation, valid_from, valid_until, "
            "granted_by) values ($1, $2, $3, $4, $5, $6, "
            "coalesce($7, '-infinity'::timestamptz), coalesce($8, 'infinity'::timestamptz), "
            "coalesce(nullif(current_setting('ringfence.actor', true), ''), session_user)) returning grant_id",
            customer,
            first,
            last,
            terms.source,
            terms.evidence,
            terms.attestation,
            terms.valid_from,
            terms.valid_until,
        )
        detail: policy.Row = {"grant": grant_id, "first": first, "last": last, "source": terms.source}
        detail |= {"evidence": terms.evidence, "attestation": terms.attestation}
        detail |= {"valid_from": terms.valid_from, "valid_until": terms.valid_until}
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
                f"{_block(first, last)}: revoke the whole of it, then grant again what shall stay"
            )
        count: int = await connection.fetchval(
            "select ringfence.revoke_grants($1, $2, $3, $4)", customer, first, last, reason
        )
        if count == 0:
            raise NotFoundError(
                f"customer {customer!r} has no grant within {_block(first, last)}; "
                f"'ringfence number list {customer}' shows what it has"
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


def _block(first: int, last: int) -> str:
    return f"+{first}" if first == last else f"+{first} to +{last}"
