"""The provider that runs Ringfence: one row, and what holds for all its customers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg

from ringfence.errors import BadInputError
from ringfence.store import policy

ROLES = ("originating", "gateway", "intermediate", "terminating")

_FORMS = {
    "frn": (re.compile(r"([0-9]{10})?"), "an FCC Registration Number has 10 digits"),
    "ocn": (re.compile(r"([0-9A-Z]{4})?"), "an Operating Company Number has 4 digits or capital letters"),
    "rmd_number": (re.compile(r"(RMD[0-9]{7,10})?"), "write it as RMD and 7 to 10 digits"),
}


async def show(connection: asyncpg.Connection) -> policy.Row:
    """What is set, by column."""
    found = await connection.fetchrow(
        "select name, role, frn, ocn, rmd_number, home_country, assigned_numbers_only, aup_version, "
        "vetting_valid_days, expiry_notice_days, strikes, warnings_before_suspension, infraction_hours, "
        "infractions_count_days, suspension_hangs_up from provider"
    )
    return dict(found or {})


async def change(connection: asyncpg.Connection, changes: Mapping[str, Any]) -> policy.Row:
    """Set the columns that are given and leave the rest; returns what is set then. Raises BadInputError."""
    checked = {column: _checked(column, value) for column, value in changes.items()}
    async with connection.transaction():
        await connection.execute("select from provider for update")
        after = {**await show(connection), **checked}
        await connection.execute(
            "update provider set name = $1, role = $2, frn = $3, ocn = $4, rmd_number = $5, home_country = $6, "
            "assigned_numbers_only = $7, aup_version = $8, vetting_valid_days = $9, expiry_notice_days = $10, "
            "strikes = $11, warnings_before_suspension = $12, infraction_hours = $13, "
            "infractions_count_days = $14, suspension_hangs_up = $15",
            *after.values(),
        )
        await policy.note_change(connection, "provider.set", "", checked)
    return after


def _checked(column: str, value: Any) -> Any:
    option = f"--{column.replace('_', '-')}"
    check: Callable[[str, str], str] | None = {"home_country": country, "role": _role}.get(column)
    if check is not None:
        return check(option, value)
    if column in _FORMS:
        form, rule = _FORMS[column]
        value = value.strip().upper()
        if form.fullmatch(value) is None:
            raise BadInputError(f"{option}: {value!r}: {rule}; '' takes it away")
    elif column in ("name", "aup_version"):
        longest = 200 if column == "name" else 64
        if len(value) > longest or not value.isprintable():
            raise BadInputError(f"{option}: give at most {longest} characters without control characters")
    return value


def _role(option: str, role: str) -> str:
    if role not in ROLES:
        raise BadInputError(
            f"{option}: {role!r} is no role{policy.did_you_mean(role, ROLES)} use {', '.join(ROLES)}"
        )
    return role


def country(option: str, code: str) -> str:
    """The ISO 3166 code of a country that has telephone numbers, in capitals. Raises BadInputError."""
    import phonenumbers

    known = phonenumbers.SUPPORTED_REGIONS
    if code.upper() not in known:
        raise BadInputError(
            f"{option}: {code!r} is no country with telephone numbers: write its ISO code, such as US"
        )
    return code.upper()
