"""The world's numbering plans as ranges of numbers, made from the metadata of phonenumbers.

Numbers are filled up to 15 digits, so that numbers of any length that begin with the same digits lie side by side:
with zeros for the first of a range (and for a number that is looked up), with nines for the last.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

import phonenumbers

from ringfence.callingcode import NANP, Block, CallingCode

SATELLITE = "satellite"

_EDITION = 2  # to be raised with every change of what the ranges hold
_FILLED = 15
_AREA_CODE = 4  # digits, with the leading 1 of the NANP

# Inmarsat and the Global Mobile Satellite System, which have codes of their own; of the networks below +882 that
# ITU-T E.164's annex lists, EMSAT, Thuraya and Garuda.
_SATELLITES = frozenset({"870", "881", "88213", "88216", "88220"})

_TERRITORIES = frozenset({"AS", "GU", "MP", "PR", "VI"})
_STATES = {
    "Alabama": "AL", "Alaska": "AK", "Arizona": "AZ", "Arkansas": "AR", "California": "CA", "Colorado": "CO",
    "Connecticut": "CT", "Delaware": "DE", "Washington D.C.": "DC", "Florida": "FL", "Georgia": "GA",
    "Hawaii": "HI", "Idaho": "ID", "Illinois": "IL", "Indiana": "IN", "Iowa": "IA", "Kansas": "KS",
    "Kentucky": "KY", "Louisiana": "LA", "Maine": "ME", "Maryland": "MD", "Massachusetts": "MA",
    "Michigan": "MI", "Minnesota": "MN", "Mississippi": "MS", "Missouri": "MO", "Montana": "MT",
    "Nebraska": "NE", "Nevada": "NV", "New Hampshire": "NH", "New Jersey": "NJ", "New Mexico": "NM",
    "New York": "NY", "North Carolina": "NC", "North Dakota": "ND", "Ohio": "OH", "Oklahoma": "OK",
    "Oregon": "OR", "Pennsylvania": "PA", "Rhode Island": "RI", "South Carolina": "SC", "South Dakota": "SD",
    "Tennessee": "TN", "Texas": "TX", "Utah": "UT", "Vermont": "VT", "Virginia": "VA", "Washington": "WA",
    "Washington State": "WA", "West Virginia": "WV", "Wisconsin": "WI", "Wyoming": "WY",
}  # fmt: skip
_STATE_CODES = frozenset(_STATES.values())


class DialingRange(NamedTuple):
    """A row of ringfence.dialing_ranges, its columns in the table's order."""

    first: int
    last: int
    country: str
    state: str
    kind: str
    other_digits: tuple[int, ...]
    other_kind: str
    time_zones: tuple[str, ...]


def edition() -> str:
    """A digest that differs whenever `dialing_ranges` may yield other ranges."""
    return sha256(f"{phonenumbers.__version__} {_EDITION}".encode()).hexdigest()


def dialing_ranges(known_zones: Container[str] | None = None) -> list[DialingRange]:
    """Every country calling code that is in use, in ascending ranges of which none overlaps another.

    Country and kind are those that phonenumbers finds for numbers that are valid. Of others, those that begin with
    a whole premium number are premium, and all that begin with digits that only premium numbers begin with. Time
    zones are those of the longest prefix that phonenumbers knows any for, in the NANP all those of the area code,
    as numbers are ported within it; numbers whose digits do not tell have all the zones of their country. Zones
    that are not in `known_zones`, if that is given, are left out.

    Reads the geographic data of phonenumbers, which takes much of a second and of memory. Raises ValueError if
    its metadata has patterns of a syntax that is not known.
    """
    zones = _time_zones(known_zones)
    states = _states()
    split = {key[:length] for key in _SATELLITES.union(zones) for length in range(1, len(key))}
    found: list[DialingRange] = []
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        everywhere = zones.get(str(code), ())
        # In the NANP an area code is all there is to go by, and phonenumbers knows the zones of it or not.
        blocks = CallingCode(code, local=code != NANP and len(everywhere) > 1).blocks()
        parts = [(prefix, block) for block in blocks for prefix in _parts(block.prefix, split)]
        of_prefix = {
            prefix: _longest(prefix, zones) for prefix, block in parts if block.geographic and block.country
        }
        of_country = {regions[0]: everywhere} if len(regions) == 1 else _by_country(code, parts, of_prefix, zones)
        for prefix, block in parts:
            key = of_prefix.get(prefix, "")
            found.append(
                DialingRange(
                    int(prefix.ljust(_FILLED, "0")),
                    int(prefix.ljust(_FILLED, "9")),
                    block.country,
                    _state_of(prefix, block.country, states),
                    *_kinds(prefix, block),
                    zones[key] if len(key) > len(str(code)) else of_country.get(block.country, everywhere),
                )
            )
    return list(_joined(sorted(found)))


