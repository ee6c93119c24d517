"""`ringfence customer`: who pays and answers for the traffic."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ringfence.cli import customer_vetting, endpoint
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("Customers: who pays and answers for the traffic.")

Customer = Annotated[str, typer.Argument(help="The customer's short name.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]

_NAME_HELP = "Legal or trading name."
_ZONE_HELP = "IANA zone in which the customer's day begins."
_KIND_HELP = "end_user, or provider: one that sends its own customers' calls."
_RESTRICTED_HELP = "Limit profile that holds while it is restricted."
_EMAIL_HELP = "Where notices to the customer go."

_MAX_EMAIL = 254  # characters
_FOR_MACHINES = frozenset({"decision", "sha256", "told"})


@verb(app, "add")
async def add(
    session: Session,
    *,
    customer: Annotated[str, typer.Argument(help="Short name: the key everywhere, never reused.")],
    name: Annotated[str, typer.Option(help=_NAME_HELP)],
    profile: Annotated[str, typer.Option(help="Limit profile.")] = "default",
    restricted_profile: Annotated[str, typer.Option(help=_RESTRICTED_HELP)] = "restricted",
    kind: Annotated[str, typer.Option(help=_KIND_HELP)] = "end_user",
    time_zone: Annotated[str, typer.Option(help=_ZONE_HELP)] = "UTC",
    contact_email: Annotated[str, typer.Option(help=_EMAIL_HELP)] = "",
    vetted_by: Annotated[
        str | None, typer.Option(help="Who vetted it: records a short vetting and makes it active.")
    ] = None,
    vetted_how: Annotated[
        str | None, typer.Option(help="call, visit or documents (the default); with --vetted-by.")
    ] = None,
    vetted_until: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it must be vetted again; with --vetted-by.")
    ] = None,
    account: endpoint.Accounts = None,
    sip_user: endpoint.SipUsers = None,
    trunk: endpoint.Trunks = None,
    source_address: endpoint.Addresses = None,
    host: endpoint.Host = "*",
) -> None:
    """Add a prospect and how its calls are recognised; with --vetted-by an active customer."""
    from ringfence.store import customers

    recognised_by = endpoint.named(account, sip_user, trunk, source_address, host)
    names = {"vetted_by": "--vetted-by", "method": "--vetted-how", "valid_until": "--vetted-until"}
    told = {"vetted_by": vetted_by, "method": vetted_how, "valid_until": vetted_until}
    if vetted_by is None and (vetted_how or vetted_until):
        raise BadInputError("--vetted-by: say who vetted, too")
    vetted = customer_vetting.facts_from(told, names) if vetted_by is not None else None
    async with session.database() as connection:
        made = await customers.add_customer(
            connection,
            customer,
            name=name,
            profile=profile,
            time_zone=time_zone,
            kind=kind,
            restricted_profile=restricted_profile,
            contact_email=_email(contact_email),
            recognised_by=recognised_by,
            vetted=vetted,
        )
        shown = await customers.show_customer(connection, customer)
    session.output.document({**shown, "profile_created": made})
    if made:
        session.output.line(
            f"profile default made: {shown['calls_per_second']:g} calls per second, burst {shown['burst']}, "
            f"{shown['concurrent_calls']} at once; 'ringfence profile set default …' changes it"
        )
    session.output.line(
        f"customer {customer} added with profile {profile} and {len(recognised_by)} endpoint(s): "
        f"it is {shown['state']}"
    )
    if vetted is None:
        session.output.line(
            f"next: 'ringfence customer vet {customer} --method …', then "
            f"'ringfence customer activate {customer}': a prospect may place no calls"
        )
    if not recognised_by:
        session.output.line(f"next: 'ringfence endpoint add {customer} --account …': it has no endpoint yet")
    session.output.line(f"next: 'ringfence number grant {customer} NUMBER': it may show no number yet")


@verb(app, "set")
async def change(
    session: Session,
    *,
    customer: Customer,
    name: Annotated[str | None, typer.Option(help=_NAME_HELP)] = None,
    profile: Annotated[str | None, typer.Option(help="Limit profile.")] = None,
    restricted_profile: Annotated[str | None, typer.Option(help=_RESTRICTED_HELP)] = None,
    kind: Annotated[str | None, typer.Option(help=_KIND_HELP)] = None,
    time_zone: Annotated[str | None, typer.Option(help=_ZONE_HELP)] = None,
    contact_email: Annotated[str | None, typer.Option(help=f"{_EMAIL_HELP} '' for nowhere.")] = None,
) -> None:
    """Change what is named and leave the rest."""
    from ringfence.store import customers

    told = {"name": name, "profile": profile, "restricted_profile": restricted_profile, "kind": kind}
    told |= {"time_zone": time_zone, "contact_email": None if contact_email is None else _email(contact_email)}
    changes = {column: value for column, value in told.items() if value is not None}
    if not changes:
        raise BadInputError(
            "nothing to change: give --name, --profile, --restricted-profile, --kind, --time-zone "
            "or --contact-email"
        )
    async with session.database() as connection:
        await customers.change_customer(connection, customer, changes)
        shown = await customers.show_customer(connection, customer)
    session.output.document(shown)
    session.output.line(f"customer {customer}: {shown['name']}, profile {shown['profile']}, {shown['time_zone']}")


@verb(app, "list")
async def list_customers(
    session: Session,
    *,
    state: Annotated[str | None, typer.Option(help="Only customers in this state.")] = None,
    due_days: Annotated[
        int | None,
        typer.Option(
            min=0, max=3650, metavar="N", help="Only those whose vetting runs out within N days, or has."
        ),
    ] = None,
) -> None:
    """Show every customer, or some."""
    from ringfence.store import customers

    async with session.database() as connection:
        found = await customers.customers(connection, state=state, due_days=due_days)
    session.output.document(found)
    columns = ("customer", "name", "state", "kind", "profile", "time_zone", "vetted_until", "endpoints", "grants")
    hint = "no customers: 'ringfence customer add ID --name …' adds one"
    session.output.table(
        found, columns, empty=hint if state is None and due_days is None else "no customers match"
    )


@verb(app, "show")
async def show(
    session: Session,
    *,
    customer: Customer,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show the tax id in the clear, which is written down.")
    ] = False,
) -> None:
    """Show one customer: state, vetting, caps, endpoints, grants in sum, calls now and today, last changes."""
    from ringfence.store import customers

    number = await customer_vetting.reveal(session, customer) if reveal else None
    async with session.database() as connection:
        shown = await customers.show_customer(connection, customer)
    if number is not None:
        shown["vetting"]["tax_id"] = number
    shown["contact_email_fault"] = _email_fault(shown["contact_email"])
    session.output.document(shown)
    session.output.facts({key: value for key, value in shown.items() if not isinstance(value, list | dict)
                          and key != "contact_email_fault"})  # fmt: skip
    vetting = {key: value for key, value in (shown["vetting"] or {}).items() if key != "customer" and value != []}
    session.output.facts(vetting, title="vetting")
    session.output.table(shown["endpoints"], endpoint.COLUMNS, title="endpoints")
    sums = ("source", "attestation", "grants", "numbers", "not_in_date", "next_expiry")
    session.output.table(shown["grants"], sums, title="grants")
    columns = ("version", "changed_at", "changed_by", "action", "detail")
    changes = [{**change, "detail": _told(change["detail"])} for change in shown["changes"]]
    session.output.table(changes, columns, title="last changes")
    if fault := shown["contact_email_fault"]:
        session.output.line(
            f"its contact address {fault}: no notice reaches it by e-mail; "
            f"'ringfence customer set {customer} --contact-email …' corrects it"
        )


@verb(app, "history")
async def history(
    session: Session,
    *,
    customer: Customer,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Only the last so many.")] = 200,
) -> None:
    """Show what happened to a customer: states, vettings, infractions, findings and changes of its policy."""
    from ringfence.store import infractions

    async with session.database() as connection:
        found = await infractions.history(connection, customer, limit)
    session.output.document(found)
    shown = [{**row, "detail": _told(row["detail"])} for row in found]
    session.output.table(shown, ("at", "what", "by", "detail"))


@verb(app, "activate")
async def activate(
    session: Session, customer: Customer, reason: Annotated[str, typer.Option("--reason", help="Why.")] = ""
) -> None:
    """Let a prospect that is vetted place calls, or a restricted customer all of its calls again."""
    await _move(session, customer, "activate", reason)


@verb(app, "restrict")
async def restrict(session: Session, customer: Customer, reason: Reason) -> None:
    """Hold an active customer to its restricted profile."""
    await _move(session, customer, "restrict", reason)


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
    more = "live calls may finish" if let_calls_finish else "its live calls are being hung up"
    await _move(session, customer, "suspend", reason, more=more, hang_up=not let_calls_finish)


@verb(app, "reinstate")
async def reinstate(
    session: Session,
    customer: Customer,
    reason: Reason,
    by: Annotated[str, typer.Option("--by", help="Who approved it; by default you.")] = "",
    restricted: Annotated[bool, typer.Option("--restricted", help="Under its restricted profile.")] = False,
) -> None:
    """Let a suspended customer place calls again."""
    await _move(session, customer, "reinstate", reason, approved_by=by, restricted=restricted)


@verb(app, "terminate")
async def terminate(
    session: Session,
    customer: Customer,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Yes, for good.")] = False,
) -> None:
    """End the contract with a customer for good: hang up its live calls, revoke its grants, remove its endpoints,
    campaigns and destination rules. Everything stays on record."""
    if not yes:
        raise BadInputError(
            f"--yes: a customer that is terminated never comes back; add --yes if customer {customer!r} is meant"
        )
    await _move(session, customer, "terminate", reason, more="its live calls are being hung up", hang_up=True)


async def _move(session: Session, customer: str, verb: str, reason: str, *, more: str = "", **how: Any) -> None:
    from ringfence.store import customers

    async with session.database() as connection:
        moved = await customers.move(connection, customer, verb, reason, **how)
    document: dict[str, Any] = {
        "customer": customer,
        "state": moved.state,
        "before": moved.before,
        "reason": reason,
    }
    if moved.released:
        document["released"] = dict(moved.released)
    session.output.document(document)
    session.output.line(
        f"customer {customer} is {moved.state} (was {moved.before}) from the next attempt on"
        f"{'; ' + more if more else ''}"
    )
    if moved.released:
        counts = [f"{count:,} {what.replace('_', ' ')}" for what, count in moved.released.items()]
        session.output.line(f"it gave up {', '.join(counts[:-1])} and {counts[-1]}")


def _email(text: str) -> str:
    """A contact address that notices can be mailed to, or none. Raises BadInputError."""
    if fault := _email_fault(text := text.strip()):
        raise BadInputError(f"--contact-email: {fault}, such as noc@example.com (found {text[:60]!r})")
    return text


def _email_fault(address: str) -> str:
    """Why no mail can go to this address; empty if it can, and if there is none."""
    from ringfence.config import MAIL_ADDRESS

    if not address or (len(address) <= _MAX_EMAIL and re.fullmatch(MAIL_ADDRESS, address)):
        return ""
    return "is not an e-mail address of plain ASCII, name@host"


def _told(detail: dict[str, Any]) -> str:
    """What an entry says, for people: its keys as words, without what is empty or for machines."""
    from ringfence.cli.output import plain

    return ", ".join(
        f"{key.replace('_', ' ')} {plain(value)}"
        for key, value in detail.items()
        if key not in _FOR_MACHINES and value not in (None, "", [], {})
    )


customer_vetting.register(app)
