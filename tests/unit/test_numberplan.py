"""The world's numbering plans as ranges, held against what phonenumbers says of single numbers."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise

import phonenumbers
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneNumber, PhoneNumberType
from phonenumbers.phonemetadata import PhoneMetadata
from phonenumbers.timezone import UNKNOWN_TIMEZONE, time_zones_for_geographical_number, time_zones_for_number
from phonenumbers.tzdata import TIMEZONE_DATA

from ringfence.numberpattern import Automaton
from ringfence.numberplan import DialingRange, dialing_ranges

REGIONS = [
    (code, region) for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items() for region in regions
]
DESCRIPTIONS = (
    "fixed_line",
    "mobile",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "voip",
    "personal_number",
    "pager",
    "uan",
    "voicemail",
)
EXAMPLES = 200
RANGES = dialing_ranges()
FIRSTS = [found.first for found in RANGES]


def found(number: str) -> DialingRange | None:
    filled = int(number.ljust(15, "0"))
    at = bisect_right(FIRSTS, filled) - 1
    return RANGES[at] if at >= 0 and filled <= RANGES[at].last else None


def sure(number: str) -> DialingRange:
    place = found(number)
    assert place is not None, number
    return place


def kind(number: str) -> str:
    place = sure(number)
    return place.other_kind if len(number) in place.other_digits else place.kind


def parsed(number: str) -> PhoneNumber:
    return phonenumbers.parse(f"+{number}")


def country(number: PhoneNumber) -> str:
    region = phonenumbers.region_code_for_number(number)
    assert region is not None
    return "" if region == "001" else region


def is_number(digits: str) -> bool:
    try:
        read = parsed(digits)
    except phonenumbers.NumberParseException:
        return False
    same = phonenumbers.format_number(read, phonenumbers.PhoneNumberFormat.E164) == f"+{digits}"
    return same and phonenumbers.is_valid_number(read)


def kind_of(number: str) -> str:
    kinds = {PhoneNumberType.PREMIUM_RATE: "premium", PhoneNumberType.TOLL_FREE: "toll_free"}
    return kinds.get(phonenumbers.number_type(parsed(number)), "")


def beginning_alike(number: str) -> list[str]:
    """Valid numbers that are the beginning of this one, and some that this one is the beginning of."""
    shorter = [number[:length] for length in range(4, len(number))]
    longer = [number + digit * length for digit in "0123456789" for length in range(1, 16 - len(number))]
    return [other for other in shorter + longer if is_number(other)]


def sampled(pattern: str, chosen: random.Random) -> str:
    """Digits that match `pattern`."""
    automaton = Automaton()
    state, matched, _ = automaton.add(pattern)
    digits = ""
    while not state & matched or (state != matched and chosen.random() < 0.5):
        following = [digit for digit in range(10) if automaton.step(state, digit)]
        digit = chosen.choice(following)
        digits += str(digit)
        state = automaton.step(state, digit)
    return digits


def samples(names: tuple[str, ...], count: int) -> Iterator[str]:
    """Valid numbers of every region and type, the same in each run."""
    chosen = random.Random(11)
    for code, region in REGIONS:
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        for name in names:
            description = getattr(metadata, name)
            if description is not None and description.national_number_pattern:
                for _ in range(count):
                    number = f"{code}{sampled(description.national_number_pattern, chosen)}"
                    if len(number) <= 15 and (code != 1 or len(number) == 11) and is_number(number):
                        yield number


@st.composite
def valid_numbers(draw: st.DrawFn, descriptions: tuple[str, ...] = DESCRIPTIONS) -> str:
    """E.164 digits of a number that phonenumbers holds valid, of any region."""
    code, region = draw(st.sampled_from(REGIONS))
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    patterns = [
        description.national_number_pattern
        for description in (getattr(metadata, name) for name in descriptions)
        if description is not None and description.national_number_pattern
    ]
    assume(patterns)
    digits = st.characters(min_codepoint=48, max_codepoint=57)
    national = draw(st.from_regex(draw(st.sampled_from(patterns)), fullmatch=True, alphabet=digits))
    number = f"{code}{national}"
    assume(len(number) <= 15 and (code != 1 or len(number) == 11))
    assume(is_number(number))
    return number


def examples() -> Iterator[tuple[str, str]]:
    """The example of each region and type, as (description, E.164 digits)."""
    for code, region in REGIONS:
        metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        for name in DESCRIPTIONS:
            description = getattr(metadata, name)
            if description is not None and description.example_number:
                yield name, f"{code}{description.example_number}"


def test_ranges_ascend_and_never_overlap() -> None:
    for before, after in pairwise(RANGES):
        assert before.first <= before.last < after.first <= after.last


def test_neighbours_that_differ_in_nothing_are_one_range() -> None:
    for before, after in pairwise(RANGES):
        assert before.last + 1 != after.first or before[2:] != after[2:]


def test_every_number_of_every_calling_code_is_in_a_range() -> None:
    for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
        first, last = int(f"{code}".ljust(15, "0")), int(f"{code}".ljust(15, "9"))
        inside = [place for place in RANGES if place.last >= first and place.first <= last]
        assert sum(min(place.last, last) - max(place.first, first) + 1 for place in inside) == last - first + 1


def test_a_number_of_no_calling_code_is_in_no_range() -> None:
    assert found("210555") is None
    assert found("999123456789") is None


def test_the_example_number_of_every_region_and_type_is_of_its_country_and_kind() -> None:
    seen = 0
    for name, number in examples():
        read = parsed(number)
        if not phonenumbers.is_valid_number(read) or (read.country_code == 1 and len(number) != 11):
            continue
        seen += 1
        place = sure(number)
        assert place.country == country(read), number
        if phonenumbers.number_type(read) == PhoneNumberType.PREMIUM_RATE:
            assert kind(number) == "premium", number
        elif name in ("fixed_line", "mobile") and place.kind != "satellite":
            assert kind(number) == "", number
    assert seen > 1000


@settings(max_examples=EXAMPLES, deadline=None)
@given(valid_numbers())
def test_a_valid_number_is_of_the_country_that_phonenumbers_says(number: str) -> None:
    assert sure(number).country == country(parsed(number))


@settings(max_examples=EXAMPLES, deadline=None)
@given(valid_numbers(("premium_rate",)))
def test_a_premium_number_is_never_taken_for_another(number: str) -> None:
    assume(phonenumbers.number_type(parsed(number)) == PhoneNumberType.PREMIUM_RATE)
    assert kind(number) == "premium"


def test_digits_dialled_after_a_premium_number_do_not_hide_it() -> None:
    chosen = random.Random(13)
    for number in samples(("premium_rate",), 20):
        if kind_of(number) == "premium":
            longer = number
            while len(longer) < 15:
                longer += str(chosen.randrange(10))
                assert kind(longer) == "premium" or (is_number(longer) and kind_of(longer) != "premium"), longer


def test_numbers_of_every_region_and_type_are_of_the_kind_that_phonenumbers_says() -> None:
    seen = 0
    for number in samples(DESCRIPTIONS, 10):
        seen += 1
        # Networks that reach satellites are a kind of their own here, and have no type there.
        assert sure(number).kind == "satellite" or kind(number) == kind_of(number), number
    assert seen > 8000


@settings(max_examples=EXAMPLES, deadline=None)
@given(valid_numbers())
def test_a_valid_number_is_of_the_kind_that_phonenumbers_says(number: str) -> None:
    assert sure(number).kind == "satellite" or kind(number) == kind_of(number)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("35315128123", ""),  # Dublin
        ("35315208123", ""),
        ("35315908123", ""),
        ("3531520123456", "premium"),
        ("3531598123456", "premium"),
        ("353152012345678", "premium"),  # with two digits after it
        ("35315201234", ""),
        ("3531800123456", "toll_free"),
        ("35318001234", ""),  # Dublin
        ("35318001234567", ""),  # of a length that none has: not known to be free
        ("645088123", "premium"),  # of no known length
        ("6450881234", "premium"),
        ("64508812345", "toll_free"),
        ("645088123456", "toll_free"),
        ("376180123", "premium"),
        ("37618001234", "toll_free"),
        ("37618012345", "premium"),  # of no known number: the premium one and two digits
        ("9619012345", ""),
        ("96190123456", "premium"),
    ],
)
def test_the_length_decides_between_numbers_that_begin_alike(number: str, expected: str) -> None:
    assert kind(number) == expected


def test_most_ranges_are_of_one_kind_whatever_the_length() -> None:
    mixed = [place for place in RANGES if place.other_digits]
    assert 0 < len(mixed) < 100
    for place in mixed:
        assert place.kind in ("premium", "toll_free")
        assert place.other_kind != place.kind
    assert all(place.other_kind == "" for place in RANGES if not place.other_digits)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(["US", "CA"]), st.data())
def test_no_geographic_number_of_the_home_market_is_premium_or_toll_free(region: str, data: st.DataObject) -> None:
    metadata = PhoneMetadata.metadata_for_region(region)
    assert metadata is not None
    assert metadata.fixed_line is not None
    digits = st.characters(min_codepoint=48, max_codepoint=57)
    pattern = metadata.fixed_line.national_number_pattern
    assert pattern is not None
    national = data.draw(st.from_regex(pattern, fullmatch=True, alphabet=digits))
    place = sure(f"1{national}")
    assert (place.country, place.kind, place.other_digits) == (region, "", ())


@settings(max_examples=EXAMPLES, deadline=None)
@given(valid_numbers())
def test_the_zones_of_a_number_hold_all_that_phonenumbers_says(number: str) -> None:
    read = parsed(number)
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[read.country_code or 0]
    zones = set(sure(number).time_zones)
    if len(regions) == 1:
        assume(not beginning_alike(number))
        assert zones >= set(time_zones_for_number(read)) - {UNKNOWN_TIMEZONE}
        return
    # Where phonenumbers can only say where the code is used, the range has the zones of the country.
    of_code = set(TIMEZONE_DATA.get(f"{read.country_code}", ()))
    said = set(time_zones_for_geographical_number(read))
    geographic = set(time_zones_for_number(read)) == said
    assert zones >= said if geographic and said != of_code else zones & of_code


def test_no_range_has_a_zone_that_is_no_place() -> None:
    for place in RANGES:
        assert UNKNOWN_TIMEZONE not in place.time_zones
        assert place.time_zones or place.country == ""


def test_zones_that_the_database_does_not_know_are_left_out() -> None:
    known = {zone for place in RANGES for zone in place.time_zones} - {"America/Boise", "Europe/London"}
    ranges = {place.first: place for place in dialing_ranges(known)}
    assert ranges[120800000000000].time_zones == ("America/Denver", "America/Los_Angeles")
    assert {zone for place in ranges.values() for zone in place.time_zones} == known


@pytest.mark.parametrize(
    ("area_code", "state"),
    [
        ("212", "NY"),
        ("201", "NJ"),
        ("305", "FL"),
        ("415", "CA"),
        ("713", "TX"),
        ("405", "OK"),
        ("206", "WA"),
        ("502", "KY"),
        ("307", "WY"),
        ("207", "ME"),
        ("202", "DC"),
        ("203", "CT"),
        ("310", "CA"),
        ("718", "NY"),
        ("907", "AK"),
        ("808", "HI"),
    ],
)
def test_an_area_code_is_in_its_state(area_code: str, state: str) -> None:
    place = sure(f"1{area_code}2345678")
    assert (place.country, place.state, place.kind) == ("US", state, "")


def test_every_area_code_of_the_united_states_is_in_a_state() -> None:
    states = set()
    for area_code in range(200, 1000):
        read = parsed(f"1{area_code}2345678")
        if phonenumbers.number_type(read) == PhoneNumberType.FIXED_LINE_OR_MOBILE and country(read) == "US":
            states.add(sure(f"1{area_code}2345678").state)
    assert len(states) == 51
    assert "" not in states


@pytest.mark.parametrize(
    ("number", "zones"),
    [
        ("18502345678", {"America/New_York", "America/Chicago"}),
        ("12082345678", {"America/Boise", "America/Denver", "America/Los_Angeles"}),
        ("12122345678", {"America/New_York"}),
        ("18762345678", {"America/Jamaica"}),
    ],
)
def test_an_area_code_has_the_zones_of_all_its_places(number: str, zones: set[str]) -> None:
    assert set(sure(number).time_zones) == zones


def test_a_number_whose_digits_do_not_tell_has_all_zones_of_its_country() -> None:
    everywhere = set(sure("18002345678").time_zones)
    assert everywhere >= {"America/New_York", "America/Chicago", "America/Denver", "Pacific/Honolulu"}
    assert "America/Jamaica" not in everywhere
    assert {"Europe/Kaliningrad", "Asia/Almaty"}.isdisjoint(sure("79161234567").time_zones)
    assert {"Europe/Moscow", "Asia/Vladivostok"} <= set(sure("79161234567").time_zones)
    assert {"Australia/Perth", "Australia/Sydney"} <= set(sure("61412345678").time_zones)


@pytest.mark.parametrize(
    ("number", "country_code", "state", "expected"),
    [
        ("19002345678", "US", "", "premium"),
        ("18002345678", "US", "", "toll_free"),
        ("18882345678", "US", "", "toll_free"),
        ("18765230123", "JM", "", ""),
        ("16582345678", "JM", "", ""),
        ("14162345678", "CA", "", ""),
        ("17872345678", "PR", "PR", ""),
        ("16712345678", "GU", "GU", ""),
        ("12469762345", "BB", "", "premium"),
        ("12222345678", "", "", ""),
        ("74951234567", "RU", "", ""),
        ("77012345678", "KZ", "", ""),
        ("78091234567", "RU", "", "premium"),
        ("442071838750", "GB", "", ""),
        ("441481234567", "GG", "", ""),
        ("441534234567", "JE", "", ""),
        ("441624756789", "IM", "", ""),
        ("449012345678", "GB", "", "premium"),
        ("390669812345", "VA", "", ""),
        ("4779123456", "SJ", "", ""),
        ("491371234567", "DE", "", ""),
        ("499001234567", "DE", "", "premium"),
        ("870301234567", "", "", "satellite"),
        ("881612345678", "", "", "satellite"),
        ("8821612345678", "", "", "satellite"),
        ("8821012345678", "", "", ""),
        ("883510012345", "", "", ""),
        ("80012345678", "", "", "toll_free"),
        ("979123456789", "", "", "premium"),
    ],
)
def test_a_number_is_known_for_what_it_is(number: str, country_code: str, state: str, expected: str) -> None:
    place = sure(number)
    assert (place.country, place.state, kind(number)) == (country_code, state, expected)


@pytest.mark.parametrize("pattern", ["9\\d+", "[^1]2", "1*", "(?=1)2", "12)", "(?:12", "{2}", "a"])
def test_a_pattern_of_another_syntax_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"digits|repeat|group"):
        Automaton().add(pattern)


@settings(max_examples=EXAMPLES)
@given(st.text("0123456789", max_size=6))
def test_an_automaton_matches_what_the_expression_matches(number: str) -> None:
    for pattern in ("1(?:2[3-5]|4\\d{2,3})?", "(?:90\\d|8(?:[02-46]|1)){1,2}", "\\d{3}|\\d[1-47]", "7?0{0,2}5"):
        automaton = Automaton()
        state, matched, _ = automaton.add(pattern)
        for digit in number:
            state = automaton.step(state, int(digit))
        assert bool(state & matched) == bool(re.fullmatch(pattern, number))


@settings(max_examples=EXAMPLES)
@given(st.text("0123456789", max_size=4))
def test_an_automaton_knows_how_many_digits_can_follow(number: str) -> None:
    for pattern, most in (("1(?:2[3-5]|4\\d{2,3})?", 5), ("7?0{0,2}5", 4), ("[3-5]{2}1?|3[46]8\\d", 4)):
        automaton = Automaton()
        state, _, _ = automaton.add(pattern)
        for digit in number:
            state = automaton.step(state, int(digit))
        counts = {count for count in range(most + 1) if automaton.ahead(state) >> count & 1}
        longer = range(max(0, most - len(number)) + 1)
        assert counts == {
            count
            for count in longer
            if any(
                re.fullmatch(pattern, f"{number}{rest:0{count}d}"[: len(number) + count])
                for rest in range(10**count)
            )
        }


def test_geographic_data_is_read_only_to_build_the_ranges() -> None:
    loaded = "import sys, ringfence.store.migrate; print('phonenumbers.geodata' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout == (
        "False\n"
    )
