"""Customers: each change is one transaction with its entry in policy_changes."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from ringfence.errors import BadInputError, ConflictError
from ringfence.store import endpoints, policy, profiles, vetting
from ringfence.store.connect import current_actor

KINDS = ("end_user", "provider")
STATES = ("prospect", "active", "restricted", "suspended", "terminated")
RESTRICTED_PROFILE = "restricted"

# What may be done with a customer in each state, as state_may_become in SQL has it.
_MOVES = {
    "prospect": ("activate", "terminate"),
    "active": ("restrict", "suspend", "terminate"),
    "restricted": ("activate", "suspend", "terminate"),
    "suspended": ("suspend", "reinstate", "terminate"),
    "terminated": ("terminate",),
}
_BECOMES = {"activate": "active", "restrict": "restricted", "suspend": "suspended", "terminate": "terminated"}
_ENDS_CALLS = ("suspended", "terminated")

# What a customer holds besides grants, each taken away with its entry in policy_changes, as `policy apply` does it
# with customers that the file lacks.
_HELD = {
    "endpoints": """
with gone as (delete from endpoints where customer = $1 returning *)
select ringfence.note_change('endpoint.remove', customer, jsonb_build_object(
  'kind', kind, 'value', value, 'host', host, 'reason', $2::text)) from gone
""",
    "campaigns": """
with gone as (delete from campaigns where customer = $1 returning *)
select ringfence.note_change('campaign.remove', customer, jsonb_build_object(
  'campaign', campaign, 'traffic', traffic, 'reason', $2::text)) from gone
""",
    "destination_rules": """
with gone as (delete from destination_rules where customer = $1 returning *)
select ringfence.note_change('destination.remove', customer, jsonb_build_object(
  'rule', destination_rule, 'destination', case area when '' then '+' || prefix else area end,
  'reason', $2::text)) from gone
""",
}


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did: the state before and after, and how many of what a terminated customer gave up."""

    before: str
    state: str
    released: Mapping[str, int] = field(default_factory=dict)


async def add_customer(
    connection: asyncpg.Connection,
    customer: str,
    *,
    name: str,
    profile: str = profiles.DEFAULT_PROFILE,
    time_zone: str = "UTC",
    kind: str = "end_user",
    restricted_profile: str = RESTRICTED_PROFILE,
    contact_email: str = "",
    recognised_by: Sequence[endpoints.Endpoint] = (),
    vetted: Mapping[str, Any] | None = None,
) -> bool:
    """Add a prospect with its endpoints; True if the profile `default` had to be made for it. With `vetted`, the
    facts of a short vetting, that is recorded and the customer is active.

    Raises BadInputError on a malformed field, NotFoundError on an unknown profile, and ConflictError if the
    customer or an endpoint exists. Then nothing was added.
    """
    policy.check_name("customer", customer)
    policy.check_text("--name", name)
    _check_kind(kind)
    async with connection.transaction():
        await _check_time_zone(connection, time_zone)
        made = profile == profiles.DEFAULT_PROFILE and await profiles.make_default_profile(connection)
        await profiles.require_profile(connection, profile)
        await profiles.require_profile(connection, restricted_profile)
        added = await connection.fetchval(
            "insert into customers (customer, name, profile, time_zone, kind, restricted_profile, contact_email) "
            "values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning true",
            customer,
            name,
            profile,
            time_zone,
            kind,
            restricted_profile,
            contact_email,
        )
        if not added:
            raise ConflictError(
                f"there already is a customer {customer!r}; 'ringfence customer show {customer}' "
                "shows it, 'ringfence customer set' changes it"
            )
        detail: policy.Row = {"name": name, "profile": profile, "time_zone": time_zone, "kind": kind}
        detail |= {"restricted_profile": restricted_profile, "contact_email": contact_email}
        await policy.note_change(connection, "customer.add", customer, detail)
        for endpoint in recognised_by:
            await endpoints.insert(connection, customer, endpoint)
        if vetted is not None:
            await vetting.record(connection, customer, vetted, short=True)
            await move(connection, customer, "activate")
    return made


