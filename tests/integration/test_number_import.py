"""Importing numbers from CSV: all or nothing, every bad line named, harmless when run again."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from hashlib import sha256
from pathlib import Path

import asyncpg
import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ExitCode
from tests.integration.command import Command

pytestmark = pytest.mark.integration


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    command = Command(database, tmp_path)
    command.ok("customer", "add", "acme", "--name", "Acme")
    return command


async def blocks(connection: asyncpg.Connection) -> list[tuple[int, int]]:
    rows = await connection.fetch("select first, last from ringfence.grants order by first")
    return [(row["first"], row["last"]) for row in rows]


def lines(*texts: str) -> bytes:
    return "\n".join(("number", *texts, "")).encode()


def import_(ringfence: Command, content: bytes, *options: str, code: int = ExitCode.OK) -> str:
    ran = ringfence("number", "import", "-", *options, stdin=content)
    assert ran.code == code, ran.err
    return ran.err if code else ran.out


FOR_ACME = ("--customer", "acme")


async def test_consecutive_numbers_become_one_grant(ringfence: Command, connection: asyncpg.Connection) -> None:
    content = lines("+12025550102", "2025550100", "(202) 555-0101", "+12025550104", "+442079460000")
    out = import_(ringfence, content, *FOR_ACME)
    assert out.startswith("granted 5 numbers in 3 grants to 1 customer(s)")
    assert await blocks(connection) == [
        (12025550100, 12025550102),
        (12025550104, 12025550104),
        (442079460000, 442079460000),
    ]
    noted = await connection.fetchval("select detail from ringfence.policy_changes where action = 'number.import'")
    assert '"numbers": 5' in noted


async def test_numbers_on_different_terms_stay_apart(ringfence: Command, connection: asyncpg.Connection) -> None:
    content = (
        "Customer,Number,Evidence,Source,Attestation,Valid Until\n"
        'acme,+12025550100,"LOA 7, page ""2""",letter,b,2999-01-01\n'
        "acme,+12025550101,LOA 8,letter,b,2999-01-01\n"
        "acme,+12025550102,LOA 8,letter,b,2999-01-01\n"
        "acme,+12025550103,LOA 8,,,\n"
    )
    import_(ringfence, content.encode())
    rows = await connection.fetch("select * from ringfence.grants order by first")
    assert [(r["first"] % 1000, r["last"] % 1000, r["source"], r["attestation"]) for r in rows] == [
        (100, 100, "letter", "B"),
        (101, 102, "letter", "B"),
        (103, 103, "assigned", "A"),
    ]
    assert rows[0]["evidence"] == 'LOA 7, page "2"'
    assert rows[0]["granted_by"] == "tester"


async def test_blocks_are_imported_as_they_stand(ringfence: Command, connection: asyncpg.Connection) -> None:
    content = b"first,last\n+12025550100,+12025550199\n+12025550200,+12025550299\n+12025550300,\n"
    import_(ringfence, content, *FOR_ACME)
    assert len(await blocks(connection)) == 3


async def test_one_bad_line_imports_nothing(ringfence: Command, connection: asyncpg.Connection) -> None:
    content = lines("+12025550100", "12ab", "+12025550101")
    err = import_(ringfence, content, *FOR_ACME, code=ExitCode.BAD_INPUT)
    assert err == (
        "ringfence: line 3: number: '12ab' is not a telephone number\n"
        "ringfence: 1 line is bad, so nothing was imported; --skip-bad imports the others\n"
    )
    assert await blocks(connection) == []


