"""`ringfence finding`: what was found about a customer's traffic."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli.session import Session, new_app, verb

app = new_app("Findings: what was found about a customer's traffic; illegal traffic suspends.")


@verb(app, "add")
async def add(
    session: Session,
    *,
    customer: Annotated[str, typer.Argument(help="The customer's short name.")],
    kind: Annotated[
        str, typer.Option("--kind", help="illegal_traffic suspends; suspicious_traffic and complaint do not.")
    ],
    summary: Annotated[
        str, typer.Option("--summary", help="What was found; the customer reads it in the suspension notice.")
    ],
    evidence: Annotated[str, typer.Option("--evidence", help="Where the proof is filed.")] = "",
) -> None:
    """Write down what was found. Illegal traffic suspends the customer at once and hangs up its live calls."""
    from ringfence.store import infractions

    async with session.database() as connection:
        found = await infractions.add_finding(connection, customer, kind=kind, summary=summary, evidence=evidence)
    session.output.document(found)
    session.output.line(f"finding {found['finding_id']} about customer {customer} is on record")
    before = found["state_before"]
    if found["suspended"]:
        session.output.line(
            f"customer {customer} is suspended (was {before}) from the next attempt on; "
            "its live calls are being hung up"
        )
    elif kind == "illegal_traffic":
        session.output.line(f"customer {customer} is {before}: it may place no calls, and stays so")


@verb(app, "list")
async def list_findings(
    session: Session,
    *,
    customer: Annotated[str | None, typer.Argument(help="Only about this customer.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
) -> None:
    """Show findings, the newest first."""
    from ringfence.store import infractions

    async with session.database() as connection:
        found = await infractions.findings(connection, customer, limit)
    session.output.document(found)
    columns = ("finding_id", "customer", "found_at", "found_by", "kind", "summary", "evidence", "suspended")
    session.output.table(found, columns, empty="no findings")
