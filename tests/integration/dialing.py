"""A numbering plan that tests know: what `ringfence db migrate` filled in is taken away first."""

from __future__ import annotations

import asyncpg

SAN_FRANCISCO = 14155550123
ATLANTA = 14045550123
PANHANDLE = 18505550123  # Florida in two time zones
MIAMI = 13055550123
PREMIUM = 19005550123
TOLL_FREE = 18005550123
LONDON = 442071234567
LONDON_PREMIUM = 449012345678
LONDON_TOLL_FREE = 448001234567
IRIDIUM = 88161234567
SAN_JUAN = 17875550123
SERVICE = 811
UNKNOWN = 99912345678

_PLAN: tuple[tuple[str, str, str, str, list[str]], ...] = (
    ("1404", "US", "GA", "", ["America/New_York"]),
    ("1415", "US", "CA", "", ["America/Los_Angeles"]),
    ("1305", "US", "FL", "", ["America/New_York"]),
    ("1850", "US", "FL", "", ["America/New_York", "America/Chicago"]),
    ("1787", "PR", "PR", "", ["America/Puerto_Rico"]),
    ("1800", "US", "", "toll_free", []),
    ("1900", "US", "", "premium", []),
    ("44207", "GB", "", "", ["Europe/London"]),
    ("44800", "GB", "", "toll_free", ["Europe/London"]),
    ("44901", "GB", "", "premium", ["Europe/London"]),
    ("8816", "", "", "satellite", []),
)


async def know_the_plan(connection: asyncpg.Connection) -> None:
    """Fill dialing_ranges with the few ranges of this module."""
    await connection.execute("delete from dialing_ranges")
    await connection.executemany(
        "insert into dialing_ranges (first, last, country, state, kind, time_zones) "
        "values ($1, $2, $3, $4, $5, $6)",
        [
            (int(prefix.ljust(15, "0")), int(prefix.ljust(15, "9")), country, state, kind, zones)
            for prefix, country, state, kind, zones in _PLAN
        ],
    )
