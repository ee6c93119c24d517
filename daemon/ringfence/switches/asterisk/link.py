"""One manager (AMI) connection, on panoramisk's Manager and AMIProtocol.

panoramisk keeps unanswered actions for a next connection, never forgets answered ones that nobody fetched,
reconnects by itself at a fixed pace, has no bounds and lets a line break in a value become a header. Here a
connection lives once: when it ends, everything waiting on it fails, and who made it makes a new one.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Mapping, Sequence

from panoramisk import ami_protocol, manager
from panoramisk.actions import Action
from panoramisk.message import Message

from ringfence.config import AmiSettings
from ringfence.errors import SwitchError
from ringfence.switches.asterisk import messages

MAX_PENDING_ACTIONS = 256
MAX_LIST_ITEMS = 100_000
_GREETING = b"Asterisk Call Manager/"
_MAX_GREETING_BYTES = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_END = b"\r\n\r\n"


class _Question(Action):  # type: ignore[misc]  # panoramisk is untyped
    """An action and what was answered so far. A list is complete when its end says how many items it had."""

    def __init__(self, fields: Mapping[str, str], *, as_list: bool) -> None:
        super().__init__({**fields, "ActionID": str(uuid.uuid4())}, as_list=as_list)

    def add_message(self, message: Message) -> bool:
        """Take one message; True once the answer is complete."""
        self.responses.append(message)
        if not self.as_list or self.responses[0].response not in ("Success", "Follows"):
            return self._complete(self.responses[:1])
        if message.eventlist == "Complete":
            return self._complete(self.responses)
        if len(self.responses) > MAX_LIST_ITEMS:
            return self._complete(self.responses[:1])
        return False

    def _complete(self, answer: Sequence[Message]) -> bool:
        if not self.future.done():
            self.future.set_result(list(answer))
        return True


class _Protocol(ami_protocol.AMIProtocol):  # type: ignore[misc]  # panoramisk is untyped
    """The bytes of one connection."""

    closed: bool

    def __init__(self, max_message_bytes: int, on_lost: Callable[[str], None]) -> None:
        self._max = max_message_bytes
        self._on_lost = on_lost
        self._buffer = bytearray()
        self._why = "the switch closed the connection"
        self.torn = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self.version is None and not self._greeted():
            return
        start = 0
        while (end := self._buffer.find(_END, start)) >= 0 and end - start <= self._max:
            self._message(bytes(self._buffer[start:end]))
            start = end + len(_END)
        del self._buffer[:start]
        if len(self._buffer) > self._max:
            self.drop("a message is too long")

    def _greeted(self) -> bool:
        end = self._buffer.find(b"\r\n")
        if end < 0 and len(self._buffer) <= _MAX_GREETING_BYTES:
            return False
        if end < 0 or not self._buffer.startswith(_GREETING):
            self.drop("it is not an Asterisk manager")
            return False
        self.version = self._buffer[len(_GREETING) : end].decode("ascii", "backslashreplace")
        del self._buffer[: end + 2]
        return True

    def _message(self, raw: bytes) -> None:
        # Asterisk ends some messages with an empty line more.
        fields = messages.parse(raw.decode("utf-8", "backslashreplace").strip("\r\n"))
        if fields is None or not messages.is_genuine(fields):
            self.torn += 1
            return
        collected: dict[str, str | list[str]] = {}
        for name, value in fields:
            known = collected.get(name)
            if known is None:
                collected[name] = value
            else:
                collected[name] = [*(known if isinstance(known, list) else [known]), value]
        self.handle_message(Message(collected))

    def handle_message(self, message: Message) -> None:
        question = self.responses.get(message.actionid) if isinstance(message.actionid, str) else None
        if question is not None:
            if question.add_message(message):
                self.responses.pop(question.id, None)
        elif "event" in message:
            self.factory.dispatch(message)

    def drop(self, why: str) -> None:
        """End the connection at once, for this reason."""
        self._why = why
        self._buffer.clear()
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.closed:
            return
        self.closed = True
        for question in self.responses.values():
            if not question.future.done():
                question.future.set_exception(SwitchError(f"the manager connection is gone: {self._why}"))
                question.future.exception()  # nobody may be waiting any more
        self.responses.clear()
        self._on_lost(str(exc) if exc else self._why)

    def close(self) -> None:
        self._why = "closed"
        self.transport.close()


class Link(manager.Manager):  # type: ignore[misc]  # panoramisk is untyped
    """One connection, from TCP to its end. Every wait has the bound in `settings`."""

    def __init__(self, settings: AmiSettings, on_event: Callable[[Mapping[str, str]], None]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.callbacks.clear()
        self.patterns.clear()
        self._settings = settings
        self._on_event = on_event
        self.lost: asyncio.Future[str] = self.loop.create_future()
        """Done when the connection is gone, with the reason."""

    async def open(self) -> None:
        """Connect. Raises OSError (TimeoutError included) if the address cannot be reached."""
        address = self._settings.address
        async with asyncio.timeout(self._settings.connect_timeout_s):
            _, self.protocol = await self.loop.create_connection(self._protocol, address.host, address.port)
        self.protocol.factory = self

    def _protocol(self) -> _Protocol:
        return _Protocol(self._settings.max_message_bytes, self._on_lost)

    def _on_lost(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)

    def dispatch(self, event: Message) -> None:
        """Hand an event on, without fields that stand in it several times (channel variables)."""
        fields = {name: value for name, value in event.items() if isinstance(value, str)}
        fields.pop("content", None)  # panoramisk's own
        self._on_event(fields)

    @property
    def torn(self) -> int:
        """How many messages were passed over because they had not the shape Asterisk gives them."""
        return self.protocol.torn if self.protocol is not None else 0

    async def ask(self, fields: Mapping[str, str], *, as_list: bool = False) -> list[Message]:
        """Send an action and return its answer: one response, or with `as_list` the response, items and end.

        Raises SwitchError if the connection is gone, too many actions wait, no answer comes within
        `action_timeout_s`, or a name or value holds a control character.
        """
        for name, value in fields.items():
            if _CONTROL.search(name) or _CONTROL.search(value):
                raise SwitchError(f"the manager action's field {name!r} holds a control character")
        if self.protocol is None or self.protocol.closed:
            raise SwitchError("the manager is not connected")
        if len(self.protocol.responses) >= MAX_PENDING_ACTIONS:
            raise SwitchError("too many manager actions wait for an answer")
        question = _Question(fields, as_list=as_list)
        self.protocol.responses[question.id] = question
        self.protocol.transport.write(str(question).encode())
        try:
            async with asyncio.timeout(self._settings.action_timeout_s):
                answer: list[Message] = await question.future
                return answer
        except TimeoutError:
            raise SwitchError(f"no answer to the manager action {fields.get('Action', '')} in time") from None
        finally:
            self.protocol.responses.pop(question.id, None)

    def abort(self, why: str) -> None:
        """End the connection at once."""
        if self.protocol is not None:
            self.protocol.drop(why)

    async def close(self) -> None:
        """Close in order; at once if that takes more than a second."""
        if self.protocol is not None and not self.protocol.closed:
            self.protocol.close()
            try:
                async with asyncio.timeout(1):
                    await self.lost
            except TimeoutError:
                self.protocol.transport.abort()