async def change_customer(connection: asyncpg.Connection, customer: str, changes: Mapping[str, str]) -> None:
    """Change the columns that are given: name, profile, time_zone, kind, restricted_profile, contact_email. Raises
    as `add_customer` does, NotFoundError, and ConflictError if the customer is terminated."""
    async with connection.transaction():
        await policy.lock_customer(connection, customer)
        await policy.refuse_terminated(connection, customer)
        if "name" in changes:
            policy.check_text("--name", changes["name"])
        if "time_zone" in changes:
            await _check_time_zone(connection, changes["time_zone"])
        if "kind" in changes:
            _check_kind(changes["kind"])
        for profile in ("profile", "restricted_profile"):
            if profile in changes:
                await profiles.require_profile(connection, changes[profile])
        columns = ("name", "profile", "time_zone", "kind", "restricted_profile", "contact_email")
        await connection.execute(
            "update customers set name = coalesce($2, name), profile = coalesce($3, profile), "
            "time_zone = coalesce($4, time_zone), kind = coalesce($5, kind), "
            "restricted_profile = coalesce($6, restricted_profile), contact_email = coalesce($7, contact_email) "
            "where customer = $1",
            customer,
            *(changes.get(column) for column in columns),
        )
        await policy.note_change(connection, "customer.set", customer, dict(changes))


async def customers(
    connection: asyncpg.Connection, *, state: str | None = None, due_days: int | None = None
) -> list[policy.Row]:
    """Every customer, or those in `state`, with its profile, its vetting's end and how many endpoints and grants
    it has. With `due_days` those whose vetting runs out within so many days, or has: the first to run out first.

    Raises BadInputError if there is no such state.
    """
    if state is not None and state not in STATES:
        raise BadInputError(f"--state: {state!r} is none of {', '.join(STATES)}")
    return policy.rows(
        await connection.fetch(
            "select customer, name, state, kind, profile, time_zone, vetted_until, "
            "(select count(*) from endpoints e where e.customer = c.customer) as endpoints, "
            "(select count(*) from grants g where g.customer = c.customer) as grants "
            "from customers c where ($1::text is null or state = $1) and ($2::integer is null "
            "or state <> 'terminated' and vetted_until <= now() + $2 * interval '1 day') "
            "order by case when $2 is not null then vetted_until end, customer",
            state,
            due_days,
        )
    )


