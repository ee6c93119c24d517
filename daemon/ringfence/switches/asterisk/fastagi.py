"""The gate's FastAGI server: reads the question, asks the gatekeeper, sets the answer on the channel.

Fails closed: the dialplan lets a call out only if RINGFENCE_VERDICT says so, and that variable is set by one
command, after everything before it was as it must be.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Protocol

from panoramisk import fast_agi
from structlog.typing import FilteringBoundLogger

from ringfence.config import FastAgiSettings
from ringfence.errors import SwitchError
from ringfence.model import Attempt, Decision, HungUpBy
from ringfence.reasons import INTERNAL_ERROR, MALFORMED_ATTEMPT
from ringfence.switches.asterisk import channel, headers
from ringfence.switches.asterisk.headers import MalformedError
from ringfence.switches.asterisk.session import CallerGoneError, ConnectionGoneError, ProtocolError, Session
from ringfence.switches.interface import Gatekeeper

ROUTE = "gate"


class Witness(Protocol):
    """What becomes of allowed calls is told to this. Neither method raises."""

    def allowed(self, attempt: Attempt, decision: Decision, question: channel.Question, at: datetime) -> None:
        """This call is about to be told that it may leave: its events may come at any moment from now."""

    def undelivered(self, attempt: Attempt, decision: Decision, by: HungUpBy, at: datetime) -> None:
        """The switch never acknowledged that answer. If it was the caller who hung up, the call did not leave;
        otherwise that is only likely. `at`: when it was asked."""


class FastAgi(fast_agi.Application):  # type: ignore[misc]  # panoramisk is untyped
    """One listening socket with the route `agi://HOST:PORT/gate`. Must be made inside the event loop."""

    def __init__(
        self,
        settings: FastAgiSettings,
        gatekeeper: Gatekeeper,
        witness: Witness,
        log: FilteringBoundLogger,
        *,
        switch: str,
        host: str,
    ) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._settings = settings
        self._gatekeeper = gatekeeper
        self._witness = witness
        self._log = log
        self._switch = switch
        self._host = host
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._in_burst = False
        self.refused = 0
        """Connections closed because `max_sessions` were open."""
        self.malformed = 0
        """Sessions that could not be read safely."""
        self.add_route(ROUTE, self._gate)

    # --- life -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. Raises SwitchError if the address cannot be bound."""
        address = self._settings.listen
        try:
            self._server = await asyncio.start_server(
                self.handler, address.host, address.port, limit=self._settings.max_line_bytes, backlog=1024
            )
        except OSError as error:
            raise SwitchError(
                f"switches.{self._switch}.fastagi.listen: cannot listen on {address}: {error.strerror or error}"
            ) from error

    @property
    def port(self) -> int:
        """The TCP port it listens on, 0 when it does not."""
        return int(self._server.sockets[0].getsockname()[1]) if self._server and self._server.sockets else 0

    async def stop_accepting(self) -> None:
        """Close the listening socket; sessions in hand go on."""
        if self._server is not None:
            self._server.close()

    async def stop(self) -> None:
        """Finish the sessions in hand: each step of theirs has its own bound. Idempotent."""
        await self.stop_accepting()
        while self._sessions:
            await asyncio.wait(set(self._sessions))

    # --- sessions -------------------------------------------------------------------------------------------

    async def handler(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its first byte to its close. Never raises."""
        if len(self._sessions) >= self._settings.max_sessions:
            self._refuse(writer)
            return
        if len(self._sessions) <= self._settings.max_sessions // 2:
            self._in_burst = False
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        session = Session(self, reader, writer, self._settings)
        try:
            await self._serve(session)
        finally:
            await session.close()
            self._sessions.discard(task)

    def _refuse(self, writer: asyncio.StreamWriter) -> None:
        self.refused += 1
        if not self._in_burst:
            self._in_burst = True
            self._log.warning("agi.refused", max_sessions=self._settings.max_sessions, refused_total=self.refused)
        writer.transport.abort()

    async def _serve(self, session: Session) -> None:
        try:
            await session.read_headers()
            route = self._route.get(session.headers["agi_network_script"])
            if route is None:
                raise MalformedError("no such route")
            await route(session)
        except (MalformedError, ProtocolError) as error:
            await self._malformed(session, str(error))
        except ConnectionGoneError as error:
            self._log.info("agi.gone", why=str(error))
        except CallerGoneError:
            self._log.debug("agi.caller_gone")
        except Exception:
            self._log.exception("agi.failed")
            await session.refuse(channel.refusal_command(INTERNAL_ERROR))

    async def _malformed(self, session: Session, why: str) -> None:
        """Refuse a session that cannot be trusted, and record that, if it was Asterisk that spoke."""
        self.malformed += 1
        told, decision_id = False, ""
        if session.spoke_agi and not session.judged:
            shown = dict(headers.undoubted(session.lines))
            if session.headers.get("agi_arg_1") == channel.Form.LEG:
                del shown["agi_callerid"]  # the dialled number there
            attempt = channel.unreadable_attempt(shown, switch=self._switch, host=self._host)
            decision = self._gatekeeper.refuse(attempt, MALFORMED_ATTEMPT)
            decision_id = str(decision.decision_id)
            told = await session.refuse(channel.answer_command(decision))
        elif session.spoke_agi:
            told = await session.refuse(channel.refusal_command(INTERNAL_ERROR))
        peer = session.writer.get_extra_info("peername")
        self._log.warning("agi.malformed", why=why, told=told, decision=decision_id, peer=peer[0] if peer else "")

    async def _gate(self, session: Session) -> None:
        """The route: question, gatekeeper, answer."""
        asked_at = datetime.now(UTC)
        question = channel.read_question(session.headers)
        boundary = secrets.token_hex(8)
        values: dict[str, str] = {}
        expressions = channel.first_expressions(question)
        while expressions:
            reply = await session.ask(channel.get_command(expressions, boundary))
            if reply.result != 1:
                raise ProtocolError("the channel's variables were not readable")
            known = len(values)
            values.update(channel.read_values(expressions, boundary, reply.data))
            expressions = {} if known else channel.more_expressions(question, values)
        attempt = channel.attempt_of(question, values, switch=self._switch, host=self._host)
        # Awaited to its end even if the caller is gone meanwhile: a decision that nobody waits for leaks.
        decision = await self._gatekeeper.decide(attempt)
        session.judged = True
        await self._answer(session, question, attempt, decision, asked_at)

    async def _answer(
        self,
        session: Session,
        question: channel.Question,
        attempt: Attempt,
        decision: Decision,
        asked_at: datetime,
    ) -> None:
        if not decision.allowed:
            await session.ask(channel.answer_command(decision))
            return
        by, delivered = HungUpBy.UNKNOWN, False
        try:
            command = channel.answer_command(decision)
            self._witness.allowed(attempt, decision, question, asked_at)
            reply = await session.ask(command)
            if reply.result != 0:
                raise ProtocolError("the verdict could not be set")
            delivered = True
        except CallerGoneError:
            by = HungUpBy.CALLER
            raise
        finally:
            if not delivered:
                self._witness.undelivered(attempt, decision, by, asked_at)