def _kinds(prefix: str, block: Block) -> tuple[str, tuple[int, ...], str]:
    if _longest(prefix, _SATELLITES):
        return SATELLITE, (), ""
    return block.kind, block.other_digits, block.other_kind


def _parts(prefix: str, split: Container[str]) -> Iterator[str]:
    if prefix not in split:
        yield prefix
        return
    for digit in "0123456789":
        yield from _parts(prefix + digit, split)


def _longest(prefix: str, keys: Container[str]) -> str:
    """The longest of `keys` that `prefix` begins with, or nothing."""
    return next((prefix[:length] for length in range(len(prefix), 0, -1) if prefix[:length] in keys), "")


def _by_country(
    code: int, parts: list[tuple[str, Block]], of_prefix: dict[str, str], zones: dict[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """The zones of each country that shares `code`, as far as prefixes that are longer than the code tell."""
    found: dict[str, set[str]] = {}
    for prefix, block in parts:
        key = of_prefix.get(prefix, "")
        if len(key) > len(str(code)):
            found.setdefault(block.country, set()).update(zones[key])
    return {country: tuple(sorted(here)) for country, here in found.items()}


def _joined(ranges: Iterable[DialingRange]) -> Iterator[DialingRange]:
    """Neighbours that differ in nothing as one range."""
    before: DialingRange | None = None
    for found in ranges:
        if before is not None and before.last + 1 == found.first and before[2:] == found[2:]:
            before = before._replace(last=found.last)
            continue
        if before is not None:
            yield before
        before = found
    if before is not None:
        yield before


def _time_zones(known: Container[str] | None) -> dict[str, tuple[str, ...]]:
    from phonenumbers.timezone import UNKNOWN_TIMEZONE
    from phonenumbers.tzdata import TIMEZONE_DATA

    zones: dict[str, set[str]] = {}
    for prefix, listed in TIMEZONE_DATA.items():
        here = {zone for zone in listed if zone != UNKNOWN_TIMEZONE}
        if known is not None:
            here = {zone for zone in here if zone in known}
        if here:
            zones.setdefault(prefix[:_AREA_CODE] if prefix[0] == "1" else prefix, set()).update(here)
    return {prefix: tuple(sorted(here)) for prefix, here in zones.items()}


def _states() -> dict[str, str]:
    """The state of each US area code, by its digits with the leading 1."""
    from phonenumbers.geodata import GEOCODE_DATA

    states: dict[str, str] = {}
    of_places: dict[str, set[str]] = {}
    for prefix, names in GEOCODE_DATA.items():
        if prefix[0] == "1" and len(prefix) >= _AREA_CODE and "en" in names:
            state = _state(names["en"])
            if len(prefix) == _AREA_CODE:
                states[prefix] = state
            else:
                of_places.setdefault(prefix[:_AREA_CODE], set()).add(state)
    for area_code, found in of_places.items():
        if len(found) == 1:  # an area code that has no name itself
            states.setdefault(area_code, found.pop())
    return states


def _state_of(prefix: str, country: str, states: dict[str, str]) -> str:
    if country in _TERRITORIES:
        return country
    return states.get(prefix[:_AREA_CODE], "") if country == "US" else ""


def _state(name: str) -> str:
    """Of 'New Jersey' or 'Newark, NJ'; empty for what is not in a state."""
    last = name.rpartition(", ")[2]
    return last if last in _STATE_CODES else _STATES.get(last, "")
