"""Any dialled or shown string to E.164, or to a named defect. Strict: what is not plainly a number is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase

import phonenumbers

from ringfence.config import EndpointPlan, NumberingPlan, NumberingSettings
from ringfence.model import Attempt, Number, NumberedAttempt

MAX_RAW_LENGTH = 64
SHORTEST = 7  # digits with the country code: what is shorter is a service number, and no country's

MISSING = "missing"
TOO_LONG = "too_long"
NOT_DIGITS = "not_digits"
NOT_DIALLABLE = "not_diallable"

_SEPARATORS = str.maketrans("", "", " -.()")
_DIGITS = re.compile(r"\+?[0-9]+", re.ASCII)
WITHHELD = frozenset({"anonymous", "unknown", "unavailable", "restricted", "private", "withheld", "<unknown>"})
# NXX-NXX-XXXX, N = 2-9. The area code's second digit is not 9, 37X and 96X are reserved, and neither area code nor
# exchange is N11; only in toll-free area codes any exchange but 911 may be.
NANP_NATIONAL = (
    r"(?:(?:800|822|833|844|855|866|877|88[0-9])(?!911)|(?!.11|37|96)[2-9][0-8][0-9](?!.11))[2-9][0-9]{6}"
)
_NANP = re.compile(f"1{NANP_NATIONAL}", re.ASCII)


def canonical(raw: str, plan: NumberingPlan, *, called: bool) -> Number:
    """The E.164 digits of `raw` as dialled (`called`) or shown under `plan`, or the defect that bars it.

    Accepts digits with an optional leading `+` and the visual separators space, `-`, `.`, `(` and `)`
    (RFC 3966 section 5.1.1). Only a called number may carry an outside-line prefix. Whether the number is
    assigned to anybody is not looked at; its length and, in the NANP, its form are. A called short code of
    the plan stands for itself (no E.164 number is that short).
    """
    text = raw.strip()
    if not text or text.lower() in WITHHELD:
        return Number(None, MISSING)
    if len(text) > MAX_RAW_LENGTH:
        return Number(None, TOO_LONG)
    text = text.translate(_SEPARATORS)
    if _DIGITS.fullmatch(text) is None:
        return Number(None, NOT_DIGITS)
    if called and text in plan.short_codes:
        return Number(int(text))
    for candidate in _readings(text, plan, called=called):
        e164 = _parse(candidate, plan.country)
        if e164 is not None:
            return Number(e164)
    return Number(None, NOT_DIALLABLE)


def _readings(text: str, plan: NumberingPlan, *, called: bool) -> list[str]:
    """The strings `text` may stand for, the likeliest first."""
    if text.startswith("+"):
        return [text]
    # As dialled, with an international prefix, first: an outside line 0 must not eat half of 00.
    readings = [text] if _international_prefix(text, plan) else []
    if called:
        readings += [text[len(p) :] for p in plan.outside_line if text.startswith(p)]
    readings = [
        "+" + reading[len(prefix) :] if (prefix := _international_prefix(reading, plan)) else reading
        for reading in (*readings, text)
    ]
    if plan.bare_e164:
        readings.append("+" + text)
    return readings


def _international_prefix(text: str, plan: NumberingPlan) -> str:
    return max((p for p in plan.international if text.startswith(p)), key=len, default="")


def _parse(text: str, country: str) -> int | None:
    try:
        parsed = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_possible_number(parsed):
        return None
    digits = f"{parsed.country_code}{phonenumbers.national_significant_number(parsed)}"
    if not SHORTEST <= len(digits) <= 15 or (parsed.country_code == 1 and _NANP.fullmatch(digits) is None):
        return None
    return int(digits)


class Numbering:
    """The configured plans and emergency numbers, ready for the call's way."""

    def __init__(self, settings: NumberingSettings) -> None:
        self._default = settings.plans[settings.default_plan]
        self._rules: list[tuple[Callable[[Attempt], str], str, NumberingPlan]] = [
            (_field_of(rule), _pattern_of(rule), settings.plans[rule.plan]) for rule in settings.endpoints
        ]
        self._emergency = frozenset(settings.emergency)

    def plan_for(self, attempt: Attempt) -> NumberingPlan:
        """The plan of the first endpoint rule that matches, else the default plan."""
        for value_of, pattern, plan in self._rules:
            value = value_of(attempt)
            if value and fnmatchcase(value, pattern):
                return plan
        return self._default

    def is_emergency(self, attempt: Attempt) -> bool:
        """True if the called number is an emergency number as it was dialled, with or without an outside-line
        prefix or a `+`, or the emergency service URN (RFC 5031)."""
        called = attempt.called.strip().lower()
        if called == "urn:service:sos" or called.startswith("urn:service:sos."):
            return True
        called = called.translate(_SEPARATORS).removeprefix("+")
        if called in self._emergency:
            return True
        prefixes = self.plan_for(attempt).outside_line
        return any(called.startswith(p) and called[len(p) :] in self._emergency for p in prefixes)

    def number(self, attempt: Attempt) -> NumberedAttempt:
        """The attempt with both its numbers read under its endpoint's plan.

        A caller that shows no number is judged by its network-asserted identity (RFC 3325), if that is a number.
        """
        plan = self.plan_for(attempt)
        caller = canonical(attempt.caller, plan, called=False)
        if caller.defect == MISSING and attempt.asserted:
            asserted = canonical(attempt.asserted, plan, called=False)
            caller = caller if asserted.e164 is None else asserted
        return NumberedAttempt(
            attempt,
            caller,
            canonical(attempt.called, plan, called=True),
            caller_withheld=attempt.withheld or attempt.caller.strip().lower() in WITHHELD,
        )


def _pattern_of(rule: EndpointPlan) -> str:
    return rule.account or rule.sip_user or rule.trunk or rule.source_address or ""


def _field_of(rule: EndpointPlan) -> Callable[[Attempt], str]:
    if rule.account:
        return lambda attempt: attempt.account
    if rule.sip_user:
        return lambda attempt: attempt.sip_user
    if rule.trunk:
        return lambda attempt: attempt.trunk
    return lambda attempt: attempt.source_address
