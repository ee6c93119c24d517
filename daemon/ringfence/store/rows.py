"""Domain values as the fields of the SQL composite types `attempt`, `decision` and `call_end`, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ringfence.escape import visible
from ringfence.model import CallEnd, Decision, NumberedAttempt, Verdict

_MAX_PLACES = 32


def attempt_fields(numbered: NumberedAttempt) -> dict[str, Any]:
    """The fields of `ringfence.attempt`, in its order. Every text is bounded and free of control characters."""
    a = numbered.attempt
    places = {visible(key, 64): visible(value) for key, value in list(a.places.items())[:_MAX_PLACES]}
    return {
        "decision_id": a.decision_id,
        "orig_id": a.orig_id,
        "entry": a.entry.value,
        "switch": visible(a.switch),
        "host": visible(a.host),
        "channel": visible(a.channel),
        "call_ref": visible(a.call_ref),
        "account": visible(a.account),
        "sip_user": visible(a.sip_user),
        "trunk": visible(a.trunk),
        "source_address": visible(a.source_address),
        "caller": visible(a.caller),
        "caller_name": visible(a.caller_name),
        "caller_e164": numbered.caller.e164,
        "caller_defect": numbered.caller.defect,
        "called": visible(a.called),
        "called_e164": numbered.called.e164,
        "called_defect": numbered.called.defect,
        "places": json.dumps(places) if places else "{}",
        "campaign": visible(a.campaign, 64),
        "caller_withheld": numbered.caller_withheld,
        "asked_at": numbered.asked_at,
    }


def decision_fields(decision: Decision) -> dict[str, Any]:
    """The fields of `ringfence.decision`, in its order."""
    return {
        "decision_id": decision.decision_id,
        "orig_id": decision.orig_id,
        "customer": decision.customer,
        "verdict": decision.verdict.value,
        "reason": decision.reason,
        "sip_status": decision.sip_status,
        "q850_cause": decision.q850_cause,
        "attestation": decision.attestation,
        "delay_ms": decision.delay_ms,
        "policy_version": decision.policy_version,
        "degraded": decision.degraded,
        "rules": None,
        "would_reject": list(decision.would_reject),
    }


def call_end_fields(end: CallEnd) -> dict[str, Any]:
    """The fields of `ringfence.call_end`, in its order."""
    return {
        "decision_id": end.decision_id,
        "customer": end.customer,
        "source": end.source.value,
        "hung_up_by": end.hung_up_by.value,
        "started_at": end.started_at,
        "answered_at": end.answered_at,
        "ended_at": end.ended_at,
        "post_dial_delay_ms": end.post_dial_delay_ms,
        "q850_cause": end.q850_cause,
        "sip_status": end.sip_status,
        "trunk": visible(end.trunk),
        "trunk_channel": visible(end.trunk_channel),
        "detail": visible(end.detail),
    }


def decision_from(row: Mapping[str, Any]) -> Decision:
    """A row of `ringfence.decision` as a Decision."""
    return Decision(
        decision_id=row["decision_id"],
        orig_id=row["orig_id"],
        verdict=Verdict(row["verdict"]),
        reason=row["reason"],
        customer=row["customer"],
        attestation=row["attestation"],
        sip_status=row["sip_status"],
        q850_cause=row["q850_cause"],
        delay_ms=row["delay_ms"],
        policy_version=row["policy_version"],
        degraded=row["degraded"],
        would_reject=tuple(row["would_reject"] or ()),
    )


def to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as JSON values that `jsonb_populate_record` reads back into the composite type."""
    return {key: _json_value(key, value) for key, value in fields.items()}


def _json_value(key: str, value: Any) -> Any:
    if key == "places":
        return json.loads(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | str | list) else str(value)
