"""`ringfence number`: which customer may show which number."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ringfence.cli import number_import
from ringfence.cli.output import e164
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("Numbers: which customer may show which caller ID.")

Customer = Annotated[str, typer.Argument(help="The customer's short name.")]
First = Annotated[str, typer.Argument(help="The number, or the first of a block.")]
Last = Annotated[str | None, typer.Argument(help="The last number of the block.")]

DEFECTS = {
    "missing": "is empty or withheld",
    "too_long": "is too long to be a telephone number",
    "not_digits": "is not a telephone number",
    "not_diallable": "is not a telephone number of any country in the numbering plan",
}


def read_number(session: Session, text: str, what: str) -> int:
    """An operator's number under the default plan. Raises BadInputError naming `what`."""
    from ringfence.numbering import canonical

    plan = session.default_plan
    number = canonical(text, plan, called=False)
    if number.e164 is None:
        raise BadInputError(
            f"{what}: {text[:64]!r} {DEFECTS[number.defect]} (read under the plan of {plan.country}): "
            "write it as + and digits, e.g. +12025550123"
        )
    return number.e164


@verb(app, "grant")
async def grant(
    session: Session,
    *,
    customer: Customer,
    first: First,
    last: Last = None,
    source: number_import.Source = "assigned",
    evidence: number_import.Evidence = "",
    attestation: number_import.Attestation = "A",
    valid_from: number_import.From = None,
    valid_until: number_import.Until = None,
    shared: number_import.Shared = False,
) -> None:
    """Let a customer show a number or a block. Granting exactly the same again changes nothing."""
    from ringfence.store import grants

    low, high = _block(session, first, last)
    on = number_import.terms(
        source=source,
        evidence=evidence,
        attestation=attestation,
        valid_from=valid_from,
        valid_until=valid_until,
        shared=shared,
    )
    if fault := grants.block_fault(low, high):
        raise BadInputError(fault)
    if fault := grants.source_fault(low, high, on.source):
        raise BadInputError(f"--{fault}")
    async with session.database() as connection:
        grant_id = await grants.grant(connection, customer, low, high, on)
    session.output.document(
        {
            "customer": customer,
            "grant_id": grant_id,
            "already_there": grant_id is None,
            "first": e164(low),
            "last": e164(high),
            "numbers": high - low + 1,
        }
    )
    block = e164(low) if low == high else f"{e164(low)} to {e164(high)} ({high - low + 1:,} numbers)"
    shown = f"{on.source}, {on.attestation}" + (", shared" if on.shared else "")
    done = "already granted" if grant_id is None else f"granted (grant {grant_id}, {shown})"
    session.output.line(f"{customer}: {block} {done}")


@verb(app, "revoke")
async def revoke(
    session: Session,
    *,
    customer: Customer,
    first: First,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
    last: Last = None,
) -> None:
    """Take back every grant that lies within the block. The old grants stay on record."""
    from ringfence.store import grants

    low, high = _block(session, first, last)
    async with session.database() as connection:
        count = await grants.revoke(connection, customer, low, high, reason)
    session.output.document({"customer": customer, "first": e164(low), "last": e164(high), "revoked": count})
    session.output.line(f"{customer}: {count} grant{'s' if count > 1 else ''} revoked from the next attempt on")


@verb(app, "share")
async def share(session: Session, customer: Customer, first: First, last: Last = None) -> None:
    """Let other customers hold the numbers too, if their grants are shared as well."""
    await _set_shared(session, customer, first, last, shared=True)


@verb(app, "unshare")
async def unshare(session: Session, customer: Customer, first: First, last: Last = None) -> None:
    """Make the numbers this customer's alone again; refused while another holds one of them."""
    await _set_shared(session, customer, first, last, shared=False)


@verb(app, "list")
async def list_grants(
    session: Session,
    *,
    customer: Annotated[str | None, typer.Argument(help="Only this customer's.")] = None,
    number: Annotated[str | None, typer.Option("--number", help="Only grants that hold this number.")] = None,
    expiring_days: Annotated[
        int | None,
        typer.Option(
            "--expiring-days", min=0, max=36_500, metavar="N", help="Only grants that end within so many days."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")] = 100,
) -> None:
    """Show grants, in the order of customers and numbers; those that end soon, the next to end first."""
    from ringfence.store import grants

    if number is not None and expiring_days is not None:
        raise BadInputError("--expiring-days: not together with --number")
    wanted = None if number is None else read_number(session, number, "--number")
    async with session.database() as connection:
        if expiring_days is not None:
            found = await grants.expiring(connection, customer=customer, days=expiring_days, limit=limit)
        else:
            found = await grants.listed(connection, customer=customer, number=wanted, limit=limit)
    shown: list[dict[str, Any]] = [
        {**row, "first": e164(row["first"]), "last": e164(row["last"])} for row in found
    ]
    session.output.document(shown)
    columns = ("grant_id", "customer", "first", "last", "source", "evidence", "attestation", "shared")
    session.output.table(shown, (*columns, "valid_from", "valid_until", "in_date"), empty="no grants match")
    if len(shown) == limit:
        session.output.line(f"the first {limit} are shown: --limit shows more")


async def _set_shared(session: Session, customer: str, first: str, last: str | None, *, shared: bool) -> None:
    from ringfence.store import grants

    low, high = _block(session, first, last)
    async with session.database() as connection:
        count = await grants.set_shared(connection, customer, low, high, shared=shared)
    session.output.document(
        {"customer": customer, "first": e164(low), "last": e164(high), "shared": shared, "changed": count}
    )
    session.output.line(
        f"{customer}: {count} grant{'' if count == 1 else 's'} now {'' if shared else 'not '}shared"
    )


def _block(session: Session, first: str, last: str | None) -> tuple[int, int]:
    low = read_number(session, first, "FIRST")
    return low, low if last is None else read_number(session, last, "LAST")


number_import.register(app)
