"""The manager interface: keeps one logged-in connection, hands its events on, and asks it questions.

Nothing here is on a call's way: the gate answers over FastAGI whether this is connected or not.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping

from panoramisk.message import Message
from structlog.typing import FilteringBoundLogger

from ringfence.config import AmiSettings
from ringfence.errors import SwitchError
from ringfence.switches.asterisk.link import Link

EVENT_CLASSES = "call,user"


class LoginRefusedError(SwitchError):
    """The manager refuses the user or its secret."""


class Ami:
    """A manager connection that is made again, with back-off, whenever it is lost."""

    def __init__(
        self,
        settings: AmiSettings,
        log: FilteringBoundLogger,
        *,
        switch: str,
        events: Iterable[str],
        on_event: Callable[[Mapping[str, str]], None],
        on_connected: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._log = log
        self._switch = switch
        self._filter = f"^Event: ({'|'.join(sorted(events))})[^A-Za-z]"
        self._on_event = on_event
        self._on_connected = on_connected
        self._link: Link | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._secret = ""

    @property
    def connected(self) -> bool:
        """True while logged in."""
        return self._link is not None

    @property
    def torn(self) -> int:
        """Messages of this connection that were passed over because of their shape (see `messages`)."""
        return self._link.torn if self._link is not None else 0

    async def start(self) -> None:
        """Connect and log in once, and keep at it in the background.

        Raises SwitchError if the switch refuses the login, ConfigError if there is no secret. That it cannot be
        reached is logged and tried again.
        """
        self._secret = self._settings.secret
        link = None
        try:
            link = await self._open()
        except LoginRefusedError:
            raise
        except (OSError, SwitchError) as error:
            self._unreachable(error)
        self._keeper = asyncio.create_task(self._keep(link), name=f"ami {self._switch}")

    async def stop(self) -> None:
        """Close the connection and stop making new ones. Idempotent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def action(self, fields: Mapping[str, str]) -> Message:
        """The response to one action. Raises SwitchError if there is none in time or if it says Error."""
        response = (await self._require().ask(fields))[0]
        if not response.success:
            raise SwitchError(f"the switch refuses {fields.get('Action', '')}: {response.message}")
        return response

    async def action_list(self, fields: Mapping[str, str]) -> list[Message]:
        """The items of a list action. Raises SwitchError if it fails or if items are missing."""
        response, *items = await self._require().ask(fields, as_list=True)
        end = items.pop() if items else None
        if not response.success or end is None or end.eventlist != "Complete":
            raise SwitchError(f"the switch refuses {fields.get('Action', '')}: {response.message}")
        if end.listitems != str(len(items)):
            raise SwitchError(f"the answer to {fields.get('Action', '')} is not complete")
        return items

    async def hang_up(self, channel: str, q850_cause: int) -> None:
        """Hang up one channel by its name. Raises SwitchError if the switch does not."""
        await self.action({"Action": "Hangup", "Channel": channel, "Cause": str(q850_cause)})

    # --- the connection ---------------------------------------------------------------------------------------

    def _require(self) -> Link:
        if self._link is None:
            raise SwitchError(f"switches.{self._switch}.ami: not connected")
        return self._link

    async def _keep(self, link: Link | None) -> None:
        failures = 0 if link else 1
        while True:
            if link is not None:
                failures = 0
                why = await self._serve(link)
                self._log.warning("ami.disconnected", why=why)
            await asyncio.sleep(self._pause_s(failures))
            try:
                link = await self._open()
            except LoginRefusedError as error:
                self._log.error("ami.login_refused", error=str(error))
                link, failures = None, failures + 1
            except (OSError, SwitchError) as error:
                self._unreachable(error)
                link, failures = None, failures + 1

    def _pause_s(self, failures: int) -> float:
        """Exponential back-off with full jitter on its upper half."""
        longest = min(self._settings.reconnect_max_s, self._settings.reconnect_min_s * 2.0 ** min(failures, 16))
        return longest * random.uniform(0.5, 1)  # noqa: S311 - not a secret

    def _unreachable(self, error: Exception) -> None:
        why = str(error) or "no connection in time"
        self._log.warning("ami.unreachable", address=str(self._settings.address), error=why)

    async def _open(self) -> Link:
        """A connection that is logged in and sends only the events that are wanted."""
        link = Link(self._settings, self._on_event)
        try:
            await link.open()
            await self._log_in(link)
            await self._choose_events(link)
        except BaseException:
            link.abort("not logged in")
            raise
        return link

    async def _log_in(self, link: Link) -> None:
        settings = self._settings
        login = {"Action": "Login", "Username": settings.username, "Secret": self._secret, "Events": "off"}
        [response] = await link.ask(login)
        if not response.success:
            raise LoginRefusedError(
                f"switches.{self._switch}.ami: the manager at {settings.address} refuses the login of "
                f"{settings.username!r}: {response.message}"
            )

    async def _choose_events(self, link: Link) -> None:
        """About 8 events a call instead of 101. Legacy filters: the only ones that 16 and 22 both know."""
        [filtered] = await link.ask({"Action": "Filter", "Operation": "Add", "Filter": self._filter})
        if not filtered.success:
            # The shipped manager.conf gives the user no right to it and filters by itself. Without either, all
            # works the same, at the price of reading events that are then passed over.
            self._log.info("ami.filter_refused", error=filtered.message)
        [switched_on] = await link.ask({"Action": "Events", "EventMask": EVENT_CLASSES})
        if not switched_on.success:
            raise SwitchError(f"switches.{self._switch}.ami: the manager sends no events: {switched_on.message}")

    async def _serve(self, link: Link) -> str:
        """Until the connection is lost; returns why. Closes it when cancelled."""
        self._link = link
        self._log.info("ami.connected", address=str(self._settings.address), version=link.protocol.version)
        try:
            try:
                await self._on_connected()
            except Exception:  # the connection is worth more than what was to be done with it
                self._log.exception("ami.failed")
            while not link.lost.done():
                await asyncio.wait([link.lost], timeout=self._settings.ping_interval_s)
                if not link.lost.done():
                    await self._ping(link)
            return link.lost.result()
        finally:
            self._link = None
            await link.close()

    async def _ping(self, link: Link) -> None:
        try:
            await link.ask({"Action": "Ping"})
        except SwitchError as error:
            link.abort(str(error))
            await link.lost
