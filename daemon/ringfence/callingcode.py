"""The numbers of one country calling code: which country each belongs to and what kind it is of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from phonenumbers import (
    COUNTRY_CODE_TO_REGION_CODE,
    REGION_CODE_FOR_NON_GEO_ENTITY,
    PhoneNumberType,
    is_number_type_geographical,
)
from phonenumbers.phonemetadata import PhoneMetadata, PhoneNumberDesc

from ringfence.numberpattern import Automaton

PREMIUM = "premium"
TOLL_FREE = "toll_free"

# Types of numbers beside these two, which are kinds too.
_NON_GEOGRAPHIC = "non_geographic"
_FIXED = "fixed"
_MOBILE = "mobile"
_UNASSIGNED = "unassigned"
# A number that matches the patterns of several types is of the first.
_TYPES = (PREMIUM, TOLL_FREE, _NON_GEOGRAPHIC, _FIXED, _MOBILE)

NANP = 1
_NANP_NATIONAL_DIGITS = 10
_NANP_AREA_DIGITS = 3
_MOST_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Block:
    """Every number that begins with `prefix`.

    `country` is empty for numbers of no country. `geographic` is true if the digits tell where in the country the
    called party is; as in phonenumbers, those of a mobile seldom do.
    """

    prefix: str
    country: str
    kind: str
    geographic: bool


class _What(NamedTuple):
    country: str
    type: str


# Of the numbers that begin with some digits: what all of them are, or a plan for each digit that may follow.
_Plan: TypeAlias = "_What | tuple[_Plan, ...]"


@dataclass(frozen=True, slots=True)
class _End:
    """What it means that a number matches one of the patterns."""

    matched: int
    region: str
    type: str
    lengths: tuple[int, ...]


class CallingCode:
    """One calling code. What a number is follows phonenumbers' `region_code_for_number` and `number_type`."""

    def __init__(self, code: int, *, local: bool) -> None:
        """Read the metadata of `code`.

        Unless `local`, all its numbers but premium and toll-free ones are said to be geographic, which is found
        much faster. Raises ValueError if a pattern of the metadata has a syntax that is not known.
        """
        self._code = str(code)
        self._regions = COUNTRY_CODE_TO_REGION_CODE[code]
        self._automaton = Automaton()
        self._start = 0
        self._ends: list[_End] = []
        self._bits_of: dict[str, int] = {}  # region: every bit of its patterns but the leading digits
        self._owners: dict[tuple[str, str], int] = {}  # the same by region and type
        self._led: dict[str, tuple[int, int]] = {}  # region: the bit 'leading digits matched', all bits of these
        self._known: dict[tuple[int, int], frozenset[tuple[str, str]]] = {}
        self._plans: dict[tuple[int, int], _Plan] = {}
        self._known_as: dict[str, str] = {}
        if not local:
            self._known_as = {_NON_GEOGRAPHIC: _FIXED, _MOBILE: _FIXED}
        elif is_number_type_geographical(PhoneNumberType.MOBILE, code):
            self._known_as = {_MOBILE: _FIXED}
        for region in self._regions:
            self._read(code, region)
        self._sticky = sum(matched for matched, _ in self._led.values())
        self._leading = sum(bits for _, bits in self._led.values())
        self._kept: dict[int, int] = {}  # by the bits of leading digits in a state: what may still be in it
        self._too_short_or_long = [
            sum(end.matched for end in self._ends if end.lengths and digits not in end.lengths)
            for digits in range(_MOST_DIGITS + 8)
        ]

    def blocks(self) -> Iterator[Block]:
        """Blocks that together hold every number of the code, in order and none within another."""
        return _blocks(self._code, self._plan(self._possible(self._start, 0), 0))

    def _read(self, code: int, region: str) -> None:
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        if metadata is None:
            return
        if metadata.leading_digits:
            start, matched, bits = self._automaton.add(metadata.leading_digits)
            self._start |= start
            self._led[region] = (matched, bits)
        for type_, description in _descriptions(metadata):
            lengths = tuple(description.possible_length or ())
            if code == NANP:
                # The plan is closed. Seven digits after +1 are a number within one country, not an E.164 number.
                if _NANP_NATIONAL_DIGITS not in lengths:
                    continue
                lengths = (_NANP_NATIONAL_DIGITS,)
            start, matched, bits = self._automaton.add(description.national_number_pattern or "")
            self._start |= start
            known_as = self._known_as.get(type_, type_)
            self._ends.append(_End(matched, region, known_as, lengths))
            self._bits_of[region] = self._bits_of.get(region, 0) | bits
            self._owners[region, known_as] = self._owners.get((region, known_as), 0) | bits

    def _plan(self, state: int, digits: int) -> _Plan:
        """What the numbers are that begin with the `digits` national digits that led to `state`."""
        plan = self._plans.get((state, digits))
        if plan is None:
            plan = self._plans[state, digits] = self._make_plan(state, digits)
        return plan

    def _make_plan(self, state: int, digits: int) -> _Plan:
        numbers = self._numbers(state, digits)
        ends = self._number(state)
        if ends is not None and ends[1] == PREMIUM:
            # Whoever dials digits after a whole number reaches that number.
            return _What(_iso(ends[0]), PREMIUM)
        types = {type_ for _, type_ in numbers}
        unassigned = _What(self._country({region for region, _ in numbers}, digits), _UNASSIGNED)
        if not numbers:
            return unassigned
        if len(self._code) + digits == _MOST_DIGITS:
            return unassigned._replace(type=next(type_ for type_ in _TYPES if type_ in types))
        steps = [self._step(state, digit, digits + 1) for digit in range(10)]
        if self._is_one_block(numbers, digits) and (
            # What is not known to be free is not.
            types != {TOLL_FREE} or ends is not None or all(self._numbers(after, digits + 1) for after in steps)
        ):
            return unassigned._replace(type=types.pop())
        plans = [
            self._plan(after, digits + 1) if self._numbers(after, digits + 1) else unassigned for after in steps
        ]
        if ends is not None and not self._numbers(steps[0], digits + 1):
            plans[0] = _What(_iso(ends[0]), ends[1])  # the number itself, filled up with zeros
        if isinstance(plans[0], _What) and all(plan == plans[0] for plan in plans):
            return plans[0]
        return tuple(plans)

    def _is_one_block(self, numbers: frozenset[tuple[str, str]], digits: int) -> bool:
        return len(numbers) <= 1 and not (self._code == str(NANP) and digits < _NANP_AREA_DIGITS)

    def _country(self, regions: set[str], digits: int) -> str:
        """The country of the numbers that are not assigned, where the others are of `regions`."""
        if self._code == str(NANP) and (digits < _NANP_AREA_DIGITS or len(regions) > 1):
            # Its countries have nothing in common but the code, and some of the dearest are among them: an area
            # code that is not known to belong to one of them belongs to none.
            return ""
        return _iso(next(iter(regions)) if len(regions) == 1 else self._regions[0])

    def _step(self, state: int, digit: int, digits: int) -> int:
        """The state after `digit`, which is the `digits`th of the national number."""
        return self._possible(self._automaton.step(state, digit) | state & self._sticky, digits)

    def _possible(self, state: int, digits: int) -> int:
        """The state without numbers of a wrong length, and regions whose leading digits cannot match any more."""
        led_to = state & self._leading
        kept = self._kept.get(led_to)
        if kept is None:
            kept = self._kept[led_to] = ~sum(
                self._bits_of.get(region, 0) for region, (_, bits) in self._led.items() if not led_to & bits
            )
        return state & kept & ~self._too_short_or_long[digits]

    def _number(self, state: int) -> tuple[str, str] | None:
        """Region and type of the number that ends here, if it is one."""
        matched = [end for end in self._ends if state & end.matched]
        for region in self._regions:
            types = {end.type for end in matched if end.region == region}
            if region in self._led:
                if not state & self._led[region][0]:
                    continue
            elif not types:
                continue
            return next(((region, type_) for type_ in _TYPES if type_ in types), None)
        return None

    def _numbers(self, state: int, digits: int) -> frozenset[tuple[str, str]]:
        """Region and type of every number that begins with the `digits` national digits that led to `state`."""
        alive = [owner for owner, bits in self._owners.items() if state & bits]
        if len(alive) <= 1:
            return frozenset(alive)
        known = self._known.get((state, digits))
        if known is None:
            found = set()
            ends = self._number(state)
            if ends is not None:
                found.add(ends)
            for digit in range(10):
                found |= self._numbers(self._step(state, digit, digits + 1), digits + 1)
            known = self._known[state, digits] = frozenset(found)
        return known


