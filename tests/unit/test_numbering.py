"""Numbers as they are dialled and shown, read to E.164 or to a named defect."""

from __future__ import annotations

import phonenumbers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import EndpointPlan, NumberingPlan, NumberingSettings
from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Attempt
from ringfence.numbering import Numbering, canonical

US = NumberingPlan(country="US", international=("011",), outside_line=("9",), short_codes=("411", "711"))
GB = NumberingPlan(country="GB", international=("00",), outside_line=("9",))


def attempt(
    called: str = "12125550100", caller: str = "12125550100", account: str = "", asserted: str = ""
) -> Attempt:
    return Attempt(
        new_decision_id(),
        new_orig_id(),
        "pbx",
        "host",
        "PJSIP/x-1",
        "1.1",
        caller,
        called,
        account=account,
        asserted=asserted,
    )


@pytest.mark.parametrize(
    ("raw", "plan", "e164"),
    [
        ("+12125550100", US, 12125550100),
        ("12125550100", US, 12125550100),
        ("2125550100", US, 12125550100),
        ("(212) 555-0100", US, 12125550100),
        ("912125550100", US, 12125550100),
        ("9011442071838750", US, 442071838750),
        ("011442071838750", US, 442071838750),
        ("442071838750", US, 442071838750),
        ("00442071838750", GB, 442071838750),
        ("02071838750", GB, 442071838750),
        ("902071838750", GB, 442071838750),
        ("0012125550100", GB, 12125550100),
        ("411", US, 411),
    ],
)
def test_a_called_number_is_read_under_the_plan_of_its_endpoint(raw: str, plan: NumberingPlan, e164: int) -> None:
    assert canonical(raw, plan, called=True).e164 == e164


@pytest.mark.parametrize(
    ("raw", "defect"),
    [
        ("", "missing"),
        ("   ", "missing"),
        ("Anonymous", "missing"),
        ("unknown", "missing"),
        ("<unknown>", "missing"),
        ("acme", "not_digits"),
        ("212555010O", "not_digits"),
        ("2125550100;x=1", "not_digits"),
        ("٢١٢٥٥٥٠١٠٠", "not_digits"),
        ("++12125550100", "not_digits"),
        ("12125550100\n", "not_diallable_or_fine"),
        ("1" * 65, "too_long"),
        ("123", "not_diallable"),
        ("+999123456789", "not_diallable"),
        ("+1212555010", "not_diallable"),
    ],
)
def test_what_is_not_plainly_a_number_is_refused_with_its_defect(raw: str, defect: str) -> None:
    number = canonical(raw, US, called=False)
    if defect == "not_diallable_or_fine":  # blanks around a number are no defect
        assert number.e164 == 12125550100
    else:
        assert (number.e164, number.defect) == (None, defect)


@pytest.mark.parametrize(
    "raw",
    ["+11125550100", "+10125550100", "+12120550100", "+12121550100", "+12995550100", "+14115550100"],
)
def test_a_number_the_nanp_cannot_contain_is_refused(raw: str) -> None:
    assert canonical(raw, US, called=False).defect == "not_diallable"


def test_only_a_called_number_may_be_a_short_code() -> None:
    assert canonical("411", US, called=False).e164 is None


def test_an_outside_line_prefix_on_a_caller_id_is_not_dropped() -> None:
    assert canonical("92125550100", US, called=False).e164 != 12125550100


@given(st.text(max_size=80))
def test_no_text_makes_the_reader_fail_and_every_answer_is_one_of_two(raw: str) -> None:
    number = canonical(raw, US, called=True)
    assert (number.e164 is None) == bool(number.defect)
    assert number.e164 is None or 0 < number.e164 < 10**15


@given(st.sampled_from(sorted(phonenumbers.SUPPORTED_REGIONS)))
def test_the_example_number_of_every_country_is_read_as_itself(country: str) -> None:
    example = phonenumbers.example_number(country)
    if example is None or example.country_code == 1:
        return
    digits = f"{example.country_code}{phonenumbers.national_significant_number(example)}"
    assert canonical("+" + digits, US, called=True).e164 == int(digits)
    plan = NumberingPlan(country=country, international=("00",))
    assert canonical("00" + digits, plan, called=True).e164 == int(digits)


@given(st.integers(min_value=0, max_value=10**10 - 1))
def test_ten_digits_are_a_nanp_number_exactly_if_the_nanp_form_holds(value: int) -> None:
    digits = f"{value:010d}"
    if digits.startswith("011"):
        return  # the international prefix, and then another number
    well_formed = digits[0] in "23456789" and digits[1] != "9" and digits[1:3] != "11" and digits[3] in "23456789"
    plan = US.model_copy(update={"bare_e164": False})
    assert (canonical(digits, plan, called=False).e164 is not None) == well_formed


@pytest.mark.parametrize("called", ["911", "+911", "9911", "9-1-1", "112", "933", "urn:service:sos.fire", " 911 "])
def test_an_emergency_number_is_known_however_it_is_dialled(called: str) -> None:
    numbering = Numbering(NumberingSettings(default_plan="us", plans={"us": US}))
    assert numbering.is_emergency(attempt(called))


@pytest.mark.parametrize("called", ["9112", "1911", "2125550911", "91", "", "911;x", "urn:service:sosx"])
def test_a_number_that_only_resembles_an_emergency_number_is_none(called: str) -> None:
    assert not Numbering(NumberingSettings()).is_emergency(attempt(called))


def test_the_first_matching_endpoint_rule_names_the_plan() -> None:
    settings = NumberingSettings(
        default_plan="us",
        plans={"us": US, "gb": GB},
        endpoints=(EndpointPlan(account="uk-*", plan="gb"), EndpointPlan(account="*", plan="us")),
    )
    numbering = Numbering(settings)
    read = numbering.number(attempt("02071838750", "02071838751", account="uk-7"))
    assert (read.caller.e164, read.called.e164) == (442071838751, 442071838750)
    assert numbering.number(attempt("02071838750", account="us-7")).called.e164 is None


@pytest.mark.parametrize(
    ("caller", "asserted", "e164", "withheld"),
    [
        ("anonymous", "+12125550100", 12125550100, True),
        ("Anonymous", "2125550100", 12125550100, True),
        ("", "12125550100", 12125550100, False),
        ("anonymous", "", None, True),
        ("anonymous", "anonymous", None, True),
        ("anonymous", "acme", None, True),
        ("13105550199", "12125550100", 13105550199, False),  # what is shown is what must be granted
        ("acme", "12125550100", None, False),  # neither a number nor withheld
    ],
)
def test_an_anonymous_caller_is_judged_by_the_identity_the_network_asserts(
    caller: str, asserted: str, e164: int | None, withheld: bool
) -> None:
    numbered = Numbering(NumberingSettings()).number(attempt(caller=caller, asserted=asserted))
    assert (numbered.caller.e164, numbered.caller_withheld) == (e164, withheld)


@pytest.mark.parametrize(
    ("number", "possible"),
    [
        ("12125550100", True),
        ("12129115678", False),
        ("12124115678", False),
        ("18004115678", True),
        ("18009115678", False),
        ("13705550100", False),
        ("19605550100", False),
        ("19115550100", False),
        ("12905550100", False),
        ("12121550100", False),
        ("19005550100", True),
    ],
)
def test_the_form_of_a_north_american_number(number: str, possible: bool) -> None:
    assert (canonical(number, US, called=False).e164 is not None) is possible
