"""Leading digits of ranges, and how an operator's lists are read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.cli.csv_file import CsvFile
from ringfence.cli.list_csv import ConsentFile, DoNotCallFile, DoNotOriginateFile, read_digits
from ringfence.config import US_PLAN, NumberingPlan
from ringfence.errors import BadInputError
from ringfence.store.faults import Faults
from ringfence.store.list_import import ListRow
from ringfence.store.number_lists import prefixes

GB_PLAN = NumberingPlan(country="GB", international=("00",))


def numbers_of(prefix: int, digits: int) -> range:
    size = 10 ** (digits - len(str(prefix)))
    return range(prefix * size, (prefix + 1) * size)


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    digits = draw(st.integers(2, 5))
    ends = sorted(draw(st.lists(st.integers(10 ** (digits - 1), 10**digits - 1), min_size=2, max_size=2)))
    return ends[0], ends[1]


def fewest(first: int, last: int) -> int:
    """How many leading digits it takes at least, counted from the top: a block that fits is taken whole."""

    def count(block: range) -> int:
        if block[-1] < first or block[0] > last:
            return 0
        if first <= block[0] and block[-1] <= last:
            return 1
        tenth = len(block) // 10
        return sum(count(block[place : place + tenth]) for place in range(0, len(block), tenth))

    size = 10 ** (len(str(first)) - 1)
    return sum(count(range(digit * size, (digit + 1) * size)) for digit in range(1, 10))


@settings(max_examples=300, deadline=None)
@given(ranges())
def test_the_prefixes_of_a_range_hold_exactly_its_numbers_and_are_the_fewest(ends: tuple[int, int]) -> None:
    first, last = ends
    found = list(prefixes(first, last))
    held = [number for prefix in found for number in numbers_of(prefix, len(str(first)))]
    assert held == list(range(first, last + 1))
    assert len(found) == fewest(first, last)


@settings(max_examples=200, deadline=None)
@given(st.integers(12012000000, 19899999999), st.integers(0, 100_000_000))
def test_the_prefixes_of_a_long_range_follow_each_other_without_a_gap(first: int, more: int) -> None:
    last = min(first + more, 19999999999)
    expected = first
    for prefix in prefixes(first, last):
        block = numbers_of(prefix, 11)
        assert block[0] == expected
        expected = block[-1] + 1
    assert expected == last + 1


def read(
    kind: type[CsvFile[ListRow]], text: str, plan: NumberingPlan = US_PLAN
) -> tuple[list[ListRow], Sequence[tuple[int, str]]]:
    faults = Faults()
    rows = list(kind(io.BytesIO(text.encode()), plan, faults).rows())
    return rows, faults.first()


def entries(kind: type[CsvFile[ListRow]], text: str, plan: NumberingPlan = US_PLAN) -> list[int]:
    rows, faults = read(kind, text, plan)
    assert faults == []
    return [row[0] for row in rows]


def test_numbers_blocks_and_prefixes_are_all_leading_digits() -> None:
    assert entries(DoNotOriginateFile, "number\n(202) 555-0100\n+442079460000\n") == [12025550100, 442079460000]
    assert entries(DoNotOriginateFile, "prefix\n202-555-0\n+1202555\n+44207\n202\n1202\n12025550100\n") == [
        12025550, 1202555, 44207, 1202, 1202, 12025550100,
    ]  # fmt: skip
    assert entries(DoNotOriginateFile, "first,last\n2025550100,2025550299\n") == [120255501, 120255502]
    assert entries(DoNotOriginateFile, "first,last\n+12025550100,+12025550100\n") == [12025550100]


def test_numbers_that_no_plan_knows_may_be_listed() -> None:
    assert entries(DoNotOriginateFile, "number\n+12349115678\n2349115678\n+10005550100\n") == [
        12349115678, 12349115678, 10005550100,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("number\n202555\n", "number: '202555' is not a telephone number: write + and digits"),
        ("number\n+1202555\n", "leading digits go under 'prefix'"),
        ("number\nabc\n", "number: 'abc' is not a telephone number: write + and digits"),
        ("number,listed_on\n,\n", "number: is empty"),
        ("prefix\n+1\n", "prefix: +1 would hold every number of a country"),
        ("prefix\n+44\n", "prefix: +44 would hold every number of a country"),
        ("prefix\n+2\n", "prefix: +2 would hold every number of a country"),
        ("prefix\n+1234567890123456\n", "is not leading digits: write + and digits"),
        ("prefix\n+0123\n", "is not leading digits: write + and digits"),
        ("first,last\n+10000000000,+19999999999\n", "first: +1 would hold every number"),
        ("first,last\n+12025550109,+12025550100\n", "last: +12025550100 does not follow +12025550109"),
        ("first,last\n+442079460000,+4420794600001\n", "or has not as many digits"),
        ("number,listed_on\n+12025550100,yesterday\n", "listed_on: 'yesterday' is not a date"),
    ],
)
def test_what_cannot_be_listed_is_a_fault_that_names_the_field(content: str, said: str) -> None:
    rows, [(line, fault)] = read(DoNotOriginateFile, content)
    assert (rows, line) == ([], 2)
    assert said in fault


@given(st.text(max_size=40))
def test_any_text_is_leading_digits_or_a_fault(text: str) -> None:
    for plan in (US_PLAN, GB_PLAN):
        for whole in (True, False):
            found = read_digits(text, plan, whole=whole)
            assert isinstance(found, str) or 1 <= found <= 999_999_999_999_999


def test_bare_digits_are_national_only_under_a_plan_of_country_code_1() -> None:
    assert read_digits("202555", GB_PLAN, whole=False) == "'202555' is not leading digits: write + and digits"
    assert read_digits("+202555", US_PLAN, whole=False) == 202555


def test_a_file_of_bare_numbers_needs_no_header() -> None:
    assert entries(DoNotCallFile, "2025550100\n2025550101\n") == [12025550100, 12025550101]
    assert entries(DoNotOriginateFile, "+12025550100\n") == [12025550100]
    rows, faults = read(DoNotCallFile, "2025550100\nx\n")
    assert (rows, faults) == ([(12025550100, None)], [(2, "number: 'x' is not a telephone number")])


def test_the_registrys_flat_file_of_area_codes_and_numbers_is_read() -> None:
    assert entries(DoNotCallFile, "202,5550100\r\n212,5550101\r\n") == [12025550100, 12125550101]


def test_dates_are_read() -> None:
    rows, faults = read(DoNotCallFile, "number,listed_on\n2025550100,2026-01-02\n2025550101,\n")
    assert (rows, faults) == ([(12025550100, date(2026, 1, 2)), (12025550101, None)], [])


@pytest.mark.parametrize(
    ("kind", "header"),
    [
        (DoNotOriginateFile, "number,prefix"),
        (DoNotOriginateFile, "first"),
        (DoNotOriginateFile, "listed_on"),
        (DoNotCallFile, "listed_on"),
        (DoNotCallFile, "prefix"),
    ],
)
def test_a_header_that_cannot_be_used_is_refused(kind: type[CsvFile[ListRow]], header: str) -> None:
    with pytest.raises(BadInputError, match="line 1"):
        read(kind, f"{header}\n")


def test_a_consent_needs_evidence() -> None:
    faults = Faults()
    content = b"number,evidence,given_at,valid_until\n2025550100,,,\n2025550101,form 7,2026-02-01,2026-01-01\n"
    assert list(ConsentFile(io.BytesIO(content), US_PLAN, faults, evidence="").rows()) == []
    assert [fault for _, fault in faults.first()] == [
        "evidence: is empty: say where the proof is filed",
        "valid_until: not after given_at",
    ]
    with pytest.raises(BadInputError, match="there is no column 'evidence'"):
        list(ConsentFile(io.BytesIO(b"number\n"), US_PLAN, Faults(), evidence="").rows())
