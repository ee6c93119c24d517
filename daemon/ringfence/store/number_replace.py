"""An import that makes a customer's grants equal to the file: what the file does not hold is revoked."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg

from ringfence.errors import ConflictError
from ringfence.store.number_clashes import MEETS_GRANT

GUARDED = 1000  # numbers a customer must have before losing more than half of them is refused

# A grant stays if lines on its terms cover all of it, and those lines need nothing; every other grant goes.
_COVERED = """
create temp table number_grant_stays on commit drop as
select grant_id from number_meets_grant where there
group by grant_id, other_first, other_last
having sum(last - first + 1) = other_last - other_first + 1
"""

_LOST = """
select count(*)::bigint as grants, coalesce(sum(last - first + 1), 0)::bigint as numbers,
  coalesce((
    select sum(upper(lost) - lower(lost)) from unnest(
      (select range_agg(int8range(first, last, '[]')) from ringfence.grants where customer = $1)
      - coalesce((select range_agg(int8range(first, last, '[]')) from number_import), '{}'::int8multirange)
    ) lost
  ), 0)::bigint as lost
from ringfence.grants where customer = $1
"""

_REVOKE = """
with gone as (
  delete from ringfence.grants g
  where g.customer = $1 and not exists (select from number_grant_stays s where s.grant_id = g.grant_id)
  returning *
), noted as (
  insert into ringfence.revoked_grants (grant_id, customer, first, last, source, evidence, attestation, valid_from,
                                        valid_until, granted_at, granted_by, shared, revoked_by, reason)
  select grant_id, customer, first, last, source, evidence, attestation, valid_from, valid_until, granted_at,
         granted_by, shared, ringfence.actor(), $2
  from gone returning 1
)
select count(*) from noted
"""


@dataclass(frozen=True, slots=True)
class Replacing:
    """Whose grants are to be what the import holds and nothing else, and why the others are revoked."""

    customer: str
    reason: str
    allow_shrink: bool = False


async def revoke_others(
    connection: asyncpg.Connection, replacing: Replacing, *, guard: bool
) -> tuple[int, int, int]:
    """Revoke the customer's grants that are not to stay, and drop the lines that need nothing; returns how many
    lines those were, how many grants went, and how many numbers the file does not hold."""
    await connection.execute(MEETS_GRANT)
    await connection.execute(_COVERED)
    there = await connection.fetchval(
        "select count(*) from number_meets_grant join number_grant_stays using (grant_id)"
    )
    [before] = await connection.fetch(_LOST, replacing.customer)
    if (
        guard
        and not replacing.allow_shrink
        and before["numbers"] > GUARDED
        and before["lost"] * 2 > before["numbers"]
    ):
        raise ConflictError(
            f"this would take {before['lost']:,} of the {before['numbers']:,} numbers of customer "
            f"{replacing.customer!r} away, more than half: check that the file is whole; --allow-shrink does it"
        )
    await connection.execute(
        "delete from number_import i using number_meets_grant m join number_grant_stays s using (grant_id) "
        "where i.line = m.line"
    )
    revoked = await connection.fetchval(_REVOKE, replacing.customer, replacing.reason)
    return int(there), int(revoked), int(before["lost"])
