"""One AGI session: bounded reading of Asterisk's header and replies, one command at a time.

Built on panoramisk's `Request`, whose own reading waits without limit, takes `hangup` in a variable's value for
a hangup and cannot tell a reply from text that a caller got into the stream.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from panoramisk import fast_agi, utils

from ringfence.config import FastAgiSettings
from ringfence.switches.asterisk import headers

_RESULT = re.compile(r"200 result=(-?[0-9]{1,10})(?: \((.*)\))?", re.ASCII | re.DOTALL)
_HANGUP = "HANGUP"
_DONE = b"\n200 result=0\n"
_BYTES_AFTER_FAULT = 262_144  # what is read past in a broken session, on the way to its end


class CallerGoneError(Exception):
    """The channel hung up: Asterisk said so, in place of a reply or by failing the command."""


class ConnectionGoneError(Exception):
    """The connection ended, or a reply did not come in time."""


class ProtocolError(Exception):
    """A reply was not what Asterisk answers to the command: the stream cannot be trusted any more."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`200 result=RESULT (DATA)`."""

    result: int
    data: str


class Session(fast_agi.Request):  # type: ignore[misc]  # panoramisk is untyped
    """A session of which nothing was read yet.

    No method waits longer than the bounds in `settings`, and none reads more than they allow.
    """

    headers: Mapping[str, str]

    def __init__(
        self,
        app: fast_agi.Application,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        settings: FastAgiSettings,
    ) -> None:
        super().__init__(app, {}, reader, writer)
        self._settings = settings
        self.spoke_agi = False
        """True once the peer's first line was Asterisk's."""
        self.lines: list[bytes] = []
        """The header lines read so far."""
        self.judged = False
        """True once there is a decision on this session's question."""

    async def read_headers(self) -> None:
        """Read the whole header and keep it in `headers`.

        Raises MalformedError if it breaks a bound or is not exactly what Asterisk writes, and
        ConnectionGoneError if it does not come within `first_line_timeout_ms` of now.
        """
        size = 0
        try:
            async with asyncio.timeout(self._settings.first_line_timeout_ms / 1000):
                while line := await self._read_line():
                    if not self.lines:
                        self.spoke_agi = line == headers.FIRST_LINE
                        if not self.spoke_agi:
                            raise headers.MalformedError("the first line is not agi_network")
                    self.lines.append(line)
                    size += len(line) + 1
                    if len(self.lines) > self._settings.max_header_lines:
                        raise headers.MalformedError("too many header lines")
                    if size > self._settings.max_header_bytes:
                        raise headers.MalformedError("too many header bytes")
        except TimeoutError:
            raise ConnectionGoneError("the header was not complete in time") from None
        except ProtocolError as error:
            raise headers.MalformedError(str(error)) from None
        self.headers = headers.parse(self.lines)

    async def ask(self, command: str) -> Reply:
        """Send one command and return Asterisk's reply to it.

        Raises CallerGoneError, ConnectionGoneError or ProtocolError; after any of them no further command
        may be sent.
        """
        line = await self._exchange(command)
        if line == _HANGUP:
            raise CallerGoneError
        match = _RESULT.fullmatch(line)
        if match is None:
            raise ProtocolError(_kind_of(line))
        if match[1] == "-1":  # an application or variable failed because the channel is hanging up
            raise CallerGoneError
        return Reply(int(match[1]), match[2] or "")

    async def send_command(self, command: str) -> dict[str, Any]:
        """As panoramisk's, for other routes: the reply as a dictionary, within the same bounds as `ask`."""
        return _as_dict(await self._exchange(command))

    async def refuse(self, command: str) -> bool:
        """Send a last command into a session that went wrong; True if Asterisk surely obeyed. Never raises.

        Asterisk does not look at a command that came together with the one before it until more arrives, so
        this end of the connection is closed behind the command. Then Asterisk's last words are its reply (and
        HANGUP): text that a caller got into the stream comes before.
        """
        tail = b"\n"
        left = _BYTES_AFTER_FAULT
        try:
            async with asyncio.timeout(self._settings.command_timeout_ms / 1000):
                self._write(command)
                self.writer.write_eof()
                while left > 0 and (chunk := await self.reader.read(4096)):
                    left -= len(chunk)
                    tail = (tail + chunk)[-64:]
        except (TimeoutError, OSError):
            return False
        return left > 0 and tail.removesuffix(b"HANGUP\n").endswith(_DONE)

    async def close(self) -> None:
        """Close the connection; waits for that at most as long as for a command. Never raises."""
        self.writer.close()
        try:
            async with asyncio.timeout(self._settings.command_timeout_ms / 1000):
                await self.writer.wait_closed()
        except (TimeoutError, OSError):
            self.writer.transport.abort()

    async def _exchange(self, command: str) -> str:
        try:
            async with asyncio.timeout(self._settings.command_timeout_ms / 1000):
                self._write(command)
                await self.writer.drain()
                return (await self._read_line()).decode("utf-8", "backslashreplace")
        except TimeoutError:
            raise ConnectionGoneError("no reply in time") from None
        except OSError as error:
            raise ConnectionGoneError(f"the connection failed: {error.strerror or error}") from None

    def _write(self, command: str) -> None:
        if "\n" in command or "\r" in command or "\0" in command:
            raise ValueError("an AGI command is one line")
        self.writer.write(f"{command}\n".encode())

    async def _read_line(self) -> bytes:
        """One line without its line feed. Raises ConnectionGoneError at the end, ProtocolError if too long."""
        try:
            line: bytes = await self.reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            raise ConnectionGoneError("the connection was closed") from None
        except asyncio.LimitOverrunError:
            raise ProtocolError("a line is too long") from None
        except OSError as error:
            raise ConnectionGoneError(f"the connection failed: {error.strerror or error}") from None
        if len(line) > self._settings.max_line_bytes:
            raise ProtocolError("a line is too long")
        return line[:-1]


def _as_dict(line: str) -> dict[str, Any]:
    if line[:3].isdecimal() or line == _HANGUP:
        parsed: dict[str, Any] = utils.parse_agi_result(line)
        return parsed
    return {"error": "AGIUnknownError", "msg": line}


def _kind_of(line: str) -> str:
    """What is wrong with a reply, without repeating text that may be a caller's."""
    error = _as_dict(line).get("error", "AGIUnknownError")
    return f"the reply is not a result ({error})"