def _blocks(prefix: str, plan: _Plan) -> Iterator[Block]:
    if isinstance(plan, _What):
        kind = plan.type if plan.type in (PREMIUM, TOLL_FREE) else ""
        yield Block(prefix, plan.country, kind, plan.type == _FIXED)
    else:
        for digit, longer in enumerate(plan):
            yield from _blocks(f"{prefix}{digit}", longer)


def _descriptions(metadata: PhoneMetadata) -> Iterator[tuple[str, PhoneNumberDesc]]:
    for type_, description in (
        (PREMIUM, metadata.premium_rate),
        (TOLL_FREE, metadata.toll_free),
        (_NON_GEOGRAPHIC, metadata.shared_cost),
        (_NON_GEOGRAPHIC, metadata.voip),
        (_NON_GEOGRAPHIC, metadata.personal_number),
        (_NON_GEOGRAPHIC, metadata.pager),
        (_NON_GEOGRAPHIC, metadata.uan),
        (_NON_GEOGRAPHIC, metadata.voicemail),
        (_FIXED, metadata.fixed_line),
        (_MOBILE, metadata.mobile),
    ):
        if description is not None and description.national_number_pattern:
            yield type_, description


def _iso(region: str) -> str:
    return "" if region == REGION_CODE_FOR_NON_GEO_ENTITY else region
