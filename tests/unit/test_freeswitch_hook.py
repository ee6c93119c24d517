"""The gate's server, asked by a stand-in over real sockets: answers, bounds and faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from ringfence import reasons
from ringfence.config import EventSocketSettings, FreeSwitchHookSettings, FreeSwitchSettings
from ringfence.errors import SwitchError
from ringfence.model import Attempt, CallEnd, Decision, Verdict
from ringfence.switches.freeswitch.adapter import FreeSwitch
from ringfence.switches.freeswitch.bridge import Bridge, BridgeClosedError
from ringfence.switches.freeswitch.hook import Answer, HookServer
from tests.lab.freeswitch_standin import Leg, ask, channel_data
from tests.lab.ports import free_port

OWN, NONCE = "+13125550100", "0123456789abcdef" * 2


class Gate:
    """Allows the number `OWN`; `delay` and `hold` change how."""

    def __init__(self) -> None:
        self.asked: list[Attempt] = []
        self.refused: list[str] = []
        self.hold: asyncio.Event | None = None
        self.delay_ms = 0
        self.changed = asyncio.Event()

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(10):
            while len(self.asked) < times:
                self.changed.clear()
                await self.changed.wait()

    async def decide(self, attempt: Attempt) -> Decision:
        self.asked.append(attempt)
        self.changed.set()
        if self.hold is not None:
            await self.hold.wait()
        ids = (attempt.decision_id, attempt.orig_id)
        if attempt.caller != OWN:
            return Decision(*ids, Verdict.REJECT, "caller_id_not_authorized", "acme", "", 403, 21)
        if self.delay_ms:
            return Decision(*ids, Verdict.DELAY, "authorized", "acme", "A", delay_ms=self.delay_ms)
        return Decision(*ids, Verdict.ALLOW, "authorized", "acme", "A")

    def refuse(self, attempt: Attempt, reason: str) -> Decision:
        self.refused.append(reason)
        return Decision(
            attempt.decision_id, attempt.orig_id, Verdict.REJECT, reason, sip_status=403, q850_cause=21
        )


class Recorder:
    def __init__(self) -> None:
        self.ends: list[CallEnd] = []

    def call_ended(self, end: CallEnd) -> None:
        self.ends.append(end)

    def calls_listed(self, *_: Any) -> None:
        """Not looked at here."""


def leg(number: int = 1, **changes: str) -> Leg:
    uuid = f"00000000-0000-4000-8000-{number:012d}"
    values = {
        "Unique-ID": uuid,
        "Caller-Caller-ID-Number": OWN,
        "variable_ringfence_nonce": NONCE,
        "Other-Leg-Unique-ID": f"a-{number}",
        "variable_originating_leg_uuid": f"a-{number}",
        **changes,
    }
    return Leg(uuid, channel_data("connect_bridge_gateway", values))


@asynccontextmanager
async def switch(
    gate: Gate, recorder: Recorder | None = None, **bounds: int
) -> AsyncIterator[tuple[FreeSwitch, tuple[str, int]]]:
    port = free_port()
    settings = FreeSwitchSettings.model_validate(
        {"kind": "freeswitch", "hook": {"listen": f"127.0.0.1:{port}", **bounds}, "event_socket": None}
    )
    adapter = FreeSwitch(settings, "pbx", gate, recorder or Recorder(), structlog.get_logger())
    await adapter.start()
    try:
        yield adapter, ("127.0.0.1", port)
    finally:
        await adapter.stop_accepting()
        await adapter.stop()


async def test_an_owned_number_leaves_and_anothers_does_not() -> None:
    gate = Gate()
    async with switch(gate) as (_, address):
        mine, theirs = leg(1), leg(2, **{"Caller-Caller-ID-Number": "+12125550000"})
        await asyncio.gather(ask(address, mine), ask(address, theirs))
    assert mine.leaves(NONCE)
    assert mine.variables["ringfence_customer"] == "acme"
    assert not theirs.leaves(NONCE)
    assert theirs.hung_up == "21"
    assert theirs.variables["ringfence_reason"] == "caller_id_not_authorized"


async def test_a_question_that_cannot_be_read_safely_is_refused_unasked() -> None:
    gate = Gate()
    async with switch(gate) as (_, address):
        hostile = leg(1, **{"variable_sip_h_X-A": "1\r\nFrom: <sip:1@x>"})
        await ask(address, hostile)
    assert not hostile.leaves(NONCE)
    assert gate.refused == [reasons.MALFORMED_ATTEMPT]
    assert gate.asked == []


async def test_the_legs_of_one_attempt_are_judged_once_and_each_is_told() -> None:
    gate = Gate()
    async with switch(gate) as (_, address):
        legs = [leg(number, **{"Other-Leg-Unique-ID": "a"}) for number in range(1, 6)]
        await asyncio.gather(*(ask(address, each) for each in legs))
    assert all(each.leaves(NONCE) for each in legs)
    assert len({each.variables["ringfence_decision"] for each in legs}) == 1
    assert len(gate.asked) == 1


async def test_a_delayed_leg_blocks_nobody() -> None:
    gate = Gate()
    gate.delay_ms = 5000
    async with switch(gate) as (_, address):
        slow, other = leg(1), leg(2, **{"Caller-Caller-ID-Number": "+12125550000"})
        async with asyncio.timeout(3):
            await asyncio.gather(ask(address, slow), ask(address, other))
    assert slow.variables["ringfence_verdict"] == f"delay.{NONCE}"
    assert slow.variables["ringfence_delay_ms"] == "5000"
    assert other.hung_up


async def test_a_waiting_decision_blocks_nobody() -> None:
    gate = Gate()
    gate.hold = asyncio.Event()
    async with switch(gate) as (_, address):
        waiting = asyncio.create_task(ask(address, held := leg(1)))
        await gate.until_asked(1)
        inside = leg(2, variable_originate_endpoint="loopback")
        async with asyncio.timeout(3):
            await ask(address, inside)
        assert inside.leaves(NONCE)
        gate.hold.set()
        await waiting
    assert held.leaves(NONCE)


async def test_a_thousand_legs_are_each_told_their_own_verdict() -> None:
    gate = Gate()
    async with switch(gate) as (_, address):
        legs = [leg(n, **({} if n % 2 else {"Caller-Caller-ID-Number": "+12125550000"})) for n in range(1000)]
        crowd = asyncio.Semaphore(100)

        async def one(each: Leg) -> None:
            async with crowd:
                await ask(address, each)

        async with asyncio.timeout(30):
            await asyncio.gather(*(one(each) for each in legs))
    assert [each.leaves(NONCE) for each in legs] == [bool(n % 2) for n in range(1000)]


async def test_a_question_in_hand_is_answered_while_the_daemon_stops() -> None:
    gate = Gate()
    gate.hold = asyncio.Event()
    async with switch(gate) as (adapter, address):
        waiting = asyncio.create_task(ask(address, held := leg()))
        await gate.until_asked(1)
        await adapter.stop_accepting()
        with pytest.raises(OSError, match="Connect call failed"):
            await ask(address, leg(2))
        stopping = asyncio.create_task(adapter.stop())
        gate.hold.set()
        await asyncio.gather(stopping, waiting)
    assert held.leaves(NONCE)


async def test_a_fault_of_the_daemon_refuses_the_leg_and_nothing_else() -> None:
    class Broken(Gate):
        async def decide(self, attempt: Attempt) -> Decision:
            self.asked.append(attempt)
            if len(self.asked) == 1:
                raise RuntimeError("a fault")
            return await super().decide(attempt)

    async with switch(Broken()) as (_, address):
        await ask(address, first := leg(1))
        await ask(address, second := leg(2))
    assert not first.leaves(NONCE)
    assert second.leaves(NONCE)


async def test_a_peer_that_says_nothing_is_dropped_in_time_and_others_are_served() -> None:
    gate = Gate()
    async with switch(gate, first_bytes_timeout_ms=100) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        async with asyncio.timeout(3):
            assert await reader.read() == b"connect\n\n"
        await ask(address, fine := leg())
        writer.close()
    assert fine.leaves(NONCE)


async def test_more_sessions_than_the_bound_are_closed_at_once() -> None:
    gate = Gate()
    gate.hold = asyncio.Event()
    async with switch(gate, max_sessions=2) as (_, address):
        held = [asyncio.create_task(ask(address, leg(n))) for n in (1, 2)]
        await gate.until_asked(2)
        await ask(address, third := leg(3))
        assert third.variables == {}
        gate.hold.set()
        await asyncio.gather(*held)


@pytest.mark.parametrize(
    "data", [b"\xff" * 300_000, b"Content-Length: 99999999\n\n", b"\n" * 70_000, b"a: b\n" * 9000]
)
async def test_hostile_bytes_end_the_session_and_nothing_else(data: bytes) -> None:
    gate = Gate()
    async with switch(gate, first_bytes_timeout_ms=300) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(data)
        async with asyncio.timeout(5):
            try:
                while await reader.read(65_536):
                    continue
            except ConnectionError:
                pass
        writer.close()
        await ask(address, fine := leg())
    assert fine.leaves(NONCE)


async def test_the_port_in_use_is_told() -> None:
    async with switch(Gate()) as (_, address):
        settings = FreeSwitchHookSettings.model_validate({"listen": f"{address[0]}:{address[1]}"})
        bridge = Bridge()
        bridge.start()
        with pytest.raises(SwitchError, match="cannot listen"):
            await HookServer(settings, bridge, _Never(), structlog.get_logger()).start()
        await bridge.stop()


async def test_an_unreachable_event_socket_is_no_error_and_a_gate_without_it_answers() -> None:
    port = free_port()
    settings = FreeSwitchSettings(
        kind="freeswitch",
        hook=FreeSwitchHookSettings.model_validate({"listen": f"127.0.0.1:{port}"}),
        event_socket=_Password.model_validate({"address": f"127.0.0.1:{free_port()}"}),
    )
    recorder = Recorder()
    adapter = FreeSwitch(settings, "pbx", Gate(), recorder, structlog.get_logger())
    await adapter.start()
    try:
        assert not adapter.connected()
        await ask(("127.0.0.1", port), fine := leg())
        assert fine.leaves(NONCE)
        assert [customer for customer, _ in adapter.live_calls()] == ["acme"]
    finally:
        await adapter.stop()
        await adapter.stop()


async def test_questions_to_a_stopped_bridge_fail() -> None:
    bridge = Bridge()
    bridge.start()
    assert await bridge.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await bridge.run(lambda: 1 // 0)
    await bridge.stop()
    await bridge.stop()
    with pytest.raises(BridgeClosedError):
        await bridge.run(lambda: 7)


class _Password(EventSocketSettings):
    @property
    def password(self) -> str:
        return "secret"


class _Never:
    async def answer(self, headers: Mapping[str, str], repeated: Set[str]) -> Answer:
        raise NotImplementedError

    def delivered(self, answer: Answer, fault: str) -> None:
        raise NotImplementedError
