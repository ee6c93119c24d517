"""The SQL of policy files: the whole policy read in the order of its canonical form, and each part of it written.

Writers work in the caller's transaction and note nothing; `note_changes` does it for all of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from ringfence.store.policy import Row, rows

_BATCH = 1000  # customers read at once

# A terminated customer that holds nothing any more is a record, not policy.
_HIDDEN = """(c.state = 'terminated'
  and not exists (select from endpoints e where e.customer = c.customer)
  and not exists (select from campaigns m where m.customer = c.customer)
  and not exists (select from destination_rules r where r.customer = c.customer)
  and not exists (select from grants g where g.customer = c.customer))"""

_CUSTOMERS = f"""
select customer, name, kind, state, time_zone, profile, restricted_profile, contact_email, {_HIDDEN} as hidden
from customers c where $1::text[] is null or customer = any ($1) order by customer collate "C"
"""  # noqa: S608 - constants only

# A profile of hidden customers alone is theirs, not the policy's.
_PROFILES = """
select profile, calls_per_second, burst, concurrent_calls, calls_per_day, calls_per_month, minutes_per_day,
  minutes_per_month, caller_id_calls_per_day, max_delay_ms, report_rules, off_rules,
  exists (select from used u where u.profile = p.profile)
  and not exists (select from used u where u.profile = p.profile and not u.hidden) as hidden
from limit_profiles p order by profile collate "C"
"""
_USED = f"""
with c as materialized (
  select profile, restricted_profile, {_HIDDEN} as hidden from customers c
), used as materialized (
  select distinct profile, hidden from c union select distinct restricted_profile, hidden from c
)
"""  # noqa: S608 - constants only

_PROVIDER_COLUMNS = (
    "name", "role", "frn", "ocn", "rmd_number", "home_country", "assigned_numbers_only", "aup_version",
    "vetting_valid_days", "expiry_notice_days", "strikes", "warnings_before_suspension", "infraction_hours",
    "infractions_count_days", "suspension_hangs_up",
)  # fmt: skip
_RULES = """
select customer, case when area = '' then '+' || prefix else '' end as prefix, area, action, calls_per_day,
  calls_per_month, minutes_per_day, minutes_per_month
from destination_rules where customer = any ($1::text[])
"""
_HOURS = """
select country || case when state = '' then '' else '-' || state end as place, weekday, opens::text, closes::text
from calling_hours order by country, state, weekday
"""
_ENDPOINTS = (
    "select customer, kind, value, host, traffic, enabled from endpoints where customer = any ($1::text[])"
)
_CAMPAIGNS = """
select customer, campaign, traffic, description, enabled from campaigns where customer = any ($1::text[])
"""
_GRANTS = """
select customer, first, last, source, evidence, attestation, nullif(valid_from, '-infinity') as valid_from,
  nullif(valid_until, 'infinity') as valid_until, shared
from grants where customer = any ($1::text[]) order by customer, first
"""
VETTING_COLUMNS = (
    "vetted_at", "vetted_by", "method", "valid_until", "legal_name", "trading_name", "entity_type",
    "incorporation_state", "incorporation_country", "physical_address", "address_kind", "contact_name",
    "contact_email", "contact_phone", "alternate_phone", "website", "use_case", "campaign_type",
    "expected_calls_per_second", "expected_calls_per_day", "source_addresses", "questionnaire_version",
    "questionnaire_at", "aup_version", "aup_accepted_at", "aup_accepted_by", "prior_actions", "red_flags",
    "documents", "filer_id_499", "rmd_number", "rmd_status", "rmd_checked_at", "ocn", "frn", "stir_shaken", "note",
)  # fmt: skip
_VETTINGS = f"""
select c.customer, {", ".join(f"v.{column}" for column in VETTING_COLUMNS)}
from unnest($1::text[]) c(customer)
cross join lateral (
  select * from vettings v where v.customer = c.customer order by v.vetting_id desc limit 1
) v
"""  # noqa: S608 - constants only


async def version(connection: asyncpg.Connection) -> int:
    """The policy version: the number of the last change."""
    found: int = await connection.fetchval("select coalesce(max(version), 0) from policy_changes")
    return found


async def provider(connection: asyncpg.Connection) -> Row:
    """The provider's row."""
    return dict(await connection.fetchrow(f"select {', '.join(_PROVIDER_COLUMNS)} from provider") or {})  # noqa: S608


