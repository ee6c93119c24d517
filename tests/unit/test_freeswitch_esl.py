"""The event socket against a server that plays recordings and misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from ringfence.config import EventSocketSettings
from ringfence.errors import ConfigError, SwitchError
from ringfence.switches.freeswitch.bridge import Bridge
from ringfence.switches.freeswitch.esl import SUBSCRIPTION, EventSocket
from ringfence.switches.freeswitch.framing import Limits, MessageReader, json_event
from tests.lab.freeswitch_standin import RECORDINGS

AUTH = b"Content-Type: auth/request\n\n"
ACCEPTED = b"Content-Type: command/reply\nReply-Text: +OK accepted\n\n"
LISTENING = b"Content-Type: command/reply\nReply-Text: +OK event listener enabled json\n\n"


class Server:
    """One scripted FreeSWITCH; `told` are the commands it got, by connection."""

    def __init__(self) -> None:
        self.told: list[list[str]] = []
        self.events = b""
        self.greeting = AUTH
        self.password = "secret"
        self.api: dict[str, bytes | None] = {"echo ping": b"ping"}
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.changed = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told: list[str] = []
        self.told.append(told)
        self.writers.append(writer)
        writer.write(self.greeting)
        try:
            while True:
                command = (await reader.readuntil(b"\n\n")).decode().strip()
                told.append(command)
                self.changed.set()
                writer.write(self.answer(command))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def answer(self, command: str) -> bytes:
        if command.startswith("auth "):
            if command == f"auth {self.password}":
                return ACCEPTED
            return (RECORDINGS / "in_plain_a19_badauth.s2c.bin").read_bytes().removeprefix(AUTH)
        if command == SUBSCRIPTION:
            return LISTENING + self.events
        body = self.api.get(command.removeprefix("api "), b"-ERR no reply\n")
        if body is None:
            return b""
        return b"Content-Type: api/response\nContent-Length: %d\n\n%s" % (len(body), body)


class Listener:
    def __init__(self) -> None:
        self.ups, self.downs = 0, 0
        self.got: list[dict[str, str]] = []
        self.changed = asyncio.Event()

    def came_up(self) -> None:
        self.ups += 1
        self.changed.set()

    def went_down(self) -> None:
        self.downs += 1
        self.changed.set()

    def events(self, events: Sequence[dict[str, str]]) -> None:
        self.got += events
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def running(
    server: Server, tmp_path: Path, password: str = "secret", **changes: Any
) -> AsyncIterator[tuple[EventSocket, Listener]]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", server.port)
    server.port = listening.sockets[0].getsockname()[1]
    secret = tmp_path / "password"
    secret.write_text(password)
    secret.chmod(0o600)
    settings = EventSocketSettings.model_validate(
        {
            "address": f"127.0.0.1:{server.port}",
            "password_file": str(secret),
            "reconnect_min_s": 0.02,
            "reconnect_max_s": 0.05,
            "command_timeout_s": 0.5,
            **changes,
        }
    )
    listener, bridge = Listener(), Bridge()
    bridge.start()
    event_socket = EventSocket(settings, bridge, listener, structlog.get_logger())
    try:
        await event_socket.start()
        yield event_socket, listener
    finally:
        await event_socket.stop()
        await bridge.stop()
        listening.close()
        for writer in server.writers:
            writer.close()


def events_of(recording: str) -> tuple[bytes, list[dict[str, str]]]:
    data = (RECORDINGS / f"{recording}.s2c.bin").read_bytes()
    messages = [m for m in MessageReader(Limits()).feed(data) if m.kind == "text/event-json"]
    return (
        b"".join(
            b"Content-Length: %d\nContent-Type: text/event-json\n\n%s" % (len(m.body), m.body) for m in messages
        ),
        [json_event(m) for m in messages],
    )


@pytest.mark.parametrize("room", [100, 10_000])
async def test_recorded_events_arrive_in_order(tmp_path: Path, room: int) -> None:
    server = Server()
    server.events, expected = events_of("in_json_a8_bridge_simultaneous")
    server.events *= 20
    async with running(server, tmp_path, max_waiting=room) as (event_socket, listener):
        await listener.until(lambda: len(listener.got) == 20 * len(expected))
        assert listener.got == expected * 20
        assert await event_socket.api("echo ping") == "ping"
    assert server.told[0][:2] == ["auth secret", SUBSCRIPTION]


async def test_a_wrong_password_is_told_at_start(tmp_path: Path) -> None:
    server = Server()
    server.password = "other"
    with pytest.raises(SwitchError, match="refuses the password"):
        async with running(server, tmp_path):
            pass
    assert len(server.told) == 1


async def test_an_address_the_switch_refuses_is_told_at_start(tmp_path: Path) -> None:
    server = Server()
    server.greeting = b"Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n"
    with pytest.raises(SwitchError, match="access list refuses"):
        async with running(server, tmp_path):
            pass


async def test_commands_that_wait_fail_when_the_connection_ends(tmp_path: Path) -> None:
    server = Server()
    server.api["slow"] = None
    async with running(server, tmp_path, command_timeout_s=30) as (event_socket, listener):
        waiting = [asyncio.create_task(event_socket.api("slow")) for _ in range(3)]
        await server.until(lambda: server.told[0].count("api slow") == 3)
        server.writers[0].close()
        for each in waiting:
            with pytest.raises(SwitchError, match="closed the connection"):
                await each
        await listener.until(lambda: listener.ups == 2)
        assert listener.downs == 1
    assert SUBSCRIPTION in server.told[1]


async def test_a_command_without_a_reply_fails_in_time_and_the_connection_is_made_anew(tmp_path: Path) -> None:
    server = Server()
    server.api["slow"] = None
    async with running(server, tmp_path, command_timeout_s=0.1) as (event_socket, listener):
        with pytest.raises(SwitchError, match="no reply within"):
            await event_socket.api("slow")
        await listener.until(lambda: listener.ups == 2)
        assert await event_socket.api("echo ping") == "ping"


async def test_a_switch_that_stops_answering_is_noticed(tmp_path: Path) -> None:
    server = Server()
    server.api["echo ping"] = None
    async with running(server, tmp_path, ping_interval_s=0.05, command_timeout_s=0.1) as (_, listener):
        await listener.until(lambda: listener.downs >= 1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"Content-Length: 9999999999\n\n",
        b"\x00" * 300_000,
        b"Content-Type: text/event-json\nContent-Length: 2\n\n[]",
    ],
)
async def test_a_peer_that_speaks_otherwise_is_left_and_tried_again(tmp_path: Path, garbage: bytes) -> None:
    server = Server()
    server.events = garbage
    async with running(server, tmp_path):
        await server.until(lambda: sum(SUBSCRIPTION in told for told in server.told) >= 3)


async def test_a_gap_in_the_numbering_makes_the_daemon_compare(tmp_path: Path) -> None:
    server = Server()
    events = [
        b'{"Event-Name":"HEARTBEAT","Core-UUID":"%s","Event-Sequence":"%d"}' % (core, number)
        for core, number in ((b"a", 10), (b"a", 300), (b"a", 299), (b"a", 90_000), (b"b", 5))
    ]
    server.events = b"".join(
        b"Content-Length: %d\nContent-Type: text/event-json\n\n%s" % (len(each), each) for each in events
    )
    async with running(server, tmp_path) as (_, listener):
        await listener.until(lambda: len(listener.got) == 5)
        assert (listener.ups, listener.downs) == (2, 0)


async def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    async with running(Server(), tmp_path, address="127.0.0.1:1") as (event_socket, listener):
        assert listener.ups == 0
        with pytest.raises(SwitchError, match="not connected"):
            await event_socket.api("status")


def test_a_password_that_could_break_out_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("x\n\napi reload")
    secret.chmod(0o600)
    with pytest.raises(ConfigError, match="control character"):
        assert EventSocketSettings(password_file=secret).password
    secret.write_text("")
    with pytest.raises(ConfigError, match="no password"):
        assert EventSocketSettings(password_file=secret).password
