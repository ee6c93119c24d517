"""Wire ⇄ model: what an AGI session shows of a call becomes an Attempt, and a Decision becomes one AGI command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ringfence.ids import new_decision_id, new_orig_id
from ringfence.model import Attempt, Decision, Verdict
from ringfence.reasons import BY_CODE
from ringfence.switches.asterisk.headers import MalformedError, known
from ringfence.switches.sip import user_of

_NUMBER = re.compile(r"[0-9*#+]{1,64}", re.ASCII)
_SPEAKABLE = re.compile(r"[A-Za-z0-9+/=._-]*", re.ASCII)
_MAX_COMMAND_BYTES = 1800  # Asterisk 16 cuts an AGI line at about 2,047 bytes and still answers success
_MAX_VALUE = 128  # bytes of each value that are looked at; no telephone number is that long


class Form(StrEnum):
    """Where in the dialplan the question is asked."""

    EXTENSION = "extension"  # AGI on the channel that asks to call out
    LEG = "leg"  # AGI on the outbound leg, in Dial's b() handler


class UnspeakableError(Exception):
    """A value that may not be sent to the switch stood in a decision."""


@dataclass(frozen=True, slots=True)
class Question:
    """A session's headers, found to be well-formed."""

    headers: Mapping[str, str]
    form: Form
    number: str

    @property
    def channel(self) -> str:
        """The name of the channel that asks."""
        return self.headers["agi_channel"]

    @property
    def uniqueid(self) -> str:
        """Asterisk's unique id of the channel that asks."""
        return self.headers["agi_uniqueid"]

    @property
    def made_by_dial(self) -> bool:
        """True for a channel that did not come in from outside, such as a transferee's or `Local/…;2`."""
        return known(self.headers["agi_dnid"]) == ""


def read_question(headers: Mapping[str, str]) -> Question:
    """What is asked, from the headers and the AGI arguments `FORM` and `NUMBER`.

    `NUMBER` may be left out in the form `extension`: the extension is the number then. Raises MalformedError.
    """
    try:
        form = Form(headers.get("agi_arg_1", ""))
    except ValueError:
        raise MalformedError("the first argument is neither 'extension' nor 'leg'") from None
    if "agi_arg_3" in headers:
        raise MalformedError("more than two arguments")
    number = headers.get("agi_arg_2", "")
    if number and _NUMBER.fullmatch(number) is None:
        raise MalformedError("the second argument is not a dialled number")
    if not number and form is Form.LEG:
        raise MalformedError("the second argument, the dialled number, is missing")
    if not headers["agi_channel"] or not headers["agi_uniqueid"]:
        raise MalformedError("the channel has no name or no unique id")
    return Question(headers, form, number or headers["agi_extension"])


# --- what is asked back -------------------------------------------------------------------------------------

# Names used below → the dialplan expressions that Asterisk is asked to evaluate. CHANNEL(pjsip,…) and
# PJSIP_HEADER are only asked of PJSIP channels with a SIP request of their own: elsewhere they log a warning.
_SIP_REQUEST = {
    "source": "CHANNEL(pjsip,remote_addr)",
    "p_asserted_identity": "PJSIP_HEADER(read,P-Asserted-Identity)",
    "from": "PJSIP_HEADER(read,From)",
}
_EXTENSION = {
    "linkedid": "CHANNEL(linkedid)",
    "ani": "CALLERID(ANI)",
    "connected_line": "CONNECTEDLINE(num)",
    "presentation": "CALLERID(num-pres)",
    "first_caller": "RINGFENCE_CALLER",
    "passed_through": "RINGFENCE_PASSED",
    "transferrer": "BLINDTRANSFER",
}
_CAMPAIGN = {"campaign": "RINGFENCE_CAMPAIGN"}
_LEG = {
    "linkedid": "CHANNEL(linkedid)",
    "caller": "CONNECTEDLINE(num)",
    "caller_name": "CONNECTEDLINE(name)",
    "presentation": "CONNECTEDLINE(num-pres)",
    "first_caller": "RINGFENCE_CALLER",
    "master": "MASTER_CHANNEL(CHANNEL(name))",
    "master_caller": "MASTER_CHANNEL(CALLERID(num))",
    "master_caller_name": "MASTER_CHANNEL(CALLERID(name))",
    "master_account": "MASTER_CHANNEL(CHANNEL(accountcode))",
    "ani": "MASTER_CHANNEL(CALLERID(ANI))",
    "passed_through": "MASTER_CHANNEL(RINGFENCE_PASSED)",
    "transferrer": "MASTER_CHANNEL(BLINDTRANSFER)",
    "campaign": "MASTER_CHANNEL(RINGFENCE_CAMPAIGN)",
}


