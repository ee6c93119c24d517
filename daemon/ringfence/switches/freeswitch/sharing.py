"""One attempt, one decision: the legs of an attempt ask one by one and are told the same."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from ringfence.model import Decision

MAX_ENTRIES = 20_000
MAX_LEGS = 32  # more legs than any dial string needs: a question asked for ever is judged anew
REFUSED_S = 5.0  # how long the legs of a refused attempt are told the same
ALLOWED_S = 180.0  # how long an attempt may try one leg after the other; it ends sooner with the call


@dataclass(slots=True)
class _Entry:
    task: asyncio.Task[Decision]
    asked_at: float
    legs: int = 1

    def fresh(self, now: float) -> bool:
        if self.legs >= MAX_LEGS:
            return False
        if not self.task.done():
            return True
        allowed = not self.task.cancelled() and self.task.result().allowed
        return now - self.asked_at < (ALLOWED_S if allowed else REFUSED_S)


class SharedDecisions:
    """Decisions by what the legs of an attempt have in common; bounded in number and in age."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries: OrderedDict[tuple[str, ...], _Entry] = OrderedDict()
        self._keys: dict[UUID, tuple[str, ...]] = {}
        self._clock = clock

    def __len__(self) -> int:
        return len(self._entries)

    async def decide(self, key: tuple[str, ...], judge: Callable[[], Coroutine[Any, Any, Decision]]) -> Decision:
        """The decision for this key: the one there is, or else what `judge` answers now."""
        now = self._clock()
        entry = self._entries.get(key)
        if entry is not None and entry.fresh(now):
            entry.legs += 1
            return await asyncio.shield(entry.task)
        self._drop(key)
        task = asyncio.get_running_loop().create_task(judge())
        self._entries[key] = _Entry(task, now)
        while len(self._entries) > MAX_ENTRIES:
            self._drop(next(iter(self._entries)))
        decision = await asyncio.shield(task)  # another leg may wait for it when this one has gone
        if (current := self._entries.get(key)) is not None and current.task is task:
            self._keys[decision.decision_id] = key
        return decision

    def forget(self, decision_id: UUID) -> None:
        """Later legs are judged anew: the call was answered, or is over."""
        key = self._keys.get(decision_id)
        if key is not None:
            self._drop(key)

    def sweep(self) -> None:
        """Drop what has become too old."""
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if not entry.fresh(now)]:
            self._drop(key)

    def _drop(self, key: tuple[str, ...]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.task.done() and not entry.task.cancelled():
            self._keys.pop(entry.task.result().decision_id, None)
