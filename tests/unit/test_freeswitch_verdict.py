"""What is sent to the switch: tags, verdict, `exit` or a hang-up, and nothing that could be anything else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Decision, Verdict
from ringfence.switches.freeswitch.channel import Question, read
from ringfence.switches.freeswitch.verdict import answer, pass_unjudged

LEG, ORIGIN, NONCE = "1b-leg", "2a-leg", "0123456789abcdef" * 2
DECISION = Decision(new_decision_id(), new_orig_id(), Verdict.ALLOW, "authorized", "acme", "A")
REFUSED = replace(DECISION, verdict=Verdict.REJECT, reason="caller_id_missing", sip_status=403, q850_cause=21)


def question(**changes: str) -> Question:
    headers = {
        "Unique-ID": LEG,
        "Other-Leg-Unique-ID": ORIGIN,
        "Call-Direction": "outbound",
        "variable_ringfence_nonce": NONCE,
        **changes,
    }
    return read(headers, frozenset(), switch="fs", host="pbx")


def values(command: str) -> dict[str, str]:
    _, name, _, pairs = command.split(" ", 3)
    assert name == "uuid_setvar_multi"
    return dict(pair.split("=", 1) for pair in pairs.split(";"))


def test_an_allowed_leg_and_its_asker_are_tagged_and_the_verdict_echoes_the_nonce() -> None:
    asker, leg, last = (told := answer(question(), DECISION)).commands
    assert last == "exit"
    assert asker.split(" ")[2] == ORIGIN
    assert leg.split(" ")[2] == LEG
    assert told.commands[told.decisive] == leg
    tags = values(leg)
    assert tags.pop("ringfence_verdict") == f"allow.{NONCE}"
    assert list(values(leg))[-1] == "ringfence_verdict"
    assert tags == values(asker)
    assert tags["ringfence_decision"] == str(DECISION.decision_id)
    assert (tags["ringfence_customer"], tags["ringfence_attest"]) == ("acme", "A")


def test_a_delayed_leg_is_told_how_long() -> None:
    told = answer(question(), replace(DECISION, verdict=Verdict.DELAY, delay_ms=700))
    tags = values(told.commands[told.decisive])
    assert (tags["ringfence_verdict"], tags["ringfence_delay_ms"]) == (f"delay.{NONCE}", "700")


def test_a_refused_leg_is_hung_up_with_the_reasons_cause() -> None:
    *_, leg, hangup = answer(question(), REFUSED).commands
    assert hangup == "sendmsg\ncall-command: hangup\nhangup-cause: 21"
    assert values(leg)["ringfence_verdict"] == f"reject.{NONCE}"
    assert (values(leg)["ringfence_sip_code"], values(leg)["ringfence_cause"]) == ("403", "21")


def test_the_callers_own_channel_is_answered_with_the_status() -> None:
    *_, respond, hangup = answer(question(**{"Call-Direction": "inbound"}), REFUSED).commands
    assert respond.endswith("execute-app-name: respond\nexecute-app-arg: 403")
    assert hangup.endswith("hangup-cause: 21")


def test_an_outbound_asker_keeps_the_tags_of_its_own_decision() -> None:
    told = answer(question(**{"Other-Leg-Direction": "outbound"}), DECISION)
    assert [command.split(" ")[2] for command in told.commands if command.startswith("api")] == [LEG]


def test_a_leg_that_cannot_be_named_is_only_hung_up() -> None:
    told = answer(question(**{"Unique-ID": "x y", "Other-Leg-Unique-ID": ""}), REFUSED)
    assert told.commands == ("sendmsg\ncall-command: hangup\nhangup-cause: 21",)


def test_an_unjudged_leg_says_why() -> None:
    assert values(pass_unjudged(question(), "internal").commands[0]) == {
        "ringfence_reason": "internal",
        "ringfence_verdict": f"allow.{NONCE}",
    }


@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), st.sampled_from(Verdict))
def test_only_safe_values_are_ever_sent(customer: str, reason: str, uuid: str, verdict: Verdict) -> None:
    decision = replace(REFUSED, customer=customer, reason=reason, attestation=reason, verdict=verdict)
    told = answer(question(**{"Unique-ID": uuid, "variable_ringfence_nonce": customer}), decision)
    for command in told.commands:
        assert "resume" not in command
        if command.startswith("api"):
            assert re.fullmatch(r"api uuid_setvar_multi [0-9A-Za-z-]{1,64} [A-Za-z0-9+/=._;-]*", command)
            assert all(re.fullmatch(r"[A-Za-z0-9+/=._-]+", value) for value in values(command).values())
        else:
            assert command in ("exit", "sendmsg\ncall-command: hangup\nhangup-cause: 21")


@pytest.mark.parametrize("text", ["a;b=c", "a\nb", "${system(id)}", "a b", "\u00e9", "x" * 256])
def test_a_value_that_is_not_safe_is_left_out(text: str) -> None:
    told = answer(question(), replace(DECISION, customer=text))
    assert "ringfence_customer" not in values(told.commands[told.decisive])
