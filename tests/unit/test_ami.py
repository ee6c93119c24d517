"""The manager connection against a stand-in AMI server that speaks as recorded Asterisks do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ringfence.config import AmiSettings, AsteriskSettings, FastAgiSettings
from ringfence.errors import ConfigError, SwitchError
from ringfence.model import EndSource, HungUpBy
from ringfence.switches.asterisk import Asterisk
from ringfence.switches.asterisk.ami import Ami
from ringfence.switches.asterisk.calls import EVENTS
from ringfence.switches.asterisk.messages import is_genuine, parse
from tests.unit.asterisk_stand_ins import (
    ANY_PORT,
    Caller,
    SilentLog,
    StandInGate,
    StandInRecorder,
    agi_header,
    answer_to_get,
    raw_events,
)

SECRET = "s3cret"
Reply = Callable[[Mapping[str, str]], str | None]


def response(action: Mapping[str, str], result: str = "Success", **fields: str) -> str:
    values = {"Response": result, "ActionID": action["ActionID"], **fields}
    return "".join(f"{name}: {value}\r\n" for name, value in values.items()) + "\r\n"


class StandInAmi:
    """A manager that knows one user. `replies` overrules what it answers to an action; None is silence."""

    def __init__(self) -> None:
        self.actions: list[dict[str, str]] = []
        self.replies: dict[str, Reply] = {}
        self.channels: list[str] = []
        self.greeting = b"Asterisk Call Manager/11.0.0\r\n"
        self.sessions: list[asyncio.StreamWriter] = []
        self.served = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._session, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self.sessions:
            writer.transport.abort()
        self.sessions.clear()

    async def seen(self, action: str, count: int = 1) -> None:
        """Wait until an action came that often."""
        async with asyncio.timeout(5), self.served:
            await self.served.wait_for(lambda: sum(a["Action"] == action for a in self.actions) >= count)

    def send(self, data: bytes) -> None:
        self.sessions[-1].write(data)

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions.append(writer)
        writer.write(self.greeting)
        try:
            while raw := await reader.readuntil(b"\r\n\r\n"):
                action = dict(line.split(": ", 1) for line in raw.decode().strip().split("\r\n"))
                reply = self.replies.get(action["Action"], self._reply)(action)
                if reply is not None:
                    writer.write(reply.encode())
                async with self.served:
                    self.actions.append(action)
                    self.served.notify_all()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _reply(self, action: Mapping[str, str]) -> str:
        if action["Action"] == "Login" and action["Secret"] != SECRET:
            return response(action, "Error", Message="Authentication failed")
        if action["Action"] == "Status":
            end = {"Event": "StatusComplete", "ActionID": action["ActionID"], "EventList": "Complete"}
            end |= {"ListItems": str(len(self.channels))}
            items = "".join(f"{c}\r\nActionID: {action['ActionID']}\r\n\r\n" for c in self.channels)
            tail = "".join(f"{name}: {value}\r\n" for name, value in end.items())
            return (
                response(action, EventList="start", Message="Channel status will follow") + items + tail + "\r\n"
            )
        return response(action, Message="Success")


def status(channel: str, uniqueid: str, decision: str, application: str = "Dial") -> str:
    fields = {
        "Event": "Status", "Privilege": "Call", "Channel": channel, "ChannelState": "6", "ChannelStateDesc": "Up",
        "CallerIDNum": "1", "CallerIDName": "x", "ConnectedLineNum": "", "ConnectedLineName": "", "Language": "en",
        "AccountCode": "ACME", "Context": "c", "Exten": "1", "Priority": "1", "Uniqueid": uniqueid,
        "Linkedid": uniqueid, "Application": application,
    }  # fmt: skip
    lines = [f"{name}: {value}" for name, value in fields.items()]
    lines += [f"Variable: RINGFENCE_DECISION={decision}", "Variable: RINGFENCE_CUSTOMER=acme"]
    return "\r\n".join([*lines, "Variable: RINGFENCE_VERDICT=(null)"])


@asynccontextmanager
async def manager() -> AsyncIterator[StandInAmi]:
    server = StandInAmi()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Watched:
    """An Ami under test and what it told."""

    def __init__(self, server: StandInAmi, secret_file: Path, **settings: float) -> None:
        bounds: dict[str, object] = {
            "reconnect_min_s": 0.01,
            "reconnect_max_s": 0.02,
            "action_timeout_s": 2,
            **settings,
        }
        self.log = SilentLog()
        self.events: list[Mapping[str, str]] = []
        self.connections = 0
        self.connected = asyncio.Event()
        self.ami = Ami(
            AmiSettings(address=f"127.0.0.1:{server.port}", secret_file=secret_file, **bounds),
            self.log,  # type: ignore[arg-type]
            switch="pbx",
            events=EVENTS,
            on_event=self.events.append,
            on_connected=self._connected,
        )

    async def _connected(self) -> None:
        self.connections += 1
        self.connected.set()

    async def again(self) -> None:
        """Wait for the next connection."""
        self.connected.clear()
        async with asyncio.timeout(5):
            await self.connected.wait()

    async def __aenter__(self) -> Watched:
        await self.ami.start()
        async with asyncio.timeout(5):
            await self.connected.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ami.stop()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


# --- login ------------------------------------------------------------------------------------------------


async def test_it_logs_in_without_events_then_filters_and_only_then_switches_them_on(secret: Path) -> None:
    async with manager() as server, Watched(server, secret):
        login, chosen, switched_on = server.actions[:3]
    assert (login["Action"], login["Username"], login["Events"]) == ("Login", "ringfence", "off")
    assert (chosen["Action"], chosen["Operation"]) == ("Filter", "Add")
    assert (switched_on["Action"], switched_on["EventMask"]) == ("Events", "call,user")
    wanted = re.compile(chosen["Filter"])
    assert wanted.search("Event: HangupRequest\r\nPrivilege: call,all")
    assert not wanted.search("Event: HangupHandlerRun\r\nPrivilege: dialplan,all")


async def test_a_wrong_password_at_start_is_one_sentence_that_names_the_setting(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("nonsense")
    wrong.chmod(0o600)
    async with manager() as server:
        with pytest.raises(SwitchError, match=r"^switches\.pbx\.ami: .* refuses the login of 'ringfence'"):
            await Watched(server, wrong).ami.start()


async def test_no_secret_at_start_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    async with manager() as server:
        with pytest.raises(ConfigError):
            await Watched(server, tmp_path / "absent").ami.start()


async def test_an_unreachable_manager_at_start_is_tried_again_until_it_is_there(secret: Path) -> None:
    server = StandInAmi()
    await server.start()
    await server.stop()
    watched = Watched(server, secret)
    await watched.ami.start()
    assert not watched.ami.connected
    assert watched.log.named("ami.unreachable")
    with pytest.raises(SwitchError, match="not connected"):
        await watched.ami.action({"Action": "Ping"})
    await server.start()
    await watched.again()
    assert watched.ami.connected
    await watched.ami.stop()
    await server.stop()


async def test_a_password_that_changed_meanwhile_is_logged_and_tried_again(secret: Path) -> None:
    async with manager() as server, Watched(server, secret) as watched:
        server.replies["Login"] = lambda action: response(action, "Error", Message="Authentication failed")
        server.sessions[-1].transport.abort()
        await server.seen("Login", 3)
        assert watched.log.named("ami.login_refused")
        del server.replies["Login"]
        await watched.again()
        assert watched.ami.connected


async def test_a_user_who_may_not_filter_still_gets_events(secret: Path) -> None:
    async with manager() as server:
        server.replies["Filter"] = lambda action: response(action, "Error", Message="Permission denied")
        async with Watched(server, secret) as watched:
            assert watched.log.named("ami.filter_refused")
            assert watched.ami.connected


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"x" * 1000])
async def test_something_else_on_the_managers_port_is_not_talked_to(greeting: bytes, secret: Path) -> None:
    async with manager() as server:
        server.greeting = greeting
        watched = Watched(server, secret)
        await watched.ami.start()
        assert not watched.ami.connected
        await watched.ami.stop()
        [said] = watched.log.named("ami.unreachable")[:1]
    assert "not an Asterisk manager" in str(said["error"])


# --- losing it --------------------------------------------------------------------------------------------


async def test_a_lost_connection_is_made_again_and_nothing_is_sent_twice(secret: Path) -> None:
    async with manager() as server, Watched(server, secret) as watched:
        server.replies["Hangup"] = lambda action: None
        waiting = asyncio.create_task(watched.ami.hang_up("PJSIP/x-1", 21))
        await server.seen("Hangup")
        server.sessions[-1].transport.abort()
        with pytest.raises(SwitchError, match="gone"):
            await waiting
        await watched.again()
        await watched.ami.action({"Action": "Ping"})
        assert sum(action["Action"] == "Hangup" for action in server.actions) == 1
        assert watched.log.named("ami.disconnected")


async def test_a_manager_that_stops_answering_pings_is_left_and_connected_again(secret: Path) -> None:
    async with manager() as server:
        server.replies["Ping"] = lambda action: None
        async with Watched(server, secret, ping_interval_s=0.01, action_timeout_s=0.05) as watched:
            await watched.again()
            assert watched.connections >= 2


async def test_a_message_without_an_end_costs_the_connection_and_not_the_memory(secret: Path) -> None:
    async with manager() as server, Watched(server, secret, max_message_bytes=4096) as watched:
        server.send(b"Event: X\r\n" + b"A: " + b"x" * 10_000)
        await watched.again()
        [said] = watched.log.named("ami.disconnected")
    assert said["why"] == "a message is too long"


# --- actions ----------------------------------------------------------------------------------------------


async def test_an_action_without_an_answer_ends_at_its_deadline_and_is_forgotten(secret: Path) -> None:
    async with manager() as server, Watched(server, secret, action_timeout_s=0.05) as watched:
        server.replies["Hangup"] = lambda action: None
        with pytest.raises(SwitchError, match="in time"):
            await watched.ami.hang_up("PJSIP/x-1", 21)
        link = watched.ami._link
        assert link is not None
        assert not link.protocol.responses
        await watched.ami.action({"Action": "Ping"})


async def test_an_action_the_switch_refuses_says_why(secret: Path) -> None:
    async with manager() as server, Watched(server, secret) as watched:
        server.replies["Hangup"] = lambda action: response(action, "Error", Message="No such channel")
        with pytest.raises(SwitchError, match="No such channel"):
            await watched.ami.hang_up("PJSIP/x-1", 21)


@pytest.mark.parametrize("channel", ["x\r\nAction: Originate", "x\n", "x\0", "x\x7f"])
async def test_a_control_character_in_an_action_is_refused_before_it_is_sent(channel: str, secret: Path) -> None:
    async with manager() as server, Watched(server, secret) as watched:
        with pytest.raises(SwitchError, match="control character"):
            await watched.ami.hang_up(channel, 21)
        await watched.ami.action({"Action": "Ping"})
        assert all(action["Action"] != "Hangup" for action in server.actions)


async def test_a_list_with_items_missing_is_not_taken_for_the_whole(secret: Path) -> None:
    async with manager() as server, Watched(server, secret) as watched:
        server.channels = [
            status("PJSIP/a-1", "1.1", "x"),
            status("PJSIP/b-1", "1.2", "x").replace("Exten", "Exit"),
        ]
        with pytest.raises(SwitchError, match="not complete"):
            await watched.ami.action_list({"Action": "Status"})
        server.channels.pop()
        assert len(await watched.ami.action_list({"Action": "Status"})) == 1


# --- events -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [16, 22])
@pytest.mark.parametrize("size", [1, 7, 64, 65_536])
async def test_recorded_events_arrive_whole_however_the_network_cuts_them(
    version: int, size: int, secret: Path
) -> None:
    blocks = [block.split("\n")[1:] for block in raw_events(f"blind_{version}")]
    stream = b"".join("\r\n".join(lines).encode() + b"\r\n\r\n" for lines in blocks)
    async with manager() as server, Watched(server, secret) as watched:
        for start in range(0, len(stream), size):
            server.send(stream[start : start + size])
            if size < 64:
                await asyncio.sleep(0)
        await watched.ami.action({"Action": "Ping"})  # answered behind all that
        assert watched.events == [dict(line.split(": ", 1) for line in lines) for lines in padded(blocks)]
        assert watched.ami.torn == 0


def padded(blocks: list[list[str]]) -> list[list[str]]:
    """Asterisk writes a blank behind the colon of an empty value; the recordings lost some at a line's end."""
    return [[line if ": " in line else f"{line} " for line in lines] for lines in blocks]


