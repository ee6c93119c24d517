"""AGI sessions over real sockets: recorded ones byte for byte, and hostile ones."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from ringfence.model import HungUpBy, Verdict
from tests.unit.asterisk_stand_ins import (
    Caller,
    Gateway,
    StandInGate,
    agi_header,
    answer_to_get,
    gateway,
    replay,
)

HEADER = agi_header("extension_allowed_22")
KINDS = ("extension_allowed", "leg_allowed", "transferee_allowed", "local_originate")


def verdict_in(command: str) -> str:
    assert command.startswith("EXEC MSet ")
    return command.rpartition("RINGFENCE_VERDICT=")[2]


async def question_answered(gate: Gateway) -> tuple[Caller, str]:
    """A session up to the verdict, which is returned with it and not acknowledged yet."""
    caller = await Caller.connect(gate.server.port)
    await caller.send(HEADER)
    await caller.send(answer_to_get(await caller.command(), {"CHANNEL(linkedid)": "lab-1"}))
    return caller, await caller.command()


async def idle(gate: Gateway) -> None:
    """Until no session is left."""
    async with asyncio.timeout(5):
        await gate.server.stop()


# --- what Asterisk really sends ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [16, 22])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_recorded_call_gets_its_verdict(kind: str, version: int) -> None:
    async with gateway() as gate:
        commands = await replay(gate.server.port, f"{kind}_{version}")
    assert verdict_in(commands[-1]) == "allow"
    assert len(gate.witness.told) == 1
    assert not gate.witness.lost
    assert not gate.log.named("agi.malformed")


@pytest.mark.parametrize("kind", ["extension_allowed_16", "leg_allowed_22"])
async def test_a_call_is_read_the_same_however_the_network_cuts_it(kind: str) -> None:
    async with gateway(first_line_timeout_ms=10_000, command_timeout_ms=10_000) as gate:
        for size in (*range(1, 40), 97, 513, 4096):
            assert verdict_in((await replay(gate.server.port, kind, size))[-1]) == "allow"
        attempts = gate.gate.attempts
        shown = {(a.caller, a.called, a.account, a.trunk, a.source_address, a.channel) for a in attempts}
        assert len(shown) == 1


async def test_the_attempt_shows_who_called_whom_from_where() -> None:
    async with gateway() as gate:
        await replay(gate.server.port, "extension_allowed_22")
    [attempt] = gate.gate.attempts
    assert (attempt.caller, attempt.called, attempt.account) == ("+12125550199", "12025550100", "ACME")
    assert (attempt.trunk, attempt.source_address) == ("customer", "127.0.0.32")
    assert attempt.call_ref.startswith("lab-")
    assert attempt.places["p_asserted_identity"] == "<sip:+12125550199@x.y>"
    assert attempt.places["from"].startswith('"Acme" <sip:12125550123@')
    assert (attempt.switch, attempt.host) == ("pbx", "here")


async def test_on_the_leg_the_caller_id_is_the_one_the_carrier_will_see() -> None:
    async with gateway() as gate:
        await replay(gate.server.port, "leg_allowed_16")
    [attempt] = gate.gate.attempts
    assert (attempt.caller, attempt.caller_name, attempt.called) == ("12125550123", "Acme", "92025550100")
    assert (attempt.account, attempt.trunk, attempt.source_address) == ("ACME", "customer", "127.0.0.31")
    assert attempt.channel.startswith("PJSIP/carrier-")


async def test_a_transferred_call_names_the_endpoint_that_transferred_it() -> None:
    async with gateway() as gate:
        await replay(gate.server.port, "transferee_allowed_22")
    [attempt] = gate.gate.attempts
    assert attempt.channel.startswith("PJSIP/carrier-")
    assert (attempt.trunk, attempt.source_address) == ("customer", "")
    assert attempt.places["first_caller"] == "12125550123"


async def test_a_call_without_a_caller_id_has_an_empty_one() -> None:
    async with gateway() as gate:
        await replay(gate.server.port, "local_originate_16")
    [attempt] = gate.gate.attempts
    assert (attempt.caller, attempt.caller_name, attempt.trunk) == ("", "", "")


@pytest.mark.parametrize("verdict", list(Verdict))
async def test_the_verdict_is_the_last_word_of_one_command(verdict: Verdict) -> None:
    async with gateway(StandInGate(verdict)) as gate:
        caller, command = await question_answered(gate)
        await caller.send(b"200 result=0\n")
        await caller.closed()
    assert verdict_in(command) == verdict.value
    assert command.count("RINGFENCE_VERDICT") == 1
    assert f"RINGFENCE_DELAY_MS={200 if verdict is Verdict.DELAY else 0}," in command
    assert ("RINGFENCE_CAUSE=21," in command) == (verdict is Verdict.REJECT)
    assert len(gate.witness.told) == (verdict is not Verdict.REJECT)


# --- what a caller puts into it ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [16, 22])
@pytest.mark.parametrize("kind", ["injected_lines", "injected_end", "torn_reply"])
async def test_a_line_break_in_a_recorded_caller_id_is_refused_as_malformed(kind: str, version: int) -> None:
    async with gateway() as gate:
        commands = await replay(gate.server.port, f"{kind}_{version}")
    assert verdict_in(commands[-1]) == "reject"
    assert "RINGFENCE_REASON=malformed_attempt" in commands[-1]
    assert not gate.gate.attempts
    [(attempt, reason)] = gate.gate.refused
    assert (reason, attempt.account, attempt.called) == ("malformed_attempt", "", "")
    assert attempt.channel.startswith("PJSIP/")
    assert attempt.caller == {"injected_lines": "1212\r", "injected_end": "1", "torn_reply": ""}[kind]
    assert str(attempt.decision_id) in commands[-1]
    assert len(gate.log.named("agi.malformed")) == 1


async def test_a_caller_who_forges_a_whole_header_and_the_replies_is_refused() -> None:
    forged = HEADER.replace(b"agi_accountcode: ACME", b"agi_accountcode: VICTIM")
    replies = b"200 result=1 (1)\n200 result=0\n" * 20
    async with gateway() as gate:
        caller = await Caller.connect(gate.server.port)
        await caller.send(forged + replies + HEADER)
        said = await caller.closed()
    assert not gate.gate.attempts
    assert b"VERDICT=allow" not in said


async def test_a_value_cannot_forge_its_neighbours() -> None:
    async with gateway() as gate:
        caller = await Caller.connect(gate.server.port)
        await caller.send(HEADER)
        values = {"CALLERID(ANI)": "1) 200 result=1 (4:evil,${EVIL}", "CONNECTEDLINE(num)": "hangup"}
        await caller.send(answer_to_get(await caller.command(), values))
        assert verdict_in(await caller.command()) == "allow"
        await caller.send(b"200 result=0\n")
        await caller.closed()
    [attempt] = gate.gate.attempts
    assert attempt.places["ani"] == values["CALLERID(ANI)"]
    assert attempt.places["connected_line"] == "hangup"


@pytest.mark.parametrize(
    "reply",
    [
        b"510 Invalid or unknown command\n",
        b"520-Invalid command syntax.  Proper usage follows:\nGets a variable\n520 End of proper usage.\n",
        b"511 Command Not Permitted on a dead channel or intercept routine\n",
        b"100 result=0 Trying...\n",
        b"200 result=0\n",
        b"200 result=1 (no boundary)\n",
        b"200 result=x\n",
        b"200 result=1 (a) \n",
        b"agi_callingpres: 0\n",
        b"\n",
        b"\xff\xff\n",
        b"200 result=1 (" + b"x" * 5000 + b")\n",
    ],
)
async def test_a_reply_that_is_not_the_one_asked_for_never_lets_the_call_out(reply: bytes) -> None:
    async with gateway() as gate:
        caller = await Caller.connect(gate.server.port)
        await caller.send(HEADER)
        await caller.command()
        await caller.send(reply)
        assert verdict_in(await caller.command()) == "reject"
        caller.writer.close()
        await caller.closed()
    assert not gate.gate.attempts
    assert not gate.witness.told


async def test_a_verdict_that_was_not_set_is_undelivered_and_overruled() -> None:
    async with gateway() as gate:
        caller, _ = await question_answered(gate)
        await caller.send(b"200 result=-2\n")
        assert verdict_in(await caller.command()) == "reject"
        caller.writer.close()
        await caller.closed()
    assert [by for _, by in gate.witness.lost] == [HungUpBy.UNKNOWN]
    assert not gate.gate.refused  # it has its decision already


async def test_a_customer_name_that_could_break_out_of_the_command_is_not_sent() -> None:
    async with gateway(StandInGate(customer="acme,RINGFENCE_VERDICT=allow")) as gate:
        _, command = await question_answered(gate)
    assert verdict_in(command) == "reject"
    assert "RINGFENCE_REASON=internal_error" in command
    assert gate.log.named("agi.failed")


# --- callers who hang up ----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"HANGUP\n", b"200 result=-1\n", b"200 result=-1 (hangup)\n"])
async def test_a_caller_who_hangs_up_before_the_question_is_complete_is_not_judged(line: bytes) -> None:
    async with gateway() as gate:
        caller = await Caller.connect(gate.server.port)
        await caller.send(HEADER)
        await caller.command()
        await caller.send(line)
        assert await caller.closed() == b""
    assert not gate.gate.attempts
    assert not gate.log.named("agi.malformed")


async def test_a_caller_who_hangs_up_instead_of_taking_the_verdict_leaves_it_undelivered() -> None:
    async with gateway() as gate:
        caller, _ = await question_answered(gate)
        await caller.send(b"HANGUP\n")
        await caller.closed()
    assert [by for _, by in gate.witness.lost] == [HungUpBy.CALLER]


async def test_a_caller_who_hangs_up_while_the_gate_decides_leaves_the_decision_undelivered() -> None:
    held = StandInGate(hold=asyncio.Event())
    async with gateway(held) as gate:
        caller = await Caller.connect(gate.server.port)
        await caller.send(HEADER)
        await caller.send(answer_to_get(await caller.command(), {}))
        async with asyncio.timeout(5):
            await held.asked.wait()
        await caller.send(b"HANGUP\n")
        await caller.close()
        assert held.hold is not None
        held.hold.set()
        await idle(gate)
    assert [by for _, by in gate.witness.lost] == [HungUpBy.CALLER]


async def test_a_connection_that_dies_before_the_verdict_is_acknowledged_leaves_it_undelivered() -> None:
    async with gateway() as gate:
        caller, command = await question_answered(gate)
        assert verdict_in(command) == "allow"
        caller.writer.transport.abort()
        await idle(gate)
    assert [by for _, by in gate.witness.lost] == [HungUpBy.UNKNOWN]


async def test_a_switch_that_never_acknowledges_the_verdict_does_not_hold_the_session() -> None:
    async with gateway(command_timeout_ms=20) as gate:
        caller, _ = await question_answered(gate)
        await caller.closed()
    assert [by for _, by in gate.witness.lost] == [HungUpBy.UNKNOWN]


async def test_a_refused_call_whose_caller_hangs_up_has_nothing_to_give_back() -> None:
    async with gateway(StandInGate(Verdict.REJECT)) as gate:
        caller, _ = await question_answered(gate)
        await caller.send(b"HANGUP\n")
        await caller.closed()
    assert not gate.witness.lost


# --- bounds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "bounds"),
    [
        (b"", {"first_line_timeout_ms": 20}),
        (HEADER[:200], {"first_line_timeout_ms": 20}),
        (b"agi_network: yes\n" + b"x" * 100_000, {}),
        (b"agi_network: yes\n" + b"agi_callerid: 1\n" * 10_000, {}),
        (b"agi_network: yes\n" + b"agi_callerid: " + b"1" * 1500 + b"\n" + b"agi_x: 1\n" * 1000, {}),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", {}),
        (b"\n\n", {}),
        (b"\0" * 4096, {}),
        (HEADER.replace(b"agi_network_script: gate", b"agi_network_script: other"), {}),
    ],
    ids=[
        "silence",
        "half a header",
        "endless line",
        "10000 headers",
        "too many bytes",
        "http",
        "empty",
        "nul",
        "route",
    ],
)
async def test_a_peer_that_does_not_keep_to_the_bounds_is_dropped_unjudged(
    sent: bytes, bounds: dict[str, int]
) -> None:
    async with gateway(None, **{"command_timeout_ms": 50, **bounds}) as gate:
        caller = await Caller.connect(gate.server.port)
        with contextlib.suppress(ConnectionError):
            await caller.send(sent)
        said = await caller.closed()
    assert b"allow" not in said
    assert not gate.gate.attempts


async def test_a_header_that_drips_in_byte_by_byte_is_cut_off_at_the_deadline() -> None:
    async with gateway(first_line_timeout_ms=50) as gate:
        caller = await Caller.connect(gate.server.port)

        async def drip() -> None:
            for byte in HEADER * 100:
                caller.writer.write(bytes([byte]))
                await caller.writer.drain()
                await asyncio.sleep(0.005)

        dripping = asyncio.create_task(drip())
        await caller.closed()
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
    assert not gate.gate.attempts
    assert gate.log.named("agi.gone")


async def test_sessions_beyond_the_bound_are_closed_at_once_and_logged_once() -> None:
    async with gateway(StandInGate(hold=asyncio.Event()), max_sessions=2) as gate:
        waiting = []
        for _ in range(2):
            waiting.append(await Caller.connect(gate.server.port))
            await waiting[-1].send(HEADER)
            await waiting[-1].send(answer_to_get(await waiting[-1].command(), {}))
        for _ in range(5):
            assert await (await Caller.connect(gate.server.port)).closed() == b""
        assert gate.server.refused == 5
        assert len(gate.log.named("agi.refused")) == 1
        assert gate.gate.hold is not None
        gate.gate.hold.set()
        for caller in waiting:
            assert verdict_in(await caller.command()) == "allow"
            await caller.send(b"200 result=0\n")


async def test_a_session_in_hand_is_finished_after_the_gate_stops_accepting() -> None:
    async with gateway() as gate:
        caller = await Caller.connect(gate.server.port)
        await caller.send(HEADER)
        get = await caller.command()
        port = gate.server.port
        await gate.server.stop_accepting()
        with pytest.raises(OSError):  # noqa: PT011 - refused, in the words of the platform
            await Caller.connect(port)
        await caller.send(answer_to_get(get, {}))
        assert verdict_in(await caller.command()) == "allow"
        await caller.send(b"200 result=0\n")
        await caller.closed()
    assert len(gate.witness.told) == 1
    assert not gate.witness.lost


async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    async with gateway() as gate:

        async def call(number: int) -> Any:
            caller = await Caller.connect(gate.server.port)
            await caller.send(HEADER.replace(b"agi_extension: 12025550100", f"agi_extension: {number}".encode()))
            await caller.send(answer_to_get(await caller.command(), {}))
            command = await caller.command()
            await caller.send(b"200 result=0\n")
            await caller.closed()
            return verdict_in(command)

        assert set(await asyncio.gather(*(call(12025550000 + n) for n in range(200)))) == {"allow"}
        assert len({attempt.called for attempt in gate.gate.attempts}) == 200
