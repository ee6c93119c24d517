"""One line for each call that ended, the same whichever switch it was on."""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from ringfence.escape import visible
from ringfence.model import CallEnd


def log_call_ended(log: FilteringBoundLogger, end: CallEnd) -> None:
    """Log `call.ended` (docs/logs.md)."""
    log.info(
        "call.ended",
        decision=str(end.decision_id),
        customer=end.customer,
        source=end.source.value,
        by=end.hung_up_by.value,
        cause=end.q850_cause,
        sip=end.sip_status,
        duration_ms=end.duration_ms,
        billable_ms=end.billable_ms,
        trunk=visible(end.trunk),
    )
