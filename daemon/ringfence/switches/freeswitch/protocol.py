"""greenswitch's protocol made safe to expose: every size, time and queue has a bound, and an end is an end.

greenswitch 0.0.19 decodes a whole header block before splitting it into lines, reads without a bound, spins on
EOF inside a body, may write a command partially and leaves commands waiting for ever when the peer goes away.
What is overridden here is what does that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gevent  # type: ignore[import-untyped]
from gevent.event import AsyncResult  # type: ignore[import-untyped]
from greenswitch.esl import ESLProtocol, NotConnectedError

from ringfence.switches.freeswitch.framing import FramingError, Limits, Message, MessageReader

RECEIVE_BYTES = 65_536
_REPLIES = ("command/reply", "api/response")


class GoneError(Exception):
    """The connection ended, or a command went unanswered too long, which ends it too."""


class Protocol(ESLProtocol):  # type: ignore[misc]
    """One event socket connection on the hub. Lives and is used in greenlets only."""

    def prepare(self, limits: Limits, command_timeout_s: float) -> None:
        """Set the bounds. To be called before greenswitch's own constructor."""
        self.limits = limits
        self.command_timeout_s = command_timeout_s
        self.reader = MessageReader(limits)
        self.ended: Any = None
        self.why_ended = ""

    # --- overridden ---------------------------------------------------------------------------------------

    def start_event_handlers(self) -> None:
        """One greenlet that reads; there is no second one that polls a queue."""
        self.ended = AsyncResult()
        self._receive_events_greenlet = gevent.spawn(self.receive_events)

    def receive_events(self) -> None:
        """Read until the connection ends, whatever the peer sends; then nobody is left waiting."""
        try:
            while data := self.sock.recv(RECEIVE_BYTES):
                self.received(self.reader.feed(data))
            self.finish("the switch closed the connection")
        except FramingError as error:
            self.finish(str(error))
        except OSError as error:
            self.finish(f"reading failed: {error.strerror or error}")

    def send(self, data: str) -> Message:
        """Send one command whole and return its reply. Raises GoneError within the command timeout."""
        return self.send_all([data])[0]

    def stop(self) -> None:
        """Close at once. Idempotent."""
        self.finish("closed")

    # --- new ----------------------------------------------------------------------------------------------

    def send_all(self, commands: Sequence[str]) -> list[Message]:
        """Send commands in one write and return their replies in order. Raises GoneError as `send` does."""
        if not self.connected:
            raise GoneError(self.why_ended or "not connected")
        results = [AsyncResult() for _ in commands]
        self._commands_sent.extend(results)
        try:
            with gevent.Timeout(self.command_timeout_s, TimeoutError):
                self.sock.sendall("".join(f"{command}\n\n" for command in commands).encode())
                return [result.get() for result in results]
        except TimeoutError:
            # A late reply would be taken for the next command's: the connection cannot be used any more.
            self.finish(f"no reply within {self.command_timeout_s:g} s")
            raise GoneError(self.why_ended) from None
        except NotConnectedError:
            raise GoneError(self.why_ended) from None
        except OSError as error:
            self.finish(f"writing failed: {error.strerror or error}")
            raise GoneError(self.why_ended) from None

    def received(self, messages: Sequence[Message]) -> None:
        """Hand out what was read at once."""
        for message in messages:
            if message.kind in _REPLIES:
                if self._commands_sent:
                    self._commands_sent.pop(0).set(message)
            else:
                self.other(message)

    def other(self, message: Message) -> None:
        """A message that answers no command."""
        if message.kind == "auth/request":
            self._auth_request_event.set()
        elif message.kind == "text/rude-rejection":
            self.finish("the switch's access list refuses this address")

    def finish(self, why: str) -> None:
        """The connection is over: say why once, fail what waits, free the socket."""
        if self.ended is None or self.ended.ready():
            return
        self.connected = False
        self._run = False
        self.why_ended = why
        self.ended.set(why)
        while self._commands_sent:
            self._commands_sent.pop(0).set_exception(NotConnectedError(why))
        self._auth_request_event.set()
        if (file := getattr(self, "sock_file", None)) is not None:  # it would keep the socket open
            file.close()
        self.sock.close()
