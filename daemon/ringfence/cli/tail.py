"""`ringfence tail`: decisions as they are made, on every host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import typer

from ringfence.cli.call import Customer, Verdict, check_verdict, shown, with_numbers
from ringfence.cli.session import Session, verb

_EVERY_S = 0.5
_BATCH = 1000
# Ids carry the time of the host that made them, and a decision is committed a moment after its id was made.
_LOOK_BACK = timedelta(seconds=3)


async def tail(session: Session, *, customer: Customer = None, verdict: Verdict = None) -> None:
    """Show each new decision on a line of its own until Ctrl-C; with --json, each as one JSON object."""
    from ringfence.store import policy, records

    check_verdict(verdict)
    async with session.database() as connection:
        if customer is not None:
            await policy.require_customer(connection, customer)
        began = await records.clock(connection)
        newest, told = began, dict[UUID, datetime]()
        while True:
            floor = max(began, newest - _LOOK_BACK)
            found = await records.newer(connection, floor, told, customer=customer, verdict=verdict, limit=_BATCH)
            for row in found:
                _tell(session, row)
                told[row["decision_id"]] = _made_at(row["decision_id"], began)
                newest = max(newest, told[row["decision_id"]])
            if found:  # a host whose clock is ahead must not hide what the others decide
                newest = min(newest, await records.clock(connection))
            told = {key: at for key, at in told.items() if at >= newest - _LOOK_BACK}
            if len(found) < _BATCH:
                await asyncio.sleep(_EVERY_S)


def _made_at(decision_id: UUID, like: datetime) -> datetime:
    """The time in a UUIDv7 (RFC 9562 section 5.7)."""
    return datetime.fromtimestamp((decision_id.int >> 80) / 1000, like.tzinfo)


def _tell(session: Session, row: Mapping[str, Any]) -> None:
    if session.output.as_json:
        session.output.json_line(with_numbers(row))
        return
    decided = f"{row['decided_at']:%Y-%m-%d %H:%M:%S}.{row['decided_at'].microsecond // 1000:03d}Z"
    answer = f"attestation {row['attestation']}" if row["attestation"] else f"SIP {row['sip_status']}"
    marks = " degraded" if row["degraded"] else ""
    marks += f", after {row['delay_ms']} ms" if row["delay_ms"] else ""
    marks += f", would reject: {' '.join(row['would_reject'])}" if row["would_reject"] else ""
    session.output.line(
        f"{decided} {row['verdict']:6} {row['reason']} {row['customer'] or '-'} {shown(row, 'caller') or '-'} -> "
        f"{shown(row, 'called') or '-'} ({answer}{marks}) {row['decision_id']}",
        at_once=True,
    )


def register(app: typer.Typer) -> None:
    """Add the command to the top."""
    verb(app, "tail")(tail)
