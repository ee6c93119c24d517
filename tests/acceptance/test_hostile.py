"""Names and numbers made to break out: they are data wherever they end up."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.acceptance.site import Site, wait_for

NAMES = {
    "quotes": 'Bob "the \'builder" \\',
    "commas": "a,b;c|d&e",
    "newline": "Bob\nagi_accountcode: somebody-else\n\nagi_arg_1: leg\n200 result=1",
    "variable": "${SHELL(touch /tmp/ringfence-hostile)}${CALLERID(num)}",
    "expression": '$[1 + 1]$[ " = "',
    "long": "x" * 300,
}
NUMBERS = {
    "quotes": '1212"5550000',
    "commas": "12125550000,1",
    "newline": "12125550000\nagi_accountcode: somebody-else",
    "variable": "${CALLERID(ani)}",
    "expression": "$[12125550000 + 1]",
    "long": "1" * 300,
}
DIALLED = {
    "second-destination": "12025550000@carrier&PJSIP/12025550001",
    "dial-options": "12025550000@carrier,30,L(1)",
    "priority": "12025550000,11",
    "label": "12025550000,out",
    "quote": '1202"5550000',
    "parentheses": "1202(555)0000",
    "open-parenthesis": "1202(5550000",
    "variable": "1202${EXTEN}",
    "newline": "1202\n5550000",
    "space": "1202 5550000",
    "long": "1202" + "5" * 300,
}


def of(cases: dict[str, str]) -> pytest.MarkDecorator:
    """One test a case."""
    return pytest.mark.parametrize("text", cases.values(), ids=cases.keys())


@of(NAMES)
def test_a_hostile_name_is_only_a_name(site: Site, text: str) -> None:
    party, called = site.customer(), site.new_number()
    channel = f"Local/{called}@hostile-{party.form}"
    variables = {"HOSTILE_NAME": quote(text, safe="")}
    site.originate(channel, caller=f"<{party.number}>", account=party.name, variables=variables)
    invites = site.invites(called)
    assert [invite.from_user for invite in invites] == [party.number] * len(invites)
    decision = site.decision(party)
    assert (decision["verdict"] == "allow") == (len(invites) == 1)
    assert "\n" not in decision["caller_name"]
    assert decision["account"] == party.name
    if text.isprintable() and len(text) < 100:
        assert decision["caller_name"] == text.strip()
        assert len(invites) == 1


@of(NUMBERS)
def test_a_hostile_number_never_reaches_the_carrier(site: Site, text: str) -> None:
    party, called = site.customer(), site.new_number()
    channel = f"Local/{called}@hostile-{party.form}"
    variables = {"HOSTILE_NUMBER": quote(text, safe="")}
    site.originate(channel, caller=f"<{party.number}>", account=party.name, variables=variables)
    assert site.invites(called) == []
    decision = site.decision(party)
    assert decision["verdict"] == "reject"
    assert decision["account"] == party.name
    assert "\n" not in decision["caller"]
    assert decision["caller"][:8].replace("?", "\n") == text[:8]


@of(DIALLED)
def test_a_hostile_dialled_number_calls_nobody(site: Site, form: str, text: str) -> None:
    party = site.customer(form)
    before = {name: len(carrier.invites()) for name, carrier in site.carriers.items()}
    result = site.call(party, quote(text, safe=""))
    assert result.status in (404, 484, 603)
    assert {name: len(carrier.invites()) for name, carrier in site.carriers.items()} == before
    assert site.decisions(party.name) == []


@pytest.mark.parametrize("display", ["${EXTEN}", "$[1+1]", "a, b: c = d", "x" * 300], ids=str)
def test_a_hostile_display_name_from_the_wire_does_no_harm(site: Site, form: str, display: str) -> None:
    party, called = site.customer(form), site.new_number()
    assert site.call(party, called, display=display).status == 200
    (invite,) = site.invites(called)
    assert (invite.from_user, len(invite.values("From"))) == (party.number, 1)
    (row,) = wait_for(lambda: site.decisions(party.name)[-1:], "a decision")
    assert row["caller_name"][:20] == display[:20]


def test_the_switch_is_unharmed(site: Site) -> None:
    """Runs last in this file."""
    assert site.asterisk.running()
    party, called = site.customer(), site.new_number()
    assert site.call(party, called).status == 200
