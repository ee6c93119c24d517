"""`ringfence campaign`: what calls are for."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli.session import Session, new_app, verb

app = new_app("Campaigns: what a customer's calls are for.")

Customer = Annotated[str, typer.Argument(help="The customer's short name.")]
Campaign = Annotated[str, typer.Argument(help="Name of the campaign, as the switch gives it.")]


@verb(app, "add")
async def add(
    session: Session,
    *,
    customer: Customer,
    name: Campaign,
    traffic: Annotated[str, typer.Option(help="telemarketing or conversational: the rules that its calls heed.")],
    description: Annotated[str, typer.Option(help="What it is about.")] = "",
) -> None:
    """Add a campaign. A call that names it is of its traffic, whatever its endpoint says."""
    from ringfence.store import campaigns

    async with session.database() as connection:
        await campaigns.add(connection, customer, name, traffic=traffic, description=description)
    session.output.document(
        {"customer": customer, "campaign": name, "traffic": traffic, "description": description, "enabled": True}
    )
    session.output.line(f"{customer}: campaign {name} added: {traffic}")


async def _enable(session: Session, customer: str, name: str, *, enabled: bool) -> None:
    from ringfence.store import campaigns

    async with session.database() as connection:
        await campaigns.enable(connection, customer, name, enabled=enabled)
    session.output.document({"customer": customer, "campaign": name, "enabled": enabled})
    session.output.line(
        f"{customer}: campaign {name} {'enabled' if enabled else 'disabled: its calls are refused'}"
    )


@verb(app, "disable")
async def disable(session: Session, customer: Customer, name: Campaign) -> None:
    """Refuse the calls of a campaign as campaign_unknown, and keep it on record."""
    await _enable(session, customer, name, enabled=False)


@verb(app, "enable")
async def enable(session: Session, customer: Customer, name: Campaign) -> None:
    """Let calls of a disabled campaign be judged again."""
    await _enable(session, customer, name, enabled=True)


@verb(app, "list")
async def list_campaigns(
    session: Session, customer: Annotated[str | None, typer.Argument(help="Only this customer's.")] = None
) -> None:
    """Show the campaigns of one customer or of all."""
    from ringfence.store import campaigns

    async with session.database() as connection:
        found = await campaigns.listed(connection, customer)
    session.output.document(found)
    columns = ("customer", "campaign", "traffic", "description", "enabled", "created_at")
    session.output.table(found, columns, empty="no campaigns: 'ringfence campaign add CUSTOMER NAME …' adds one")
