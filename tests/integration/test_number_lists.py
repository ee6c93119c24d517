"""The lists an operator keeps: loaded from files, compared, never emptied by accident, never without a trace."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ExitCode
from ringfence.store.connect import connected
from ringfence.store.faults import Faults
from ringfence.store.list_import import load_list
from ringfence.store.number_lists import do_not_originate
from tests.integration.calls import CALLED, OWN, make_customer, reason
from tests.integration.command import Command

pytestmark = pytest.mark.integration

DNO = ("--category", "unallocated", "--source", "nanpa")


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    return Command(database, tmp_path)


def load(ringfence: Command, content: str, *options: str) -> Any:
    ran = ringfence.ok("do-not-originate", "load", "-", *DNO, *options, "--json", stdin=content.encode())
    return ran.json


async def listed(connection: asyncpg.Connection) -> list[int]:
    rows = await connection.fetch("select prefix from do_not_originate order by prefix")
    return [row["prefix"] for row in rows]


async def noted(connection: asyncpg.Connection, action: str) -> list[dict[str, Any]]:
    rows = await connection.fetch("select detail from policy_changes where action = $1 order by version", action)
    return [json.loads(row["detail"]) for row in rows]


def numbers(count: int, *, start: int = 12022220000) -> str:
    return "number\n" + "".join(f"+{start + place}\n" for place in range(count))


# --- do-not-originate ----------------------------------------------------------------------------------------


async def test_a_call_that_shows_a_number_of_a_listed_block_is_refused(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    assert await reason(connection) == "authorized"
    load(ringfence, "prefix\n+12125550\n")
    assert await reason(connection) == "caller_id_unallocated"
    ringfence.ok("do-not-originate", "remove", "+12125550", *DNO, "--reason", "allocated in June")
    assert await reason(connection) == "authorized"
    ringfence.ok("do-not-originate", "add", f"+{OWN}", "--category", "subscriber_request", "--source", "IRS")
    assert await reason(connection) == "caller_id_do_not_originate"


async def test_a_load_writes_only_the_difference(ringfence: Command, connection: asyncpg.Connection) -> None:
    first = load(
        ringfence, "prefix,listed_on\n+1202222,2026-01-01\n+1202223,2026-01-01\n+12025550100,2026-01-01\n"
    )
    assert (first["added"], first["removed"], first["unchanged"]) == (3, 0, 0)
    await connection.execute("create table before as select ctid as place, prefix from do_not_originate")
    again = load(ringfence, "prefix,listed_on\n+1202223,\n+12025550100,2026-02-02\n+1202224,\n+1202224,\n")
    counts = {name: again[name] for name in ("added", "removed", "redated", "unchanged")}
    assert counts == {"added": 1, "removed": 1, "redated": 1, "unchanged": 1}
    assert (again["first_added"], again["first_removed"]) == (["+1202224"], ["+1202222"])
    rows = await connection.fetch(
        "select d.prefix, listed_on::text, d.ctid = b.place as untouched "
        "from do_not_originate d left join before b using (prefix) order by prefix"
    )
    today = await connection.fetchval("select current_date::text")
    assert [tuple(row) for row in rows] == [
        (1202223, "2026-01-01", True),
        (1202224, today, None),
        (12025550100, "2026-02-02", False),
    ]


async def test_a_load_leaves_other_lists_alone(ringfence: Command, connection: asyncpg.Connection) -> None:
    ringfence.ok("do-not-originate", "add", "+12025550100", "--category", "invalid", "--source", "nanpa")
    ringfence.ok("do-not-originate", "add", "+12025550100", "--category", "unallocated", "--source", "carrier")
    load(ringfence, "number\n+12025550199\n")
    assert await listed(connection) == [12025550100, 12025550100, 12025550199]


async def test_every_load_is_noted_with_its_file_and_what_it_did(
    ringfence: Command, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "unallocated.csv"
    file.write_bytes(b"number\r\n+12025550100\r\n+12025550101\r\n")
    for _ in range(2):
        ringfence.ok("do-not-originate", "load", str(file), *DNO)
    first, second = await noted(connection, "do-not-originate.load")
    assert first == {
        "category": "unallocated", "source": "nanpa", "origin": str(file),
        "sha256": sha256(file.read_bytes()).hexdigest(), "added": 2, "removed": 0, "redated": 0, "unchanged": 0,
        "bad_lines": 0,
    }  # fmt: skip
    assert (second["added"], second["unchanged"]) == (0, 2)


async def test_one_bad_line_loads_nothing_and_is_named(ringfence: Command, connection: asyncpg.Connection) -> None:
    content = b"number,listed_on\n+12025550100,\n12ab,\n+12025550101,soon\n"
    ran = ringfence("do-not-originate", "load", "-", *DNO, stdin=content)
    assert ran.code == ExitCode.BAD_INPUT
    assert ran.err.splitlines() == [
        "ringfence: line 3: number: '12ab' is not a telephone number: write + and digits",
        "ringfence: line 4: listed_on: 'soon' is not a date: write 2026-11-21",
        "ringfence: 2 lines are bad, so nothing was loaded; --skip-bad loads the others",
    ]
    assert await listed(connection) == []
    assert await noted(connection, "do-not-originate.load") == []
    skipped = ringfence.ok("do-not-originate", "load", "-", *DNO, "--skip-bad", "--json", stdin=content)
    assert (skipped.json["added"], skipped.json["bad_lines"]) == (1, 2)
    assert "line 3" in skipped.err
    assert await listed(connection) == [12025550100]


async def test_a_dry_run_tells_and_changes_nothing(ringfence: Command, connection: asyncpg.Connection) -> None:
    load(ringfence, numbers(3))
    ran = ringfence.ok(
        "do-not-originate", "load", "-", *DNO, "--dry-run", stdin=numbers(14, start=12022220001).encode()
    )
    assert ran.out.splitlines() == [
        "unallocated, nanpa: 12 would be added, 1 would be removed, 0 given another date, 2 unchanged; "
        "0 lines skipped",
        "added: " + ", ".join(f"+{12022220003 + place}" for place in range(10)) + ", …",
        "removed: +12022220000",
    ]
    assert len(await listed(connection)) == 3
    assert len(await noted(connection, "do-not-originate.load")) == 1


async def test_add_only_removes_nothing(ringfence: Command, connection: asyncpg.Connection) -> None:
    load(ringfence, numbers(3))
    done = load(ringfence, "number\n+12025550199\n", "--add-only")
    assert (done["added"], done["removed"], done["unchanged"]) == (1, 0, 3)
    assert len(await listed(connection)) == 4


async def test_a_truncated_file_does_not_empty_a_list(ringfence: Command, connection: asyncpg.Connection) -> None:
    load(ringfence, numbers(1200))
    for options in ((), ("--dry-run",)):
        cut = ringfence("do-not-originate", "load", "-", *DNO, *options, stdin=numbers(599).encode())
        assert cut.code == ExitCode.CONFLICT
        assert "take 601 of 1,200 entries off the list of category 'unallocated' and source 'nanpa'" in cut.err
    empty = ringfence("do-not-originate", "load", "-", *DNO, stdin=b"number\n")
    assert (empty.code, "the file holds no number" in empty.err) == (ExitCode.CONFLICT, True)
    assert len(await listed(connection)) == 1200
    assert load(ringfence, numbers(600))["removed"] == 600
    assert load(ringfence, "number\n", "--allow-shrink")["removed"] == 600


async def test_a_range_is_listed_as_the_fewest_prefixes(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    load(ringfence, "first,last\n+12022220990,+12022223001\n")
    assert await listed(connection) == [12022221, 12022222, 1202222099, 12022223000, 12022223001]


def test_an_entry_is_found_by_every_number_it_holds(ringfence: Command) -> None:
    load(ringfence, "prefix\n+1202222\n+1202\n+12022229\n")
    found = ringfence.ok("do-not-originate", "list", "--number", "+12022220123", "--json").json
    assert [row["prefix"] for row in found] == ["+1202222", "+1202"]
    assert len(ringfence.ok("do-not-originate", "list", "--category", "unallocated", "--json").json) == 3
    assert ringfence.ok("do-not-originate", "list", "--source", "other", "--json").json == []
    still = ringfence.ok("do-not-originate", "remove", "+1202222", *DNO)
    assert "it is still refused: +1202 is listed as unallocated from nanpa" in still.out
    gone = ringfence("do-not-originate", "remove", "+1202222", *DNO)
    assert gone.code == ExitCode.NOT_FOUND
    assert "'ringfence do-not-originate list --number +1202222' shows" in gone.err


async def test_adding_twice_changes_nothing_and_each_change_is_noted(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    for already in (False, True):
        ran = ringfence.ok("do-not-originate", "add", "202-555-0100", *DNO, "--listed-on", "2026-03-01", "--json")
        assert ran.json["already_there"] is already
    ringfence.ok("do-not-originate", "remove", "+12025550100", *DNO, "--reason", "reassigned")
    [added] = await noted(connection, "do-not-originate.add")
    [removed] = await noted(connection, "do-not-originate.remove")
    assert (added["prefix"], added["listed_on"]) == (12025550100, "2026-03-01")
    assert (removed["listed_on"], removed["reason"]) == ("2026-03-01", "reassigned")


def test_sources_tell_how_large_and_how_new_each_list_is(ringfence: Command) -> None:
    assert "nothing is listed" in ringfence.ok("do-not-originate", "sources").out
    load(ringfence, "number,listed_on\n+12025550100,2026-01-01\n+12025550101,2026-02-02\n")
    ringfence.ok("do-not-originate", "add", "+12025550100", "--category", "invalid", "--source", "staff")
    by_hand, loaded = ringfence.ok("do-not-originate", "sources", "--json").json
    assert (loaded["category"], loaded["entries"], loaded["newest"]) == ("unallocated", 2, "2026-02-02")
    assert loaded["loaded_at"] is not None
    assert (by_hand["category"], by_hand["loaded_at"]) == ("invalid", None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("load", "-", "--category", "spam", "--source", "x"), "--category: 'spam' is none of subscriber_request"),
        (("load", "-", "--category", "unused", "--source", " "), "--source: give 1 to 200 characters"),
        (("load", "/nowhere.csv", *DNO), "/nowhere.csv: cannot be read: No such file or directory"),
        (("add", "+1", *DNO), "NUMBER: +1 would hold every number of a country"),
        (("add", "+12025550100", *DNO, "--listed-on", "1 May"), "--listed-on: '1 May' is not a date"),
        (("list", "--number", "x"), "--number: 'x' is not leading digits"),
        (("list", "--category", "spam"), "--category: 'spam' is none of"),
    ],
)
def test_what_cannot_be_is_named(ringfence: Command, arguments: tuple[str, ...], said: str) -> None:
    ran = ringfence("do-not-originate", *arguments)
    assert (ran.code, ran.out) == (ExitCode.BAD_INPUT, "")
    assert said in ran.err


async def test_two_loads_of_one_list_at_once_come_one_after_the_other(database: DatabaseSettings) -> None:
    onto = do_not_originate("unallocated", "nanpa")

    async def run(start: int) -> tuple[int, int]:
        async with connected(database, application="test", actor="tester") as opened:
            rows = [(12022220000 + place, None) for place in range(start, start + 500)]
            done = await load_list(opened, onto, rows, Faults(), origin="test", digest=lambda: "")
            assert done is not None
            return done.added, done.removed

    done = await asyncio.gather(*(run(start) for start in (0, 250)))
    assert sorted(done) == [(250, 250), (500, 0)]


async def test_a_daemon_may_not_change_a_list(connection: asyncpg.Connection) -> None:
    await connection.execute("set role ringfence_daemon")
    for statement in ("select ringfence.lock_number_lists()", "delete from ringfence.do_not_originate"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_an_admin_may_load_a_list(connection: asyncpg.Connection) -> None:
    await connection.execute("set role ringfence_admin")
    rows = [(12022220000 + place, None) for place in range(1500)]
    done = await load_list(
        connection, do_not_originate("unused", "x"), rows, Faults(), origin="test", digest=lambda: ""
    )
    assert done is not None
    assert done.added == 1500


# --- do-not-call and consents --------------------------------------------------------------------------------


async def telemarketer(connection: asyncpg.Connection) -> None:
    await make_customer(connection)
    await connection.execute("update endpoints set traffic = 'telemarketing'")
    await connection.execute("delete from calling_hours")


async def test_a_telemarketing_call_to_a_listed_number_is_refused_unless_it_agreed(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await telemarketer(connection)
    content = f"number\n+{CALLED}\n".encode()
    ringfence.ok("do-not-call", "load", "-", "--source", "FTC", stdin=content)
    assert await reason(connection) == "called_number_do_not_call"
    ringfence.ok("consent", "add", "acme", f"+{CALLED}", "--evidence", "form 7")
    assert await reason(connection) == "authorized"
    ringfence.ok("consent", "withdraw", "acme", f"+{CALLED}", "--reason", "asked to stop")
    assert await reason(connection) == "called_number_do_not_call"


async def test_a_customers_own_list_holds_for_that_customer_only(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await telemarketer(connection)
    await make_customer(connection, "zeta")
    await connection.execute("update endpoints set traffic = 'telemarketing'")
    ringfence.ok("do-not-call", "add", f"+{CALLED}", "--source", "own", "--customer", "zeta")
    assert await reason(connection) == "authorized"
    assert await reason(connection, "ZETA") == "called_number_do_not_call"
    [row] = ringfence.ok("do-not-call", "list", "--number", f"+{CALLED}", "--json").json
    assert (row["customer"], row["source"]) == ("zeta", "own")
    ringfence.ok("do-not-call", "remove", f"+{CALLED}", "--source", "own", "--customer", "zeta")
    assert await reason(connection, "ZETA") == "authorized"
    assert [entry["customer"] for entry in await noted(connection, "do-not-call.remove")] == ["zeta"]


async def test_a_do_not_call_list_is_loaded_and_compared(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    registry = ("do-not-call", "load", "-", "--source", "FTC", "--json")
    ringfence.ok(*registry, stdin=b"202,5550100\n202,5550101\n")
    again = ringfence.ok(*registry, stdin=b"202,5550101\n202,5550102\n").json
    assert (again["added"], again["removed"], again["unchanged"]) == (1, 1, 1)
    ringfence.ok("do-not-call", "load", "-", "--source", "FTC", "--customer", "acme", stdin=b"2025550100\n")
    own, common = sorted(
        ringfence.ok("do-not-call", "sources", "--json").json, key=lambda row: row["customer"], reverse=True
    )
    assert (own["customer"], own["entries"], common["customer"], common["entries"]) == ("acme", 1, "*", 2)
    nobody = ringfence("do-not-call", "load", "-", "--source", "FTC", "--customer", "acne", stdin=b"2025550100\n")
    assert (nobody.code, "did you mean 'acme'?" in nobody.err) == (ExitCode.NOT_FOUND, True)


async def test_consents_are_loaded_renewed_and_never_dropped(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    header = "number,evidence,given_at,valid_until\n"
    first = header + "+12025550100,form 1,2026-01-01,\n+12025550101,form 2,2026-01-01,2999-01-01\n"
    second = header + "+12025550101,form 2,2026-01-01,\n+12025550102,form 3,,\n"
    command = ("consent", "load", "-", "acme", "--json")
    assert ringfence.ok(*command, stdin=first.encode()).json["added"] == 2
    dry = ringfence.ok(*command, "--dry-run", stdin=second.encode()).json
    done = ringfence.ok(*command, stdin=second.encode()).json
    for told in (dry, done):
        assert (told["added"], told["changed"], told["unchanged"]) == (1, 1, 0)
    again = ringfence.ok(*command, stdin=second.encode()).json
    assert (again["added"], again["changed"], again["unchanged"]) == (0, 0, 2)
    shown = ringfence.ok("consent", "list", "acme", "--json").json
    assert [(row["number"], row["valid_until"]) for row in shown] == [
        ("+12025550100", None),
        ("+12025550101", None),
        ("+12025550102", None),
    ]
    details = await noted(connection, "consent.load")
    assert details[0]["sha256"] == sha256(first.encode()).hexdigest()
    assert len(details) == 3


async def test_loading_an_old_file_again_does_not_undo_a_withdrawal(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    for content in (b"number\n+12025550100\n", b"number,given_at\n+12025550101,2026-01-01\n"):
        command = ("consent", "load", "-", "acme", "--evidence", "web form", "--json")
        number = content.split(b"\n")[1].split(b",")[0].decode()
        ringfence.ok(*command, stdin=content)
        ringfence.ok("consent", "withdraw", "acme", number, "--reason", "asked to stop")
        again = ringfence.ok(*command, stdin=content).json
        assert (again["changed"], again["ended"]) == (0, 1)
        [shown] = ringfence.ok("consent", "list", "--number", number, "--json").json
        assert shown["holds"] is False
        twice = ringfence("consent", "withdraw", "acme", number, "--reason", "again")
        assert twice.code == ExitCode.CONFLICT
        ringfence.ok("consent", "add", "acme", number, "--evidence", "new form")
        [shown] = ringfence.ok("consent", "list", "--number", number, "--json").json
        assert (shown["holds"], shown["evidence"]) == (True, "new form")


async def test_each_change_of_a_consent_is_noted_with_what_was_before(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    add = ("consent", "add", "acme", "+12025550100", "--json")
    assert ringfence.ok(*add, "--evidence", "form 1").json["already_there"] is False
    assert ringfence.ok(*add, "--evidence", "form 1").json["already_there"] is True
    ringfence.ok(*add, "--evidence", "form 2", "--until", "2999-01-01")
    ringfence.ok("consent", "withdraw", "acme", "+12025550100", "--reason", "asked to stop")
    _, changed = await noted(connection, "consent.add")
    assert (changed["evidence"], changed["before"]["evidence"]) == ("form 2", "form 1")
    [withdrawn] = await noted(connection, "consent.withdraw")
    assert withdrawn == {"number": 12025550100, "evidence": "form 2", "reason": "asked to stop"}


async def test_a_number_twice_in_a_file_of_consents_is_a_bad_line(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    await make_customer(connection)
    content = b"number,evidence\n+12025550100,a\n+12025550101,b\n+12025550100,c\n"
    ran = ringfence("consent", "load", "-", "acme", stdin=content)
    assert ran.code == ExitCode.BAD_INPUT
    assert "line 4: number: +12025550100 is also on line 2" in ran.err
    assert await connection.fetchval("select count(*) from call_consents") == 0
    done = ringfence.ok("consent", "load", "-", "acme", "--skip-bad", "--json", stdin=content).json
    assert (done["added"], done["bad_lines"]) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ("add", "nobody", "+12025550100", "--evidence", "x"),
            ExitCode.NOT_FOUND,
            "there is no customer 'nobody'",
        ),
        (
            ("add", "acme", "12ab", "--evidence", "x"),
            ExitCode.BAD_INPUT,
            "NUMBER: '12ab' is not a telephone number",
        ),
        (("add", "acme", "+12025550100", "--evidence", ""), ExitCode.BAD_INPUT, "--evidence: is empty"),
        (
            ("add", "acme", "+12025550100", "--evidence", "x", "--from", "2026-02-01", "--until", "2026-01-01"),
            ExitCode.BAD_INPUT,
            "--until: not after --from",
        ),
        (
            ("withdraw", "acme", "+12025550100", "--reason", "x"),
            ExitCode.NOT_FOUND,
            "has no consent of +12025550100",
        ),
    ],
)
async def test_a_consent_that_cannot_be_is_named(
    ringfence: Command, connection: asyncpg.Connection, arguments: tuple[str, ...], code: int, said: str
) -> None:
    await make_customer(connection)
    ran = ringfence("consent", *arguments)
    assert (ran.code, said in ran.err) == (code, True), ran.err