async def profiles(connection: asyncpg.Connection) -> list[Row]:
    """Every limit profile; `hidden` says that only customers refer to it who are no policy any more."""
    return rows(await connection.fetch(_USED + _PROFILES))


async def calling_hours(connection: asyncpg.Connection) -> list[Row]:
    """Every row of the calling hours, with `place` as in the file."""
    return rows(await connection.fetch(_HOURS))


async def reasons(connection: asyncpg.Connection) -> list[Row]:
    """What every reason answers."""
    return rows(await connection.fetch("select reason, sip_status, q850_cause, sentence from reasons"))


async def destinations(connection: asyncpg.Connection, customers: Sequence[str]) -> list[Row]:
    """The destination rules of customers, `*` for those of all."""
    return rows(await connection.fetch(_RULES, customers))


async def customers(
    connection: asyncpg.Connection, only: Sequence[str] | None = None
) -> AsyncIterator[list[Row]]:  # fmt: skip
    """Every customer, or those named, in their order and in batches; needs a transaction."""
    cursor = await connection.cursor(_CUSTOMERS, only)
    while batch := await cursor.fetch(_BATCH):
        yield rows(batch)


async def held(connection: asyncpg.Connection, customers: Sequence[str], *, numbers: bool) -> dict[str, list[Row]]:
    """What the customers hold, by kind: endpoints, campaigns, destinations, vettings and, if wanted, grants."""
    wanted = {"endpoints": _ENDPOINTS, "campaigns": _CAMPAIGNS, "destinations": _RULES, "vettings": _VETTINGS}
    if numbers:
        wanted["grants"] = _GRANTS
    return {kind: rows(await connection.fetch(query, customers)) for kind, query in wanted.items()}


async def now(connection: asyncpg.Connection) -> datetime:
    """The moment of this transaction."""
    found: datetime = await connection.fetchval("select now()")
    return found


async def time_zones(connection: asyncpg.Connection) -> set[str]:
    """The time zones that Postgres knows."""
    return {row[0] for row in await connection.fetch("select name from pg_timezone_names")}


# --- writing -------------------------------------------------------------------------------------------------


async def write_provider(connection: asyncpg.Connection, values: Row) -> None:
    """Set the provider's row."""
    assignments = ", ".join(f"{column} = ${place}" for place, column in enumerate(_PROVIDER_COLUMNS, start=1))
    await connection.execute(
        f"update provider set {assignments}",  # noqa: S608 - constants only
        *(values[column] for column in _PROVIDER_COLUMNS),
    )


async def write_profiles(connection: asyncpg.Connection, profiles: Iterable[tuple[Any, ...]]) -> None:
    """Make or change limit profiles: name, the nine caps in the order of the columns, report_rules, off_rules."""
    await connection.executemany(
        "insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls, calls_per_day, "
        "calls_per_month, minutes_per_day, minutes_per_month, caller_id_calls_per_day, max_delay_ms, "
        "report_rules, off_rules) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
        "on conflict (profile) do update set calls_per_second = $2, burst = $3, concurrent_calls = $4, "
        "calls_per_day = $5, calls_per_month = $6, minutes_per_day = $7, minutes_per_month = $8, "
        "caller_id_calls_per_day = $9, max_delay_ms = $10, report_rules = $11, off_rules = $12",
        profiles,
    )


async def remove_profiles(connection: asyncpg.Connection, names: Sequence[str]) -> None:
    """Remove limit profiles that nobody refers to."""
    await connection.execute("delete from limit_profiles where profile = any ($1::text[])", names)


async def write_reasons(connection: asyncpg.Connection, reasons: Iterable[tuple[str, int, int, str]]) -> None:
    """Set what reasons answer: reason, sip_status, q850_cause, sentence."""
    await connection.executemany(
        "update reasons set sip_status = $2, q850_cause = $3, sentence = $4 where reason = $1", reasons
    )


