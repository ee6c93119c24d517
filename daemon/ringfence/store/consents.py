"""Consents: who agreed to be called by a customer. None is deleted; each change is one transaction with its entry
in policy_changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from ringfence.errors import BadInputError, ConflictError, NotFoundError
from ringfence.store import policy
from ringfence.store.bulk_load import bulk_load
from ringfence.store.faults import SHOWN, Faults

MAX_EVIDENCE = 500  # characters

# line of the file, number, evidence, given at, valid until
ConsentRow = tuple[int, int, str, datetime | None, datetime | None]

_TABLES = """
create temp table consent_import (
  line bigint, number bigint, evidence text, given_at timestamptz, valid_until timestamptz
) on commit drop;
create temp table consent_change (
  number bigint, evidence text, given_at timestamptz, valid_until timestamptz, change text
) on commit drop;
"""

_TWICE = """
select line, number, (select min(line) from consent_import o where o.number = i.number) as other
from (select *, row_number() over (partition by number order by line) as place from consent_import) i
where place > 1 order by line
"""

# A consent that has ended comes back only if it was given anew after that: else loading last month's file again
# would undo every withdrawal.
_CHANGES = """
insert into consent_change
select i.number, i.evidence, coalesce(i.given_at, c.given_at, now()) as given_at,
  coalesce(i.valid_until, 'infinity') as valid_until,
  case when c.number is null then 'added'
       when (c.evidence, c.given_at, c.valid_until)
            = (i.evidence, coalesce(i.given_at, c.given_at), coalesce(i.valid_until, 'infinity')) then 'unchanged'
       when c.valid_until <= now() and coalesce(i.given_at, c.given_at) < c.valid_until then 'ended'
       else 'changed' end as change
