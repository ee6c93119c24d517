"""What the dialplan does with an answer, whatever it is. A scripted gate answers instead of the daemon."""

from __future__ import annotations

import pytest

from tests.acceptance.site import FORMS, ScriptedGate, Site

DECISION = "01a20003-e55e-721e-855e-3bf40de3f372"
ALLOW = {"DECISION": DECISION, "CUSTOMER": "acme", "ATTEST": "B", "REASON": "authorized"}
IDENTITY = "eyJhbGciOi.eyJhdHRlc3Q.c2ln;info=<https://cert.example.org/a.pem>;alg=ES256;ppt=shaken"


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        ("21", 403),
        ("28", 484),
        ("31", 480),
        ("42", 503),
        ("", 403),
        ("0", 403),
        ("128", 403),
        ("abc", 403),
        ("21,1", 403),
    ],
)
def test_a_refusal_shows_the_caller_its_cause(site: Site, scripted: ScriptedGate, cause: str, status: int) -> None:
    scripted.say({"DECISION": DECISION, "CAUSE": cause, "VERDICT": "reject"})
    form = FORMS[len(cause) % 2]
    party, called = site.stranger(form, "scripted"), site.new_number()
    assert site.call(party, called, caller="12125550000").status == status
    assert site.invites(called) == []


@pytest.mark.parametrize("verdict", ["", "Allow", "allowed", "yes", "allow delay", '"allow'])
def test_whatever_is_not_a_verdict_is_no_answer(site: Site, scripted: ScriptedGate, verdict: str) -> None:
    scripted.say({**ALLOW, "VERDICT": verdict.replace('"', '\\"')})
    party, called = site.stranger("simple", "scripted"), site.new_number()
    assert site.call(party, called, caller="12125550000").status == 503
    assert site.invites(called) == []


def test_a_delayed_call_leaves_when_its_time_has_come(site: Site, form: str, scripted: ScriptedGate) -> None:
    scripted.say({**ALLOW, "DELAY_MS": "600", "VERDICT": "delay"})
    party, called = site.stranger(form, "scripted"), site.new_number()
    result = site.call(party, called, caller="12125550000")
    assert result.status == 200
    assert result.setup_ms is not None
    assert 600 <= result.setup_ms < 1_500
    assert len(site.invites(called)) == 1


def test_a_signed_identity_reaches_the_carrier_once_and_unchanged(
    site: Site, form: str, scripted: ScriptedGate
) -> None:
    scripted.say({**ALLOW, "IDENTITY": IDENTITY, "VERDICT": "allow"})
    party, called = site.stranger(form, "scripted"), site.new_number()
    assert site.call(party, called, caller="12125550000").status == 200
    (invite,) = site.invites(called)
    assert invite.values("Identity") == [IDENTITY]


def test_a_time_limit_of_the_admin_survives_the_question(site: Site, form: str, scripted: ScriptedGate) -> None:
    scripted.say({**ALLOW, "VERDICT": "allow"})
    party, called = site.stranger(form, "scripted"), site.new_number("1707")
    result = site.call(party, called, caller="12125550000", hold_ms=9_000)
    assert (result.status, result.ended_by) == (
        200,
        "callee",
    )  # the switch, after 2 s, not the customer after 9


def test_a_second_call_of_a_channel_does_not_inherit_from_the_first(site: Site, scripted: ScriptedGate) -> None:
    scripted.say({**ALLOW, "IDENTITY": IDENTITY, "VERDICT": "allow"}, {"VERDICT": "allow"})
    party, first = site.stranger("simple", "scripted"), site.new_number("1808")
    assert site.call(party, first, caller="12125550000").status == 200
    assert [invite.identity for invite in site.invites(first)] == [IDENTITY]
    assert [invite.identity for invite in site.invites(f"1202{first[4:]}")] == [None]
