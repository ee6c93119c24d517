"""Reading what was decided and how calls ended. A search by time reads only the partitions of those days."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from ringfence.errors import NotFoundError
from ringfence.store.policy import Row, did_you_mean, rows

ANY = "any"  # reason of a report; no reason is called so

_LISTED = """d.decision_id, d.decided_at, d.customer, d.verdict, d.reason, d.attestation, d.sip_status,
d.delay_ms, d.degraded, d.would_reject, d.campaign, d.entry, d.switch, d.host, d.caller, d.caller_name,
d.caller_e164, d.called, d.called_e164"""

_FOUND = f"""
select {_LISTED}, e.ended_at, e.hung_up_by, e.duration_ms, e.billable_ms
from ringfence.decisions d left join ringfence.call_ends e using (customer, decision_id)
where d.decision_id >= ringfence.uuid_floor($1) and d.decision_id < ringfence.uuid_floor($2)
  and ($3::text is null or d.customer = $3)
  and ($4::bigint is null or d.caller_e164 = $4) and ($5::text is null or d.caller = $5)
  and ($6::bigint is null or d.called_e164 = $6) and ($7::text is null or d.called = $7)
  and ($8::text is null or d.verdict = $8) and ($9::text is null or d.reason = $9)
  and ($10::text is null or $10 = any (d.would_reject) or $10 = 'any' and d.would_reject <> '{{}}')
order by d.decision_id desc limit $11
"""  # noqa: S608 - constants only

# Grouped by what was recorded and taken apart afterwards, so that the days are read once.
_SUMMED = """
select d.customer, d.verdict, d.reason, d.would_reject, count(*) as calls
from ringfence.decisions d
where d.decision_id >= ringfence.uuid_floor($1) and d.decision_id < ringfence.uuid_floor($2)
  and ($3::text is null or d.customer = $3)
group by d.customer, d.verdict, d.reason, d.would_reject
"""

_NEW = f"""
select {_LISTED} from ringfence.decisions d
where d.decision_id >= ringfence.uuid_floor($1) and d.decision_id <> all ($2::uuid[])
  and ($3::text is null or d.customer = $3) and ($4::text is null or d.verdict = $4)
order by d.decision_id limit $5
"""  # noqa: S608 - constants only

_GRANT = """
select grant_id, customer, first, last, source, evidence, attestation,
  nullif(valid_from, '-infinity') as valid_from,
  nullif(valid_until, 'infinity') as valid_until, shared, granted_at, granted_by,
  null::timestamptz as revoked_at, null::text as revoked_by, null::text as revoke_reason
from ringfence.grants where grant_id = $1
union all
select grant_id, customer, first, last, source, evidence, attestation, nullif(valid_from, '-infinity'),
  nullif(valid_until, 'infinity'), shared, granted_at, granted_by, revoked_at, revoked_by, reason
from ringfence.revoked_grants where grant_id = $1
"""


_BYPASSES = f"""
select {_LISTED}, d.channel, d.trunk, d.places->>'created_by' as created_by, e.ended_at, e.duration_ms
from ringfence.decisions d left join ringfence.call_ends e using (customer, decision_id)
where d.entry = 'watch' and d.reason <> 'emergency'
  and d.decision_id >= ringfence.uuid_floor($1) and d.decision_id < ringfence.uuid_floor($2)
  and ($3::text is null or d.customer = $3)
