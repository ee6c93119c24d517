"""Stand-ins for an Asterisk, fed from recordings of real ones (tests/data/asterisk), and for the gate.

AGI recordings hold one line each way: `< ` from Asterisk, `> ` from the daemon. AMI recordings hold the events
that pass the daemon's filter, each behind `@ MILLISECONDS`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from ringfence.config import Address, FastAgiSettings
from ringfence.model import Attempt, CallEnd, Decision, HungUpBy, Verdict
from ringfence.switches.asterisk.channel import Question
from ringfence.switches.asterisk.fastagi import FastAgi

DATA = Path(__file__).parent.parent / "data" / "asterisk"
START = datetime(2026, 1, 1, tzinfo=UTC)
ANY_PORT = Address.model_construct(host="127.0.0.1", port=0)

_BOUNDARY = re.compile(r"\}([0-9a-f]{16})")


class SilentLog:
    """Remembers events instead of writing them."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def _keep(self, event: str, **values: object) -> None:
        self.events.append((event, values))

    debug = info = warning = error = exception = _keep

    def named(self, event: str) -> list[dict[str, object]]:
        """The values of every such event."""
        return [values for name, values in self.events if name == event]


@dataclass
class StandInGate:
    """Decides as told and remembers what it was asked."""

    verdict: Verdict = Verdict.ALLOW
    customer: str = "acme"
    attempts: list[Attempt] = field(default_factory=list)
    refused: list[tuple[Attempt, str]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def decide(self, attempt: Attempt) -> Decision:
        self.attempts.append(attempt)
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        return decision_for(attempt, self.verdict, self.customer)

    def refuse(self, attempt: Attempt, reason: str) -> Decision:
        self.refused.append((attempt, reason))
        return replace(decision_for(attempt, Verdict.REJECT, ""), reason=reason)


def decision_for(attempt: Attempt, verdict: Verdict = Verdict.ALLOW, customer: str = "acme") -> Decision:
    if verdict is Verdict.REJECT:
        refused = "caller_id_not_authorized"
        return Decision(attempt.decision_id, attempt.orig_id, verdict, refused, customer, "", 403, 21)
    delay_ms = 200 if verdict is Verdict.DELAY else 0
    return Decision(attempt.decision_id, attempt.orig_id, verdict, "authorized", customer, "A", delay_ms=delay_ms)


@dataclass
class StandInWitness:
    """Remembers what became of allowed calls."""

    told: list[tuple[Attempt, Decision, Question]] = field(default_factory=list)
    lost: list[tuple[Decision, HungUpBy]] = field(default_factory=list)

    def allowed(self, attempt: Attempt, decision: Decision, question: Question, at: datetime) -> None:
        self.told.append((attempt, decision, question))

    def undelivered(self, attempt: Attempt, decision: Decision, by: HungUpBy, at: datetime) -> None:
        self.lost.append((decision, by))


@dataclass
class StandInRecorder:
    """Remembers ended calls."""

    ends: list[CallEnd] = field(default_factory=list)

    def calls_listed(self, switch: str, calls: Sequence[tuple[str, UUID]], asked_at: datetime) -> None:
        """Nobody compares it with leases here."""

    def call_ended(self, end: CallEnd) -> None:
        self.ends.append(end)


@dataclass
class Gateway:
    """A running FastAGI server and everything around it."""

    server: FastAgi
    gate: StandInGate
    witness: StandInWitness
    log: SilentLog


@asynccontextmanager
async def gateway(gate: StandInGate | None = None, **settings: int) -> AsyncIterator[Gateway]:
    gate, witness, log = gate or StandInGate(), StandInWitness(), SilentLog()
    bounds = FastAgiSettings(**settings).model_copy(update={"listen": ANY_PORT})
    server = FastAgi(bounds, gate, witness, log, switch="pbx", host="here")  # type: ignore[arg-type]
    await server.start()
    try:
        yield Gateway(server, gate, witness, log)
    finally:
        await server.stop()


class Caller:
    """Asterisk's end of one AGI session."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Caller:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, data: bytes, size: int = 65_536) -> None:
        """Send in pieces of `size` bytes, each on its way before the next."""
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def command(self) -> str:
        """The daemon's next command; empty once it has closed."""
        async with asyncio.timeout(5):
            return (await self.reader.readline()).decode().removesuffix("\n")

    async def closed(self) -> bytes:
        """Everything until the daemon closes."""
        async with asyncio.timeout(5):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


def agi_lines(name: str) -> list[str]:
    # Not read as text: a carriage return in a caller ID is part of the recording.
    return (DATA / f"agi_{name}.txt").read_bytes().decode().removesuffix("\n").split("\n")


def agi_header(name: str) -> bytes:
    """The recorded header of a session, empty line included."""
    lines = [line[2:] for line in agi_lines(name)]
    return ("\n".join(lines[: lines.index("")]) + "\n\n").encode()


async def replay(port: int, name: str, size: int = 65_536) -> list[str]:
    """Speak a recorded session in pieces of `size` bytes; returns the daemon's commands.

    Variables that the daemon did not ask for yet when this was recorded come last in its question. They were not
    set, and Asterisk answers an unset one with nothing.
    """
    caller = await Caller.connect(port)
    said: list[str] = []
    waiting, boundary, recorded, unasked = b"", "", "", 0
    for line in agi_lines(name):
        if line.startswith("< "):
            if line != "< HANGUP":  # Asterisk's last word once the daemon has closed
                reply = line[2:].replace(f"{recorded})", f"{recorded * (1 + unasked)})") if recorded else line[2:]
                waiting += reply.replace(recorded or "\0", boundary).encode() + b"\n"
            continue
        await caller.send(waiting, size)
        waiting = b""
        said.append(await caller.command())
        if line.startswith("> GET"):
            asked, asks = _BOUNDARY.findall(line), _BOUNDARY.findall(said[-1])
            recorded, boundary, unasked = asked[0], asks[0], len(asks) - len(asked)
    await caller.send(waiting, size)
    await caller.closed()
    await caller.close()
    return said


def answer_to_get(command: str, values: Mapping[str, str]) -> bytes:
    """A reply to the daemon's GET FULL VARIABLE; expressions that are not named have no value."""
    expressions = re.findall(r"\$\{([^}]*?):0:\d+\}([0-9a-f]{16})", command)
    return f"200 result=1 ({''.join(values.get(e, '') + boundary for e, boundary in expressions)})\n".encode()


def recorded_events(name: str) -> Iterator[tuple[datetime, dict[str, str]]]:
    """A recording's events with the time each came, counted from `START`."""
    for raw in raw_events(name):
        at, *lines = raw.split("\n")
        event = dict(line.partition(": ")[::2] for line in lines)
        yield START + timedelta(milliseconds=float(at.removeprefix("@ "))), event


def raw_events(name: str) -> Sequence[str]:
    text = (DATA / f"{name}.txt").read_text(encoding="utf-8")
    return [block for block in text.strip().split("\n\n") if block]
