"""A stand-in for FreeSWITCH's side of the gate, for load and for faults a real one does not show on demand.

What it answers is compared byte by byte with recordings of a real one in tests/unit/test_freeswitch_standin.py.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

RECORDINGS = Path(__file__).parents[1] / "data" / "freeswitch"
_OK = b"Content-Type: command/reply\nReply-Text: +OK\n\n"
_GOODBYE = b"Disconnected, goodbye.\nSee you at ClueCon! http://www.cluecon.com/\n"


def channel_data(recording: str, changes: Mapping[str, str] | None = None) -> bytes:
    """The reply to `connect` as recorded, with the values of some headers replaced, encoded as the switch does."""
    block = (RECORDINGS / f"{recording}.c2s.bin").read_bytes().partition(b"\n\n")[0].decode()
    for name, value in (changes or {}).items():
        line = f"{name}: {quote(value, safe='/,')}"
        pattern = rf"(?m)^{re.escape(name)}: .*$"
        block = (
            re.sub(pattern, lambda _, line=line: line, block) if re.search(pattern, block) else f"{line}\n{block}"
        )
    return f"{block}\n\n".encode()


@dataclass
class Leg:
    """One outbound leg at the gate: takes what the daemon sends, answers as FreeSWITCH does."""

    uuid: str
    data: bytes
    variables: dict[str, str] = field(default_factory=dict)
    hung_up: str = ""
    over: bool = False

    def command(self, block: str) -> bytes:
        """The answer to one command."""
        lines = block.split("\n")
        if lines[0] == "connect":
            return self.data
        if lines[0] == "exit":
            self.over = True
            return b"Content-Type: command/reply\nReply-Text: +OK bye\n\n" + self._notice()
        if lines[0].startswith("api uuid_setvar_multi "):
            _, _, uuid, pairs = lines[0].split(" ", 3)
            if uuid == self.uuid:
                self.variables.update(pair.partition("=")[::2] for pair in pairs.split(";"))
            return b"Content-Type: api/response\nContent-Length: 4\n\n+OK\n"
        if lines[0] == "sendmsg":
            return self._message(dict(line.split(": ", 1) for line in lines[1:]))
        return b"Content-Type: command/reply\nReply-Text: -ERR command not found\n\n"

    def leaves(self, nonce: str) -> bool:
        """Whether the gate would let the leg out."""
        return not self.hung_up and self.variables.get("ringfence_verdict") in (f"allow.{nonce}", f"delay.{nonce}")

    def _message(self, headers: Mapping[str, str]) -> bytes:
        application = headers.get("execute-app-name", "")
        if headers["call-command"] == "hangup" or application == "hangup":
            self.hung_up = headers.get("hangup-cause") or headers["execute-app-arg"]
            self.over = True
            return _OK + self._notice()
        if application == "set":
            name, _, value = headers["execute-app-arg"].partition("=")
            self.variables[name] = value
        return _OK

    def _notice(self) -> bytes:
        head = (
            f"Content-Type: text/disconnect-notice\nControlled-Session-UUID: {self.uuid}\n"
            f"Content-Disposition: disconnect\nContent-Length: {len(_GOODBYE)}\n\n"
        )
        return head.encode() + _GOODBYE


async def ask(address: tuple[str, int], leg: Leg) -> None:
    """Put one leg to the daemon, as the application `socket` does; returns when the connection is over."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        while not leg.over:
            block = await reader.readuntil(b"\n\n")
            writer.write(leg.command(block.decode().strip("\n")))
            await writer.drain()
    except asyncio.IncompleteReadError:
        leg.over = True
    finally:
        writer.close()
        await writer.wait_closed()