def first_expressions(question: Question) -> Mapping[str, str]:
    """What to read from the channel before the attempt is known in full."""
    if question.form is Form.LEG:
        return _LEG
    if question.headers["agi_type"] == "PJSIP" and not question.made_by_dial:
        return {**_EXTENSION, **_SIP_REQUEST, **_CAMPAIGN}
    return {**_EXTENSION, **_CAMPAIGN}


def more_expressions(question: Question, values: Mapping[str, str]) -> Mapping[str, str]:
    """What to read next, now that the first values are known; often nothing."""
    if question.form is Form.LEG and _master(question, values).startswith("PJSIP/"):
        return {name: f"MASTER_CHANNEL({expression})" for name, expression in _SIP_REQUEST.items()}
    return {}


def get_command(expressions: Mapping[str, str], boundary: str) -> str:
    """One AGI command that reads all of them, each followed by `boundary`.

    The boundary must be random for each session: then no value can contain it, and the reply to this command
    cannot be forged by text that a caller got into the stream earlier.
    """
    parts = "".join(f"${{{expression}:0:{_MAX_VALUE}}}{boundary}" for expression in expressions.values())
    return f"GET FULL VARIABLE {parts}"


def read_values(expressions: Mapping[str, str], boundary: str, text: str) -> Mapping[str, str]:
    """The values in the reply to `get_command`. Raises MalformedError if a line break or NUL tore it apart."""
    *values, rest = text.split(boundary)
    if rest or len(values) != len(expressions) or "\0" in text:
        raise MalformedError("the reply with the channel's variables is torn")
    return dict(zip(expressions, values, strict=True))


# --- the attempt --------------------------------------------------------------------------------------------


def attempt_of(question: Question, values: Mapping[str, str], *, switch: str, host: str) -> Attempt:
    """The attempt as the switch shows it. `values` are those of both rounds of expressions."""
    headers = question.headers
    if question.form is Form.LEG:
        # agi_callerid is the dialled number here. What Dial put on the leg is what PJSIP shows in From.
        caller = values["caller"] or values["master_caller"]
        caller_name = values["caller_name"] if values["caller"] else values["master_caller_name"]
        account = values["master_account"] or headers["agi_accountcode"]
        asker = _master(question, values)
    else:
        caller = known(headers["agi_callerid"])
        caller_name = known(headers["agi_calleridname"])
        account = headers["agi_accountcode"]
        # A transferee's channel is the carrier's; who placed the call is the one who transferred it.
        asker = values["transferrer"] if question.made_by_dial and values["transferrer"] else question.channel
    places = {
        "ani": values["ani"],
        "connected_line": values.get("connected_line", ""),
        # allowed_not_screened and the like are the rule and say nothing
        "presentation": "" if values["presentation"].startswith("allowed") else values["presentation"],
        "p_asserted_identity": values.get("p_asserted_identity", ""),
        "from": values.get("from", ""),
        "redirecting": known(headers["agi_rdnis"]),
        "first_caller": values["first_caller"],
        "passed_through": values["passed_through"],
    }
    return Attempt(
        decision_id=new_decision_id(),
        orig_id=new_orig_id(),
        switch=switch,
        host=host,
        channel=question.channel,
        call_ref=values["linkedid"] or question.uniqueid,
        caller=caller,
        called=question.number,
        caller_name=caller_name,
        account=account,
        trunk=endpoint_of(asker),
        source_address=_without_port(values.get("source", "")),
        places={name: value for name, value in places.items() if value and value != caller},
        campaign=values["campaign"],
        asserted=user_of(values.get("p_asserted_identity", "")),
        withheld=values["presentation"].startswith("prohib"),
    )