async def test_bad_lines_are_skipped_on_demand_and_still_named(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    content = lines("+12025550100", "12ab", "+12025550101")
    ran = ringfence.ok("number", "import", "-", *FOR_ACME, "--skip-bad", "--json", stdin=content)
    assert ran.json["numbers"] == 2
    assert ran.json["first_bad_lines"] == [{"line": 3, "fault": "number: '12ab' is not a telephone number"}]
    assert "line 3" in ran.err
    assert await blocks(connection) == [(12025550100, 12025550101)]


async def test_the_first_twenty_bad_lines_are_shown_and_all_are_counted(ringfence: Command) -> None:
    content = b"customer,number\n" + b"acme,x\n" * 15 + b"nobody,+12025550100\n" * 15
    err = import_(ringfence, content, code=ExitCode.BAD_INPUT).splitlines()
    assert len(err) == 22
    assert err[0].startswith("ringfence: line 2: number: 'x'")
    assert err[19] == "ringfence: line 21: customer: there is no customer 'nobody'"
    assert err[20:] == [
        "ringfence: and 10 more bad lines",
        "ringfence: 30 lines are bad, so nothing was imported; --skip-bad imports the others",
    ]


async def test_a_number_twice_in_the_file_names_both_lines(ringfence: Command) -> None:
    content = b"first,last\n+12025550150,\n+12025550100,+12025550199\n+12025550300,\n+12025550300,\n"
    err = import_(ringfence, content, *FOR_ACME, code=ExitCode.BAD_INPUT)
    assert "line 2: +12025550150 is also on line 3" in err
    assert "line 5: +12025550300 is also on line 4" in err


async def test_running_an_import_again_is_harmless(ringfence: Command, connection: asyncpg.Connection) -> None:
    content = lines(*(f"+1202555{number:04}" for number in range(100, 160)), "+12025559000")
    import_(ringfence, content, *FOR_ACME)
    before = await blocks(connection)
    again = ringfence.ok("number", "import", "-", *FOR_ACME, "--json", stdin=content).json
    assert (again["numbers"], again["already_there"], again["bad_lines"]) == (0, 61, 0)
    assert await blocks(connection) == before


async def test_a_number_granted_on_other_terms_is_an_overlap(ringfence: Command) -> None:
    ringfence.ok("number", "grant", "acme", "+12025550100", "+12025550109", "--attestation", "B")
    err = import_(ringfence, lines("+12025550105"), *FOR_ACME, code=ExitCode.BAD_INPUT)
    assert "line 2: +12025550105 overlaps grant 1 (+12025550100 to +12025550109)" in err


async def test_a_number_of_another_customer_is_a_bad_line_that_names_it(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("customer", "add", "zeta", "--name", "Zeta")
    ringfence.ok("number", "grant", "zeta", "+12025550100", "+12025550109")
    ringfence.ok("number", "grant", "zeta", "+12025550300", "--shared")
    content = b"first,last,shared\n+12025550105,,yes\n+12025550090,+12025550100,\n+12025550200,+12025550300,no\n"
    err = import_(ringfence, content, *FOR_ACME, code=ExitCode.BAD_INPUT)
    assert err.splitlines()[:3] == [
        "ringfence: line 2: +12025550105 meets grant 1 (+12025550100 to +12025550109) of customer 'zeta': "
        "both must be shared",
        "ringfence: line 3: +12025550090 to +12025550100 meets grant 1 (+12025550100 to +12025550109) of customer "
        "'zeta': both must be shared",
        "ringfence: line 4: +12025550200 to +12025550300 meets grant 2 (+12025550300) of customer 'zeta': "
        "both must be shared",
    ]
    assert len(await blocks(connection)) == 2


async def test_a_number_that_both_share_is_imported(ringfence: Command, connection: asyncpg.Connection) -> None:
    ringfence.ok("customer", "add", "zeta", "--name", "Zeta")
    ringfence.ok("number", "grant", "zeta", "+12025550100", "+12025550109", "--shared")
    import_(ringfence, b"number,shared\n+12025550105,yes\n", *FOR_ACME)
    import_(ringfence, b"number\n+12025550106\n", *FOR_ACME, "--shared")
    shared = await connection.fetch("select first, shared from ringfence.grants where customer = 'acme'")
    assert [tuple(row) for row in shared] == [(12025550105, True), (12025550106, True)]


async def test_two_customers_of_one_file_may_hold_a_number_only_if_both_lines_are_shared(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("customer", "add", "zeta", "--name", "Zeta")
    content = (
        b"customer,first,last,shared\nacme,+12025550100,+12025550109,yes\nzeta,+12025550105,,yes\n"
        b"acme,+12025550200,+12025550209,yes\nzeta,+12025550205,,no\nzeta,+12025550300,,\nacme,+12025550300,,\n"
    )
    err = import_(ringfence, content, code=ExitCode.BAD_INPUT)
    assert err.splitlines()[:-1] == [
        "ringfence: line 5: +12025550205 is also on line 4, for customer 'acme': both must be shared",
        "ringfence: line 7: +12025550300 is also on line 6, for customer 'zeta': both must be shared",
    ]
    import_(ringfence, content, "--skip-bad")
    assert len(await blocks(connection)) == 4


async def test_shared_and_unshared_numbers_do_not_become_one_grant(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    content = b"number,shared\n+12025550100,yes\n+12025550101,true\n+12025550102,no\n"
    import_(ringfence, content, *FOR_ACME)
    assert await blocks(connection) == [(12025550100, 12025550101), (12025550102, 12025550102)]
    assert "shared: 'maybe' is neither yes nor no" in import_(
        ringfence, b"number,shared\n+12025550109,maybe\n", *FOR_ACME, code=ExitCode.BAD_INPUT
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("+18005550100,letter", "line 2: source: +18005550100 is toll-free, for which 'letter' is no proof"),
        ("+12025550100,resporg", "line 2: source: +12025550100 is not toll-free, and 'resporg' is proof for"),
    ],
)
async def test_a_toll_free_number_rests_on_its_resporg(ringfence: Command, line: str, said: str) -> None:
    content = f"number,source\n{line}\n".encode()
    assert said in import_(ringfence, content, *FOR_ACME, code=ExitCode.BAD_INPUT)
    import_(ringfence, b"number,source\n+18005550100,resporg\n+12025550100,letter\n", *FOR_ACME)


# --- --replace -----------------------------------------------------------------------------------------------

REPLACE = ("--replace", "acme")


async def test_replacing_makes_the_grants_equal_to_the_file(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("customer", "add", "zeta", "--name", "Zeta")
    ringfence.ok("number", "grant", "zeta", "+12025559999")
    import_(ringfence, lines("+12025550100", "+12025550101", "+12025550300", "+12025550400"), *FOR_ACME)
    content = b"number,evidence\n+12025550100,\n+12025550101,\n+12025550400,new letter\n+12025550500,\n"
    ran = ringfence.ok("number", "import", "-", *REPLACE, "--reason", "monthly list", "--json", stdin=content)
    told = ran.json
    assert (told["already_there"], told["grants"], told["revoked"], told["revoked_numbers"]) == (2, 2, 2, 1)
    kept = await connection.fetch("select grant_id, first, evidence from ringfence.grants order by first")
    assert [tuple(row) for row in kept if row["first"] != 12025559999] == [
        (kept[0]["grant_id"], 12025550100, ""),
        (kept[1]["grant_id"], 12025550400, "new letter"),
        (kept[2]["grant_id"], 12025550500, ""),
    ]
    gone = await connection.fetch("select first, reason, revoked_by from ringfence.revoked_grants order by first")
    assert [tuple(row) for row in gone] == [
        (12025550300, "monthly list", "tester"),
        (12025550400, "monthly list", "tester"),
    ]
    [noted] = await connection.fetch("select detail from ringfence.policy_changes where action = 'number.replace'")
    assert json.loads(noted["detail"]) == {
        "origin": "-", "sha256": sha256(content).hexdigest(), "reason": "monthly list", "revoked_grants": 2,
        "revoked_numbers": 1, "grants": 2, "numbers": 2,
    }  # fmt: skip
    again = ringfence.ok("number", "import", "-", *REPLACE, "--json", stdin=content).json
    assert (again["grants"], again["revoked"], again["already_there"]) == (0, 0, 4)


async def test_replacing_cuts_a_block_that_the_file_holds_only_in_part(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("number", "grant", "acme", "+12025550100", "+12025550199")
    dry = import_(ringfence, b"first,last\n+12025550100,+12025550149\n", *REPLACE, "--dry-run")
    assert "would take 50 numbers away; 1 grants are replaced or gone" in dry
    assert await blocks(connection) == [(12025550100, 12025550199)]
    import_(ringfence, b"first,last\n+12025550100,+12025550149\n", *REPLACE)
    assert await blocks(connection) == [(12025550100, 12025550149)]


async def test_a_bad_line_or_anothers_number_replaces_nothing(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("customer", "add", "zeta", "--name", "Zeta")
    ringfence.ok("number", "grant", "zeta", "+12025559999")
    ringfence.ok("number", "grant", "acme", "+12025550100")
    for line in ("12ab", "+12025559999"):
        import_(ringfence, lines("+12025550101", line), *REPLACE, code=ExitCode.BAD_INPUT)
    assert await blocks(connection) == [(12025550100, 12025550100), (12025559999, 12025559999)]
    skip = import_(ringfence, lines("+12025550101"), *REPLACE, "--skip-bad", code=ExitCode.BAD_INPUT)
    assert "--skip-bad: not with --replace" in skip
    assert "--reason: only with --replace" in import_(
        ringfence, lines(), *FOR_ACME, "--reason", "x", code=ExitCode.BAD_INPUT
    )


async def test_a_truncated_file_does_not_take_a_customers_numbers(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    ringfence.ok("number", "grant", "acme", "+12025550000", "+12025551999")
    cut = b"first,last\n+12025550000,+12025550998\n"
    err = import_(ringfence, cut, *REPLACE, code=ExitCode.CONFLICT)
    assert "take 1,001 of the 2,000 numbers of customer 'acme' away, more than half" in err
    assert await blocks(connection) == [(12025550000, 12025551999)]
    import_(ringfence, cut, *REPLACE, "--allow-shrink")
    assert await blocks(connection) == [(12025550000, 12025550998)]


async def test_a_dry_run_checks_everything_and_changes_nothing(
    ringfence: Command, connection: asyncpg.Connection
) -> None:
    out = import_(ringfence, lines("+12025550100", "+12025550101"), *FOR_ACME, "--dry-run")
    assert out.startswith("would grant 2 numbers in 1 grants")
    import_(ringfence, lines("12ab"), *FOR_ACME, "--dry-run", code=ExitCode.BAD_INPUT)
    assert await blocks(connection) == []
    changes = await connection.fetchval(
        "select count(*) from ringfence.policy_changes where action = 'number.import'"
    )
    assert changes == 0


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfnumber\r\n+12025550100\r\n\r\n+12025550101\r\n",
        b'"number"\n"+12025550100"\n"+12025550101"',
        b"NUMBER\n  +1 202-555-0100  \n+1 (202) 555.0101\n",
    ],
)
async def test_byte_order_marks_carriage_returns_quotes_and_blanks_are_read(
    ringfence: Command, connection: asyncpg.Connection, content: bytes
) -> None:
    import_(ringfence, content, *FOR_ACME)
    assert await blocks(connection) == [(12025550100, 12025550101)]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"phone\n+12025550100\n", "line 1: 'phone' is not a column"),
        (b"nummer\n+12025550100\n", "did you mean 'number'?"),
        (b"number;evidence\n", "(columns are separated by commas)"),
        (b"number,number\n", "line 1: a column is named twice"),
        (b"number,first\n", "line 1: there must be either a column 'number' or"),
        (b"evidence\n", "line 1: there must be either a column 'number' or"),
        (b"customer,number\n", "leave out --customer"),
        ("number\n+12025550100\n".encode("utf-16"), "the file is UTF-16: save it as UTF-8"),
        (b"number\n+12025550100\n+1202\xff\n", "line 3: is not valid UTF-8"),
        (b"number\n+12025550100,x\n", "line 2: has 2 columns, and the header 1"),
        (b'number\n"+12025550100\n', "line 2: a quote is opened and never closed"),
        (b'number\n"+1202"5550100\n', "line 2: not CSV"),
        (b'number\n"' + b"1\n" * 9000 + b'"\n', "line 2: a field is longer than 8,192 characters"),
        (b"number\n+12025550100\n" + b"1" * 10_000_000 + b"\n", "line 3: longer than 65,536 bytes"),
        (b"number\r+12025550100\r", "line 1: a carriage return stands alone"),
        (b"number\n+12025550100\0\n", "line 2: number: '+12025550100\\x00' is not a telephone number"),
        (b"number,evidence\n+12025550100,a\0b\n", "line 2: evidence: holds a control character"),
        (b"number,source\n+12025550100,hearsay\n", "line 2: source: 'hearsay' is none of"),
        (b"number,valid_until\n+12025550100,soon\n", "line 2: valid_until: 'soon' is not a time"),
        (b"first,last\n+12025550109,+12025550100\n", "line 2: first: the last number, +12025550100, is before"),
    ],
)
async def test_a_file_that_cannot_be_read_says_why_and_where(
    ringfence: Command, connection: asyncpg.Connection, content: bytes, said: str
) -> None:
    err = import_(ringfence, content, *FOR_ACME, code=ExitCode.BAD_INPUT)
    assert said in err.replace("\\\\x", "\\x")
    assert await blocks(connection) == []


def test_a_file_that_is_not_there_and_a_customer_that_is_not_there(ringfence: Command) -> None:
    missing = ringfence("number", "import", "/nowhere.csv", *FOR_ACME)
    assert missing.code == ExitCode.BAD_INPUT
    assert "/nowhere.csv: cannot be read: No such file or directory" in missing.err
    assert ringfence("number", "import", "-", "--customer", "acm").code == ExitCode.NOT_FOUND
    assert "there is no column 'customer'" in ringfence("number", "import", "-", stdin=b"number\n").err


async def test_an_interrupted_import_leaves_nothing(ringfence: Command, connection: asyncpg.Connection) -> None:
    running = ringfence.start("number", "import", "-", *FOR_ACME)
    assert running.stdin is not None
    running.stdin.write("number\n" + "".join(f"+1202555{number:04}\n" for number in range(9000)))
    running.stdin.flush()
    for _ in range(100):
        copying = await connection.fetchval("select count(*) from pg_stat_progress_copy")
        if copying:
            break
        await asyncio.sleep(0.05)
    assert copying
    began = time.monotonic()
    running.send_signal(signal.SIGINT)
    code = await asyncio.to_thread(running.wait, 10)
    assert (code, await blocks(connection)) == (ExitCode.INTERRUPTED, [])
    assert time.monotonic() - began < 5
    running.communicate()


async def test_fifty_thousand_numbers_in_any_order_are_granted_once_each(
    ringfence: Command, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    numbers = [12_022_000_000 + number for number in range(50_000)]
    random.Random(7).shuffle(numbers)
    file = tmp_path / "numbers.csv"
    file.write_text("number\n" + "".join(f"+{number}\n" for number in numbers), encoding="utf-8")
    done = ringfence.ok("number", "import", str(file), *FOR_ACME, "--json").json
    assert (done["numbers"], done["grants"]) == (50_000, 1)
    assert await blocks(connection) == [(12_022_000_000, 12_022_049_999)]
    again = ringfence.ok("number", "import", str(file), *FOR_ACME, "--json").json
    assert (again["numbers"], again["already_there"]) == (0, 50_000)
