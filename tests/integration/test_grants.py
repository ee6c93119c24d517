"""Grants: one number, one customer, unless both grants are shared; toll-free numbers; grants that end soon."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ConflictError, ExitCode
from ringfence.store import grants
from ringfence.store.connect import connected
from ringfence.store.grants import Terms
from tests.integration.calls import make_customer, reason
from tests.integration.command import Command

pytestmark = pytest.mark.integration

NUMBER = 13105550100
FIRST, LAST = "+13105550100", "+13105550199"


@pytest.fixture
async def ringfence(database: DatabaseSettings, tmp_path: Path, connection: asyncpg.Connection) -> Command:
    for customer in ("acme", "zeta"):
        await make_customer(connection, customer, grant=False)
    return Command(database, tmp_path)


def refused(ringfence: Command, *arguments: str, code: int = ExitCode.CONFLICT) -> str:
    ran = ringfence("number", *arguments)
    assert (ran.code, ran.out) == (code, "")
    return ran.err


# --- one number, one customer --------------------------------------------------------------------------------


async def test_a_number_of_one_customer_is_not_granted_to_another(ringfence: Command) -> None:
    ringfence.ok("number", "grant", "acme", FIRST, LAST)
    err = refused(ringfence, "grant", "zeta", "+13105550150")
    assert "+13105550150 meets grant 1 (+13105550100 to +13105550199) of customer 'acme'" in err
    assert f"'ringfence number revoke acme {FIRST} {LAST} --reason …' takes it from that customer" in err
    assert f"if both may show it, give --shared and 'ringfence number share acme {FIRST} {LAST}' first" in err
    assert f"'ringfence number share acme {FIRST} {LAST}' first" in refused(
        ringfence, "grant", "zeta", "+13105550150", "--shared"
    )


async def test_a_number_that_both_share_may_be_shown_by_both(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("number", "grant", "acme", FIRST, LAST)
    shared = ringfence.ok("number", "share", "acme", FIRST, LAST, "--json").json
    assert (shared["shared"], shared["changed"]) == (True, 1)
    assert "give --shared" in refused(ringfence, "grant", "zeta", "+13105550100")
    ringfence.ok("number", "grant", "zeta", "+13105550100", "--shared")
    assert [await reason(connection, account, NUMBER) for account in ("ACME", "ZETA")] == ["authorized"] * 2
    assert await reason(connection, "ZETA", NUMBER + 1) == "caller_id_not_authorized"


async def test_a_number_another_customer_holds_too_stays_shared(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("number", "grant", "acme", FIRST, LAST, "--shared")
    ringfence.ok("number", "grant", "zeta", "+13105550100", "--shared")
    err = refused(ringfence, "unshare", "acme", FIRST, LAST)
    assert "of customer 'zeta' holds numbers of it too" in err
    assert "'ringfence number revoke zeta +13105550100 --reason …' takes that back first" in err
    ringfence.ok("number", "revoke", "zeta", "+13105550100", "--reason", "ended")
    assert ringfence.ok("number", "unshare", "acme", FIRST, LAST, "--json").json["changed"] == 1
    assert ringfence.ok("number", "unshare", "acme", FIRST, LAST, "--json").json["changed"] == 0
    actions = await connection.fetch(
        "select action, detail from policy_changes where action like 'number.%share' order by version"
    )
    assert [(row["action"], json.loads(row["detail"])["grants"]) for row in actions] == [("number.unshare", 1)]


async def test_a_grant_is_shared_as_a_whole(ringfence: Command) -> None:
    ringfence.ok("number", "grant", "acme", FIRST, LAST)
    assert "lies only partly within" in refused(ringfence, "share", "acme", FIRST)
    assert "has no grant within" in refused(ringfence, "share", "zeta", FIRST, LAST, code=ExitCode.NOT_FOUND)


async def test_a_revoked_grant_is_kept_as_shared_as_it_was(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("number", "grant", "acme", FIRST, "--shared")
    ringfence.ok("number", "revoke", "acme", FIRST, "--reason", "ended")
    assert await connection.fetchval("select shared from revoked_grants") is True


async def test_the_same_grant_but_shared_is_another_grant(ringfence: Command) -> None:
    ringfence.ok("number", "grant", "acme", FIRST, "--shared")
    assert ringfence.ok("number", "grant", "acme", FIRST, "--shared", "--json").json["already_there"] is True
    assert "overlaps grant 1" in refused(ringfence, "grant", "acme", FIRST)


INSERT = "insert into grants (customer, first, last, shared) values ($1, $2, $3, $4)"


@pytest.mark.parametrize(
    ("there", "new", "met"),
    [
        ((100, 199, False), (150, 150, False), True),
        ((100, 199, False), (150, 150, True), True),
        ((100, 199, True), (150, 150, False), True),
        ((100, 199, True), (150, 150, True), False),
        ((150, 150, True), (100, 199, False), True),
        ((150, 150, False), (100, 199, True), True),
        ((100, 149, True), (150, 199, False), False),
        ((100, 149, False), (150, 199, False), False),
        ((150, 199, True), (100, 149, False), False),
        ((100, 150, True), (150, 199, False), True),
        ((150, 199, True), (100, 150, False), True),
    ],
)
async def test_no_way_into_the_table_gives_one_number_to_two_customers(
    ringfence: Command,
    connection: asyncpg.Connection,
    there: tuple[int, int, bool],
    new: tuple[int, int, bool],
    met: bool,
) -> None:
    async def insert(customer: str, block: tuple[int, int, bool]) -> None:
        await connection.execute(INSERT, customer, NUMBER + block[0], NUMBER + block[1], block[2])

    # Others all around must not hide the one that is met.
    for place in (0, 20, 300, 400):
        await insert("acme", (place, place, False))
        await insert("acme", (place + 5, place + 5, True))
    await insert("acme", there)
    if met:
        with pytest.raises(asyncpg.ExclusionViolationError, match="to customer 'acme': both must be shared"):
            await insert("zeta", new)
    else:
        await insert("zeta", new)


async def test_the_schema_refuses_to_make_a_number_exclusive_that_two_hold(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    for customer in ("acme", "zeta"):
        await connection.execute(INSERT, customer, NUMBER, NUMBER + 99, True)
    with pytest.raises(asyncpg.ExclusionViolationError, match="to customer 'zeta': both must be shared"):
        await connection.execute("update grants set shared = false where customer = 'acme'")


async def test_two_admins_at_once_cannot_give_a_number_to_two_customers(
    ringfence: Command, database: DatabaseSettings
) -> None:
    async def grant(customer: str) -> int | None:
        async with connected(database, application="test", actor="tester") as opened:
            return await grants.grant(opened, customer, NUMBER, NUMBER, Terms())

    done = await asyncio.gather(grant("acme"), grant("zeta"), return_exceptions=True)
    assert [isinstance(result, ConflictError) for result in done].count(True) == 1
    assert [isinstance(result, int) for result in done].count(True) == 1


async def test_an_admin_waits_for_another_and_then_sees_what_it_granted(
    ringfence: Command, database: DatabaseSettings, connection: asyncpg.Connection
) -> None:
    async with connected(database, application="test", actor="tester") as other:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(INSERT, "acme", NUMBER, NUMBER, False)
        late = asyncio.create_task(other.execute(INSERT, "zeta", NUMBER, NUMBER, False))
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        async with asyncio.timeout(10):
            while not await connection.fetchval(waiting):
                pass
        await transaction.commit()
        with pytest.raises(asyncpg.ExclusionViolationError, match="to customer 'acme'"):
            await late


# --- toll-free numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "source", "said"),
    [
        (
            ("+18005550100",),
            "letter",
            "--source: +18005550100 is toll-free, for which 'letter' is no proof: use 'resp",
        ),
        (("+18885550100", "+18885550199"), "bill", "+18885550100 to +18885550199 is toll-free, for which 'bill'"),
        (
            ("+12025550100",),
            "resporg",
            "--source: +12025550100 is not toll-free, and 'resporg' is proof for toll-free",
        ),
        (("+442079460000",), "resporg", "is not toll-free"),
        (("+18785550100", "+18835550100"), "letter", "holds toll-free numbers and others: grant them apart"),
        (("+18785550100", "+18835550100"), "resporg", "holds toll-free numbers and others: grant them apart"),
    ],
)
async def test_a_toll_free_number_is_proven_by_its_resporg_and_nothing_else_is(
    ringfence: Command, block: tuple[str, ...], source: str, said: str
) -> None:
    assert said in refused(ringfence, "grant", "acme", *block, "--source", source, code=ExitCode.BAD_INPUT)


async def test_toll_free_numbers_that_are_ours_or_validated_are_granted(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("number", "grant", "acme", "+18005550100", "--source", "resporg", "--evidence", "SMS/800 17")
    ringfence.ok("number", "grant", "acme", "+18335550100")
    assert await connection.fetchval("select count(*) from grants") == 2


# --- the end of grants ---------------------------------------------------------------------------------------


async def test_grants_that_end_soon_are_listed_the_next_first(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    for place, days in enumerate((40, 5, 20, -1)):
        await connection.execute(
            "insert into grants (customer, first, last, valid_from, valid_until) values "
            "($1, $2, $2, now() - interval '1 year', now() + make_interval(days => $3))",
            "zeta" if place == 2 else "acme",
            NUMBER + place,
            days,
        )
    ringfence.ok("number", "grant", "acme", "+13105550150")
    soon = ringfence.ok("number", "list", "--expiring-days", "30", "--json").json
    assert [row["first"] for row in soon] == ["+13105550101", "+13105550102"]
    own = ringfence.ok("number", "list", "zeta", "--expiring-days", "30", "--json").json
    assert [row["customer"] for row in own] == ["zeta"]
    assert "+13105550101" in ringfence.ok("number", "list", "--expiring-days", "6").out
    both = refused(ringfence, "list", "--number", FIRST, "--expiring-days", "6", code=ExitCode.BAD_INPUT)
    assert "--expiring-days: not together with --number" in both
