"""The numbering plans in the database: loaded by the migration, once, and found in one descent."""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from pathlib import Path

import asyncpg
import pytest

from ringfence import numberplan
from ringfence.config import DatabaseSettings
from ringfence.numberplan import DialingRange
from ringfence.store import numberplan as loading
from ringfence.store.migrate import is_current, migrate
from tests.integration.calls import make_customer, reason
from tests.integration.command import Command

pytestmark = pytest.mark.integration

_ONE_DESCENT = """
select r.* from (
  select * from ringfence.dialing_ranges
  where first <= rpad($1::text, 15, '0')::bigint order by first desc limit 1
) r where r.last >= rpad($1::text, 15, '0')::bigint
"""


async def ranges(connection: asyncpg.Connection) -> list[DialingRange]:
    rows = await connection.fetch("select * from dialing_ranges order by first")
    arrays = ("other_digits", "time_zones")
    return [DialingRange(**{**row, **{name: tuple(row[name]) for name in arrays}}) for row in rows]


async def known_zones(connection: asyncpg.Connection) -> set[str]:
    return {row["name"] for row in await connection.fetch("select name from pg_timezone_names")}


async def test_a_migrated_database_knows_the_numbering_plans(connection: asyncpg.Connection) -> None:
    assert await ranges(connection) == numberplan.dialing_ranges(await known_zones(connection))


async def test_a_number_is_found_in_one_descent_where_the_ranges_have_it(connection: asyncpg.Connection) -> None:
    expected = await ranges(connection)
    firsts = [place.first for place in expected]
    chosen = random.Random(7)
    numbers = [chosen.randrange(10**6, 10 ** chosen.randint(7, 15)) for _ in range(300)]
    numbers += [int(str(end).rstrip("0") or "0") for place in expected[::20] for end in (place.first, place.last)]
    for number in numbers:
        filled = int(str(number).ljust(15, "0"))
        at = bisect_right(firsts, filled) - 1
        place = expected[at] if at >= 0 and expected[at].last >= filled else None
        row = await connection.fetchrow(_ONE_DESCENT, str(number))
        assert (row and row["first"]) == (place and place.first), number


async def test_every_zone_of_every_range_is_one_the_database_can_read_a_clock_in(
    connection: asyncpg.Connection,
) -> None:
    clocks = await connection.fetch(
        "select distinct zone, timezone(zone, now()) from dialing_ranges, unnest(time_zones) zone"
    )
    assert {"America/New_York", "America/Boise", "Europe/London", "Asia/Almaty"} <= {row["zone"] for row in clocks}


async def test_plans_that_are_current_are_left_alone(connection: asyncpg.Connection) -> None:
    await connection.execute("update dialing_ranges set state = 'XX' where first = 121200000000000")
    assert (await migrate(connection)).data == ()
    assert await connection.fetchval("select count(*) from dialing_ranges where state = 'XX'") == 1


async def test_plans_of_another_edition_are_replaced(connection: asyncpg.Connection) -> None:
    await connection.execute("update migrations set digest = 'other' where name = $1", loading.NAME)
    await connection.execute("update dialing_ranges set state = 'XX'")
    assert await is_current(connection)
    done = await migrate(connection)
    assert (done.migrations, done.functions, done.data) == ((), (), ("dialing_ranges",))
    assert await ranges(connection) == numberplan.dialing_ranges(await known_zones(connection))
    assert (await migrate(connection)).data == ()


async def test_plans_are_loaded_again_when_phonenumbers_has_others(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = numberplan.edition()
    monkeypatch.setattr("phonenumbers.__version__", "99.0.0")
    assert numberplan.edition() != before
    assert (await migrate(connection)).data == ("dialing_ranges",)
    assert await connection.fetchval("select digest from migrations where name = $1", loading.NAME) != before


async def test_plans_that_cannot_be_read_leave_the_ones_of_before(
    connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_known: object) -> list[DialingRange]:
        raise ValueError("not a pattern of digits: 9*")

    await connection.execute("update migrations set digest = 'other' where name = $1", loading.NAME)
    before = await ranges(connection)
    with monkeypatch.context() as patched:
        patched.setattr(numberplan, "dialing_ranges", unreadable)
        with pytest.raises(loading.DatabaseError, match=r"cannot read the numbering plans.*9\*"):
            await migrate(connection)
    assert await ranges(connection) == before
    assert (await migrate(connection)).data == ("dialing_ranges",)


async def test_a_provider_that_denies_premium_lets_calls_to_dublin_out(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await connection.execute("insert into destination_rules (area, action) values ('premium', 'deny')")
    for landline in (35315128123, 35315208123, 35315908123):
        assert await reason(connection, called=landline) == "authorized"
    for premium in (3531520123456, 353152012345678):
        assert await reason(connection, called=premium) == "destination_denied"


async def test_a_free_number_that_begins_like_a_premium_one_is_free(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await connection.execute(
        "insert into destination_rules (area, action) values ('international', 'deny'), ('toll_free', 'allow')"
    )
    assert await reason(connection, called=645088123456) == "authorized"
    assert await reason(connection, called=6450881234) == "destination_denied"


async def test_a_migration_says_that_it_loaded_the_plans(
    connection: asyncpg.Connection, database: DatabaseSettings, tmp_path: Path
) -> None:
    ringfence = Command(database, tmp_path)
    assert ringfence.ok("db", "migrate").out == "already current\n"
    await connection.execute("update migrations set digest = 'other' where name = $1", loading.NAME)
    assert ringfence.ok("db", "migrate").out == "loaded dialing_ranges\n"
    await connection.execute("update migrations set digest = 'other' where name = $1", loading.NAME)
    loaded = {"migrations": [], "functions": [], "data": ["dialing_ranges"]}
    assert ringfence.ok("db", "migrate", "--json").json == loaded


async def test_loading_takes_little_time(connection: asyncpg.Connection) -> None:
    started = time.process_time()
    async with connection.transaction():
        assert await loading.load(connection) > 2000
    assert time.process_time() - started < 4