async def write_calling_hours(
    connection: asyncpg.Connection,
    places: Iterable[tuple[str, str]],
    hours: Iterable[tuple[str, str, int, str, str]],
) -> None:
    """Replace the hours of `places` (country and state) by `hours` (country, state, weekday, opens, closes)."""
    await connection.executemany("delete from calling_hours where country = $1 and state = $2", places)
    await connection.executemany(
        "insert into calling_hours (country, state, weekday, opens, closes) "
        "values ($1, $2, $3, $4::text::time, $5::text::time)",
        hours,
    )


async def write_destinations(
    connection: asyncpg.Connection, removed: Iterable[tuple[str, int, str]], changed: Iterable[tuple[Any, ...]]
) -> None:
    """Remove rules by customer, prefix and area; add others or change them, which keep their number then.

    `changed` has customer, prefix, area, action and the four caps.
    """
    await connection.executemany(
        "delete from destination_rules where customer = $1 and prefix = $2 and area = $3", removed
    )
    await connection.executemany(
        "insert into destination_rules (customer, prefix, area, action, calls_per_day, calls_per_month, "
        "minutes_per_day, minutes_per_month) values ($1, $2, $3, $4, $5, $6, $7, $8) "
        "on conflict (customer, prefix, area) do update set action = $4, calls_per_day = $5, "
        "calls_per_month = $6, minutes_per_day = $7, minutes_per_month = $8",
        changed,
    )


async def add_customers(connection: asyncpg.Connection, added: Iterable[tuple[str, ...]]) -> None:
    """Add customers: customer, name, kind, time_zone, profile, restricted_profile, state, state_reason."""
    await connection.executemany(
        "insert into customers (customer, name, kind, time_zone, profile, restricted_profile, state, "
        "state_reason) values ($1, $2, $3, $4, $5, $6, $7, $8)",
        added,
    )


async def change_customers(connection: asyncpg.Connection, changed: Iterable[tuple[str, ...]]) -> None:
    """Change customers: customer, name, kind, time_zone, profile, restricted_profile."""
    await connection.executemany(
        "update customers set name = $2, kind = $3, time_zone = $4, profile = $5, restricted_profile = $6 "
        "where customer = $1",
        changed,
    )


async def set_contact_emails(connection: asyncpg.Connection, emails: Iterable[tuple[str, str]]) -> None:
    """Set where notices go, by customer."""
    await connection.executemany("update customers set contact_email = $2 where customer = $1", emails)


async def move_customers(connection: asyncpg.Connection, moves: Iterable[tuple[str, str, str, bool, str]]) -> None:
    """Move customers to other states in order: customer, state, reason, hang_up, approved_by."""
    await connection.executemany("select ringfence.set_customer_state($1, $2, $3, $4, $5)", moves)


async def remove_endpoints(connection: asyncpg.Connection, removed: Iterable[tuple[str, str, str]]) -> None:
    """Remove endpoints by kind, value and host."""
    await connection.executemany("delete from endpoints where kind = $1 and value = $2 and host = $3", removed)


async def endpoint_owners(
    connection: asyncpg.Connection, identities: Sequence[tuple[str, str, str]]
) -> dict[tuple[str, str, str], str]:
    """Whose the endpoints are, for those that are there."""
    found = await connection.fetch(
        "select e.kind, e.value, e.host, e.customer from endpoints e "
        "join unnest($1::text[], $2::text[], $3::text[]) w(kind, value, host) using (kind, value, host)",
        *([identity[place] for identity in identities] for place in range(3)),
    )
    return {(row["kind"], row["value"], row["host"]): row["customer"] for row in found}


async def write_endpoints(connection: asyncpg.Connection, changed: Iterable[tuple[Any, ...]]) -> None:
    """Add or change endpoints: customer, kind, value, host, traffic, enabled. They must be nobody else's."""
    await connection.executemany(
        "insert into endpoints (customer, kind, value, host, traffic, enabled) values ($1, $2, $3, $4, $5, $6) "
        "on conflict (kind, value, host) do update set traffic = $5, enabled = $6",
        changed,
    )


