"""What is held against a customer: findings of people, infractions that the judge counted, its history."""

from __future__ import annotations

import json

import asyncpg

from ringfence.errors import BadInputError, ConflictError, NotFoundError
from ringfence.store import policy

FINDINGS = ("illegal_traffic", "suspicious_traffic", "complaint")
MAX_SUMMARY = 1000  # characters
MAX_EVIDENCE = 500

# The history has these from the tables that say more about them.
_TOLD_ELSEWHERE = (
    "customer.active", "customer.restricted", "customer.suspended", "customer.terminated", "customer.vet",
    "customer.finding", "infraction.reverse",
)  # fmt: skip


async def add_finding(
    connection: asyncpg.Connection, customer: str, *, kind: str, summary: str, evidence: str
) -> policy.Row:
    """Write down what was found, and return it. Illegal traffic suspends the customer in the same transaction and
    ends its live calls.

    Raises BadInputError and NotFoundError.
    """
    if kind not in FINDINGS:
        raise BadInputError(f"--kind: {kind!r} is none of {', '.join(FINDINGS)}")
    for option, text, least, most in (
        ("--summary", summary, 1, MAX_SUMMARY),
        ("--evidence", evidence, 0, MAX_EVIDENCE),
    ):
        if not least <= len(text.strip()) or len(text) > most or not text.isprintable():
            raise BadInputError(f"{option}: give {least} to {most} characters without control characters")
    async with connection.transaction():
        state = await policy.lock_customer(connection, customer)
        finding = await connection.fetchval(
            "select ringfence.record_finding($1, $2, $3, $4)", customer, kind, summary, evidence
        )
        found = await connection.fetchrow("select * from findings where finding_id = $1", finding)
    return {**dict(found or {}), "state_before": state}


async def findings(connection: asyncpg.Connection, customer: str | None, limit: int) -> list[policy.Row]:
    """Findings about one customer or about all, the newest first. Raises NotFoundError."""
    if customer is not None:
        await policy.require_customer(connection, customer)
    return policy.rows(
        await connection.fetch(
            "select * from findings where $1::text is null or customer = $1 order by finding_id desc limit $2",
            customer,
            limit,
        )
    )


async def infractions(connection: asyncpg.Connection, customer: str | None, limit: int) -> list[policy.Row]:
    """Infractions of one customer or of all, the newest first, with when the customer was told. Raises
    NotFoundError."""
    if customer is not None:
        await policy.require_customer(connection, customer)
    return policy.rows(
        await connection.fetch(
            "select i.infraction_id, i.customer, i.happened_at, i.caller, i.reason, "
            "i.decision_id, i.consequence, i.notice_id, n.delivered_at as told_at, "
            "i.reversed_at is null "
            "and i.happened_at > now() - infractions_count_days * interval '1 day' as counts, "
            "i.reversed_at, i.reversed_by, i.reversal_reason "
            "from infractions i cross join provider left join notices n using (notice_id) "
            "where $1::text is null or i.customer = $1 order by i.infraction_id desc limit $2",
            customer,
            limit,
        )
    )


async def reverse(connection: asyncpg.Connection, infraction: int, reason: str) -> policy.Row:
    """Take an infraction back, so that it no longer counts; returns whose it was and that customer's state.

    Raises BadInputError, NotFoundError, and ConflictError if it was taken back already.
    """
    policy.check_text("--reason", reason)
    async with connection.transaction():
        customer = await connection.fetchval("select ringfence.reverse_infraction($1, $2)", infraction, reason)
        if customer is None:
            reversed_by = await connection.fetchval(
                "select reversed_by from infractions where infraction_id = $1", infraction
            )
            if reversed_by is None:
                raise NotFoundError(f"there is no infraction {infraction}; 'ringfence infraction list' shows all")
            raise ConflictError(f"infraction {infraction} was taken back already, by {reversed_by}")
        found = await connection.fetchrow(
            "select i.infraction_id, i.customer, i.consequence, c.state from infractions i "
            "join customers c using (customer) where infraction_id = $1",
            infraction,
        )
    return dict(found or {})


async def history(connection: asyncpg.Connection, customer: str, limit: int) -> list[policy.Row]:
    """The last `limit` things that happened to a customer, in order of time: moves from state to state, vettings,
    infractions, findings and changes of its policy. Raises NotFoundError."""
    await policy.require_customer(connection, customer)
    found = await connection.fetch(
        """
        select * from (
          select moved_at as at, 0 as place, move_id as number, 'state' as what, moved_by as by,
                 jsonb_build_object('from', from_state, 'to', state, 'reason', reason, 'approved_by', approved_by)
                 as detail
          from customer_states where customer = $1
          union all
          select vetted_at, 2, vetting_id, 'vetting', vetted_by,
                 jsonb_build_object('vetting', vetting_id, 'method', method, 'valid_until', valid_until,
                                    'red_flags', red_flags, 'note', note)
          from vettings where customer = $1
          union all
          select found_at, 2, finding_id, 'finding', found_by,
                 jsonb_build_object('finding', finding_id, 'kind', kind, 'summary', summary, 'evidence', evidence)
          from findings where customer = $1
          union all
          select happened_at, 2, infraction_id, 'infraction', 'ringfence',
                 jsonb_build_object('infraction', infraction_id, 'caller', caller, 'reason', reason,
                                    'consequence', consequence, 'decision', decision_id)
          from infractions where customer = $1
          union all
          select reversed_at, 2, infraction_id, 'infraction reversed', reversed_by,
                 jsonb_build_object('infraction', infraction_id, 'reason', reversal_reason)
          from infractions where customer = $1 and reversed_at is not null
          union all
          select changed_at, 1, version, action, changed_by, detail
          from policy_changes where customer = $1 and action <> all ($2::text[])
          order by at desc, place desc, number desc
          limit $3
        ) newest order by at, place, number
        """,
        customer,
        list(_TOLD_ELSEWHERE),
        limit,
    )
    return [
        {"at": row["at"], "what": row["what"], "by": row["by"], "detail": json.loads(row["detail"])}
        for row in found
    ]
