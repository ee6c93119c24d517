"""`ringfence call`: what was decided, and how the calls ended."""

from __future__ import annotations

from datetime import datetime, timedelta
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

_CLOCKS_AHEAD = timedelta(minutes=5)  # how far a host's clock may be ahead of the server's


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


def _span(since: str, until: str | None) -> tuple[datetime, datetime | None]:
    """The times a search is about; None is now. Raises BadInputError."""
    from ringfence.cli.times import point

    start = point(since, "--since")
    end = point(until, "--until") if until else None
    if end is not None and end <= start:
        raise BadInputError("--until is not after --since")
    return start, end


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
    would_reject: Annotated[
        str | None,
        typer.Option(
            "--would-reject",
            metavar="any|REASON",
            help="Calls that a rule in the mode report would have refused: for any reason, or for this one.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
) -> None:
    """Show decisions and how their calls ended, the newest first."""
    from ringfence.store import policy, records

    check_verdict(verdict)
    start, end = _span(since, until)
    async with session.database() as connection:
        if customer is not None:
            await policy.require_customer(connection, customer)
        for code in (reason, would_reject if would_reject != records.ANY else None):
            if code is not None:
                await records.require_reason(connection, code)
        if end is None:
            end = await records.clock(connection) + _CLOCKS_AHEAD
        search = records.Search(
            since=start,
            until=end,
            customer=customer,
            caller=_number(session, caller),
            called=_number(session, called),
            verdict=verdict,
            reason=reason,
            would_reject=would_reject,
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
    seldom = tuple(column for column in ("delay_ms", "would_reject") if any(row[column] for row in found))
    session.output.table(
        table, (*columns, *seldom, "decision_id"), empty="no calls match; --since 7d looks back further"
    )
    if len(found) == limit:
        session.output.line(f"the newest {limit} are shown: --limit shows more")


@verb(app, "summary")
async def summary(
    session: Session,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="From then on: 1h, 7d or 2026-11-21T14:00.")] = "24h",
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then; now by default.")] = None,
    customer: Customer = None,
) -> None:
    """Count decisions by customer, verdict and reason, and what rules in the mode report would have refused."""
    from ringfence.store import policy, records

    start, end = _span(since, until)
    async with session.database() as connection:
        if customer is not None:
            await policy.require_customer(connection, customer)
        if end is None:
            end = await records.clock(connection) + _CLOCKS_AHEAD
        found = await records.summary(connection, start, end, customer=customer)
    session.output.document(
        {
            "since": start,
            "until": end,
            "calls": found.calls,
            "answers": found.answers,
            "would_reject": found.would_reject,
        }
    )
    session.output.table(
        found.answers, ("customer", "verdict", "reason", "calls"), empty="no calls; --since 7d looks back further"
    )
    if found.would_reject:
        columns = ("customer", "would_reject", "calls", "passed", "only", "refused")
        session.output.table(found.would_reject, columns, title="reported by rules that only report")
        session.output.line(
            "passed: would be refused if the rule were enforced; only: of those, reported by no other rule; "
            "refused: refused already, by another rule"
        )
        session.output.line("'ringfence call list --would-reject REASON' shows the calls")


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
    # These are said only if there is something to say.
    for field in ("would_reject", "caller_withheld", "places", "delay_ms"):
        if not found[field]:
            del found[field]
    session.output.facts(found, title="decision")
    session.output.facts(grant or {}, title="grant")
    session.output.facts(end or {}, title="end")
