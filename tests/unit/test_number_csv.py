"""The fast reading of plain numbers in an import agrees with the numbering plan."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.cli.number_csv import NumberFile
from ringfence.config import US_PLAN, NumberingPlan
from ringfence.numbering import canonical
from ringfence.store.grants import Terms
from ringfence.store.number_import import Faults

PLANS = (
    US_PLAN,
    NumberingPlan(country="GB", international=("00",)),
    NumberingPlan(country="JM", international=("011",), bare_e164=False),
    NumberingPlan(country="US", international=("1",)),
)
plain = st.from_regex(r"(\+?1)?[2-9][0-9]{9}", fullmatch=True) | st.from_regex(
    r"\+?[1-9][0-9]{6,14}", fullmatch=True
)


def read(text: str, plan: NumberingPlan) -> int | None:
    faults = Faults()
    stream = io.BytesIO(f"number\n{text}\n".encode())
    rows = list(NumberFile(stream, plan, faults, customer="acme", terms=Terms()).rows())
    assert len(rows) + faults.count == 1
    return rows[0][2] if rows else None


@settings(max_examples=500, deadline=None)
@given(plain, st.sampled_from(PLANS))
def test_a_plain_number_is_read_as_the_plan_reads_it(text: str, plan: NumberingPlan) -> None:
    expected = canonical(text, plan, called=False).e164
    assert read(text, plan) == (expected if expected and expected >= 1_000_000 else None)


@pytest.mark.parametrize("text", ["", " ", "anonymous", "1.2025550100E+10", "+1 911 555 0100", "٠١٢٣٤٥٦٧٨٩"])
def test_what_is_no_number_is_a_fault(text: str) -> None:
    assert read(f'"{text}"', US_PLAN) is None


def test_the_first_faults_by_line_are_kept_and_all_are_counted() -> None:
    faults = Faults()
    for line in reversed(range(100)):
        faults.add(line, "bad")
    assert faults.count == 100
    assert [line for line, _ in faults.first()] == list(range(20))
