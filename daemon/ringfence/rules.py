"""Every rule of the judge, in the order in which it is asked, defined once for people and for the command line.

The database has its own copies: the constraint `rules_exist` on `limit_profiles`, and the function `explained`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what holds for a call that passes it. One that is `always` enforced cannot be switched off."""

    name: str
    sentence: str
    always: bool = False


ENFORCE, REPORT, OFF = "enforce", "report", "off"

RULES: tuple[Rule, ...] = (
    Rule("endpoint", "The call comes from an endpoint that belongs to a customer.", always=True),
    Rule("customer", "The customer is active or restricted.", always=True),
    Rule("vetting", "The customer has a vetting that holds; a provider is in the Robocall Mitigation Database."),
    Rule("campaign", "The campaign that the switch names, if any, is one of the customer's and enabled."),
    Rule("caller_id", "The call shows a caller ID, and it is a telephone number."),
    Rule("do_not_originate", "The caller ID is on no do-not-originate list."),
    Rule("grant", "The caller ID is granted to the customer and in date."),
    Rule("called_number", "The called number is a telephone number.", always=True),
    Rule("destination", "No destination rule denies the called number."),
    Rule("do_not_call", "A telemarketing call goes to nobody on a do-not-call list, unless they consented."),
    Rule("calling_hours", "A telemarketing call is within the calling hours wherever the called party may be."),
    Rule("calls_per_second", "The customer is within its rate, or may be held up until it is."),
    Rule("concurrent_calls", "The customer has fewer live calls than its cap."),
    Rule("calls_per_day", "The customer has calls left for its day."),
    Rule("calls_per_month", "The customer has calls left for its month."),
    Rule("minutes_per_day", "The customer has minutes left for its day."),
    Rule("minutes_per_month", "The customer has minutes left for its month."),
    Rule("destination_cap", "The customer has calls and minutes left under the destination rule."),
    Rule("caller_id_cap", "The caller ID has calls left for the customer's day."),
)

BY_NAME: dict[str, Rule] = {rule.name: rule for rule in RULES}
WITH_MODE: tuple[str, ...] = tuple(rule.name for rule in RULES if not rule.always)
"""The rules whose mode a limit profile may choose."""
