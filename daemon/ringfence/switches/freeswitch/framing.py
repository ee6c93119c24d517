"""Event socket bytes to messages: pure, incremental and bounded. Nothing here reads a socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote


class FramingError(Exception):
    """The peer does not speak the event socket protocol, or exceeds a bound. The connection is of no use."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one message, in bytes and lines."""

    header_bytes: int = 262_144
    header_lines: int = 4096
    body_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its header lines as they were sent, and its body.

    Of a name that occurs twice `headers` has the first value; `repeated` names it. Values are still
    URL-encoded where the switch encodes them (`decoded`).
    """

    headers: Mapping[str, str]
    body: bytes = b""
    repeated: frozenset[str] = field(default_factory=frozenset)

    @property
    def kind(self) -> str:
        """The Content-Type."""
        return self.headers.get("Content-Type", "")

    def decoded(self) -> dict[str, str]:
        """The headers with their values URL-decoded.

        The lines were split before: a line break inside a value stays inside it and forges no header.
        Bytes that are not UTF-8 become U+FFFD, which no number holds.
        """
        return {
            name: unquote(value, errors="replace") if "%" in value else value
            for name, value in self.headers.items()
        }


class MessageReader:
    """Takes bytes in pieces of any size and gives whole messages. Holds at most one message and one piece."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._searched = 0
        self._head: Message | None = None
        self._missing = 0

    def feed(self, data: bytes) -> list[Message]:
        """The messages completed by `data`, in order. Raises FramingError; then nothing more can be read."""
        self._buffer += data
        messages: list[Message] = []
        while True:
            if self._head is None and not self._take_head():
                break
            if len(self._buffer) < self._missing:
                break
            assert self._head is not None
            body = bytes(self._buffer[: self._missing])
            del self._buffer[: self._missing]
            messages.append(Message(self._head.headers, body, self._head.repeated))
            self._head, self._searched = None, 0
        return messages

    def _take_head(self) -> bool:
        start = 0
        while start < len(self._buffer) and self._buffer[start] in b"\r\n":  # blank lines between messages
            start += 1
        if start:
            del self._buffer[:start]
            self._searched = 0
        end = self._buffer.find(b"\n\n", max(0, self._searched - 1))
        if end < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) > self._limits.header_bytes:
                raise FramingError(f"a header block is longer than {self._limits.header_bytes} bytes")
            return False
        if end > self._limits.header_bytes:
            raise FramingError(f"a header block is longer than {self._limits.header_bytes} bytes")
        self._head = head = _head(bytes(self._buffer[:end]), self._limits)
        del self._buffer[: end + 2]
        self._missing = _content_length(head, self._limits)
        return True


def json_event(message: Message) -> dict[str, str]:
    """The headers of a JSON event. Raises FramingError if the body is not an object of texts."""
    try:
        fields = json.loads(message.body.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError) as error:
        raise FramingError("an event is not JSON") from error
    if not isinstance(fields, dict):
        raise FramingError("an event is not a JSON object")
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def plain_event(message: Message, limits: Limits) -> dict[str, str]:
    """The headers of a plain event, decoded. Raises FramingError as `MessageReader.feed` does."""
    return _head(message.body.rstrip(b"\n"), limits).decoded()


def _head(block: bytes, limits: Limits) -> Message:
    lines = block.decode("utf-8", errors="replace").split("\n")
    if len(lines) > limits.header_lines:
        raise FramingError(f"a header block has more than {limits.header_lines} lines")
    headers: dict[str, str] = {}
    repeated: set[str] = set()
    for line in lines:
        name, colon, value = line.removesuffix("\r").partition(":")
        if not colon:
            continue  # the rest of a value the switch did not encode: it must not become a header of its own
        if name in headers:
            repeated.add(name)
        else:
            headers[name] = value.removeprefix(" ")
    return Message(headers, b"", frozenset(repeated))


def _content_length(head: Message, limits: Limits) -> int:
    text = head.headers.get("Content-Length", "0")
    if "Content-Length" in head.repeated:
        raise FramingError("Content-Length is given twice")
    if not (text.isascii() and text.isdecimal() and len(text) <= 10):
        raise FramingError("Content-Length is not a number")
    length = int(text)
    if length > limits.body_bytes:
        raise FramingError(f"a body of {length} bytes is longer than {limits.body_bytes}")
    return length
