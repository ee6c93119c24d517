"""The inbound event socket: one connection kept up, its events in order, its commands answered or failed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any
from typing import Protocol as Interface

import gevent  # type: ignore[import-untyped]
import structlog
from gevent import socket
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from greenswitch.esl import InboundESL

from ringfence.config import EventSocketSettings
from ringfence.errors import SwitchError
from ringfence.escape import visible
from ringfence.switches.freeswitch.bridge import Bridge, BridgeClosedError
from ringfence.switches.freeswitch.framing import FramingError, Limits, Message, json_event
from ringfence.switches.freeswitch.protocol import GoneError, Protocol

SUBSCRIPTION = (
    "event json CHANNEL_CREATE CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_ANSWER CHANNEL_HANGUP_COMPLETE "
    "CHANNEL_DESTROY HEARTBEAT SHUTDOWN"
)
# The switch numbers every event, also those nobody subscribed to, and delivers neighbours in any order: between
# two events of ours a jump of some hundreds is usual under load, and a heartbeat comes at least every minute.
GAP_EVENTS = 20_000


class Listener(Interface):
    """Who is told what happens on the socket. Called on the event loop, in order."""

    def came_up(self) -> None:
        """Logged in and subscribed: from now on every event arrives. What was missed before is unknown."""

    def went_down(self) -> None:
        """Events may be missing from now on, until `came_up`."""

    def events(self, events: Sequence[dict[str, str]]) -> None:
        """Events as they came."""


class RefusedError(GoneError):
    """The switch refuses the password or the address."""


class Connection(Protocol, InboundESL):  # type: ignore[misc]
    """greenswitch's inbound client with the bounds of `Protocol`."""

    def __init__(self, settings: EventSocketSettings, password: str, take: Callable[[list[Any]], None]) -> None:
        self.prepare(Limits(body_bytes=settings.max_message_bytes), settings.command_timeout_s)
        InboundESL.__init__(
            self, settings.address.host, settings.address.port, password, settings.connect_timeout_s
        )
        self._take = take
        self._events: list[dict[str, str]] = []

    def connect(self) -> None:
        """Connect and log in. Raises RefusedError if the switch will not have us, else GoneError."""
        try:
            self.sock = socket.create_connection((self.host, self.port), self.timeout)
        except OSError as error:
            raise GoneError(f"cannot connect: {error.strerror or error}") from error
        self.sock.settimeout(None)
        self.connected = True
        self.start_event_handlers()
        if not self._auth_request_event.wait(self.timeout):
            self.finish("no event socket answers there")
        if not self.connected:
            raise (RefusedError if "refuses" in self.why_ended else GoneError)(self.why_ended)
        self.authenticate()

    def authenticate(self) -> None:
        """Log in. Raises RefusedError if the password is wrong."""
        reply = self.send(f"auth {self.password}")
        if reply.headers.get("Reply-Text") != "+OK accepted":
            self.finish("the switch refuses the password")
            raise RefusedError("the switch refuses the password")  # its goodbye may have come first

    def received(self, messages: Sequence[Message]) -> None:
        """Events are handed on by the piece that was read, so that load costs one wake-up, not many."""
        super().received(messages)
        if self._events:
            events, self._events = self._events, []
            self._take(events)

    def other(self, message: Message) -> None:
        if message.kind == "text/event-json":
            self._events.append(json_event(message))
        elif message.kind == "text/disconnect-notice":
            raise FramingError("the switch says goodbye")
        else:
            super().other(message)


