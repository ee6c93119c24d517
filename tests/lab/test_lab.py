"""The lab itself: what the other tests rely on, tried for real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.lab.asterisk import Asterisk, Customer, Trunk
from tests.lab.available import asterisk_versions, postgres_versions, sipp_program
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import LabError, wait_until
from tests.lab.sipp import Call, CallRun, Carrier, place_calls, statuses

DIALPLAN = """
[from-customer]
exten => _0X.,1,Hangup(21)
exten => _7X.,1,Dial(PJSIP/${EXTEN}@carrier2,10)
 same => n,Hangup()
exten => _[1-689]X.,1,Dial(PJSIP/${EXTEN}@carrier,10)
 same => n,Hangup()
#include more.conf
"""

needs_sipp = pytest.mark.skipif(sipp_program() is None, reason="no SIPp: scripts/lab-fetch sipp")


@pytest.fixture(scope="module")
def carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    with Carrier(tmp_path_factory.mktemp("carrier")) as running:
        yield running


@pytest.fixture(scope="module")
def second_carrier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    directory = tmp_path_factory.mktemp("carrier2")
    with Carrier(directory, address="127.0.0.3", scenario="carrier-silent") as running:
        yield running


@pytest.fixture(scope="module", params=asterisk_versions())
def asterisk(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    carrier: Carrier,
    second_carrier: Carrier,
) -> Iterator[Asterisk]:
    customers = [
        Customer("acme", "127.0.0.11", "ACME", variables={"CUSTOMER": "acme"}),
        Customer("globex", "127.0.0.12", "GLOBEX"),
    ]
    trunks = [
        Trunk("carrier", carrier.address, carrier.port),
        Trunk("carrier2", second_carrier.address, second_carrier.port),
    ]
    directory = tmp_path_factory.mktemp(f"asterisk{request.param}")
    more = {"more.conf": "[elsewhere]\nexten => s,1,NoOp()\n"}
    with Asterisk(
        request.param, directory, customers=customers, trunks=trunks, extensions=DIALPLAN, files=more
    ) as running:
        yield running


@needs_sipp
def test_a_call_reaches_the_carrier_and_is_counted_on_both_sides(
    asterisk: Asterisk, carrier: Carrier, tmp_path: Path
) -> None:
    before = len(carrier.invites())
    calls = [Call(f"4420712300{n:02}", display="Acme Ltd") for n in range(5)]
    results = place_calls(calls, tmp_path, target=asterisk.sip_address, rate=50)
    assert [result.status for result in results] == [200] * 5
    assert all(result.ended_by == "caller" for result in results)
    invites = carrier.wait_for(before + 5)[before:]
    assert sorted(invite.request_user for invite in invites) == sorted(call.called for call in calls)
    assert {invite.from_user for invite in invites} == {"442071838750"}
    wait_until(lambda: asterisk.active_channels() == 0, 5, "all channels are gone", log=asterisk.log)
    records = [record for record in asterisk.cdrs() if record["dst"].startswith("4420712300")]
    assert [record["disposition"] for record in records] == ["ANSWERED"] * 5
    assert {record["accountcode"] for record in records} == {"ACME"}


@needs_sipp
def test_a_rejected_call_gets_403_and_never_reaches_the_carrier(
    asterisk: Asterisk, carrier: Carrier, tmp_path: Path
) -> None:
    before = len(carrier.invites())
    calls = [Call("0900123"), Call("442071230000"), Call("0900124")]
    results = place_calls(calls, tmp_path, target=asterisk.sip_address, source_ip="127.0.0.12")
    assert [result.status for result in results] == [403, 200, 403]
    assert [invite.request_user for invite in carrier.wait_for(before + 1)[before:]] == ["442071230000"]


@needs_sipp
def test_headers_of_a_call_arrive(asterisk: Asterisk, carrier: Carrier, tmp_path: Path) -> None:
    before = len(carrier.invites())
    asserted = "P-Asserted-Identity: <sip:442071838799@example.com;user=phone>"
    place_calls([Call("442071230001")], tmp_path, target=asterisk.sip_address, headers=[asserted])
    (invite,) = carrier.wait_for(before + 1)[before:]
    assert invite.asserted_user == invite.from_user == "442071838799"
    assert invite.value("user-agent") == "lab-asterisk"
    assert invite.identity is None


@needs_sipp
def test_a_caller_who_gives_up(asterisk: Asterisk, second_carrier: Carrier, tmp_path: Path) -> None:
    before = len(second_carrier.invites())
    (result,) = place_calls(
        [Call("7123")], tmp_path, target=asterisk.sip_address, scenario="customer-cancels", cancel_ms=100
    )
    assert result.status == 487
    assert len(second_carrier.wait_for(before + 1)) == before + 1


@needs_sipp
def test_a_blind_transfer_makes_a_second_call(asterisk: Asterisk, carrier: Carrier, tmp_path: Path) -> None:
    before = len(carrier.invites())
    (result,) = place_calls(
        [Call("442071230002")],
        tmp_path,
        target=asterisk.sip_address,
        scenario="customer-blind-transfer",
        transfer_to="442071230003",
    )
    assert result.transfer[0] == "202"
    assert result.transfer[-1] == "200"
    called = [invite.request_user for invite in carrier.wait_for(before + 2)[before:]]
    assert called == ["442071230002", "442071230003"]
    asterisk.cli("channel request hangup all")
    wait_until(lambda: asterisk.active_channels() == 0, 5, "all channels are gone", log=asterisk.log)


@needs_sipp
@pytest.mark.skipif(not asterisk_versions(), reason="no Asterisk: scripts/lab-fetch asterisk22")
@pytest.mark.parametrize(
    ("scenario", "status", "ended_by"), [("carrier-busy", 486, None), ("carrier-hangs-up", 200, "callee")]
)
def test_carriers_that_refuse_or_hang_up(tmp_path: Path, scenario: str, status: int, ended_by: str | None) -> None:
    with Carrier(tmp_path / "carrier", address="127.0.0.4", scenario=scenario) as carrier:
        trunks = [Trunk("carrier", carrier.address, carrier.port)]
        with Asterisk(asterisk_versions()[-1], tmp_path / "asterisk", trunks=trunks) as asterisk:
            (result,) = place_calls(
                [Call("442071230004")], tmp_path / "calls", target=asterisk.sip_address, hold_ms=5_000
            )
            assert (result.status, result.ended_by) == (status, ended_by)
            asterisk.kill9()
            asterisk.restart()
            assert "Asterisk" in asterisk.cli("core show version")


@needs_sipp
def test_calls_that_get_no_answer_are_known_by_index(tmp_path: Path) -> None:
    began = time.monotonic()
    run = CallRun([Call("1"), Call("2")], tmp_path, target=("127.0.0.1", 9), answer_timeout=0.5, timeout=5)
    results = run.start().wait()
    assert statuses(results) == {None: 2}
    assert time.monotonic() - began < 10


def test_a_call_that_sipp_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="semicolon"):
        Call("1", display="a;b").row(0)


@pytest.mark.parametrize("version", postgres_versions())
def test_postgres_answers_and_survives_a_kill_and_a_freeze(version: int, tmp_path: Path) -> None:
    async def query(dsn: str, sql: str) -> object:
        connection = await asyncpg.connect(dsn, timeout=5)
        try:
            return await connection.fetchval(sql)
        finally:
            await connection.close(timeout=5)

    async def check(server: EmbeddedPostgres) -> None:
        dsn = server.create_database("trial")
        assert await query(dsn, "select 1") == 1
        assert await query(server.dsn("trial", tcp=True), "show server_version_num") == server.psql(
            "show server_version_num"
        )
        with pytest.raises(asyncpg.InvalidPasswordError):
            await query(server.dsn("trial", tcp=True).replace(server.password, "wrong"), "select 1")

        await query(dsn, "create table kept as select 7 as n")
        connection = await asyncpg.connect(dsn)
        server.kill9()
        assert not server.running()
        with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError, asyncpg.InterfaceError)):
            await connection.fetchval("select 1", timeout=5)
        server.restart()
        assert await query(dsn, "select n from kept") == 7

        connection = await asyncpg.connect(dsn)
        server.freeze()
        waiting = asyncio.create_task(connection.fetchval("select 2"))
        done, _ = await asyncio.wait([waiting], timeout=0.3)  # nothing to await: it must stay silent
        assert not done
        server.thaw()
        assert await asyncio.wait_for(waiting, 5) == 2
        await connection.close()

    with EmbeddedPostgres(version, tmp_path / "postgres") as server:
        assert server.psql("show server_version").startswith(str(version))
        asyncio.run(check(server))


def test_waiting_in_vain_says_what_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("the last words\n", encoding="utf-8")
    with pytest.raises(LabError, match=r"(?s)the moon.*the last words"):
        wait_until(lambda: False, 0.05, "the moon", log=log)
