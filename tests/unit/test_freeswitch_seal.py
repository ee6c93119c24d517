"""The seal on a leg: ours opens, anything else does not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.ids import new_decision_id
from ringfence.switches.freeswitch.channel import Party
from ringfence.switches.freeswitch.seal import MAX_CHARACTERS, Sealer, Terms

SEALER = Sealer("password")
TERMS = Terms(
    new_decision_id(), "acme", Party("acme", "1000", "pbx", "192.0.2.1", "12125550100"), "12025550100", "a"
)
SEAL = SEALER.seal("leg", TERMS)
CREATED_US = ((TERMS.decision_id.int >> 80) + 40) * 1000


@given(st.text(max_size=300), st.text(max_size=300), st.booleans())
def test_what_was_sealed_is_read_again_and_is_safe_to_send(customer: str, number: str, asking: bool) -> None:
    terms = replace(TERMS, customer=customer, party=Party(number, caller=number), called=number, asking=asking)
    sealed = SEALER.seal("leg", terms)
    assert sealed == "" or re.fullmatch(r"[A-Za-z0-9_-]+\.[0-9a-f]{64}", sealed)
    assert len(sealed) <= MAX_CHARACTERS
    assert SEALER.open("leg", sealed) == (terms if sealed else None)


@given(st.text(max_size=200))
def test_nothing_else_opens(text: str) -> None:
    assert SEALER.open("leg", text) is None
    assert SEALER.open("leg", f"{text}.{SEAL.partition('.')[2]}") is None


def test_a_seal_is_of_one_leg_and_of_one_key() -> None:
    assert SEALER.open("leg", SEAL) == TERMS
    assert SEALER.open("other", SEAL) is None
    assert Sealer("guessed").open("leg", SEAL) is None


@pytest.mark.parametrize(
    ("later_s", "known"), [(0, True), (100, True), (-100, True), (1000, False), (-1000, False)]
)
def test_the_seal_of_an_earlier_leg_with_the_same_uuid_is_worth_nothing(later_s: int, known: bool) -> None:
    created = str(CREATED_US + later_s * 1_000_000)
    headers = {"Unique-ID": "leg", "variable_ringfence_seal": SEAL, "Caller-Channel-Created-Time": created}
    assert (SEALER.read(headers) is not None) is known
