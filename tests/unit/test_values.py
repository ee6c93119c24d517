"""Ids, reasons and escaping."""

from __future__ import annotations

import time
from uuid import RFC_4122

from hypothesis import given
from hypothesis import strategies as st

from ringfence.escape import visible
from ringfence.ids import new_decision_id
from ringfence.reasons import REASONS


@given(st.integers(min_value=0, max_value=(1 << 48) * 1_000_000 - 1))
def test_a_decision_id_is_a_uuid_of_version_7_that_holds_its_time(unix_ns: int) -> None:
    uuid = new_decision_id(unix_ns)
    assert uuid.version == 7
    assert uuid.variant == RFC_4122
    assert uuid.int >> 80 == unix_ns // 1_000_000


def test_decision_ids_sort_by_the_time_they_were_made() -> None:
    now = time.time_ns()
    ids = [new_decision_id(now + step * 1000) for step in range(1000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 1000


def test_every_reason_is_defined_once_and_answers_something_a_switch_can_send() -> None:
    assert len({reason.code for reason in REASONS}) == len(REASONS)
    for reason in REASONS:
        assert (reason.sip_status == 0) == (reason.q850_cause == 0)
        assert reason.sip_status == 0 or 400 <= reason.sip_status <= 699
        assert reason.sentence.endswith(".")


@given(st.text(), st.integers(min_value=1, max_value=300))
def test_shown_text_is_printable_and_bounded(text: str, limit: int) -> None:
    shown = visible(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit


def test_control_characters_are_shown_as_escapes() -> None:
    assert visible("a\r\nb\x00\x1b[31m\ud800\\n") == r"a\r\nb\x00\x1b[31m\ud800\\n"
    assert visible(r"C:\new") == r"C:\new"
