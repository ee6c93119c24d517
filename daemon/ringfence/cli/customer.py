"""`ringfence customer`: who pays and answers for the traffic."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli import endpoint
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("Customers: who pays and answers for the traffic.")

Customer = Annotated[str, typer.Argument(help="The customer's short name.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]


@verb(app, "add")
async def add(
    session: Session,
    *,
    customer: Annotated[str, typer.Argument(help="Short name: the key everywhere, never reused.")],
    name: Annotated[str, typer.Option(help="Legal or trading name.")],
    profile: Annotated[str, typer.Option(help="Limit profile.")] = "default",
    time_zone: Annotated[str, typer.Option(help="IANA zone in which the customer's day begins.")] = "UTC",
    account: endpoint.Accounts = None,
    sip_user: endpoint.SipUsers = None,
    trunk: endpoint.Trunks = None,
    source_address: endpoint.Addresses = None,
    host: endpoint.Host = "*",
) -> None:
    """Add an active customer and how its calls are recognised."""
    from ringfence.store import customers

    recognised_by = endpoint.named(account, sip_user, trunk, source_address, host)
    async with session.database() as connection:
        made = await customers.add_customer(
            connection, customer, name=name, profile=profile, time_zone=time_zone, recognised_by=recognised_by
        )
        shown = await customers.show_customer(connection, customer)
    session.output.document({**shown, "profile_created": made})
    if made:
        session.output.line(
            f"profile default made: {shown['calls_per_second']:g} calls per second, burst {shown['burst']}, "
            f"{shown['concurrent_calls']} at once; 'ringfence profile set default …' changes it"
        )
    session.output.line(f"customer {customer} added with profile {profile} and {len(recognised_by)} endpoint(s)")
    if not recognised_by:
        session.output.line(f"next: 'ringfence endpoint add {customer} --account …': it has no endpoint yet")
    session.output.line(f"next: 'ringfence number grant {customer} NUMBER': it may show no number yet")


@verb(app, "set")
async def change(
    session: Session,
    *,
    customer: Customer,
    name: Annotated[str | None, typer.Option(help="Legal or trading name.")] = None,
    profile: Annotated[str | None, typer.Option(help="Limit profile.")] = None,
    time_zone: Annotated[str | None, typer.Option(help="IANA zone in which the customer's day begins.")] = None,
) -> None:
    """Change the name, the limit profile or the time zone."""
    from ringfence.store import customers

    if name is None and profile is None and time_zone is None:
        raise BadInputError("nothing to change: give --name, --profile or --time-zone")
    async with session.database() as connection:
        await customers.change_customer(connection, customer, name=name, profile=profile, time_zone=time_zone)
        shown = await customers.show_customer(connection, customer)
    session.output.document(shown)
    session.output.line(f"customer {customer}: {shown['name']}, profile {shown['profile']}, {shown['time_zone']}")


@verb(app, "list")
async def list_customers(session: Session) -> None:
    """Show every customer."""
    from ringfence.store import customers

    async with session.database() as connection:
        found = await customers.customers(connection)
    session.output.document(found)
    columns = ("customer", "name", "state", "profile", "time_zone", "endpoints", "grants")
    session.output.table(found, columns, empty="no customers: 'ringfence customer add ID --name …' adds one")


@verb(app, "show")
async def show(session: Session, customer: Customer) -> None:
    """Show one customer: state, caps, endpoints, grants in sum, live calls, today's calls, last changes."""
    from ringfence.store import customers

    async with session.database() as connection:
        shown = await customers.show_customer(connection, customer)
    session.output.document(shown)
    session.output.facts({key: value for key, value in shown.items() if not isinstance(value, list)})
    session.output.table(shown["endpoints"], endpoint.COLUMNS, title="endpoints")
    sums = ("source", "attestation", "grants", "numbers", "not_in_date", "next_expiry")
    session.output.table(shown["grants"], sums, title="grants")
    columns = ("version", "changed_at", "changed_by", "action", "detail")
    session.output.table(shown["changes"], columns, title="last changes")


@verb(app, "suspend")
async def suspend(
    session: Session,
    customer: Customer,
    reason: Reason,
    let_calls_finish: Annotated[
        bool, typer.Option("--let-calls-finish", help="Leave calls that are up alone.")
    ] = False,
) -> None:
    """Refuse every further call of this customer and hang up its live ones; emergency calls are left alone."""
    from ringfence.store import customers

    async with session.database() as connection:
        before = await customers.set_state(connection, customer, "suspended", reason, hang_up=not let_calls_finish)
    told = "live calls may finish" if let_calls_finish else "its live calls are being hung up"
    _show_move(session, customer, "suspended", before=before, reason=reason, more=told)


@verb(app, "reinstate")
async def reinstate(
    session: Session,
    customer: Customer,
    reason: Reason,
    by: Annotated[str, typer.Option("--by", help="Who approved it; by default you.")] = "",
) -> None:
    """Make a suspended customer active again."""
    from ringfence.store import customers

    async with session.database() as connection:
        before = await customers.set_state(connection, customer, "active", reason, approved_by=by)
    _show_move(session, customer, "active", before=before, reason=reason, more="")


def _show_move(session: Session, customer: str, state: str, *, before: str, reason: str, more: str) -> None:
    session.output.document({"customer": customer, "state": state, "before": before, "reason": reason})
    session.output.line(
        f"customer {customer} is {state} (was {before}) from the next attempt on{'; ' + more if more else ''}"
    )
