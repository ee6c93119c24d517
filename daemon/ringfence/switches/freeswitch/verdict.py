"""A decision as the commands that tell it to the switch."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ringfence.model import Decision, Verdict
from ringfence.switches.freeswitch.channel import Question
from ringfence.switches.freeswitch.hook import Answer

# uuid_setvar_multi stores a value as it is, but a later ${…} of somebody's dialplan would expand it, `;` ends it
# and a line break ends the command.
_VALUE = re.compile(r"[A-Za-z0-9+/=._-]{1,255}", re.ASCII)
_SEAL = re.compile(r"[A-Za-z0-9_-]+\.[0-9a-f]{64}", re.ASCII)
_EXIT = "exit"


def answer(question: Question, decision: Decision, seal: str = "") -> Answer:
    """Tags on the leg and on the one that asked for it, the verdict last, then `exit` or a hang-up."""
    tags = {
        "ringfence_decision": str(decision.decision_id),
        "ringfence_origid": str(decision.orig_id),
        "ringfence_customer": decision.customer,
        "ringfence_reason": decision.reason,
        "ringfence_attest": decision.attestation,
        "ringfence_sip_code": str(decision.sip_status or ""),
        "ringfence_cause": str(decision.q850_cause or ""),
    }
    commands = []
    if question.origin and not question.origin_is_outbound:  # an outbound one has a decision of its own
        commands.append(_set(question.origin, tags))
    verdict = {
        "ringfence_seal": seal,
        "ringfence_show": question.show,
        "ringfence_delay_ms": str(decision.delay_ms or ""),
        "ringfence_verdict": _word(question, decision),
    }
    decisive = len(commands)
    if question.leg:
        commands.append(_set(question.leg, {**tags, **verdict}))
    if decision.allowed:
        commands.append(_EXIT)
    else:
        commands += _refusal(question, decision)
    return Answer(tuple(commands), decisive, (question, decision))


def pass_unjudged(question: Question, reason: str) -> Answer:
    """Let a leg out that is not judged, saying why on the leg."""
    tags = {"ringfence_reason": reason, "ringfence_verdict": _proven(question, Verdict.ALLOW)}
    return Answer((_set(question.leg, tags), _EXIT), 0)


def mark(leg: str, decision: Decision, seal: str) -> str:
    """The API command that leaves a decision with a leg that had none."""
    tags = {
        "ringfence_decision": str(decision.decision_id),
        "ringfence_customer": decision.customer,
        "ringfence_reason": decision.reason,
        "ringfence_seal": seal,
    }
    return _set(leg, tags).removeprefix("api ")


def _word(question: Question, decision: Decision) -> str:
    return _proven(question, decision.verdict)


def _proven(question: Question, verdict: Verdict) -> str:
    """The verdict with the gate's nonce, which no dial string can have known."""
    return f"{verdict.value}.{question.nonce}" if question.nonce else verdict.value


def _refusal(question: Question, decision: Decision) -> list[str]:
    hangup = f"sendmsg\ncall-command: hangup\nhangup-cause: {int(decision.q850_cause) or 21}"
    if question.from_gate:
        return [hangup]
    # On the caller's own channel the status can be told outright; FreeSWITCH would make 603 of cause 21.
    status = int(decision.sip_status) or 403
    respond = f"sendmsg\ncall-command: execute\nexecute-app-name: respond\nexecute-app-arg: {status}"
    return [respond, hangup]


def _set(uuid: str, values: Mapping[str, str]) -> str:
    safe = ";".join(
        f"{name}={value}" for name, value in values.items() if _VALUE.fullmatch(value) or _SEAL.fullmatch(value)
    )
    return f"api uuid_setvar_multi {uuid} {safe}"
