"""`ringfence infraction`: customers caught showing numbers that are not theirs."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli.output import e164
from ringfence.cli.session import Session, new_app, verb

app = new_app("Infractions: customers caught showing numbers that are not theirs.")

_COLUMNS = ("infraction_id", "customer", "happened_at", "caller", "reason", "consequence", "told_at", "counts")


@verb(app, "list")
async def list_infractions(
    session: Session,
    *,
    customer: Annotated[str | None, typer.Argument(help="Only this customer's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
) -> None:
    """Show infractions, the newest first: one row an event, not an attempt."""
    from ringfence.store import infractions

    async with session.database() as connection:
        found = await infractions.infractions(connection, customer, limit)
    shown = [{**row, "caller": e164(int(row["caller"])) if row["caller"].isdecimal() else row["caller"]}
             for row in found]  # fmt: skip
    session.output.document(shown)
    session.output.table(
        shown, (*_COLUMNS, "reversed_at", "reversed_by", "reversal_reason"), empty="no infractions"
    )


@verb(app, "reverse")
async def reverse(
    session: Session,
    *,
    infraction: Annotated[int, typer.Argument(metavar="ID", help="Number of the infraction.")],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
) -> None:
    """Take an infraction back, so that it no longer counts."""
    from ringfence.store import infractions

    async with session.database() as connection:
        found = await infractions.reverse(connection, infraction, reason)
    customer = found["customer"]
    session.output.document(found)
    session.output.line(f"infraction {infraction} of customer {customer} taken back: it no longer counts")
    if found["state"] == "suspended":
        session.output.line(
            f"customer {customer} stays suspended until 'ringfence customer reinstate {customer} --reason …'"
        )
