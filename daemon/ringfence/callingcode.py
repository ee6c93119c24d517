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
_FEWEST_DIGITS = 7  # of a called number that is no short code
_MOST_DIGITS = 15


@dataclass(frozen=True, slots=True)
class Block:
    """Every number that begins with `prefix`.

    `country` is empty for numbers of no country. Numbers that have one of the lengths `other_digits`, country code
    included, are of `other_kind`, all others of `kind`. `geographic` is true if the digits tell where in the
    country the called party is; as in phonenumbers, those of a mobile seldom do.
    """

    prefix: str
    country: str
    kind: str
    other_digits: tuple[int, ...]
    other_kind: str
    geographic: bool


class _What(NamedTuple):
    country: str
    type: str
    other_digits: tuple[int, ...] = ()
    other_kind: str = ""


# Of the numbers that begin with some digits: what all of them are, or a plan for each digit that may follow.
_Plan: TypeAlias = "_What | tuple[_Plan, ...]"


class _Lengths(NamedTuple):
    """How many national digits numbers of each kind have: bit n is set if some have n."""

    premium: int = 0
    toll_free: int = 0
    other: int = 0

    def with_(self, type_: str, lengths: int) -> _Lengths:
        if type_ == PREMIUM:
            return self._replace(premium=self.premium | lengths)
        if type_ == TOLL_FREE:
            return self._replace(toll_free=self.toll_free | lengths)
        return self._replace(other=self.other | lengths)


class _Above(NamedTuple):
    """What is known of some digits from those before them."""

    country: str = ""
    ended: _Lengths = _Lengths()  # numbers that end before and, filled up with zeros, begin with these digits
    beyond_premium: bool = False  # some of the digits before are a whole premium number


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
        self._owned: dict[tuple[str, str], list[tuple[int, int]]] = {}  # of each pattern: its bits, its lengths
        self._led: dict[str, tuple[int, int]] = {}  # region: the bit 'leading digits matched', all bits of these
        self._known: dict[tuple[int, int], dict[tuple[str, str], int]] = {}
        self._plans: dict[tuple[int, int, _Above], _Plan] = {}
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
        return _blocks(self._code, self._plan(self._possible(self._start, 0), 0, _Above()))

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
            possible = sum(1 << length for length in lengths) or -1
            self._owned.setdefault((region, known_as), []).append((bits, possible))

    def _plan(self, state: int, digits: int, above: _Above) -> _Plan:
        """What the numbers are that begin with the `digits` national digits that led to `state`."""
        plan = self._plans.get((state, digits, above))
        if plan is None:
            plan = self._plans[state, digits, above] = self._make_plan(state, digits, above)
        return plan

    def _make_plan(self, state: int, digits: int, above: _Above) -> _Plan:
        numbers = self._numbers(state, digits)
        if not numbers:
            return self._what(above, {})
        ends = self._number(state)
        here = above._replace(country=self._country({region for region, _ in numbers}, digits))
        if ends is not None and ends[1] == PREMIUM:
            # Whoever dials digits after a whole number reaches that number.
            here = here._replace(beyond_premium=True)
        if len(self._code) + digits == _MOST_DIGITS:
            return self._what(here, {} if ends is None else {ends: 1 << digits})
        steps = [self._step(state, digit, digits + 1) for digit in range(10)]
        if self._is_one_block(numbers, digits) and self._is_known_throughout(
            {type_ for _, type_ in numbers}, ends, [self._numbers(after, digits + 1) for after in steps], here
        ):
            return self._what(here, numbers)
        ended = here.ended if ends is None else here.ended.with_(ends[1], 1 << digits)
        plans = [
            self._plan(after, digits + 1, here._replace(ended=_Lengths() if digit else ended))
            for digit, after in enumerate(steps)
        ]
        if isinstance(plans[0], _What) and all(plan == plans[0] for plan in plans):
            return plans[0]
        return tuple(plans)

    def _is_one_block(self, numbers: dict[tuple[str, str], int], digits: int) -> bool:
        """Whether the numbers are of one region and their lengths tell their types."""
        if self._code == str(NANP) and digits < _NANP_AREA_DIGITS:
            return False
        taken = 0
        for lengths in numbers.values():
            if taken & lengths:
                return False
            taken |= lengths
        return len({region for region, _ in numbers}) <= 1

    def _is_known_throughout(
        self,
        types: set[str],
        ends: tuple[str, str] | None,
        longer: list[dict[tuple[str, str], int]],
        here: _Above,
    ) -> bool:
        """Whether what is known of the numbers of `types` does not hold for some of the digits that follow only.

        A gap in a premium block is premium. But what is not known to be free is not, numbers that no premium
        number begins like are not premium, and after a whole premium number what is not known is that number.
        """

        def everywhere(wanted: set[str]) -> bool:
            if ends is not None and ends[1] in wanted:
                return True
            return all(any(type_ in wanted for _, type_ in numbers) for numbers in longer)

        special = types & {PREMIUM, TOLL_FREE}
        if types != {PREMIUM} and not all(everywhere({type_}) for type_ in special):
            return False
        return not here.beyond_premium or types == {PREMIUM} or everywhere(types - {PREMIUM})

    def _what(self, here: _Above, numbers: dict[tuple[str, str], int]) -> _What:
        """What the numbers are of which those of no other type have the same length."""
        lengths = here.ended
        for (_, type_), these in numbers.items():
            lengths = lengths.with_(type_, these)
        if lengths.premium or here.beyond_premium:
            free = TOLL_FREE if lengths.toll_free and not lengths.other else ""
            return _What(here.country, PREMIUM, self._digits(lengths.toll_free | lengths.other), free)
        if lengths.toll_free:
            # What is not known to be free is not.
            return _What(here.country, TOLL_FREE, self._digits(~lengths.toll_free) if lengths.other else ())
        types = {type_ for _, type_ in numbers}
        return _What(here.country, types.pop() if len(types) == 1 else _UNASSIGNED)

    def _digits(self, lengths: int) -> tuple[int, ...]:
        """The lengths of whole E.164 numbers, country code included."""
        in_all = lengths << len(self._code)
        return tuple(digits for digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1) if in_all >> digits & 1)

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

    def _numbers(self, state: int, digits: int) -> dict[tuple[str, str], int]:
        """Region and type of every number that begins with the `digits` national digits that led to `state`, and
        how many national digits those have: bit n is set if some have n.
        """
        known = self._known.get((state, digits))
        if known is None:
            known = self._known[state, digits] = self._find_numbers(state, digits)
        return known

    def _find_numbers(self, state: int, digits: int) -> dict[tuple[str, str], int]:
        alive = [owner for owner, bits in self._owners.items() if state & bits]
        found: dict[tuple[str, str], int] = {}
        if len(alive) <= 1:
            for owner in alive:
                for bits, possible in self._owned[owner]:
                    lengths = self._automaton.ahead(state & bits) << digits & possible
                    if lengths:
                        found[owner] = found.get(owner, 0) | lengths
            return found
        ends = self._number(state)
        if ends is not None:
            found[ends] = 1 << digits
        for digit in range(10):
            for owner, lengths in self._numbers(self._step(state, digit, digits + 1), digits + 1).items():
                found[owner] = found.get(owner, 0) | lengths
        return found


def _blocks(prefix: str, plan: _Plan) -> Iterator[Block]:
    if isinstance(plan, _What):
        kind = plan.type if plan.type in (PREMIUM, TOLL_FREE) else ""
        yield Block(prefix, plan.country, kind, plan.other_digits, plan.other_kind, plan.type == _FIXED)
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