order by d.decision_id desc limit $4
"""  # noqa: S608 - constants only


@dataclass(frozen=True, slots=True)
class Search:
    """Which decisions: from `since` on and before `until`; None is any. A number is looked for as E.164 digits if
    it is an int, else as the text the switch showed. `would_reject` is the reason of a rule that only reported, or
    ANY of them."""

    since: datetime
    until: datetime
    customer: str | None = None
    caller: int | str | None = None
    called: int | str | None = None
    verdict: str | None = None
    reason: str | None = None
    would_reject: str | None = None
    limit: int = 100


async def find(connection: asyncpg.Connection, search: Search) -> list[Row]:
    """Decisions with how their calls ended, the newest first."""
    found = await connection.fetch(
        _FOUND,
        search.since,
        search.until,
        search.customer,
        *_either(search.caller),
        *_either(search.called),
        search.verdict,
        search.reason,
        search.would_reject,
        search.limit,
    )
    return rows(found)


@dataclass(frozen=True, slots=True)
class Summary:
    """How many calls were answered how.

    `answers` has customer, verdict, reason and calls. `would_reject` has customer, would_reject (the reason of a
    rule that only reported), calls, passed (calls that left and would be refused if the rule were enforced), only
    (of those, the ones no other rule reported) and refused (calls another rule refused as it is). A call that
    several rules reported counts under each. Both go by customer, the most calls first.
    """

    calls: int
    answers: list[Row]
    would_reject: list[Row]


async def summary(
    connection: asyncpg.Connection, since: datetime, until: datetime, *, customer: str | None = None
) -> Summary:
    """What was decided from `since` on and before `until`, and what rules that only report would have refused."""
    answers: Counter[tuple[str, str, str]] = Counter()
    reported: dict[tuple[str, str], Counter[str]] = {}
    for row in await connection.fetch(_SUMMED, since, until, customer):
        answers[row["customer"], row["verdict"], row["reason"]] += row["calls"]
        reasons = set(row["would_reject"])
        for reason in reasons:
            counted = reported.setdefault((row["customer"], reason), Counter())
            counted["calls"] += row["calls"]
            if row["verdict"] == "reject":
                counted["refused"] += row["calls"]
            else:
                counted["passed"] += row["calls"]
                counted["only"] += row["calls"] if len(reasons) == 1 else 0
    return Summary(
        answers.total(),
        [
            {"customer": name, "verdict": verdict, "reason": reason, "calls": calls}
            for (name, verdict, reason), calls in sorted(
                answers.items(), key=lambda item: (item[0][0], -item[1], item[0])
            )
        ],
        [
            {"customer": name, "would_reject": reason}
            | {kind: counted[kind] for kind in ("calls", "passed", "only", "refused")}
            for (name, reason), counted in sorted(
                reported.items(), key=lambda item: (item[0][0], -item[1]["calls"], item[0])
            )
        ],
    )


async def bypasses(
    connection: asyncpg.Connection, since: datetime, until: datetime, *, customer: str | None, limit: int
) -> list[Row]:
    """Calls that went out without asking, as the watch judged them, the newest first. `created_by` says how."""
    return rows(await connection.fetch(_BYPASSES, since, until, customer, limit))


async def show(connection: asyncpg.Connection, decision_id: UUID) -> Row:
    """One decision as recorded, with `end` (or None), `grant` (or None), `sentence` and `live`.

    Raises NotFoundError.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        row = await connection.fetchrow("select * from ringfence.decisions where decision_id = $1", decision_id)
        if row is None:
            raise NotFoundError(f"there is no decision {decision_id}; 'ringfence call list' shows the newest")
        found = dict(row)
        found["places"] = json.loads(found["places"])
        key = (found["customer"], decision_id)
        end = await connection.fetchrow(
            "select * from ringfence.call_ends where customer = $1 and decision_id = $2", *key
        )
        lease = await connection.fetchrow(
            "select expires_at from ringfence.leases where customer = $1 and decision_id = $2", *key
        )
        grant = await connection.fetchrow(_GRANT, found["grant_id"]) if found["grant_id"] else None
        found["sentence"] = await sentence(connection, found["reason"])
    found["end"] = dict(end) if end else None
    found["grant"] = dict(grant) if grant else None
    found["live"] = lease is not None
    return found


async def newer(
    connection: asyncpg.Connection,
    since: datetime,
    seen: Collection[UUID],
    *,
    customer: str | None,
    verdict: str | None,
    limit: int,
) -> list[Row]:
    """Up to `limit` decisions made at or after `since` that are not in `seen`, the oldest first."""
    return rows(await connection.fetch(_NEW, since, list(seen), customer, verdict, limit))


async def sentence(connection: asyncpg.Connection, reason: str) -> str:
    """What a reason means, as the operator worded it."""
    return (
        await connection.fetchval("select sentence from ringfence.reasons where reason = $1", reason)
        or "No sentence is known for this reason."
    )


async def require_reason(connection: asyncpg.Connection, reason: str) -> None:
    """Raises NotFoundError, with the reason that is close, if there is no such reason."""
    codes = [row[0] for row in await connection.fetch("select reason from ringfence.reasons order by reason")]
    if reason not in codes:
        raise NotFoundError(
            f"there is no reason {reason!r}{did_you_mean(reason, codes)} docs/reasons.md lists all"
        )


async def clock(connection: asyncpg.Connection) -> datetime:
    """The server's time."""
    now: datetime = await connection.fetchval("select clock_timestamp()")
    return now


def _either(number: int | str | None) -> tuple[int | None, str | None]:
    return (number, None) if isinstance(number, int) else (None, number)