FORGED_HANGUP = "1\r\n\r\nEvent: Hangup\r\nPrivilege: call,all\r\nUniqueid: lab-1.1\r\n\r\nEvent: X\r\nA: "


@pytest.mark.parametrize(
    "caller_id",
    [
        "1\r\nUniqueid: forged",
        "1\r\n\r\nEvent: Hangup\r\nUniqueid: forged",
        FORGED_HANGUP,
        "1\r\nno field at all",
        "1\nno carriage return",
    ],
)
async def test_a_line_break_in_a_caller_id_makes_no_event(caller_id: str, secret: Path) -> None:
    lines = raw_events("busy_22")[0].split("\n")[1:]
    hostile = "\r\n".join(
        f"CallerIDNum: {caller_id}" if line.startswith("CallerIDNum") else line for line in lines
    )
    async with manager() as server, Watched(server, secret) as watched:
        server.send(hostile.encode() + b"\r\n\r\n")
        await watched.ami.action({"Action": "Ping"})
        assert watched.events == []
        assert watched.ami.torn >= 1


def test_every_recorded_event_is_genuine() -> None:
    for name in ("answered_caller_bye", "blind", "two_legs", "local_originate"):
        for version in (16, 22):
            for block in raw_events(f"{name}_{version}"):
                fields = parse("\r\n".join(block.split("\n")[1:]))
                assert fields is not None
                assert is_genuine(fields), block