async def show_customer(connection: asyncpg.Connection, customer: str) -> policy.Row:
    """One customer with the caps that hold now, its newest vetting, endpoints, grants in sum, counters and last
    ten policy changes.

    Raises NotFoundError.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await policy.require_customer(connection, customer)
        found = await connection.fetchrow(
            "select c.customer, c.name, c.kind, c.state, c.state_reason, c.state_since, c.vetted_until, "
            "c.rmd_status, c.rmd_checked_at, c.contact_email, c.time_zone, c.created_at, "
            "c.profile, c.restricted_profile, p.profile as caps_of, "
            "p.calls_per_second::float8 as calls_per_second, p.burst, p.concurrent_calls, "
            "p.calls_per_day, coalesce(k.live_calls, 0) as live_calls, "
            "case when k.day = (now() at time zone c.time_zone)::date then k.calls_today else 0 end "
            "as calls_today "
            "from customers c join limit_profiles p "
            "on p.profile = case c.state when 'restricted' then c.restricted_profile else c.profile end "
            "left join counters k using (customer) where c.customer = $1",
            customer,
        )
        shown = dict(found or {})
        shown["vetting"] = await vetting.newest(connection, customer)
        shown["endpoints"] = await endpoints.listed(connection, customer)
        shown["grants"] = policy.rows(
            await connection.fetch(
                "select source, attestation, count(*) as grants, sum(last - first + 1)::bigint as numbers, "
                "count(*) filter (where now() < valid_from or now() >= valid_until) as not_in_date, "
                "nullif(min(valid_until) filter (where valid_until > now()), 'infinity') as next_expiry "
                "from grants where customer = $1 group by source, attestation order by source, attestation",
                customer,
            )
        )
        shown["changes"] = policy.rows(
            await connection.fetch(
                "select version, changed_at, changed_by, action, detail from policy_changes where customer = $1 "
                "order by version desc limit 10",
                customer,
            )
        )
        for change in shown["changes"]:
            change["detail"] = json.loads(change["detail"])
    return shown


async def move(
    connection: asyncpg.Connection,
    customer: str,
    verb: str,
    reason: str = "",
    *,
    restricted: bool = False,
    hang_up: bool = False,
    approved_by: str = "",
) -> Moved:
    """Activate, restrict, suspend, reinstate or terminate a customer. One that is terminated gives up all it holds
    in the same transaction: its grants are revoked, its endpoints, campaigns and destination rules removed.

    With `hang_up` every daemon ends the customer's live calls, emergency calls excepted: that may be asked for
    later too. Reinstating, to active or `restricted`, is written down as approved by `approved_by`, by default the
    user at the keyboard.

    Raises NotFoundError, BadInputError if a reason is missing, and ConflictError if the state does not allow it,
    or the customer has no vetting that holds.
    """
    if reason or verb != "activate":
        policy.check_text("--reason", reason)
    async with connection.transaction():
        if verb == "terminate":  # before the customer's row, as whoever else changes grants
            await connection.execute("select ringfence.lock_grants()")
        before = await policy.lock_customer(connection, customer)
        state = _BECOMES.get(verb) or ("restricted" if restricted else "active")
        if verb not in _MOVES[before]:
            raise ConflictError(f"customer {customer!r} is {before}: {_possible(customer, before)}")
        hanging_up = await connection.fetchval("select hang_up from customers where customer = $1", customer)
        if state == before and (hanging_up or not hang_up):
            raise ConflictError(
                f"customer {customer!r} is {state} already; "
                f"'ringfence customer show {customer}' says since when and why"
            )
        vetted = await connection.fetchval(
            "select vetted_until > clock_timestamp() from customers where customer = $1", customer
        )
        if state not in _ENDS_CALLS and not vetted:
            raise ConflictError(
                f"customer {customer!r} is {before} and cannot become {state}: its vetting "
                f"{'ran out' if vetted is False else 'was never done'}; "
                f"'ringfence customer vet {customer} --method …' records one"
            )
        released = await _release(connection, customer, reason) if state == "terminated" else {}
        await connection.fetchval(
            "select ringfence.set_customer_state($1, $2, $3, $4, $5)",
            customer,
            state,
            reason,
            hang_up,
            (approved_by or current_actor()) if verb == "reinstate" else "",
        )
    return Moved(before, state, released)


async def _release(connection: asyncpg.Connection, customer: str, reason: str) -> dict[str, int]:
    """Take everything away that a customer holds; how many of what."""
    grants = await connection.fetchval(
        "select ringfence.revoke_grants(customer, min(first), max(last), $2) from grants where customer = $1 "
        "group by customer",
        customer,
        reason,
    )
    released = {"grants": int(grants or 0)}
    for what, take in _HELD.items():
        released[what] = len(await connection.fetch(take, customer, reason))
    return released


def _possible(customer: str, state: str) -> str:
    if state == "terminated":
        return "that is for good; a new customer needs a new name"
    verbs = [f"'ringfence customer {verb} {customer}'" for verb in _MOVES[state] if _BECOMES.get(verb) != state]
    return f"possible are {', '.join(verbs[:-1])} and {verbs[-1]}"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise BadInputError(f"--kind: {kind!r} is none of {', '.join(KINDS)}")


async def _check_time_zone(connection: asyncpg.Connection, time_zone: str) -> None:
    names = [row[0] for row in await connection.fetch("select name from pg_timezone_names")]
    if time_zone not in names:
        close = difflib.get_close_matches(time_zone, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; write an IANA name such as America/New_York"
        raise BadInputError(f"--time-zone: Postgres knows no time zone {time_zone!r}{hint}")
