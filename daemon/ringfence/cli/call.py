"""`ringfence call`: what was decided, and how the calls ended."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from ringfence.cli.output import e164
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

app = new_app("Calls: what was decided, and how they ended.")

VERDICTS = ("allow", "reject", "delay")
Verdict = Annotated[str | None, typer.Option("--verdict", help="allow, reject or delay.")]
Customer = Annotated[str | None, typer.Option("--customer", help="Only this customer's.")]


def check_verdict(verdict: str | None) -> None:
    """Raises BadInputError if it is none."""
    if verdict is not None and verdict not in VERDICTS:
        raise BadInputError(f"--verdict: {verdict[:64]!r} is none of {', '.join(VERDICTS)}")


def with_numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its numbers as people write them."""
    return {**row, "caller_e164": e164(row["caller_e164"]), "called_e164": e164(row["called_e164"])}


def shown(row: Mapping[str, Any], which: str) -> str:
    """A caller or called number for people: E.164 if it is a number, else what the switch showed."""
    return e164(row[f"{which}_e164"]) or row[which]


def _number(session: Session, text: str | None) -> int | str | None:
    """A number to look for: E.164 digits, or the text itself for what is no number."""
    from ringfence.numbering import canonical

    if text is None:
        return None
    number = canonical(text, session.default_plan, called=True)
    return text if number.e164 is None else number.e164


@verb(app, "list")
async def list_calls(
    session: Session,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="From then on: 1h, 7d or 2026-11-21T14:00.")] = "24h",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then; now by default.")] = None,
    customer: Customer = None,
    caller: Annotated[str | None, typer.Option(help="Caller ID: a number, or the text as shown.")] = None,
    called: Annotated[str | None, typer.Option(help="Called number, or the text as dialled.")] = None,
    verdict: Verdict = None,
    reason: Annotated[str | None, typer.Option(help="Reason code, e.g. caller_id_not_authorized.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
) -> None:
    """Show decisions and how their calls ended, the newest first."""
    from ringfence.cli.times import point
    from ringfence.store import policy, records

    check_verdict(verdict)
    start = point(since, "--since")
    end = point(until, "--until") if until else None
    if end is not None and end <= start:
        raise BadInputError("--until is not after --since")
    async with session.database() as connection:
        if customer is not None:
            await policy.require_customer(connection, customer)
        if reason is not None:
            await records.require_reason(connection, reason)
        if end is None:  # a host's clock may be ahead
            end = await records.clock(connection) + timedelta(minutes=5)
        search = records.Search(
            since=start,
            until=end,
            customer=customer,
            caller=_number(session, caller),
            called=_number(session, called),
            verdict=verdict,
            reason=reason,
            limit=limit,
        )
        found = await records.find(connection, search)
    session.output.document([with_numbers(row) for row in found])
    table = [
        {
            **row,
            "caller": shown(row, "caller"),
            "called": shown(row, "called"),
            "seconds": None if row["duration_ms"] is None else f"{row['duration_ms'] / 1000:.1f}",
        }
        for row in found
    ]
    columns = ("decided_at", "customer", "caller", "called", "verdict", "reason", "attestation", "seconds")
    session.output.table(table, (*columns, "decision_id"), empty="no calls match; --since 7d looks back further")
    if len(found) == limit:
        session.output.line(f"the newest {limit} are shown: --limit shows more")


@verb(app, "show")
async def show(
    session: Session, *, decision_id: Annotated[str, typer.Argument(help="The decision's UUID.")]
) -> None:
    """Show one decision in full, the grant it rests on, and how the call ended."""
    from ringfence.store import records

    try:
        wanted = UUID(decision_id)
    except ValueError:
        raise BadInputError(
            f"{decision_id[:64]!r} is not a decision id: it is a UUID, as 'ringfence call list' shows it"
        ) from None
    async with session.database() as connection:
        found = await records.show(connection, wanted)
    found = with_numbers(found)
    if found["grant"] is not None:
        found["grant"] |= {"first": e164(found["grant"]["first"]), "last": e164(found["grant"]["last"])}
    session.output.document(found)
    end, grant = found.pop("end"), found.pop("grant")
    session.output.facts(found, title="decision")
    session.output.facts(grant or {}, title="grant")
    session.output.facts(end or {}, title="end")
