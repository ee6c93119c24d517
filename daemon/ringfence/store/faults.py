"""What is wrong with the lines of a file that an operator loads."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

SHOWN = 20  # faults kept for people; the others are counted


@dataclass(slots=True)
class Faults:
    """What is wrong with the lines of a file: the first `SHOWN` by line, and how many there are."""

    count: int = 0
    _kept: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, text: str) -> None:
        """One more bad line."""
        self.count += 1
        heapq.heappush(self._kept, (-line, text))
        if len(self._kept) > SHOWN:
            heapq.heappop(self._kept)

    def first(self) -> list[tuple[int, str]]:
        """The first bad lines with what is wrong with them."""
        return sorted((-negative, text) for negative, text in self._kept)