from consent_import i
left join ringfence.call_consents c on c.customer = $1 and c.number = i.number
"""

_WRITE = """
insert into ringfence.call_consents as c (customer, number, evidence, given_at, valid_until)
select $1, number, evidence, given_at, valid_until from consent_change
where change in ('added', 'changed') order by number
on conflict (customer, number) do update
set evidence = excluded.evidence, given_at = excluded.given_at, valid_until = excluded.valid_until
"""


@dataclass(frozen=True, slots=True)
class Consented:
    """What a load of consents did, or would have done; `ended` are those that stay withdrawn or out of date."""

    rows: int
    added: int
    changed: int
    unchanged: int
    ended: int


def consent_fault(evidence: str, given_at: datetime | None, valid_until: datetime | None) -> str:
    """What bars a consent, as `field: sentence`; empty if nothing does."""
    if not evidence:
        return "evidence: is empty: say where the proof is filed"
    if len(evidence) > MAX_EVIDENCE:
        return f"evidence: longer than {MAX_EVIDENCE} characters"
    if not evidence.isprintable():
        return "evidence: holds a control character"
    if given_at and valid_until and valid_until <= given_at:
        return "valid_until: not after given_at"
    return ""


async def add(
    connection: asyncpg.Connection,
    customer: str,
    number: int,
    *,
    evidence: str,
    given_at: datetime | None,
    valid_until: datetime | None,
) -> bool:
    """Note that a number agreed to be called by a customer, from now on if `given_at` is None; it takes the place
    of an earlier consent. False if exactly this is there already. Raises NotFoundError and BadInputError."""
    if fault := consent_fault(evidence, given_at, valid_until):
        raise BadInputError(fault)
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        await connection.execute("select ringfence.lock_number_lists()")
        before = await connection.fetchrow(
            "select evidence, given_at, valid_until, valid_until > now() as holds from call_consents "
            "where customer = $1 and number = $2",
            customer,
            number,
        )
        if given_at is None and before is not None and before["holds"] and before["evidence"] == evidence:
            given_at = before["given_at"]
        after = await connection.fetchrow(
            "insert into call_consents as c (customer, number, evidence, given_at, valid_until) "
            "values ($1, $2, $3, coalesce($4, now()), coalesce($5, 'infinity'::timestamptz)) "
            "on conflict (customer, number) do update set evidence = excluded.evidence, "
            "given_at = excluded.given_at, valid_until = excluded.valid_until "
            "where (c.evidence, c.given_at, c.valid_until) "
            "<> (excluded.evidence, excluded.given_at, excluded.valid_until) "
            "returning evidence, given_at, valid_until",
            customer,
            number,
            evidence,
            given_at,
            valid_until,
        )
        if after is not None:
            detail = {"number": number, **dict(after)}
            if before is not None:
                detail["before"] = {key: before[key] for key in ("evidence", "given_at", "valid_until")}
            await policy.note_change(connection, "consent.add", customer, detail)
    return after is not None


async def withdraw(connection: asyncpg.Connection, customer: str, number: int, reason: str) -> None:
    """End a consent now; it stays on record. Raises BadInputError, NotFoundError if there is none, and
    ConflictError if it has ended already."""
    policy.check_text("--reason", reason)
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        await connection.execute("select ringfence.lock_number_lists()")
        ended = await connection.fetchval(
            "update call_consents set valid_until = now() where customer = $1 and number = $2 "
            "and valid_until > now() returning evidence",
            customer,
            number,
        )
        if ended is None:
            until = await connection.fetchval(
                "select valid_until from call_consents where customer = $1 and number = $2", customer, number
            )
            if until is None:
                raise NotFoundError(f"customer {customer!r} has no consent of +{number}")
            raise ConflictError(f"the consent of +{number} to customer {customer!r} ended on {until:%Y-%m-%d}")
        await policy.note_change(
            connection, "consent.withdraw", customer, {"number": number, "evidence": ended, "reason": reason}
        )


async def listed(
    connection: asyncpg.Connection, *, customer: str | None, number: int | None, limit: int
) -> list[policy.Row]:
    """Consents in the order of customers and numbers, those that ended included. Raises NotFoundError."""
    if customer is not None:
        await policy.require_customer(connection, customer)
    found = await connection.fetch(
        "select customer, number, evidence, given_at, nullif(valid_until, 'infinity') as valid_until, "
        "now() >= given_at and now() < valid_until as holds from call_consents "
        "where ($1::text is null or customer = $1) and ($2::bigint is null or number = $2) "
        "order by customer, number limit $3",
        customer,
        number,
        limit,
    )
    return policy.rows(found)


async def load(
    connection: asyncpg.Connection,
    customer: str,
    read: Iterable[ConsentRow],
    faults: Faults,
    *,
    origin: str,
    digest: Callable[[], str],
    skip_bad: bool = False,
    dry_run: bool = False,
) -> Consented | None:
    """Add and renew the consents in the rows; those the rows do not hold stay, and those that ended stay ended
    unless given anew. Faults, a dry run and what `read` raises are as in `list_import.load_list`. Raises
    NotFoundError.
    """
    loaded = None
    async with bulk_load(connection) as load:
        await policy.require_customer(connection, customer)
        await connection.execute(_TABLES)
        await connection.copy_records_to_table("consent_import", records=read)
        await connection.execute("analyze consent_import")
        await _drop_repeated(connection, faults)
        if skip_bad or not faults.count:
            await connection.execute("select ringfence.lock_number_lists()")
            await connection.execute(_CHANGES, customer)
            counts = {
                row["change"]: row["count"]
                for row in await connection.fetch("select change, count(*) from consent_change group by change")
            }
            loaded = Consented(
                sum(counts.values()), *(counts.get(key, 0) for key in ("added", "changed", "unchanged", "ended"))
            )
            if not dry_run:
                await connection.execute(_WRITE, customer)
                detail: policy.Row = {"origin": origin, "sha256": digest(), "bad_lines": faults.count}
                detail |= {key: counts.get(key, 0) for key in ("added", "changed", "unchanged", "ended")}
                await policy.note_change(connection, "consent.load", customer, detail)
        load.keep = loaded is not None and not dry_run
    return loaded


async def _drop_repeated(connection: asyncpg.Connection, faults: Faults) -> None:
    repeated = await connection.fetch(f"select * from ({_TWICE}) twice limit $1", SHOWN)  # noqa: S608 - a constant
    if not repeated:
        return
    for row in repeated:
        faults.add(row["line"], f"number: +{row['number']} is also on line {row['other']}")
    count: int = await connection.fetchval(f"select count(*) from ({_TWICE}) twice")  # noqa: S608 - a constant
    faults.count += count - len(repeated)
    await connection.execute(
        "delete from consent_import i "
        "using (select number, min(line) as line from consent_import group by number) k "
        "where i.number = k.number and i.line <> k.line"
    )
