"""`ringfence bypass`: calls that went around the gate."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from ringfence.cli.call import Customer, shown, with_numbers
from ringfence.cli.session import Session, new_app, verb

app = new_app("Bypasses: calls that left a switch without asking first.")


@verb(app, "list")
async def list_bypasses(
    session: Session,
    *,
    since: Annotated[str, typer.Option(metavar="TIME", help="From then on: 1h, 7d or 2026-11-21T14:00.")] = "7d",
    customer: Customer = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
) -> None:
    """Show the holes: how each such call was made, and what the watch made of it, the newest first."""
    from ringfence.cli.times import point
    from ringfence.store import policy, records

    start = point(since, "--since")
    async with session.database() as connection:
        if customer is not None:
            await policy.require_customer(connection, customer)
        end = await records.clock(connection) + timedelta(minutes=5)  # a host's clock may be ahead
        found = await records.bypasses(connection, start, end, customer=customer, limit=limit)
    session.output.document([with_numbers(row) for row in found])
    table = [{**row, "caller": shown(row, "caller"), "called": shown(row, "called")} for row in found]
    columns = ("decided_at", "host", "switch", "created_by", "channel", "customer", "caller", "called", "verdict")
    session.output.table(
        table,
        (*columns, "reason", "decision_id"),
        empty="no call went around the gate; --since 30d looks back further",
    )
