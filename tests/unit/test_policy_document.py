"""Policy files: what is read, what is refused and how it is named, and that writing and reading are inverse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import rules
from ringfence.errors import BadInputError
from ringfence.policy import canonical, model
from ringfence.policy.document import Document, load
from ringfence.policy.reader import Reader
from ringfence.policy.tree import Grant
from tests.policy_documents import customers, text_of

ROOT = Path(__file__).parents[2]

WHOLE = """\
format: 1
scope: policy
provider: {}
profiles:
  small: {calls_per_second: 2, concurrent_calls: 5, calls_per_day: 500}
  restricted: {calls_per_second: 1, burst: 1, concurrent_calls: 2, calls_per_day: 200}
destinations: []
calling_hours: {}
reasons: {}
customers:
  acme:
    name: Acme
    profile: small
"""
SOME = "format: 1\nscope: customers\ncustomers:\n  acme:\n    name: Acme\n    profile: small\n"


def loaded(text: str) -> Document:
    return load(text.encode(), "p.yaml")


def refusal(text: str) -> str:
    with pytest.raises(BadInputError) as refused:
        loaded(text)
    return str(refused.value)


# --- what a text means ---------------------------------------------------------------------------------------


def test_words_stay_what_they_are_written_as() -> None:
    read = Reader("a: NO\nb: 21:00\nc: 007\nd: 1.10\ne: ~\nf: '~'\ng: on\nh:\n", "p").read()
    assert read == {"a": "NO", "b": "21:00", "c": "007", "d": "1.10", "e": None, "f": "~", "g": "on", "h": None}


def test_a_rule_for_norway_is_a_rule_for_norway() -> None:
    said = loaded(WHOLE.replace("destinations: []", "destinations: [{area: NO, action: deny}]"))
    assert said.destinations == {"NO": {"area": "NO", "action": "deny"}}


def test_a_burst_that_is_not_named_is_the_rate_rounded_up() -> None:
    said = loaded(WHOLE.replace("calls_per_second: 2,", "calls_per_second: 2.5,"))
    assert said.profiles["small"]["burst"] == 3


def test_seven_equal_days_are_every_day_and_closed_is_closed() -> None:
    week = ", ".join(f"{day}: 08:00:00-24:00" for day in model.DAYS)
    said = loaded(
        WHOLE.replace("calling_hours: {}", f"calling_hours: {{US: {{{week}}}, US-TX: {{sunday: 09:00-09:00}}}}")
    )
    assert said.calling_hours == {"US": {"every_day": "08:00-24:00"}, "US-TX": {"sunday": "closed"}}


def test_an_enforced_rule_need_not_be_named_and_modes_are_in_the_order_of_the_rules() -> None:
    modes = "modes: {calling_hours: off, grant: report, vetting: enforce}"
    said = loaded(WHOLE.replace("concurrent_calls: 5,", f"concurrent_calls: 5, {modes},"))
    assert list(said.profiles["small"]["modes"].items()) == [("grant", "report"), ("calling_hours", "off")]


def test_a_reason_that_is_as_shipped_is_no_change() -> None:
    said = loaded(WHOLE.replace("reasons: {}", "reasons: {customer_suspended: {sip_status: 403, q850_cause: 1}}"))
    assert said.reasons == {"customer_suspended": {"q850_cause": 1}}


def test_an_address_is_in_its_one_form() -> None:
    said = loaded(SOME + "    endpoints: [{kind: source_address, value: 2001:DB8::0001}]\n")
    assert list(said.customers["acme"]["endpoints"]) == [("source_address", "2001:db8::1", "*")]


def test_moments_are_in_utc_and_a_first_moment_of_a_day_is_its_date() -> None:
    grants = (
        '    grants: [{number: "+12125550100", valid_from: 2026-01-01T02:00+02:00, valid_until: 2027-01-01T12}]\n'
    )
    [grant] = loaded(SOME + grants).customers["acme"]["grants"]
    assert (grant.valid_from, grant.valid_until) == ("2026-01-01", "2027-01-01T12:00:00Z")


# --- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("added", "line", "said"),
    [
        ("    nmae: x\n", 7, "customers.acme.nmae: is not a key here; did you mean 'name'?"),
        ("    kind: enduser\n", 7, "customers.acme.kind: Input should be"),
        ("    state: asleep\n", 7, "customers.acme.state: Input should be"),
        ("    grants:\n", 4, "grants is empty: write [] for none"),
        ("    grants: all\n", 7, "customers.acme.grants: "),
        ("    grants:\n      - {first: 2125550100, last: '+12125550199'}\n", 8,
         "customers.acme.grants[0].first: must be an E.164 number, + and its digits (found '2125550100')"),
        ("    grants:\n      - {number: '+12125550100'}\n      - {number: '+1212555'}\n", 9,
         "customers.acme.grants[1].number: must be an E.164 number"),
        ("    grants: [{first: '+12125550199', last: '+12125550100'}]\n", 7, "grants[0].last: the last number"),
        ("    grants: [{first: '+12125550100'}]\n", 7, "grants[0]: needs either number, or first and last"),
        ("    grants: [{number: '+18005550100', source: letter}]\n", 7,
         "customers.acme.grants[0].source: +18005550100 is toll-free, for which 'letter' is no proof"),
        ("    grants: [{first: '+18005550000', last: '+18015550999', source: letter}]\n", 7,
         "holds toll-free numbers and others"),
        ("    grants: [{number: '+12125550100', source: resporg}]\n", 7, "is not toll-free"),
        ("    grants: [{number: '+12125550100', shared: yes}]\n", 7, "grants[0].shared: must be true or false"),
        ("    grants: [{number: '+12125550100', valid_until: soon}]\n", 7, "valid_until: must be a time"),
        ("    grants: [{number: '+12125550100', valid_from: 2027-01-01, valid_until: 2026-01-01}]\n", 7,
         "valid_until is not after valid_from"),
        ("    grants: [{number: '+12125550100'}, {number: '+12125550100'}]\n", 7, "is in two grants"),
        ("    endpoints: [{kind: source_address, value: 10.0.0.0/8}]\n", 7, "endpoints[0].value: "),
        ("    endpoints: [{kind: account, value: A}, {kind: account, value: A}]\n", 7, "is there twice"),
        ("    campaigns: {spring: {}}\n", 7, "campaigns.spring.traffic: is missing"),
        ("    campaigns: {'a b': {traffic: telemarketing}}\n", 7, "customers.acme.campaigns.a b: "),
        ("    destinations: [{area: UK, action: deny}]\n", 7, "destinations[0].area: 'UK' is neither"),
        ("    destinations: [{area: GB, action: cap}]\n", 7, "action cap needs a cap"),
        ("    destinations: [{area: GB, prefix: '+44', action: deny}]\n", 7, "needs either area or prefix"),
        ("    destinations: [{area: GB, action: deny}, {area: GB, action: allow}]\n", 7, "two rules are for GB"),
        ("    destinations: [{prefix: 44, action: deny}]\n", 7, "prefix: must be + and the leading digits"),
        ("    vetting: {method: call}\n", 7, "customers.acme.vetting.vetted_by: is missing"),
        ("    vetting: {vetted_by: x, method: call, tax_id: 1}\n", 7, "vetting.tax_id: is not a key here"),
        ("    name: Other\n", 7, "key 'name' is written twice"),
        ("    vetting: &v {}\n", 7, "anchors and aliases are not read"),
        ("    time_zone: !!str UTC\n", 7, "the tag"),
        ("    time_zone: 'a\tb'\n", 7, "customers.acme.time_zone: holds a control character"),
        ("  Bad Name: {}\n", 7, "customers.Bad Name: 'Bad Name' cannot be the name of a customer"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_path_and_line(added: str, line: int, said: str) -> None:
    refused = refusal(SOME + added)
    assert f"p.yaml: line {line}" in refused
    assert said in refused


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format: 1\n", "", "format: is missing"),
        ("format: 1\n", "format: 2\n", "format: Input should be '1'"),
        ("scope: policy", "scope: all", "scope: Input should be"),
        ("provider: {}\n", "", "provider is missing: a file of the scope policy says everything"),
        ("destinations: []\n", "destinations:\n", "destinations is empty"),
        ("scope: policy", "scope: customers", "provider is for files of the scope policy"),
        ("provider: {}", "provider: {frn: 1}", "provider.frn: "),
        ("provider: {}", "provider: {strikes: maybe}", "provider.strikes: must be true or false"),
        ("provider: {}", "provider: {infraction_hours: 1.5}", "provider.infraction_hours: must be a whole number"),
        ("provider: {}", "provider: {home_country: UK}", "provider.home_country: 'UK' is no country"),
        ("profile: small", "profile: smal", "customers.acme.profile: there is no profile 'smal'; did you mean"),
        ("  restricted:", "  other:", "profiles: restricted is missing"),
        ("calls_per_second: 2,", "calls_per_second: 2.0001,", "profiles.small.calls_per_second: must be a number"),
        ("calls_per_second: 2,", "calls_per_second: 0,", "profiles.small.calls_per_second: "),
        ("concurrent_calls: 5,", "concurrent_calls: 5, modes: {grnt: off},", "there is no rule 'grnt'; did"),
        ("concurrent_calls: 5,", "concurrent_calls: 5, modes: {endpoint: off},", "'endpoint' is always enforced"),
        ("concurrent_calls: 5,", "concurrent_calls: 5, modes: {grant: maybe},", "profiles.small.modes.grant: "),
        ("calling_hours: {}", "calling_hours: {US: {monday: 21:00-08:00}}", "monday: ends before it begins"),
        ("calling_hours: {}", "calling_hours: {USA: {monday: closed}}", "calling_hours.USA: must be a country"),
        ("calling_hours: {}", "calling_hours: {US: {every_day: closed, monday: closed}}", "every_day or days"),
        ("reasons: {}", "reasons: {customer_suspendd: {}}", "did you mean 'customer_suspended'?"),
        ("reasons: {}", "reasons: {authorized: {sip_status: 403}}", "sip_status is 0 for what allows a call"),
        ("reasons: {}", "reasons: {customer_suspended: {sip_status: 200}}", "sip_status is 400 to 699"),
        ("customers:\n", "x: 1\ncustomers:\n", "x: is not a key here"),
    ],
)  # fmt: skip
def test_a_whole_policy_that_cannot_be_is_refused(old: str, new: str, said: str) -> None:
    assert old in WHOLE
    assert said in refusal(WHOLE.replace(old, new))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be a mapping"),
        ("- a\n", "must be a mapping"),
        ("a: [\n", "line 2, column 1: "),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: a second document begins here"),
        ("? [a]\n: 1\n", "a key must be a word"),
        ("[" * 50 + "]" * 50, "too many levels"),
        ("a: \x01\n", "p.yaml: "),
    ],
)
def test_what_is_no_policy_file_is_refused(text: str, said: str) -> None:
    assert said in refusal(text)


def test_a_file_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadInputError, match="not UTF-8 at byte 9"):
        load(b"format: \xff\n", "p.yaml")


def test_twenty_faults_are_named_and_the_others_counted() -> None:
    refused = refusal(SOME + "    grants:\n" + "      - {number: '1'}\n" * 25)
    assert refused.count("must be an E.164 number") == 20
    assert refused.endswith("p.yaml: and 5 more faults")


@pytest.mark.parametrize(
    ("first", "second", "fault"),
    [
        ("number: '+12125550150'", "first: '+12125550100', last: '+12125550199'", True),
        (
            "number: '+12125550150', shared: true",
            "first: '+12125550100', last: '+12125550199', shared: true",
            False,
        ),
        ("number: '+12125550150', shared: true", "first: '+12125550100', last: '+12125550199'", True),
        ("number: '+12125550150'", "first: '+12125550100', last: '+12125550199', shared: true", True),
        ("number: '+12125550150'", "number: '+12125550151'", False),
    ],
)
def test_a_number_of_two_customers_must_be_shared_by_both(first: str, second: str, fault: bool) -> None:
    text = SOME + f"    grants: [{{{first}}}]\n  beta: {{name: B, profile: small, grants: [{{{second}}}]}}\n"
    if fault:
        assert "both grants must be shared" in refusal(text)
    else:
        loaded(text)


def test_two_customers_do_not_have_the_same_endpoint() -> None:
    endpoint = "endpoints: [{kind: account, value: A}]"
    assert "account A is an endpoint of customer 'acme' too" in refusal(
        SOME + f"    {endpoint}\n  beta: {{name: B, profile: small, {endpoint}}}\n"
    )


def test_a_restricted_profile_may_lack_a_cap_for_the_tighter_of_the_two_holds() -> None:
    said = loaded(WHOLE.replace(", calls_per_day: 200", ""))
    assert "calls_per_day" not in said.profiles["restricted"]


def test_the_rules_a_profile_may_change_are_those_of_the_database() -> None:
    migration = (ROOT / "sql" / "migrations" / "0008_provider.sql").read_text("utf-8")
    [names] = re.findall(r"constraint rules_exist check \(.*?array\[(.*?)\]", migration, re.DOTALL)
    assert tuple(re.findall(r"'(\w+)'", names)) == rules.WITH_MODE


# --- writing and reading -------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text_is_read_as_it_was_written(text: str) -> None:
    line = f"a: {canonical.flow(text)}\n"
    assert line.count("\n") == 1
    assert (Reader(line, "p").read()["a"] or "") == text


@given(customers())
def test_a_canonical_document_reads_as_itself(held: dict[str, dict[str, object]]) -> None:
    text = text_of(held)
    said = load(text.encode(), "p.yaml")
    assert text_of(said.customers) == text


@given(st.binary(max_size=200))
def test_bytes_that_say_nothing_are_refused(data: bytes) -> None:
    with pytest.raises(BadInputError, match=r"^p\.yaml: "):
        load(data, "p.yaml")


def test_a_grant_is_written_on_one_line_without_what_is_as_by_default() -> None:
    assert canonical.flow(Grant(12125550100, 12125550100, "assigned", "", "A", "", "", False)) == (
        '{number: "+12125550100"}'
    )
    assert canonical.flow(Grant(12125550100, 12125550199, "letter", "LOA 7", "B", "2026-01-01", "", True)) == (
        '{first: "+12125550100", last: "+12125550199", source: letter, evidence: LOA 7, attestation: B, '
        "valid_from: 2026-01-01, shared: true}"
    )
