"""Limit profiles: named sets of caps, and for each rule whether it is enforced, only reported, or off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import asyncpg

from ringfence import rules
from ringfence.errors import BadInputError, NotFoundError
from ringfence.store import policy

DEFAULT_PROFILE = "default"
DEFAULT_CAPS: Mapping[str, Any] = {"calls_per_second": Decimal(10), "burst": 10, "concurrent_calls": 30}

CAPS = (
    "calls_per_second",
    "burst",
    "concurrent_calls",
    "calls_per_day",
    "calls_per_month",
    "minutes_per_day",
    "minutes_per_month",
    "caller_id_calls_per_day",
    "max_delay_ms",
)

_LISTED = (
    "select profile, calls_per_second::float8 as calls_per_second, burst, concurrent_calls, calls_per_day, "
    "calls_per_month, minutes_per_day, minutes_per_month, caller_id_calls_per_day, max_delay_ms, report_rules, "
    "off_rules, (select count(*) from customers c where c.profile = p.profile) as customers, "
    "(select count(*) from customers c where c.restricted_profile = p.profile) as customers_if_restricted "
    "from limit_profiles p "
)


async def set_profile(
    connection: asyncpg.Connection,
    profile: str,
    caps: Mapping[str, Any],
    modes: Mapping[str, str] | None = None,
) -> bool:
    """Make a limit profile or change one; True if it is new.

    `caps` are those of CAPS to set, None for no such cap; `modes` gives rules one of enforce, report and off. What
    is in neither stays as it is. A new profile needs calls_per_second and concurrent_calls; its burst is the rate,
    rounded up, if nothing else is said. Raises BadInputError on a bad name, rule or mode, and if a new profile
    lacks what it needs.
    """
    policy.check_name("profile", profile)
    changed = dict(modes or {})
    check_rules(changed)
    async with connection.transaction():
        found = await connection.fetchrow("select * from limit_profiles where profile = $1 for update", profile)
        before: policy.Row = dict(found) if found else await _new(connection, profile, caps)
        after = {cap: caps.get(cap, before.get(cap)) for cap in CAPS}
        await connection.execute(
            "insert into limit_profiles (profile, calls_per_second, burst, concurrent_calls, calls_per_day, "
            "calls_per_month, minutes_per_day, minutes_per_month, caller_id_calls_per_day, max_delay_ms, "
            "report_rules, off_rules) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
            "on conflict (profile) do update set calls_per_second = $2, burst = $3, concurrent_calls = $4, "
            "calls_per_day = $5, calls_per_month = $6, minutes_per_day = $7, minutes_per_month = $8, "
            "caller_id_calls_per_day = $9, max_delay_ms = $10, report_rules = $11, off_rules = $12",
            profile,
            *after.values(),
            _in_mode(rules.REPORT, before["report_rules"], changed),
            _in_mode(rules.OFF, before["off_rules"], changed),
        )
        detail = {cap: float(value) if isinstance(value, Decimal) else value for cap, value in caps.items()}
        if found is None:
            detail["burst"] = after["burst"]
        await policy.note_change(
            connection,
            "profile.set",
            "",
            {"profile": profile, **detail, **({"modes": changed} if changed else {})},
        )
    return found is None


async def _new(connection: asyncpg.Connection, profile: str, caps: Mapping[str, Any]) -> policy.Row:
    """What a profile is before anything is said of it."""
    if "calls_per_second" not in caps or "concurrent_calls" not in caps:
        names = await _names(connection)
        raise BadInputError(
            f"there is no profile {profile!r}{policy.did_you_mean(profile, names)} a new one needs "
            "--calls-per-second and --concurrent"
        )
    burst = max(1, math.ceil(caps["calls_per_second"]))
    return {"burst": burst, "max_delay_ms": 0, "report_rules": [], "off_rules": []}


def _in_mode(mode: str, before: Sequence[str], changed: Mapping[str, str]) -> list[str]:
    return [rule for rule in rules.WITH_MODE if changed.get(rule, mode if rule in before else "") == mode]


def check_rules(modes: Mapping[str, str]) -> None:
    """Raises BadInputError, with the rule that may have been meant, unless each rule may have its mode."""
    for name, mode in modes.items():
        rule = rules.BY_NAME.get(name)
        if rule is None:
            hint = policy.did_you_mean(name, rules.WITH_MODE)
            raise BadInputError(
                f"--{mode}: there is no rule {name!r}{hint} rules are {', '.join(rules.WITH_MODE)}"
            )
        if rule.always and mode != rules.ENFORCE:
            raise BadInputError(f"--{mode}: the rule {name!r} is always enforced")


async def profiles(connection: asyncpg.Connection) -> list[policy.Row]:
    """Every limit profile with the number of its customers, and of those it would hold for if restricted."""
    return policy.rows(await connection.fetch(_LISTED + "order by profile"))


async def show_profile(connection: asyncpg.Connection, profile: str) -> policy.Row:
    """One profile, with the mode of each rule. Raises NotFoundError."""
    found = await connection.fetchrow(_LISTED + "where profile = $1", profile)
    if found is None:
        raise await _unknown(connection, profile)
    shown = dict(found)
    shown["rules"] = [
        {"rule": rule.name, "mode": _mode(rule.name, shown), "sentence": rule.sentence} for rule in rules.RULES
    ]
    return shown


def _mode(rule: str, profile: policy.Row) -> str:
    if rule in profile["report_rules"]:
        return rules.REPORT
    return rules.OFF if rule in profile["off_rules"] else rules.ENFORCE


async def make_default_profile(connection: asyncpg.Connection) -> bool:
    """Make the profile `default` if it is missing; True if it was."""
    if await connection.fetchval("select true from limit_profiles where profile = $1", DEFAULT_PROFILE):
        return False
    return await set_profile(connection, DEFAULT_PROFILE, DEFAULT_CAPS)


async def require_profile(connection: asyncpg.Connection, profile: str) -> None:
    """Raises NotFoundError, with the name that is close, if there is no such profile."""
    if not await connection.fetchval("select true from limit_profiles where profile = $1", profile):
        raise await _unknown(connection, profile)


async def _unknown(connection: asyncpg.Connection, profile: str) -> NotFoundError:
    hint = policy.did_you_mean(profile, await _names(connection))
    return NotFoundError(
        f"there is no profile {profile!r}{hint} 'ringfence profile list' "
        f"shows all, 'ringfence profile set {profile}' makes it"
    )


async def _names(connection: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await connection.fetch("select profile from limit_profiles order by profile")]
