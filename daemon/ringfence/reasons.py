"""Every reason a decision can carry, defined once.

`ringfence db migrate` adds the missing ones to the table `ringfence.reasons`, where the operator may change
the SIP status, the Q.850 cause and the sentence; the values here are the defaults, and what is answered when
Postgres cannot be asked. docs/reasons.md is generated from this list.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason code: what the caller's switch is told and what the operator reads.

    `retryable` says whether the same call may succeed later without anybody changing the policy.
    """

    code: str
    sip_status: int
    q850_cause: int
    retryable: bool
    sentence: str


AUTHORIZED = "authorized"
EMERGENCY = "emergency"
MALFORMED_ATTEMPT = "malformed_attempt"
DATABASE_UNAVAILABLE = "database_unavailable"
DEADLINE_EXCEEDED = "deadline_exceeded"
GATE_OVERLOADED = "gate_overloaded"
INTERNAL_ERROR = "internal_error"
SHUTTING_DOWN = "shutting_down"
CALLER_ID_CONFLICT = "caller_id_conflict"
DAEMON_UNAVAILABLE = "daemon_unavailable"

_NOT_ALLOWED = (403, 21)  # Q.850 21, call rejected
_OVER_CAP = (480, 31)  # Q.850 31, normal unspecified: both switches answer 480 to it
_CANNOT_JUDGE = (503, 42)  # Q.850 42, switching equipment congestion: both switches answer 503 to it
_BAD_NUMBER = (484, 28)  # Q.850 28, invalid number format

REASONS: tuple[Reason, ...] = (
    Reason(AUTHORIZED, 0, 0, False, "Every rule passed."),
    Reason(EMERGENCY, 0, 0, False, "An emergency number: it passes before anything else is looked at."),
    Reason("endpoint_unknown", *_NOT_ALLOWED, False, "No customer owns this account, SIP user, trunk or address."),
    Reason("endpoint_disabled", *_NOT_ALLOWED, False, "The endpoint this call came from is switched off."),
    Reason("customer_suspended", *_NOT_ALLOWED, False, "The customer is suspended."),
    Reason("customer_not_active", *_NOT_ALLOWED, False, "The customer is a prospect or terminated."),
    Reason("customer_not_vetted", *_NOT_ALLOWED, False, "Nobody has vetted this customer."),
    Reason("customer_vetting_expired", *_NOT_ALLOWED, False, "The customer's vetting has run out."),
    Reason(
        "provider_not_in_rmd",
        *_NOT_ALLOWED,
        False,
        "The customer is a provider that was not found in the Robocall Mitigation Database.",
    ),
    Reason("campaign_unknown", *_NOT_ALLOWED, False, "The customer has no such campaign, or it is switched off."),
    Reason(
        "caller_id_withheld",
        *_NOT_ALLOWED,
        False,
        "The caller is anonymous, and no network-asserted identity stands behind it.",
    ),
    Reason("caller_id_missing", *_NOT_ALLOWED, False, "The call shows no caller ID."),
    Reason("caller_id_malformed", *_NOT_ALLOWED, False, "The caller ID is not a telephone number."),
    Reason("caller_id_not_authorized", *_NOT_ALLOWED, False, "The caller ID is not granted to this customer."),
    Reason("caller_id_grant_not_in_date", *_NOT_ALLOWED, False, "The grant for this caller ID is not in date."),
    Reason(
        "caller_id_not_assigned",
        *_NOT_ALLOWED,
        False,
        "The caller ID is validated but not assigned by this provider, which lets only assigned numbers out.",
    ),
    Reason("caller_id_do_not_originate", *_NOT_ALLOWED, False, "The caller ID is on the do-not-originate list."),
    Reason(
        "caller_id_unallocated",
        *_NOT_ALLOWED,
        False,
        "The caller ID is a number that no provider has been allocated.",
    ),
    Reason("called_number_missing", *_BAD_NUMBER, False, "The call has no called number."),
    Reason("called_number_malformed", *_BAD_NUMBER, False, "The called number is not a telephone number."),
    Reason("destination_denied", *_NOT_ALLOWED, False, "Calls to this destination are not allowed."),
    Reason(
        "called_number_do_not_call",
        *_NOT_ALLOWED,
        False,
        "A telemarketing call to a number on a do-not-call list, without consent.",
    ),
    Reason(
        "outside_calling_hours",
        *_OVER_CAP,
        True,
        "A telemarketing call outside the calling hours where the called party may be.",
    ),
    Reason("calls_per_second_exceeded", *_OVER_CAP, True, "The customer is over its calls-per-second cap."),
    Reason("concurrent_calls_exceeded", *_OVER_CAP, True, "The customer is at its concurrent-call cap."),
    Reason("calls_per_day_exceeded", *_OVER_CAP, True, "The customer has used up its calls for the day."),
    Reason("calls_per_month_exceeded", *_OVER_CAP, True, "The customer has used up its calls for the month."),
    Reason("minutes_per_day_exceeded", *_OVER_CAP, True, "The customer has used up its minutes for the day."),
    Reason("minutes_per_month_exceeded", *_OVER_CAP, True, "The customer has used up its minutes for the month."),
    Reason("destination_cap_exceeded", *_OVER_CAP, True, "The customer has used up a cap for this destination."),
    Reason("caller_id_cap_exceeded", *_OVER_CAP, True, "This caller ID has used up its calls for the day."),
    Reason(MALFORMED_ATTEMPT, *_NOT_ALLOWED, False, "The switch's question could not be read safely."),
    Reason(CALLER_ID_CONFLICT, *_NOT_ALLOWED, False, "Two places of the call show different caller IDs."),
    Reason(DATABASE_UNAVAILABLE, *_CANNOT_JUDGE, True, "Postgres could not be reached, so nothing was judged."),
    Reason(DEADLINE_EXCEEDED, *_CANNOT_JUDGE, True, "No answer within the decision deadline."),
    Reason(GATE_OVERLOADED, *_CANNOT_JUDGE, True, "Too many attempts were waiting for an answer."),
    Reason(INTERNAL_ERROR, *_CANNOT_JUDGE, True, "The attempt could not be judged; the log says why."),
    Reason(SHUTTING_DOWN, *_CANNOT_JUDGE, True, "The daemon is stopping and takes no new attempts."),
    Reason(DAEMON_UNAVAILABLE, *_CANNOT_JUDGE, True, "The switch's hook got no answer and acted by itself."),
)

BY_CODE: dict[str, Reason] = {reason.code: reason for reason in REASONS}
