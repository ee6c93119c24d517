"""Whoever causes a leg answers for it, whichever channel dials."""

from __future__ import annotations

import pytest

from ringfence.switches.freeswitch.calls import LiveCalls, utcnow
from ringfence.switches.freeswitch.channel import Party, Question, read
from ringfence.switches.freeswitch.parties import Parties, callee_of, caller_of, on_behalf
from tests.unit.test_freeswitch_calls import decision

OWN, FIRST, TARGET = "12125550100", "12025550101", "12025550102"
ACME = Party("acme", source_address="192.0.2.1", caller=OWN)
DESK = Party(sip_user="1000", caller="12125550177")
NOBODY = Party()


def asked(**changes: str) -> Question:
    """The leg C that B, once called by A, dials: B's own number passes through."""
    headers = {
        "Unique-ID": "C",
        "Call-Direction": "outbound",
        "Channel-Name": f"sofia/external/{TARGET}",
        "Caller-Caller-ID-Number": FIRST,
        "Caller-Destination-Number": TARGET,
        "Other-Leg-Unique-ID": "B",
        "Other-Leg-Direction": "outbound",
        "Other-Leg-Caller-ID-Number": FIRST,
        "variable_ringfence_asker_form": "2",
        "variable_accountcode": "somebody",
        **{f"variable_{name}" if name.islower() else name.replace("_", "-"): v for name, v in changes.items()},
    }
    return read(headers, frozenset(), switch="fs", host="pbx")


def judged(question: Question) -> Question:
    """With A's call to B live, and the phone D known."""
    calls, parties = LiveCalls(), Parties()
    calls.allowed(decision(), "B", "A", utcnow(), party=ACME, called=FIRST)
    parties.remember("D", DESK)
    return on_behalf(question, calls, parties)


@pytest.mark.parametrize(
    ("changes", "party"),
    [
        ({}, ACME),
        ({"ringfence_asker_referred": "true", "ringfence_asker_bridged": "A"}, ACME),
        ({"ringfence_asker_referred": "true", "ringfence_asker_bridged": "D"}, DESK),
        ({"ringfence_asker_referred": "true", "ringfence_asker_bridged": "X"}, NOBODY),
        ({"ringfence_asker_referred": "true"}, NOBODY),
        ({"ringfence_asker_redirected": "true"}, NOBODY),
        ({"ringfence_asker_referred": "true", "ringfence_asker_bridged": "B", "Other_Leg_Unique_ID": "A"}, NOBODY),
        ({"ringfence_asker_referred": "true", "ringfence_asker_bridged": "A", "Other_Leg_Unique_ID": "X"}, ACME),
    ],
)
def test_the_party_that_causes_the_leg_is_judged_and_shown(changes: dict[str, str], party: Party) -> None:
    question = judged(asked(**changes))
    assert question.party == party
    assert question.show == party.caller
    assert question.objection == ""
    assert question.attempt.places["passed_through"] == FIRST


def test_a_leg_that_its_own_party_dials_is_judged_as_it_is() -> None:
    plain = asked(Other_Leg_Unique_ID="X")
    assert judged(plain) is plain


def test_a_gate_that_cannot_show_another_number_is_told_of_no_referral() -> None:
    old = asked(ringfence_asker_form="", ringfence_asker_referred="true", ringfence_asker_bridged="D")
    question = judged(old)
    assert question.attempt.caller == FIRST  # shown as it is, and judged so


def test_an_explicit_number_is_judged_under_the_partys_account() -> None:
    question = judged(asked(Caller_Caller_ID_Number="12125550199"))
    assert (question.attempt.caller, question.attempt.account, question.show) == ("12125550199", "acme", "")


@pytest.mark.parametrize(
    ("number", "objection"), [(OWN, ""), (FIRST, "caller_id_conflict"), ("12125550199", "caller_id_conflict")]
)
def test_other_places_must_show_the_partys_number_too(number: str, objection: str) -> None:
    changes = {"sip_h_P-Asserted-Identity": f"<sip:{number}@x>"}
    headers = {f"variable_{name}": value for name, value in changes.items()}
    question = asked(ringfence_asker_referred="true", ringfence_asker_bridged="A")
    full = read(
        {
            "Unique-ID": "C",
            "Call-Direction": "outbound",
            "Channel-Name": f"sofia/external/{TARGET}",
            "Caller-Caller-ID-Number": FIRST,
            "Caller-Destination-Number": TARGET,
            "Other-Leg-Unique-ID": "B",
            "Other-Leg-Caller-ID-Number": FIRST,
            "variable_ringfence_asker_form": "2",
            "variable_ringfence_asker_referred": "true",
            "variable_ringfence_asker_bridged": "A",
            **headers,
        },
        frozenset(),
        switch="fs",
        host="pbx",
    )
    assert judged(question).objection == ""
    assert judged(full).objection == objection


def test_a_number_that_is_none_is_never_put_on_a_leg() -> None:
    calls = LiveCalls()
    calls.allowed(decision(), "B", "A", utcnow(), party=Party("acme", caller="1212;x=1"), called=FIRST)
    assert on_behalf(asked(), calls, Parties()).objection == "caller_id_conflict"


def test_a_party_is_read_off_its_own_channel() -> None:
    came_in = {
        "variable_accountcode": "acme",
        "variable_sip_auth_username": "1000",
        "Caller-Network-Addr": "192.0.2.1",
        "Caller-Caller-ID-Number": "1000",
        "variable_effective_caller_id_number": OWN,
    }
    assert caller_of(came_in) == Party("acme", "1000", "", "192.0.2.1", OWN)
    called = {**came_in, "variable_dialed_user": "1001", "Caller-Destination-Number": "1001"}
    assert callee_of(called) == Party(sip_user="1001", caller=OWN)  # the account may be its caller's


def test_memory_is_bounded() -> None:
    parties = Parties()
    for number in range(20_100):
        parties.remember(str(number), NOBODY)
    assert len(parties) == 20_000
    assert parties.of("0") is None