# --- the whole adapter ------------------------------------------------------------------------------------


@asynccontextmanager
async def adapter(
    server: StandInAmi | None, secret: Path, gate: StandInGate | None = None
) -> AsyncIterator[tuple[Asterisk, StandInRecorder, SilentLog]]:
    ami = None
    if server is not None:
        ami = AmiSettings(address=f"127.0.0.1:{server.port}", secret_file=secret, reconnect_min_s=0.01)
    listening = FastAgiSettings().model_copy(update={"listen": ANY_PORT})
    recorder, log = StandInRecorder(), SilentLog()
    settings = AsteriskSettings(kind="asterisk", name="pbx", ami=ami).model_copy(update={"fastagi": listening})
    switch = Asterisk(settings, "here", gate or StandInGate(), recorder, log)  # type: ignore[arg-type]
    await switch.start()
    try:
        yield switch, recorder, log
    finally:
        await switch.stop()


async def allowed_call(switch: Asterisk, acknowledge: bytes = b"200 result=0\n") -> None:
    caller = await Caller.connect(switch.agi_port)
    await caller.send(agi_header("extension_allowed_22"))
    await caller.send(answer_to_get(await caller.command(), {}))
    await caller.command()
    await caller.send(acknowledge)
    await caller.closed()


def hangup_of_the_call() -> bytes:
    header = dict(line.split(": ", 1) for line in agi_header("extension_allowed_22").decode().strip().split("\n"))
    block = next(b for b in raw_events("busy_22") if "Event: Hangup\n" in b and "customer" in b)
    lines = block.split("\n")[1:]
    own = {"Uniqueid": header["agi_uniqueid"], "Linkedid": header["agi_uniqueid"]}
    lines = [f"{name}: {own.get(name, value)}" for name, _, value in (line.partition(": ") for line in lines)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def settled(switch: Asterisk) -> None:
    """Until the events sent so far were read."""
    assert switch._ami is not None
    await switch._ami.action({"Action": "Ping"})


async def test_an_allowed_call_is_live_until_the_switch_says_it_ended(secret: Path) -> None:
    async with manager() as server, adapter(server, secret) as (switch, recorder, log):
        await allowed_call(switch)
        assert [customer for customer, _ in switch.live_calls()] == ["acme"]
        await server.seen("Status")
        server.send(hangup_of_the_call())
        await settled(switch)
        assert not switch.live_calls()
        [end] = recorder.ends
        assert end.source is EndSource.EVENT
        [said] = log.named("call.ended")
        assert said["decision"] == str(end.decision_id)


async def test_a_caller_who_hangs_up_before_the_verdict_gives_the_lease_back_at_once(secret: Path) -> None:
    async with manager() as server, adapter(server, secret) as (switch, recorder, _):
        await allowed_call(switch, b"HANGUP\n")
        assert not switch.live_calls()
        assert [(end.source, end.hung_up_by) for end in recorder.ends] == [
            (EndSource.UNDELIVERED, HungUpBy.CALLER)
        ]


async def test_without_a_manager_no_call_is_live_and_a_lost_verdict_is_reported_at_once(secret: Path) -> None:
    async with adapter(None, secret) as (switch, recorder, _):
        assert not switch.connected()
        await allowed_call(switch)
        assert not switch.live_calls()
        await allowed_call(switch, b"200 result=-2\n200 result=0\n")
        assert [end.source for end in recorder.ends] == [EndSource.UNDELIVERED]


async def test_live_calls_of_a_restarted_daemon_are_adopted_at_connect(secret: Path) -> None:
    decision = "01a1fff0-0000-7000-8000-000000000001"
    async with manager() as server:
        server.channels = [
            status("PJSIP/customer-00000001", "1.1", decision),
            status("PJSIP/carrier-00000002", "1.2", decision, "AppDial"),
            status("PJSIP/other-00000003", "1.3", "(null)"),
        ]
        async with adapter(server, secret) as (switch, _, log):
            await server.seen("Status")
            await settled(switch)
            assert [str(found) for _, found in switch.live_calls()] == [decision]
            assert log.named("calls.reconciled")


async def test_calls_that_ended_while_the_manager_was_gone_are_reconciled(secret: Path) -> None:
    async with manager() as server, adapter(server, secret) as (switch, recorder, _):
        await server.seen("Status")
        await allowed_call(switch)
        server.sessions[-1].transport.abort()
        await server.seen("Status", 2)
        await server.seen("Ping", 0)
        await settled(switch)
        assert [end.source for end in recorder.ends] == [EndSource.RECONCILED]
        assert not switch.live_calls()


async def test_ringfence_hangs_a_live_call_up_by_its_asking_channel(secret: Path) -> None:
    async with manager() as server, adapter(server, secret) as (switch, _, _log):
        await allowed_call(switch)
        [(_, decision)] = switch.live_calls()
        assert await switch.hang_up(decision, 21)
        [action] = [action for action in server.actions if action["Action"] == "Hangup"]
        assert action["Channel"].startswith("PJSIP/customer-")
        assert action["Cause"] == "21"


async def test_a_taken_port_is_one_sentence_that_names_the_setting(secret: Path) -> None:
    async with adapter(None, secret) as (switch, _, _log):
        taken = FastAgiSettings(listen=f"127.0.0.1:{switch.agi_port}")
        second = Asterisk(
            AsteriskSettings(kind="asterisk", name="two", fastagi=taken, ami=None),
            "here",
            StandInGate(),
            StandInRecorder(),
            SilentLog(),  # type: ignore[arg-type]
        )
        with pytest.raises(SwitchError, match=r"^switches\.two\.fastagi\.listen: cannot listen on"):
            await second.start()
