"""Filling ringfence.dialing_ranges with the world's numbering plans."""

from __future__ import annotations

import asyncpg

from ringfence import numberplan
from ringfence.errors import DatabaseError

NAME = "data/dialing_ranges"  # in ringfence.migrations


async def load(connection: asyncpg.Connection) -> int:
    """Replace all ranges by those of the installed phonenumbers; how many there are now.

    Belongs in a transaction: until it commits, calls are judged by the ranges of before. Raises DatabaseError if
    the metadata of phonenumbers cannot be read.
    """
    # The judge reads clocks of zones: one that this server does not know would fail the call.
    known = {row["name"] for row in await connection.fetch("select name from pg_timezone_names")}
    try:
        ranges = numberplan.dialing_ranges(known)
    except ValueError as error:
        raise DatabaseError(f"cannot read the numbering plans of this phonenumbers: {error}") from error
    await connection.execute("delete from ringfence.dialing_ranges")
    await connection.copy_records_to_table(
        "dialing_ranges", records=ranges, columns=numberplan.DialingRange._fields, schema_name="ringfence"
    )
    await connection.execute("analyze ringfence.dialing_ranges")
    return len(ranges)
