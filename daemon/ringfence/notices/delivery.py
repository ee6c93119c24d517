"""The daemon's part that sends notices: beside the call's way, each at least once, none lost without a word."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from ringfence.config import DatabaseSettings, NoticeSettings
from ringfence.errors import DatabaseError
from ringfence.notices.line import NotSentError
from ringfence.notices.mail import Mail
from ringfence.notices.webhook import Webhook
from ringfence.store.notices import Delivery, Outbox

_AT_ONCE = 2  # tries on a channel at the same time, each with a thread of its own
_LOOK_EVERY_S = 15.0
_RECONNECT_MIN_S = 0.2
_RECONNECT_MAX_S = 15.0
_LAST_TRIES_S = 0.5


class Channel(Protocol):
    """One way out."""

    name: str

    def send(self, delivery: Delivery, until: float) -> None:
        """Send; block at most until `until` (time.monotonic()). Raises NotSentError if it was not taken."""


def channels(settings: NoticeSettings, host: str) -> list[Channel]:
    """Every configured way out. Raises ConfigError if a secret is missing."""
    ways: list[Channel] = []
    if settings.smtp is not None:
        ways.append(Mail(settings.smtp, host))
    if settings.webhook is not None:
        ways.append(Webhook(settings.webhook))
    return ways


class Courier:
    """Plans, takes and sends notices as they come, until stopped. Raises ConfigError if a secret is missing.

    A try is bounded by `timeout_s` and a delivery is held three times as long, so that no two daemons send the
    same at the same time. A daemon that dies between sending and settling leaves it to be sent again.
    """

    def __init__(
        self,
        settings: NoticeSettings,
        database: DatabaseSettings,
        host: str,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self._settings = settings
        self._log = log
        self._channels = channels(settings, host)
        self._mail = settings.smtp is not None
        self._operators: Sequence[str] = settings.smtp.operators if settings.smtp else ()
        self._webhook = settings.webhook.url if settings.webhook else ""
        self._give_up_s = settings.give_up_after_h * 3600
        self._outbox = Outbox(database)
        self._wake = asyncio.Event()
        self._stopping = False
        self._main: asyncio.Task[None] | None = None
        self._in_hand: dict[str, set[asyncio.Task[None]]] = {channel.name: set() for channel in self._channels}

    def start(self) -> None:
        """Begin. Without a channel nothing is done but to say so."""
        if not self._channels:
            self._log.info("notice.no_channel")
            return
        self._main = asyncio.create_task(self._run(), name="notices")

    async def stop(self) -> None:
        """Take no more, give what is being sent a moment to be settled, and end. Idempotent.

        What could not be settled is sent again by the next daemon.
        """
        self._stopping = True
        self._wake.set()
        tasks = {task for tries in self._in_hand.values() for task in tries} | (
            {self._main} if self._main else set()
        )
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_LAST_TRIES_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._outbox.close()

    async def _run(self) -> None:
        pause_s = _RECONNECT_MIN_S
        while not self._stopping:
            try:
                await self._outbox.open(self._wake.set)
                pause_s = _RECONNECT_MIN_S
                await self._serve()
            except DatabaseError as error:
                self._log.warning("notice.database_down", error=str(error), retry_in_s=pause_s)
            except Exception:  # a courier that died would tell nobody anything any more
                self._log.exception("notice.failed")
            if not self._stopping:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _RECONNECT_MAX_S)

    async def _serve(self) -> None:
        look_every_s = min(_LOOK_EVERY_S, self._settings.retry_min_s)
        while not self._stopping:
            self._wake.clear()
            while await self._outbox.plan(mail=self._mail, operators=self._operators, webhook=self._webhook):
                pass
            for channel in self._channels:
                await self._take(channel)
            await self._abandon()
            with suppress(TimeoutError):
                async with asyncio.timeout(look_every_s):
                    await self._wake.wait()

    async def _take(self, channel: Channel) -> None:
        tries = self._in_hand[channel.name]
        if not (free := _AT_ONCE - len(tries)):
            return
        until = time.monotonic() + self._settings.timeout_s  # counted from before the hold begins
        due = await self._outbox.claim(
            channel.name,
            self._webhook,
            limit=free,
            hold_s=self._settings.timeout_s * 3,
            give_up_s=self._give_up_s,
        )
        for delivery in due:
            task = asyncio.create_task(self._deliver(channel, delivery, until))
            tries.add(task)
            task.add_done_callback(tries.discard)
            task.add_done_callback(lambda _: self._wake.set())  # a place is free

    async def _deliver(self, channel: Channel, delivery: Delivery, until: float) -> None:
        """One try, from the thread that blocks to its entry in the books."""
        notice = delivery.notice
        log = self._log.bind(
            notice=notice.notice_id,
            kind=notice.kind,
            customer=notice.customer,
            channel=channel.name,
            address=delivery.address,
            attempt=delivery.attempt,
        )
        error: str | None = None
        try:
            await _in_thread(lambda: channel.send(delivery, until))
        except NotSentError as fault:
            error = str(fault)
        except Exception as fault:  # one notice that cannot be sent does not keep the others
            log.exception("notice.failed")
            error = f"{type(fault).__name__}: {fault}"
        retry_in_s = self._retry_in_s(delivery.attempt)
        give_up = error is not None and delivery.overdue
        try:
            await self._outbox.settle(delivery, error, retry_in_s=retry_in_s, give_up=give_up)
        except DatabaseError as fault:
            log.warning("notice.unsettled", sent=error is None, error=str(fault))
            return
        if error is None:
            log.info("notice.sent")
        elif give_up:
            log.error("notice.gave_up", error=error)
        else:
            log.warning("notice.not_sent", error=error, retry_in_s=round(retry_in_s, 1))

    async def _abandon(self) -> None:
        for row in await self._outbox.abandon(mail=self._mail, webhook=self._webhook, give_up_s=self._give_up_s):
            self._log.error(
                "notice.gave_up",
                notice=row["notice_id"],
                kind=row["kind"],
                customer=row["customer"],
                channel=row["channel"],
                address=row["address"],
                error="no daemon is configured for it",
            )

    def _retry_in_s(self, attempt: int) -> float:
        """Exponential back-off, of which up to a quarter is left to chance."""
        longest = min(self._settings.retry_min_s * 2.0 ** min(attempt - 1, 40), self._settings.retry_max_s)
        return longest * random.uniform(0.75, 1.0)  # noqa: S311 - spreads load, hides nothing


async def _in_thread(work: Callable[[], None]) -> None:
    """Run what blocks in a thread that nobody waits for when the daemon ends, unlike those of an executor."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except BaseException as fault:
            error = fault
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="notice", daemon=True).start()
    await done