class EventSocket:
    """Keeps one `Connection` up: reconnects with back-off and jitter, subscribes again, reports gaps."""

    def __init__(
        self,
        settings: EventSocketSettings,
        bridge: Bridge,
        listener: Listener,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._bridge = bridge
        self._listener = listener
        self._log = log
        self._password = settings.password
        self._connection: Connection | None = None  # used on the hub only
        self._closed = False
        self._stopping: Any = None
        self._room: Any = None
        self._first: asyncio.Future[str] | None = None
        self._sequence = 0
        self._core = ""

    # --- called from asyncio --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Try to connect once and keep trying in the background.

        Raises SwitchError if the switch refuses the login; one that cannot be reached is only logged.
        """
        self._first = asyncio.get_running_loop().create_future()
        self._bridge.post(lambda: gevent.spawn(self._keep_up))
        if refusal := await self._first:
            raise SwitchError(f"event socket {self._settings.address}: {refusal}")

    async def api(self, command: str) -> str:
        """The text an API command answers. Raises SwitchError if it cannot be had in time."""
        try:
            return await self._bridge.run(self._api, command)
        except BridgeClosedError as error:
            raise SwitchError(f"event socket: {error}") from error

    async def stop(self) -> None:
        """Close for good. Idempotent."""
        await self._bridge.run(self._close)

    # --- on the hub -------------------------------------------------------------------------------------------

    def _api(self, command: str) -> str:
        if self._connection is None:
            raise SwitchError("the event socket is not connected")
        try:
            reply = self._connection.send(f"api {command}")
        except GoneError as error:
            raise SwitchError(f"event socket: {error}") from error
        return reply.body.decode("utf-8", errors="replace").strip()

    def _close(self) -> None:
        self._closed = True
        if self._stopping is not None:
            self._stopping.set()
        if self._connection is not None:
            self._connection.stop()

    def _keep_up(self) -> None:
        self._stopping = Event()
        self._room = BoundedSemaphore(self._settings.max_waiting)
        pause_s = self._settings.reconnect_min_s
        while not self._closed:
            connection = Connection(self._settings, self._password, self._take)
            refused = ""
            try:
                connection.connect()
                reply = connection.send(SUBSCRIPTION)
                if not reply.headers.get("Reply-Text", "").startswith("+OK"):
                    raise GoneError("the switch refuses the subscription")
            except GoneError as error:
                connection.stop()
                refused = str(error) if isinstance(error, RefusedError) else ""
                self._log.warning("esl.connect_failed", error=visible(str(error)), retry_in_s=pause_s)
            else:
                self._connection = connection
                self._bridge.tell(self._listener.came_up)
                self._answer_start("")
                pause_s = self._settings.reconnect_min_s
                why = self._watch(connection)
                self._connection = None
                self._bridge.tell(self._listener.went_down)
                if not self._closed:
                    self._log.warning("esl.disconnected", error=visible(why), retry_in_s=pause_s)
            if self._first is not None and refused:
                self._answer_start(refused)
                return
            self._answer_start("")
            self._stopping.wait(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            pause_s = min(pause_s * 2, self._settings.reconnect_max_s)

    def _answer_start(self, refusal: str) -> None:
        first, self._first = self._first, None
        if first is not None:
            self._bridge.tell(_set, first, refusal)

    def _watch(self, connection: Connection) -> str:
        """Wait for the end of a connection, asking for a sign of life now and then; why it ended."""
        while not connection.ended.ready():
            connection.ended.wait(self._settings.ping_interval_s)
            if not connection.ended.ready():
                try:
                    connection.send("api echo ping")
                except GoneError:
                    break
        return connection.why_ended

    def _take(self, events: list[dict[str, str]]) -> None:
        """Hand events to the loop; when too many wait there, wait here, and with it the switch."""
        for event in events:
            self._check_sequence(event)
        for start in range(0, len(events), self._settings.max_waiting):
            batch = events[start : start + self._settings.max_waiting]
            for _ in batch:
                self._room.acquire()
            self._bridge.tell(self._consume, batch)

    def _consume(self, batch: list[dict[str, str]]) -> None:
        try:
            self._listener.events(batch)
        finally:
            self._bridge.post(lambda: [self._room.release() for _ in batch])

    def _check_sequence(self, event: dict[str, str]) -> None:
        text = event.get("Event-Sequence", "")
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            return
        core, sequence = event.get("Core-UUID", ""), int(text)
        if core != self._core:
            if self._core:
                self._log.warning("esl.switch_restarted", missed_after=self._sequence)
            self._core, self._sequence = core, sequence
        elif sequence > self._sequence:
            if self._sequence and sequence - self._sequence > GAP_EVENTS:
                self._log.warning("esl.gap", after=self._sequence, before=sequence)
                self._bridge.tell(self._listener.came_up)  # compares with the switch's own list
            self._sequence = sequence


def _set(future: asyncio.Future[str], value: str) -> None:
    if not future.done():
        future.set_result(value)
