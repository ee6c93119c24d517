"""What keeps the books straight beside the call's way: leases, reconciling, partitions, suspensions, expiries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from ringfence.config import DatabaseSettings, GateSettings
from ringfence.errors import DatabaseError, SwitchError
from ringfence.store.journal import Journal
from ringfence.store.listener import PolicyListener
from ringfence.store.office import Office
from ringfence.switches.interface import Switch

_HOURLY_S = 3600.0
_SOON_S = 5.0
_RETRY_S = 1.0
_FLUSH_S = 1.5
_Q850_CALL_REJECTED = 21
_ANSWER_ON_ITS_WAY = timedelta(seconds=2)

Calls = Sequence[tuple[str, UUID]]


class Upkeep:
    """The daemon's chores. `settings` may be replaced at any time."""

    def __init__(
        self,
        settings: GateSettings,
        database: DatabaseSettings,
        host: str,
        journal: Journal,
        log: structlog.typing.FilteringBoundLogger,
    ) -> None:
        self.settings = settings
        self._host = host
        self._journal = journal
        self._log = log
        self._office = Office(database)
        self._office_hours = asyncio.Lock()
        self._warden = Office(database)  # suspensions do not queue behind chores
        self._warden_hours = asyncio.Lock()
        self._listener = PolicyListener(database, self._policy_changed, log)
        self._listed: dict[str, tuple[Calls, datetime]] = {}
        self._listed_anew = asyncio.Event()
        self._switches: Sequence[Switch] = ()
        self._tasks: set[asyncio.Task[None]] = set()

    async def prepare(self) -> None:
        """Raises DatabaseError if Postgres cannot be used or lacks the schema."""
        await self._office.require_schema()
        await self._office.ensure_partitions()

    def start(self, switches: Sequence[Switch]) -> None:
        """Begin every chore for these switches."""
        self._switches = switches
        self._spawn(self._every(lambda: self.settings.lease_s / 4, self._leases))
        for chore in (self._partitions, self._usage, self._expiries):
            self._spawn(self._every(lambda: _HOURLY_S, chore, first_s=_SOON_S))
        self._spawn(self._reconcile())
        self._spawn(self._listener.run())

    async def stop(self) -> None:
        """End every chore. Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._office.close()
        await self._warden.close()

    def calls_listed(self, switch: str, calls: Calls, asked_at: datetime) -> None:
        """A switch's own list of live calls is to be compared with the leases."""
        self._listed[switch] = (calls, asked_at)
        self._listed_anew.set()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _every(
        self, period_s: Callable[[], float], chore: Callable[[], Awaitable[None]], *, first_s: float | None = None
    ) -> None:
        pause_s = period_s() if first_s is None else first_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = period_s()
            try:
                await chore()
            except DatabaseError as error:
                name = getattr(chore, "__name__", "").strip("_")
                self._log.warning("service.chore_failed", chore=name, error=str(error))
                # Leases run out meanwhile; and they wait while an hourly chore is at it.
                pause_s = min(max(_RETRY_S, pause_s / 60), pause_s)
            except Exception:  # it has another chance at its next turn; a dead chore would have none
                self._log.exception("service.chore_crashed", chore=getattr(chore, "__name__", "").strip("_"))

    # --- leases ---------------------------------------------------------------------------------------------

    async def _leases(self) -> None:
        calls = [call for switch in self._switches if switch.connected() for call in switch.live_calls()]
        async with self._office_hours:
            if calls:
                await self._office.renew_leases(calls, self.settings.lease_s)
            expired = await self._office.expire_leases()
            await self._office.forget_leases()
            suspended = await self._office.settle_infractions()
        if expired:
            self._log.warning("lease.expired", count=expired)
        if suspended:
            self._log.warning("suspension.settled", count=suspended)
        await self._hang_up_suspended()  # should a change have been missed

    async def _partitions(self) -> None:
        async with self._office_hours:
            await self._office.ensure_partitions()

    async def _usage(self) -> None:
        while True:
            async with self._office_hours:  # a piece at a time: leases must not wait for all of it
                if not await self._office.forget_usage():
                    return

    async def _expiries(self) -> None:
        async with self._office_hours:
            raised = await self._office.raise_expiries()
        if raised:
            self._log.info("notice.expiries", count=raised)

    async def _reconcile(self) -> None:
        """Bring the leases in line with each list a switch gave. A list that cannot be used now is kept until
        the next one takes its place."""
        while True:
            await self._listed_anew.wait()
            self._listed_anew.clear()
            for switch, (calls, asked_at) in list(self._listed.items()):
                try:
                    if await self._compare(switch, calls, asked_at):
                        self._listed.pop(switch, None)
                except DatabaseError as error:
                    self._log.warning("lease.reconcile_failed", switch=switch, error=str(error))
                except Exception:
                    self._log.exception("service.chore_crashed", chore="reconcile")

    async def _compare(self, switch: str, calls: Calls, asked_at: datetime) -> bool:
        # Ends on their way, in memory or on disk, say more than "reconciled" does: they go first.
        await self._journal.flush(_FLUSH_S)
        if not self._journal.settled:
            self._log.warning("lease.reconcile_failed", switch=switch, error="call ends wait to be written")
            return False
        # A decision that was on its way to the switch when it was asked is not in its list.
        on_its_way = timedelta(milliseconds=self.settings.deadline_ms) + _ANSWER_ON_ITS_WAY
        async with self._office_hours:
            if not await self._office.claim(self._host, switch):
                self._log.error("lease.same_name", switch=switch)
                return False
            ended = await self._office.reconcile_leases(
                self._host, switch, calls, asked_at - on_its_way, self.settings.lease_s
            )
        if ended:
            self._log.warning("lease.reconciled", switch=switch, ended=ended, live=len(calls))
        return True

    # --- suspensions ----------------------------------------------------------------------------------------

    async def _policy_changed(self) -> None:
        # Tasks: a switch that does not answer must not keep the next change from being heard.
        self._spawn(self._hang_up_suspended())
        # A call that was allowed at that very moment is on the switch when its answer has arrived.
        self._spawn(self._hang_up_suspended(self.settings.deadline_ms / 1000 + 0.5))

    async def _hang_up_suspended(self, after_s: float = 0.0) -> None:
        """End the live calls of customers whose suspension says so. Emergency calls have no customer."""
        await asyncio.sleep(after_s)
        live = [(customer, call, switch) for switch in self._switches for customer, call in switch.live_calls()]
        customers = {customer for customer, _, _ in live if customer}
        if not customers:
            return
        try:
            async with self._warden_hours:
                to_end = await self._warden.customers_to_hang_up(customers)
        except DatabaseError as error:
            self._log.error("suspension.failed", error=str(error))
            return
        calls = [(decision, switch) for customer, decision, switch in live if customer in to_end]
        if calls:
            self._log.warning("suspension.hanging_up", customers=sorted(to_end), calls=len(calls))
            await asyncio.gather(*(self._hang_up(decision, switch) for decision, switch in calls))

    async def _hang_up(self, decision: UUID, switch: Switch) -> None:
        try:
            await switch.hang_up(decision, _Q850_CALL_REJECTED, "the customer was suspended")
        except SwitchError as error:
            self._log.error("suspension.failed", decision=str(decision), switch=switch.name, error=str(error))
