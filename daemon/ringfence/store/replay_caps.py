"""Caps over recorded calls, in order of time: what `authorize` does under locks, without a database.

Every step here mirrors one of sql/functions/authorize.sql, record_ends.sql and use_scopes.sql, in their order and
in whole microseconds. tests/integration/test_replay.py holds the two together: calls that `authorize` judged come
out the same when they are replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

AUTHORIZED = ("allow", "authorized")
DELAYED = ("delay", "authorized")
Outcome = tuple[str, str]  # verdict and reason

_REFUSALS: dict[str, Outcome] = {
    rule: ("reject", f"{rule}_exceeded")
    for rule in (
        "calls_per_second",
        "concurrent_calls",
        "calls_per_day",
        "calls_per_month",
        "minutes_per_day",
        "minutes_per_month",
        "destination_cap",
        "caller_id_cap",
    )
}
_CALENDAR_RULES = ("calls_per_day", "calls_per_month", "minutes_per_day", "minutes_per_month")
_NEVER = -1


class Caps(NamedTuple):
    """How much may pass in a day and in a month; None is any number."""

    calls_per_day: int | None
    calls_per_month: int | None
    seconds_per_day: int | None
    seconds_per_month: int | None


@dataclass(frozen=True, slots=True)
class Profile:
    """A limit profile. `not_enforced` are the rules that only report or are off."""

    spacing_us: int
    burst: int
    max_delay_ms: int
    concurrent_calls: int
    caps: Caps
    caller_id_calls_per_day: int | None
    not_enforced: frozenset[str]


@dataclass(slots=True)
class _Used:
    """A row of usage, or the like of it in counters. Days and months that are over count for nothing."""

    day: int = _NEVER
    calls_today: int = 0
    seconds_today: int = 0
    month: int = _NEVER
    calls_this_month: int = 0
    seconds_this_month: int = 0

    def begin(self, day: int, month: int) -> None:
        if self.day != day:
            self.day, self.calls_today, self.seconds_today = day, 0, 0
        if self.month != month:
            self.month, self.calls_this_month, self.seconds_this_month = month, 0, 0

    def add(self, day: int, month: int, calls: int, seconds: int) -> None:
        if day >= self.day:
            self.begin(day, month)
        if day == self.day:
            self.calls_today += calls
            self.seconds_today += seconds
        if month == self.month:
            self.calls_this_month += calls
            self.seconds_this_month += seconds

    def over(self, day: int, month: int, caps: Caps) -> list[str]:
        """The caps that are used up."""
        today, this_month = day == self.day, month == self.month
        used = (
            self.calls_today if today else 0,
            self.calls_this_month if this_month else 0,
            self.seconds_today if today else 0,
            self.seconds_this_month if this_month else 0,
        )
        return [
            rule
            for rule, cap, so_far in zip(_CALENDAR_RULES, caps, used, strict=True)
            if cap is not None and so_far >= cap
        ]


_NO_CAPS = Caps(None, None, None, None)
_NO_SCOPES: tuple[_Used, ...] = ()


@dataclass(slots=True)
class _Customer:
    next_call: int = _NEVER
    live_calls: int = 0
    used: _Used = field(default_factory=_Used)


class Counters:
    """Every customer's counters, empty at first. Calls must come in order of time."""

    def __init__(self, profiles: Mapping[str, Profile], destinations: Mapping[int, Caps]) -> None:
        self._profiles = profiles
        self._destinations = destinations
        self._customers: dict[str, _Customer] = {}
        self._scopes: dict[tuple[str, str, int], _Used] = {}
        self._ends: list[tuple[int, int, _Customer, int, int, tuple[_Used, ...]]] = []
        self._order = count()

    def decide(  # noqa: PLR0912, PLR0917 - one step after the other, millions of times
        self,
        customer: str,
        profile_name: str,
        at: int,
        day: int,
        rule: int | None,
        caller: int | None,
        freed_at: int | None,
        seconds: int,
        ended_day: int,
    ) -> Outcome:
        """The answer to one call that every other rule lets pass; if it may leave, it is counted until it ends.

        Times are microseconds since 1970; days are counted from 2000-01-01 in the customer's zone. `rule` is a
        destination rule that caps; `caller` is given if the profile caps calls by caller ID; `freed_at` is None
        while nobody told the call's end; `seconds` are those it was answered.
        """
        ends = self._ends
        while ends and ends[0][0] <= at:
            self._end(*heappop(ends))
        profile = self._profiles[profile_name]
        mine = self._customers.get(customer)
        if mine is None:
            mine = self._customers[customer] = _Customer()
        over: list[str] = []

        # GCRA, and the wait for a slot.
        spacing, burst, next_call = profile.spacing_us, profile.burst, mine.next_call
        if next_call > at + burst * spacing + profile.max_delay_ms * 1000:  # a clock was set back
            next_call = at
        outcome = AUTHORIZED
        slot = next_call - (burst - 1) * spacing
        if slot > at:
            if -((at - slot) // 1000) > profile.max_delay_ms or "calls_per_second" in profile.not_enforced:
                over.append("calls_per_second")
            else:
                outcome = DELAYED
        if mine.live_calls >= profile.concurrent_calls:
            over.append("concurrent_calls")

        month, scopes = 0, _NO_SCOPES
        capped = profile.caps != _NO_CAPS
        if capped or rule is not None or caller is not None:
            month = _month_of(day)
            if capped:
                over += mine.used.over(day, month, profile.caps)
            if rule is not None or caller is not None:
                scopes = self._over_in_scopes(customer, profile, day, month, rule, caller, over)

        for name in over:
            if name not in profile.not_enforced:
                return _REFUSALS[name]
        if not over or over[0] != "calls_per_second":
            mine.next_call = max(next_call, at) + spacing
        mine.live_calls += 1
        if capped:
            mine.used.begin(day, month)
            mine.used.add(day, month, 1, 0)
        for used in scopes:
            used.add(day, month, 1, 0)
        if freed_at is not None:
            heappush(ends, (freed_at, next(self._order), mine, seconds, ended_day, scopes))
        return outcome

    def _over_in_scopes(  # noqa: PLR0917 - as decide
        self,
        customer: str,
        profile: Profile,
        day: int,
        month: int,
        rule: int | None,
        caller: int | None,
        over: list[str],
    ) -> tuple[_Used, ...]:
        """The counters for part of the customer's calls that this one counts in; adds to `over`."""
        scopes = _NO_SCOPES
        if rule is not None:
            scopes = (self._scope(customer, "destination", rule),)
            if scopes[0].over(day, month, self._destinations[rule]):
                over.append("destination_cap")
        if caller is not None:
            used = self._scope(customer, "caller", caller)
            scopes += (used,)
            if used.over(day, month, Caps(profile.caller_id_calls_per_day, None, None, None)):
                over.append("caller_id_cap")
        return scopes

    def _scope(self, customer: str, kind: str, number: int) -> _Used:
        used = self._scopes.get((customer, kind, number))
        if used is None:
            used = self._scopes[customer, kind, number] = _Used()
        return used

    def _end(
        self, _at: int, _order: int, mine: _Customer, seconds: int, day: int, scopes: tuple[_Used, ...]
    ) -> None:
        mine.live_calls -= 1
        if seconds:
            month = _month_of(day)
            mine.used.add(day, month, 0, seconds)
            for used in scopes:
                used.add(day, month, 0, seconds)


_DAY_0 = date(2000, 1, 1).toordinal()


@lru_cache(maxsize=4096)
def _month_of(day: int) -> int:
    return date.fromordinal(_DAY_0 + day).replace(day=1).toordinal() - _DAY_0
