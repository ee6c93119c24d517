"""Destination rules: where calls may go, by prefix, country and class. The judge applies what is kept here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import asyncpg

from ringfence.errors import BadInputError, NotFoundError
from ringfence.store import policy
from ringfence.store.provider import country

ALL = "*"
CAPS = ("calls_per_day", "calls_per_month", "minutes_per_day", "minutes_per_month")
CLASSES: Mapping[str, str] = {
    "premium": "premium-rate numbers of any country",
    "satellite": "satellite and other numbers of no country",
    "toll_free": "toll-free numbers",
    "international": "calls to other countries than the provider's home country",
    "domestic": "calls to the provider's home country",
    "service": "short codes",
}

_PREFIX = re.compile(r"\+([1-9][0-9]{0,14})", re.ASCII)
_US_TERRITORIES = frozenset({"PR", "VI", "GU", "AS", "MP"})  # countries of their own that are no foreign ones
_SHORTEST = 1_000_000  # no E.164 number is shorter; what is, is a short code


@dataclass(frozen=True, slots=True)
class Destination:
    """What a rule is for: leading digits, or else a country or a class."""

    prefix: int = 0
    area: str = ""

    def __str__(self) -> str:
        return f"+{self.prefix}" if self.prefix else self.area


def parse(text: str) -> Destination:
    """Read `+` and leading digits, an ISO country, or a class. Raises BadInputError, with what may be meant."""
    word = text.strip()
    digits = _PREFIX.fullmatch(word.translate(str.maketrans("", "", " -.()")))
    if digits is not None:
        return Destination(prefix=int(digits[1]))
    name = word.lower().replace("-", "_")
    if name in CLASSES:
        return Destination(area=name)
    if len(word) == 2 and word.isascii() and word.isalpha():
        return Destination(area=country("WHAT", word))
    if word.removeprefix("+").isdigit():
        raise BadInputError(
            f"WHAT: {text[:64]!r} is no prefix: write + and up to 15 digits of the number, e.g. +1900"
        )
    hint = policy.did_you_mean(name[:64], list(CLASSES))
    raise BadInputError(
        f"WHAT: {text[:64]!r} is no destination{hint} give + and leading digits, an ISO country such as MX, "
        f"or one of {', '.join(CLASSES)}"
    )


async def set_rule(
    connection: asyncpg.Connection,
    destination: Destination,
    customer: str,
    action: str,
    caps: Mapping[str, int | None] | None = None,
) -> policy.Row:
    """Make a rule for a customer or, with `*`, for all, and return it. One that is there keeps its number when it
    is changed, and so its counters.

    With the action `cap`, `caps` are those of CAPS to set, None for no such cap; others stay as they are. Raises
    NotFoundError on an unknown customer, and BadInputError if the action is `cap` and no cap is left.
    """
    async with connection.transaction():
        await _require(connection, customer)
        before = await connection.fetchrow(
            "select * from destination_rules where customer = $1 and prefix = $2 and area = $3 for update",
            customer,
            destination.prefix,
            destination.area,
        )
        after = {cap: (caps or {}).get(cap, before and before[cap]) if action == "cap" else None for cap in CAPS}
        if action == "cap" and all(value is None for value in after.values()):
            raise BadInputError(
                f"{destination}: no cap is left: give one, such as --calls-per-day, "
                "or use 'ringfence destination allow'"
            )
        rule = await connection.fetchrow(
            "insert into destination_rules (customer, prefix, area, action, calls_per_day, calls_per_month, "
            "minutes_per_day, minutes_per_month) values ($1, $2, $3, $4, $5, $6, $7, $8) "
            "on conflict (customer, prefix, area) do update set action = $4, calls_per_day = $5, "
            "calls_per_month = $6, minutes_per_day = $7, minutes_per_month = $8 returning *",
            customer,
            destination.prefix,
            destination.area,
            action,
            *after.values(),
        )
        assert rule is not None
        detail = {"rule": rule["destination_rule"], "destination": str(destination), **dict(caps or {})}
        await policy.note_change(connection, f"destination.{action}", _of(customer), detail)
    return _shown(dict(rule))


async def remove(connection: asyncpg.Connection, destination: Destination, customer: str) -> int:
    """Take a rule away, and with it its counters; returns its number. Raises NotFoundError."""
    async with connection.transaction():
        await _require(connection, customer)
        rule: int | None = await connection.fetchval(
            "delete from destination_rules where customer = $1 and prefix = $2 and area = $3 "
            "returning destination_rule",
            customer,
            destination.prefix,
            destination.area,
        )
        if rule is None:
            whose = "for all customers" if customer == ALL else f"of customer {customer!r}"
            raise NotFoundError(
                f"there is no rule {whose} for {destination}; 'ringfence destination list' shows all rules"
            )
        detail = {"rule": rule, "destination": str(destination)}
        await policy.note_change(connection, "destination.remove", _of(customer), detail)
    return rule


async def listed(connection: asyncpg.Connection, customer: str | None = None) -> list[policy.Row]:
    """Every rule; or those that hold for one customer, its own and those for all, with what it has used under each
    in its own day and month. Raises NotFoundError on an unknown customer."""
    if customer is None:
        found = await connection.fetch("select * from destination_rules order by customer, prefix, area")
        return [_shown(dict(row)) for row in found]
    await policy.require_customer(connection, customer)
    found = await connection.fetch(
        "select r.*, case when u.day = w.day then u.calls_today else 0 end as calls_today, "
        "case when u.month = date_trunc('month', w.day)::date then u.calls_this_month else 0 end "
        "as calls_this_month, "
        "case when u.day = w.day then u.seconds_today else 0 end / 60 as minutes_today, "
        "case when u.month = date_trunc('month', w.day)::date then u.seconds_this_month else 0 end / 60 "
        "as minutes_this_month "
        "from destination_rules r "
        "cross join (select (clock_timestamp() at time zone time_zone)::date as day from customers "
        "where customer = $1) w "
        "left join usage u on u.customer = $1 and u.scope = 'destination:' || r.destination_rule "
        "where r.customer in ($1, '*') order by r.customer = '*', r.prefix, r.area",
        customer,
    )
    return [_shown(dict(row)) for row in found]


async def explain(connection: asyncpg.Connection, called: int, customer: str | None = None) -> policy.Row:
    """What is known of a called number, and every rule that fits it in the order in which the judge prefers them,
    each with the `outcome` that it wins, or why it does not. Without a customer only rules for all are looked at.

    Raises NotFoundError on an unknown customer.
    """
    if customer is not None:
        await policy.require_customer(connection, customer)
    place = await _place(connection, called)
    digits = str(called)
    prefixes = [int(digits[:length]) for length in range(1, len(digits) + 1)] if called >= _SHORTEST else []
    found = await connection.fetch(
        "select * from destination_rules where customer = any ($1::text[]) "
        "and (area = '' and prefix = any ($2::bigint[]) or prefix = 0 and area = any ($3::text[]))",
        [ALL, customer or ALL],
        prefixes,
        _areas(place),
    )

    def preference(row: asyncpg.Record) -> tuple[bool, int, bool, bool]:
        area = row["area"]
        return row["customer"] == ALL, -row["prefix"], area != place["country"], area != place["class"]

    ordered = sorted(found, key=preference)
    rules = [{**_shown(dict(row)), "outcome": _outcome(row, ordered[0], str(place["country"]))} for row in ordered]
    return {
        "number": called,
        **{key: place[key] for key in ("country", "state", "class", "time_zones")},
        "allowed": not rules or rules[0]["action"] != "deny",
        "rules": rules,
    }


async def _place(connection: asyncpg.Connection, called: int) -> policy.Row:
    """Where the judge takes the number to be."""
    filled = int(str(called).ljust(15, "0"))
    found = await connection.fetchrow(
        "select n.country, n.state, n.time_zones, s.home_country, "
        "case when length($2::bigint::text) = any (n.other_digits) then n.other_kind else n.kind end as kind "
        "from provider s left join lateral ("
        "select * from dialing_ranges where first <= $1 order by first desc limit 1) n on n.last >= $1 "
        "and $2::bigint >= 1000000",
        filled,
        called,
    )
    place = dict(found or {})
    unknown_area_code = place["country"] == "" and len(str(called)) == 11 and str(called).startswith("1")
    soil = "US" if unknown_area_code or place["country"] in _US_TERRITORIES else place["country"]
    place["home"] = soil == place["home_country"]
    general = "domestic" if place["home"] else "international"
    place["class"] = "service" if called < _SHORTEST else place["kind"] or general
    return place


def _areas(place: policy.Row) -> list[str]:
    abroad = place["class"] == "satellite" or (place["class"] in ("premium", "toll_free") and not place["home"])
    areas = [place["country"], place["class"], "international" if abroad else None]
    return [area for area in areas if area]


def _outcome(row: asyncpg.Record, winner: asyncpg.Record, its_country: str) -> str:
    if row is winner:
        return "wins"
    if row["customer"] != winner["customer"]:
        return "loses: the customer's own rule goes before one for all"
    if row["prefix"]:
        return "loses: the longer prefix goes before"
    if winner["prefix"]:
        return "loses: a prefix goes before a country or a class"
    if winner["area"] == its_country:
        return "loses: a country goes before a class"
    return f"loses: {winner['area']} goes before {row['area']}"


def _shown(rule: policy.Row) -> policy.Row:
    destination = str(Destination(rule.pop("prefix"), rule.pop("area")))
    return {
        "rule": rule.pop("destination_rule"),
        "customer": rule.pop("customer"),
        "destination": destination,
        **rule,
    }


async def _require(connection: asyncpg.Connection, customer: str) -> None:
    if customer != ALL:
        await policy.require_customer(connection, customer)


def _of(customer: str) -> str:
    return "" if customer == ALL else customer