def unreadable_attempt(headers: Mapping[str, str], *, switch: str, host: str) -> Attempt:
    """What can be recorded of a question that could not be read safely, from its undoubted headers."""
    channel = headers.get("agi_channel", "")
    return Attempt(
        decision_id=new_decision_id(),
        orig_id=new_orig_id(),
        switch=switch,
        host=host,
        channel=channel,
        call_ref=headers.get("agi_uniqueid", ""),
        caller=known(headers.get("agi_callerid", "")),
        called="",
        trunk=endpoint_of(channel),
    )


def endpoint_of(channel: str) -> str:
    """`carrier` from `PJSIP/carrier-0000002a`; empty for a Local channel and for what is no channel name."""
    technology, slash, rest = channel.partition("/")
    if not slash or technology == "Local":
        return ""
    return rest.rpartition("-")[0]


def _master(question: Question, values: Mapping[str, str]) -> str:
    """The channel that started it all, or empty: MASTER_CHANNEL falls back on the asking channel itself."""
    return "" if values["master"] == question.channel else values["master"]


def _without_port(address: str) -> str:
    """The host of `192.0.2.1:5060` or `[2001:db8::1]:5060`."""
    return address.rpartition(":")[0].strip("[]")


# --- the answer ---------------------------------------------------------------------------------------------


def answer_command(decision: Decision) -> str:
    """One AGI command that sets every RINGFENCE_ variable and the CDR's, the verdict last.

    MSet is one command, so it arrives whole or not at all. Raises UnspeakableError if a value holds anything
    but `[A-Za-z0-9+/=._-]`, which could break out of the command.
    """
    return _set(
        ("RINGFENCE_REASON", decision.reason),
        ("RINGFENCE_SIP_CODE", str(decision.sip_status)),
        ("RINGFENCE_CAUSE", str(decision.q850_cause)),
        ("RINGFENCE_ATTEST", decision.attestation),
        ("RINGFENCE_DECISION", str(decision.decision_id)),
        ("RINGFENCE_ORIGID", str(decision.orig_id)),
        ("RINGFENCE_CUSTOMER", decision.customer),
        ("RINGFENCE_DELAY_MS", str(decision.delay_ms)),
        ("CDR(ringfence_decision)", str(decision.decision_id)),
        ("CDR(ringfence_customer)", decision.customer),
        ("CDR(ringfence_reason)", decision.reason),
        ("CDR(ringfence_attest)", decision.attestation),
        ("RINGFENCE_VERDICT", decision.verdict.value),
    )


def refusal_command(reason: str) -> str:
    """One AGI command that refuses a call for which there is no decision, for a reason from `reasons`."""
    known_reason = BY_CODE[reason]
    return _set(
        ("RINGFENCE_REASON", reason),
        ("RINGFENCE_SIP_CODE", str(known_reason.sip_status)),
        ("RINGFENCE_CAUSE", str(known_reason.q850_cause)),
        ("CDR(ringfence_reason)", reason),
        ("RINGFENCE_VERDICT", Verdict.REJECT.value),
    )


def _set(*pairs: tuple[str, str]) -> str:
    unspeakable = [name for name, value in pairs if _SPEAKABLE.fullmatch(value) is None]
    if unspeakable:
        raise UnspeakableError(f"the value for {unspeakable[0]} may not be sent to the switch")
    command = "EXEC MSet " + ",".join(f"{name}={value}" for name, value in pairs)
    if len(command) > _MAX_COMMAND_BYTES:
        raise UnspeakableError("the answer is too long for one AGI line")
    return command
