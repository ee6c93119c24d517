"""Comparing with the switch's own list: what it holds is adopted or judged, what it lacks has ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from ringfence.errors import SwitchError
from ringfence.model import CallEnd
from ringfence.switches.freeswitch import channel, stray
from ringfence.switches.freeswitch.calls import LiveCalls, utcnow
from ringfence.switches.freeswitch.seal import VARIABLE, Sealer
from ringfence.switches.freeswitch.watch import Api, Watch

_YOUNG = timedelta(seconds=10)  # a younger leg's end may be on its way


class Stock:
    """The live calls against the switch's list."""

    def __init__(
        self,
        calls: LiveCalls,
        sealer: Sealer,
        watch: Watch,
        api: Api,
        tell: Callable[[Sequence[CallEnd]], None],
    ) -> None:
        self._calls = calls
        self._sealer = sealer
        self._watch = watch
        self._api = api
        self._tell = tell

    async def take(self) -> None:
        """After a (new) connection: adopt what the list holds, judge what nobody asked about, end what is gone.

        Raises SwitchError if the switch cannot be asked.
        """
        before = utcnow()
        rows = channels(await self._api.api("show channels as json"))
        # First who came in: a call that the dialplan asked about covers the leg it dials.
        for uuid in sorted(rows, key=lambda uuid: rows[uuid] == "outbound"):
            if self._calls.call_of(uuid) is None:
                await self._look_at(uuid, rows[uuid])
        await self._compare(rows, before)

    async def check(self, now: datetime) -> None:
        """Now and then ask for every live leg: an end that was lost anywhere is found. Raises SwitchError."""
        await self._compare((), now - _YOUNG)

    async def _look_at(self, uuid: str, direction: str) -> None:
        if direction == "outbound":
            headers = stray.dumped(await self._api.api(f"uuid_dump {uuid} json"))
            if headers and headers.get("Unique-ID") == uuid:
                self._watch.seen(headers, utcnow())
            return
        terms = self._sealer.open(uuid, await self._api.api(f"uuid_getvar {uuid} {VARIABLE}"))
        if terms is not None:
            self._calls.adopt(terms, uuid, utcnow())

    async def _compare(self, listed: Collection[str], before: datetime) -> None:
        missing = self._calls.missing(listed, before)
        gone = [uuid for uuid in missing if await self._api.api(f"uuid_exists {uuid}") == "false"]
        self._tell(self._calls.reconcile(gone, utcnow()))


def channels(text: str) -> dict[str, str]:
    """Uuid and direction of every channel. Raises SwitchError if the list cannot be read."""
    with suppress(ValueError, RecursionError):
        told = json.loads(text)
        if isinstance(told, dict) and isinstance(rows := told.get("rows", []), list):
            return {
                row["uuid"]: str(row.get("direction", ""))
                for row in rows
                if isinstance(row, dict) and isinstance(row.get("uuid"), str) and channel.is_uuid(row["uuid"])
            }
    raise SwitchError("the switch's channel list cannot be read")
