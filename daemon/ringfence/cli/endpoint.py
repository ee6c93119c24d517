"""`ringfence endpoint`: how a call is recognised as a customer's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

if TYPE_CHECKING:
    from ringfence.store.endpoints import Endpoint

app = new_app("Endpoints: how a call is recognised as a customer's.")

Customer = Annotated[str, typer.Argument(help="The customer's short name.")]
Accounts = Annotated[list[str] | None, typer.Option("--account", help="Account code. May be repeated.")]
SipUsers = Annotated[list[str] | None, typer.Option("--sip-user", help="Authenticated SIP user. May be repeated.")]
Trunks = Annotated[list[str] | None, typer.Option("--trunk", help="Trunk or gateway. May be repeated.")]
Addresses = Annotated[list[str] | None, typer.Option("--source-address", help="IP address. May be repeated.")]
Host = Annotated[str, typer.Option("--host", help="Ringfence host they hold on; * for every host.")]

Traffic = Annotated[
    str,
    typer.Option(
        "--traffic", help="telemarketing or conversational; a campaign that a call names decides over it."
    ),
]

COLUMNS = ("endpoint", "customer", "kind", "value", "host", "traffic", "enabled")


def named(
    account: list[str] | None,
    sip_user: list[str] | None,
    trunk: list[str] | None,
    source_address: list[str] | None,
    host: str,
) -> list[Endpoint]:
    """The endpoints that these options name."""
    from ringfence.store.endpoints import Endpoint

    options = {"account": account, "sip_user": sip_user, "trunk": trunk, "source_address": source_address}
    return [Endpoint(kind, value, host) for kind, values in options.items() for value in values or ()]


async def _change(
    session: Session, customer: str, changed: list[Endpoint], done: str, traffic: str = "conversational"
) -> None:
    from ringfence.store import endpoints

    if not changed:
        raise BadInputError("name an endpoint: --account, --sip-user, --trunk or --source-address")
    async with session.database() as connection:
        if done == "added":
            await endpoints.add(connection, customer, changed, traffic=traffic)
        elif done == "removed":
            await endpoints.remove(connection, customer, changed)
        elif done == "changed":
            await endpoints.set_traffic(connection, customer, changed, traffic)
        else:
            await endpoints.enable(connection, customer, changed, enabled=done == "enabled")
    shown = [{"kind": e.kind, "value": e.value, "host": e.host} for e in (c.checked() for c in changed)]
    session.output.document({"customer": customer, done: shown})
    is_now = f": {traffic}" if done in ("added", "changed") else ""
    for endpoint in changed:
        session.output.line(f"{customer}: {endpoint.checked()} {done}{is_now}")


@verb(app, "add")
async def add(
    session: Session,
    *,
    customer: Customer,
    account: Accounts = None,
    sip_user: SipUsers = None,
    trunk: Trunks = None,
    source_address: Addresses = None,
    host: Host = "*",
    traffic: Traffic = "conversational",
) -> None:
    """Recognise calls as this customer's. All are added or none."""
    await _change(session, customer, named(account, sip_user, trunk, source_address, host), "added", traffic)


@verb(app, "set")
async def change(
    session: Session,
    *,
    customer: Customer,
    traffic: Traffic,
    account: Accounts = None,
    sip_user: SipUsers = None,
    trunk: Trunks = None,
    source_address: Addresses = None,
    host: Host = "*",
) -> None:
    """Say whether calls of these endpoints are telemarketing. All are changed or none."""
    await _change(session, customer, named(account, sip_user, trunk, source_address, host), "changed", traffic)


@verb(app, "remove")
async def remove(
    session: Session,
    *,
    customer: Customer,
    account: Accounts = None,
    sip_user: SipUsers = None,
    trunk: Trunks = None,
    source_address: Addresses = None,
    host: Host = "*",
) -> None:
    """No longer recognise them: their calls are refused as endpoint_unknown. All are removed or none."""
    await _change(session, customer, named(account, sip_user, trunk, source_address, host), "removed")


@verb(app, "enable")
async def enable(
    session: Session,
    *,
    customer: Customer,
    account: Accounts = None,
    sip_user: SipUsers = None,
    trunk: Trunks = None,
    source_address: Addresses = None,
    host: Host = "*",
) -> None:
    """Let calls of disabled endpoints be judged again."""
    await _change(session, customer, named(account, sip_user, trunk, source_address, host), "enabled")


@verb(app, "disable")
async def disable(
    session: Session,
    *,
    customer: Customer,
    account: Accounts = None,
    sip_user: SipUsers = None,
    trunk: Trunks = None,
    source_address: Addresses = None,
    host: Host = "*",
) -> None:
    """Refuse the calls of these endpoints as endpoint_disabled, and keep them on record."""
    await _change(session, customer, named(account, sip_user, trunk, source_address, host), "disabled")


@verb(app, "list")
async def list_endpoints(
    session: Session, customer: Annotated[str | None, typer.Argument(help="Only this customer's.")] = None
) -> None:
    """Show the endpoints of one customer or of all."""
    from ringfence.store import endpoints

    async with session.database() as connection:
        found = await endpoints.listed(connection, customer)
    session.output.document(found)
    session.output.table(found, COLUMNS, empty="no endpoints: 'ringfence endpoint add CUSTOMER …' adds one")
