"""The gate's outbound event socket: FreeSWITCH connects for each leg and waits for the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Interface

import structlog
from gevent.event import Event  # type: ignore[import-untyped]
from gevent.server import StreamServer  # type: ignore[import-untyped]
from greenswitch.esl import OutboundSession

from ringfence.config import FreeSwitchHookSettings
from ringfence.errors import SwitchError
from ringfence.switches.freeswitch.bridge import Bridge, BridgeClosedError
from ringfence.switches.freeswitch.framing import Limits, Message
from ringfence.switches.freeswitch.protocol import GoneError, Protocol

_BACKLOG = 1024
_FINISH_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent to the switch. The reply to `commands[decisive]` says whether the verdict arrived."""

    commands: tuple[str, ...]
    decisive: int
    context: Any = None  # the answerer's own


class Answerer(Interface):
    """Who answers, on the event loop."""

    async def answer(self, headers: Mapping[str, str], repeated: Set[str]) -> Answer:
        """The answer to the channel data of one leg. Bounds its own time."""

    def delivered(self, answer: Answer, fault: str) -> None:
        """The answer arrived, or did not for this reason."""


class GateSession(Protocol, OutboundSession):  # type: ignore[misc]
    """greenswitch's outbound session with the bounds of `Protocol`."""

    def __init__(self, address: object, sock: Any, settings: FreeSwitchHookSettings) -> None:
        self.prepare(
            Limits(settings.max_header_bytes, settings.max_header_lines, body_bytes=65_536),
            settings.first_bytes_timeout_ms / 1000,
        )
        OutboundSession.__init__(self, address, sock)

    def connect(self) -> Message:
        """The channel data. Raises GoneError if they do not come in time."""
        return self.send("connect")


class HookServer:
    """Accepts the gate's connections and carries question and answer. Bounded by `settings`."""

    def __init__(
        self,
        settings: FreeSwitchHookSettings,
        bridge: Bridge,
        answerer: Answerer,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._bridge = bridge
        self._answerer = answerer
        self._log = log
        self._server: Any = None
        self._sessions: set[GateSession] = set()
        self._overloaded = False
        self._idle: Any = None

    async def start(self) -> None:
        """Listen. Raises SwitchError if the address cannot be used."""
        await self._bridge.run(self._listen)

    async def stop_accepting(self) -> None:
        """Take no new connections; those in hand go on."""
        await self._bridge.run(self._stop_listening)

    async def stop(self) -> None:
        """Finish the questions in hand, for at most a second, then close everything. Idempotent."""
        await self._bridge.run(self._close)

    # --- on the hub -------------------------------------------------------------------------------------

    def _listen(self) -> None:
        listen = self._settings.listen
        server = StreamServer((listen.host, listen.port), self._serve, backlog=_BACKLOG)
        try:
            server.start()
        except OSError as error:
            raise SwitchError(f"hook: cannot listen on {listen}: {error.strerror or error}") from error
        self._server = server
        self._idle = Event()
        self._idle.set()

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    def _close(self) -> None:
        self._stop_listening()
        if self._idle is not None:
            self._idle.wait(_FINISH_S)
        for session in list(self._sessions):
            session.stop()

    def _serve(self, sock: Any, address: object) -> None:
        if len(self._sessions) >= self._settings.max_sessions:
            if not self._overloaded:
                self._log.error("hook.overloaded", sessions=len(self._sessions))
            self._overloaded = True
            sock.close()  # the gate asks the next daemon, or refuses
            return
        self._overloaded = False
        session = GateSession(address, sock, self._settings)
        self._sessions.add(session)
        self._idle.clear()
        try:
            self._exchange(session)
        except Exception:
            self._log.exception("hook.failed")  # without a verdict the gate refuses
        finally:
            self._sessions.discard(session)
            session.stop()
            if not self._sessions:
                self._idle.set()

    def _exchange(self, session: GateSession) -> None:
        try:
            shown = session.connect()
            answer = self._bridge.ask(self._answerer.answer, shown.decoded(), shown.repeated)
        except GoneError as error:
            self._log.info("hook.no_question", error=str(error))
            return
        except BridgeClosedError:
            return  # the daemon stops; without a verdict the gate refuses
        session.command_timeout_s = self._settings.command_timeout_ms / 1000
        try:
            told = session.send_all(answer.commands)[answer.decisive]
        except GoneError as error:
            fault = str(error)
        else:
            text = told.body.decode("utf-8", errors="replace") or told.headers.get("Reply-Text", "")
            fault = "" if text.startswith("+OK") else text.strip() or "no reply"
        self._bridge.tell(self._answerer.delivered, answer, fault)
