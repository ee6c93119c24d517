"""Vettings: what was found out about a customer. Each is complete or says that it is short; none is changed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from ringfence.errors import BadInputError, ConflictError, NotFoundError
from ringfence.store import policy
from ringfence.store.connect import current_actor
from ringfence.vetting_seal import VettingKey

SHORT = "short vetting: only who vetted, how and until when is on record here"
RMD_CHECK_HOLDS = timedelta(days=90)
MAX_VALID = timedelta(days=3650)

# What is known until somebody says otherwise: a new vetting takes it over from the one before.
CARRIED = (
    "legal_name", "trading_name", "entity_type", "incorporation_state", "incorporation_country",
    "tax_id_sealed", "tax_id_digest", "physical_address", "address_kind",
    "contact_name", "contact_email", "contact_phone", "alternate_phone", "website",
    "use_case", "campaign_type", "expected_calls_per_second", "expected_calls_per_day", "source_addresses",
    "questionnaire_version", "questionnaire_at", "aup_version", "aup_accepted_at", "aup_accepted_by",
    "prior_actions", "red_flags", "documents",
    "filer_id_499", "rmd_number", "rmd_status", "rmd_checked_at", "ocn", "frn", "stir_shaken",
)  # fmt: skip
COLUMNS = ("vetted_by", "method", "valid_until", *CARRIED, "note")

_REQUIRED = (
    "legal_name", "physical_address", "contact_name", "use_case",
    "aup_version", "aup_accepted_at", "aup_accepted_by", "questionnaire_version",
)  # fmt: skip
_REQUIRED_OF_A_PROVIDER = ("filer_id_499", "rmd_number", "rmd_status", "rmd_checked_at")
_NOT_AHEAD = ("aup_accepted_at", "questionnaire_at", "rmd_checked_at")


async def record(
    connection: asyncpg.Connection,
    customer: str,
    facts: Mapping[str, Any],
    *,
    short: bool = False,
    key: VettingKey | None = None,
    accept_duplicate: str = "",
) -> policy.Row:
    """Record a vetting and return it, without what is sealed. What `facts` does not say is taken over from the
    newest vetting; it has `tax_id` in the clear, which needs the `key`.

    A short vetting need not be complete, and says so in its note; a provider cannot have one. `accept_duplicate`
    is why another customer may have the same tax id; without it that is refused.

    Raises NotFoundError; BadInputError naming every field that is missing or cannot be; ConflictError if the
    customer is terminated, or if another customer has the same tax id. Then nothing was recorded.
    """
    async with connection.transaction():
        state = await policy.lock_customer(connection, customer)
        if state == "terminated":
            raise ConflictError(f"customer {customer!r} is terminated: that is for good, and it is vetted no more")
        [(kind, email, provider_aup, days, now)] = await connection.fetch(
            "select kind, contact_email, aup_version, vetting_valid_days, clock_timestamp() "
            "from customers cross join provider where customer = $1",
            customer,
        )
        before = await _newest(connection, customer)
        vetting = {column: before[column] for column in CARRIED} if before else _blank()
        vetting["contact_email"] = email or vetting["contact_email"]
        vetting |= {"vetted_by": current_actor(), "method": "documents", "note": ""}
        vetting |= {"valid_until": now + timedelta(days=days)}
        vetting |= {field: value for field, value in facts.items() if field != "tax_id"}
        if "tax_id" in facts:
            vetting |= _sealed(facts["tax_id"], customer, key)
        if short:
            vetting["note"] = f"{SHORT}. {vetting['note']}".strip(" .")
        vetting["vetted_at"] = now
        if wrong := faults(vetting, kind, provider_aup, now, short=short):
            raise BadInputError("\n".join(f"{field}: {said}" if field else said for field, said in wrong))
        flags = await _duplicates(connection, customer, vetting["tax_id_digest"], before, accept_duplicate)
        vetting["red_flags"] = [*vetting["red_flags"], *(f for f in flags if f not in vetting["red_flags"])]
        places = ", ".join(f"${number}" for number in range(2, len(COLUMNS) + 2))
        [recorded] = await connection.fetch(
            f"insert into vettings (customer, {', '.join(COLUMNS)}) values ($1, {places}) returning *",  # noqa: S608 - constants
            customer,
            *(vetting[column] for column in COLUMNS),
        )
        shown = _shown(recorded)
        detail: policy.Row = {"vetting": shown["vetting_id"], "vetted_by": shown["vetted_by"]}
        detail |= {"method": shown["method"], "valid_until": shown["valid_until"], "short": short}
        detail |= {"told": sorted(facts)}
        if accept_duplicate and flags:
            detail |= {"accepted_duplicate": accept_duplicate}
        await policy.note_change(connection, "customer.vet", customer, detail)
    return shown


async def newest(connection: asyncpg.Connection, customer: str) -> policy.Row | None:
    """The newest vetting, if there is one, without what is sealed: `tax_id` only says whether there is one."""
    found = await _newest(connection, customer)
    return None if found is None else _shown(found)


async def reveal(connection: asyncpg.Connection, customer: str, key: VettingKey) -> str:
    """The customer's tax id in the clear. That it was read is written down before it is told.

    Raises NotFoundError if there is none, and ConfigError if it was sealed with another key.
    """
    async with connection.transaction():
        await policy.require_customer(connection, customer)
        found = await _newest(connection, customer)
        if found is None or found["tax_id_sealed"] is None:
            raise NotFoundError(
                f"customer {customer!r} has no tax id on record: "
                f"'ringfence customer vet {customer} --method … --tax-id …'"
            )
        number = key.unseal(found["tax_id_sealed"], customer)
        await policy.note_change(connection, "customer.reveal", customer, {"vetting": found["vetting_id"]})
    return number


def is_short(vetting: Mapping[str, Any]) -> bool:
    """Whether it says that it is short."""
    return str(vetting["note"]).startswith(SHORT)


def faults(
    vetting: Mapping[str, Any], kind: str, provider_aup: str, now: datetime, *, short: bool
) -> list[tuple[str, str]]:
    """Why a vetting of a customer of this kind cannot be recorded, each with its field, or none if it is more than
    one; none if it can. `vetting` has a value for every column.

    It is complete unless it is short, what it tells is not ahead of `now`, the acceptable-use policy that it
    names is the provider's, and a provider was looked up in the Robocall Mitigation Database a short while ago.
    """
    found = []
    if short and kind == "provider":
        said = (
            "the customer is a provider: its vetting cannot be short, for the judge wants to know that it is in "
        )
        found.append(("", f"{said}the Robocall Mitigation Database"))
    elif not short and (missing := _missing(vetting, kind)):
        found.append(("", f"a vetting is recorded when it is complete; missing: {', '.join(missing)}"))
    ahead = [field for field in ("vetted_at", *_NOT_AHEAD) if vetting[field] and vetting[field] > now]
    found += [(field, "is in the future") for field in ahead]
    if not now < vetting["valid_until"] <= vetting["vetted_at"] + MAX_VALID:
        found.append(("valid_until", f"must be in the future, by at most {MAX_VALID.days} days"))
    if provider_aup and not short and vetting["aup_version"] not in ("", provider_aup):
        found.append((
            "aup_version",
            f"{vetting['aup_version']!r} was accepted, and the policy that holds is {provider_aup!r} "
            "('ringfence provider show')",
        ))  # fmt: skip
    checked = vetting["rmd_checked_at"]
    if kind == "provider" and checked and checked < now - RMD_CHECK_HOLDS:
        found.append(("rmd_checked_at", f"is more than {RMD_CHECK_HOLDS.days} days ago: look it up again"))
    return found


async def _newest(connection: asyncpg.Connection, customer: str) -> asyncpg.Record | None:
    return await connection.fetchrow(
        "select * from vettings where customer = $1 order by vetting_id desc limit 1", customer
    )


def _blank() -> policy.Row:
    lists = ("source_addresses", "red_flags", "documents")
    nulls = ("tax_id_sealed", "tax_id_digest", "expected_calls_per_second", "expected_calls_per_day", *_NOT_AHEAD)
    return {column: [] if column in lists else None if column in nulls else "" for column in CARRIED}


def _sealed(number: str, customer: str, key: VettingKey | None) -> policy.Row:
    if not number:
        return {"tax_id_sealed": None, "tax_id_digest": None}
    key = key or VettingKey.read(None)
    return {"tax_id_digest": key.digest(number), "tax_id_sealed": key.seal(number, customer)}


def _missing(vetting: Mapping[str, Any], kind: str) -> list[str]:
    required = [*_REQUIRED, *(_REQUIRED_OF_A_PROVIDER if kind == "provider" else ())]
    missing = [field for field in required if not vetting[field]]
    if not vetting["contact_email"] and not vetting["contact_phone"]:
        missing.append("contact_email or contact_phone")
    return missing


async def _duplicates(
    connection: asyncpg.Connection, customer: str, digest: bytes | None, before: asyncpg.Record | None, why: str
) -> list[str]:
    """The red flags for other customers with the same tax id. One that was accepted in the newest vetting needs no
    reason again, unless that customer's state has changed since."""
    if digest is None:
        return []
    # Two admins at once must see each other's vettings.
    await connection.execute("select pg_advisory_xact_lock(hashtextextended('ringfence.vettings', 0))")
    others = await connection.fetch(
        "select customer, state from customers where customer <> $2 and customer in "
        "(select customer from vettings where tax_id_digest = $1) "
        "order by state in ('suspended', 'terminated') desc, customer",
        digest,
        customer,
    )
    flags, new = [], []
    for other in others:
        flag = f"same tax id as {other['customer']} ({other['state']})"
        known = [f for f in (before["red_flags"] if before else ()) if f.startswith(f"{flag}: ")]
        flags.append(known[0] if known else f"{flag}: {why}")
        if not known:
            new.append(f"{other['customer']!r} ({other['state']})")
    if new and not why:
        raise ConflictError(
            f"red flag: the same tax id as customer {', '.join(new)}; if customer {customer!r} may be vetted all "
            "the same, say why: --accept-duplicate REASON"
        )
    return flags


def _shown(vetting: asyncpg.Record) -> policy.Row:
    shown = {column: value for column, value in vetting.items() if not column.startswith("tax_id_")}
    return {**shown, "tax_id": "sealed" if vetting["tax_id_sealed"] else ""}
