"""Calling hours: when telemarketing may call, in the called party's local time.

Each change is one transaction with its entry in policy_changes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

import asyncpg

from ringfence.errors import BadInputError, NotFoundError
from ringfence.store import policy

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # in the order of Postgres' dow
TERRITORIES = frozenset({"AS", "GU", "MP", "PR", "VI"})  # to the judge states of the US
STATES = frozenset((
    "AL", "AK", "AZ", "AR", "CA", "CO", "CT", "DE", "DC", "FL", "GA", "HI", "ID", "IL", "IN", "IA", "KS",
    "KY", "LA", "ME", "MD", "MA", "MI", "MN", "MS", "MO", "MT", "NE", "NV", "NH", "NJ", "NM", "NY", "NC",
    "ND", "OH", "OK", "OR", "PA", "RI", "SC", "SD", "TN", "TX", "UT", "VT", "VA", "WA", "WV", "WI", "WY",
    *TERRITORIES,
))  # fmt: skip

_WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as people write it
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00", re.ASCII)


def parse_days(text: str) -> tuple[int, ...]:
    """`mon-fri,sat` as weekdays, 0 for Sunday, in their order. Raises BadInputError."""
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if first not in DAYS or (dash and last not in DAYS):
            raise BadInputError(
                f"--days: {text[:64]!r} is not understood: write days as {', '.join(_WEEK)}, a range as mon-fri, "
                "several with commas"
            )
        day, end = DAYS.index(first), DAYS.index(last or first)
        days.add(day)
        while day != end:
            day = (day + 1) % 7
            days.add(day)
    return tuple(sorted(days))


def days_text(days: Iterable[int]) -> str:
    """Weekdays as people write them, Monday first: `mon-fri, sun`."""
    places = sorted(_WEEK.index(DAYS[day]) for day in days)
    runs: list[list[int]] = []
    for place in places:
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return ", ".join(_WEEK[run[0]] if len(run) == 1 else f"{_WEEK[run[0]]}-{_WEEK[run[-1]]}" for run in runs)


def check_state(country: str, state: str) -> str:
    """The state in capitals. Raises BadInputError unless it is empty or one of the US, and if the country is a
    territory: its hours are those of the US."""
    if country in TERRITORIES:
        raise BadInputError(f"COUNTRY: {country} has the hours of the US: for its own write US --state {country}")
    state = state.strip().upper()
    if state and (country != "US" or state not in STATES):
        raise BadInputError(
            f"--state: {state!r} is no state of {country}: only states of the US are known, e.g. FL"
        )
    return state


def check_times(opens: str, closes: str) -> None:
    """Raises BadInputError unless these are times of day, the first before the second."""
    for option, time in (("--from", opens), ("--until", closes)):
        if _TIME.fullmatch(time) is None:
            raise BadInputError(f"{option}: {time[:64]!r} is no time of day: write 08:00, or 24:00 for midnight")
    if opens >= closes:
        raise BadInputError(
            f"--until: {closes} is not after {opens}: hours end on the day they begin; for a day without calls "
            "use 'ringfence hours closed'"
        )


async def set_hours(
    connection: asyncpg.Connection, country: str, state: str, days: Sequence[int], *, opens: str, closes: str
) -> None:
    """Let telemarketing call from `opens` until before `closes` (HH:MM) on these days; equal times close them."""
    async with connection.transaction():
        await connection.execute(
            "insert into calling_hours (country, state, weekday, opens, closes) "
            "select $1, $2, day, $4::text::time, $5::text::time from unnest($3::smallint[]) day "
            "on conflict (country, state, weekday) do update set opens = excluded.opens, closes = excluded.closes",
            country,
            state,
            list(days),
            opens,
            closes,
        )
        detail: policy.Row = {"country": country, "state": state, "days": days_text(days)}
        closed = opens == closes
        await policy.note_change(
            connection,
            "hours.closed" if closed else "hours.set",
            "",
            detail if closed else {**detail, "opens": opens, "closes": closes},
        )


async def clear(connection: asyncpg.Connection, country: str, state: str, days: Sequence[int]) -> int:
    """Take hours away, so that they forbid nothing on these days; returns for how many. Raises NotFoundError."""
    async with connection.transaction():
        gone = await connection.fetch(
            "delete from calling_hours where country = $1 and state = $2 and weekday = any ($3::smallint[]) "
            "returning weekday",
            country,
            state,
            list(days),
        )
        if not gone:
            where = f"{country} {state}".strip()
            raise NotFoundError(
                f"there are no hours for {where} on {days_text(days)}; 'ringfence hours list' shows all"
            )
        detail = {"country": country, "state": state, "days": days_text(row["weekday"] for row in gone)}
        await policy.note_change(connection, "hours.clear", "", detail)
    return len(gone)


async def listed(connection: asyncpg.Connection) -> list[policy.Row]:
    """Every country's and state's hours, days with the same hours together; `opens` is None for closed days."""
    found = await connection.fetch(
        "select country, state, weekday, left(opens::text, 5) as opens, left(closes::text, 5) as closes "
        "from calling_hours order by country, state, opens, closes, weekday"
    )

    def hours(row: asyncpg.Record) -> tuple[str, str, str | None, str | None]:
        closed = row["opens"] == row["closes"]
        return row["country"], row["state"], None if closed else row["opens"], None if closed else row["closes"]

    together: dict[tuple[str, str, str | None, str | None], list[int]] = {}
    for key, rows in groupby(found, key=hours):
        together.setdefault(key, []).extend(row["weekday"] for row in rows)
    return [
        {"country": key[0], "state": key[1], "days": days_text(days), "opens": key[2], "closes": key[3]}
        for key, days in together.items()
    ]