async def write_campaigns(
    connection: asyncpg.Connection, removed: Iterable[tuple[str, str]], changed: Iterable[tuple[Any, ...]]
) -> None:
    """Remove campaigns by customer and name; add others or change them: then traffic, description, enabled."""
    await connection.executemany("delete from campaigns where customer = $1 and campaign = $2", removed)
    await connection.executemany(
        "insert into campaigns (customer, campaign, traffic, description, enabled) values ($1, $2, $3, $4, $5) "
        "on conflict (customer, campaign) do update set traffic = $3, description = $4, enabled = $5",
        changed,
    )


async def revoke_grants(connection: asyncpg.Connection, runs: Iterable[tuple[str, int, int, str]]) -> None:
    """Take back every grant of a customer from a first to a last number, for a reason."""
    await connection.executemany("select ringfence.revoke_grants($1, $2, $3, $4)", runs)


async def add_grants(connection: asyncpg.Connection, grants: Iterable[tuple[Any, ...]]) -> None:
    """Add grants in one statement, so that they are checked against each other and all others: customer, first,
    last, source, evidence, attestation, valid_from, valid_until, shared."""
    await connection.execute(
        "create temp table if not exists policy_file_grants (customer text, first bigint, last bigint, "
        "source text, evidence text, attestation text, valid_from timestamptz, valid_until timestamptz, "
        "shared boolean) on commit drop; truncate policy_file_grants"
    )
    await connection.copy_records_to_table("policy_file_grants", records=grants)
    await connection.execute(
        "insert into grants (customer, first, last, source, evidence, attestation, valid_from, valid_until, "
        "shared, granted_by) select customer, first, last, source, evidence, attestation, "
        "coalesce(valid_from, '-infinity'), coalesce(valid_until, 'infinity'), shared, ringfence.actor() "
        "from policy_file_grants order by customer, first"
    )
    await connection.execute("drop table policy_file_grants")


async def add_vettings(connection: asyncpg.Connection, vettings: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Add vettings by customer. What is sealed of the newest one is taken over; a vetting without its moment is of
    now, one without an end holds as long as the provider says, and a provider that was looked up nobody says when
    was looked up now."""
    columns = ", ".join(VETTING_COLUMNS)
    values = ", ".join(
        {
            "vetted_at": "coalesce(n.vetted_at, now())",
            "valid_until": "coalesce(n.valid_until, coalesce(n.vetted_at, now()) + days * interval '1 day')",
            "rmd_checked_at": "coalesce(n.rmd_checked_at, case when kind = 'provider' then now() end)",
            "source_addresses": "coalesce(n.source_addresses, '{}')",
            "red_flags": "coalesce(n.red_flags, '{}')",
            "documents": "coalesce(n.documents, '{}')",
        }.get(column, f"n.{column}")
        for column in VETTING_COLUMNS
    )
    await connection.executemany(
        f"insert into vettings (customer, tax_id_sealed, tax_id_digest, {columns}) "  # noqa: S608 - constants only
        f"select $1, old.tax_id_sealed, old.tax_id_digest, {values} "
        "from jsonb_populate_record(null::ringfence.vettings, $2::jsonb) n "
        "cross join (select vetting_valid_days as days from provider) p "
        "join (select customer, kind from customers) c on c.customer = $1 "
        "left join lateral (select * from vettings where customer = $1 order by vetting_id desc limit 1) old "
        "on true",
        [(customer, json.dumps(values, default=_json)) for customer, values in vettings],
    )


def _json(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def note_changes(connection: asyncpg.Connection, entries: Iterable[tuple[str, str, str]]) -> None:
    """Write down what was changed: action, customer, and the detail as JSON."""
    await connection.executemany("select ringfence.note_change($1, $2, $3::text::jsonb)", entries)


async def analyze_grants(connection: asyncpg.Connection) -> None:
    """Let plans follow; without the right to do this it is only a warning, and autovacuum does it."""
    await connection.execute("analyze ringfence.grants")
