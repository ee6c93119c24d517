"""`ringfence consent`: who agreed to be called."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli import list_import
from ringfence.cli.output import e164
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("Consents: who agreed to be called, whatever list they are on.")

Customer = Annotated[str, typer.Argument(help="The customer who may call.")]
Number = Annotated[str, typer.Argument(help="The number that agreed.")]


@verb(app, "add")
async def add(
    session: Session,
    *,
    customer: Customer,
    number: Number,
    evidence: Annotated[str, typer.Option("--evidence", help="Where the proof is filed.")],
    given_at: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="When it was given; by default now.")
    ] = None,
    valid_until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Ends before then.")] = None,
) -> None:
    """Note that a number agreed to be called by a customer; it takes the place of an earlier consent."""
    from ringfence.cli.number import read_number
    from ringfence.cli.times import point
    from ringfence.store import consents

    called = read_number(session, number, "NUMBER")
    bounds = (
        point(given_at, "--from") if given_at else None,
        point(valid_until, "--until") if valid_until else None,
    )
    if fault := consents.consent_fault(evidence, *bounds):
        raise BadInputError(f"--{fault}".replace("--valid_until", "--until").replace("given_at", "--from"))
    async with session.database() as connection:
        added = await consents.add(
            connection, customer, called, evidence=evidence, given_at=bounds[0], valid_until=bounds[1]
        )
    session.output.document({"customer": customer, "number": e164(called), "already_there": not added})
    session.output.line(f"{customer}: consent of {e164(called)} {'noted' if added else 'is on record already'}")


@verb(app, "load")
async def load(
    session: Session,
    *,
    file: list_import.File,
    customer: Customer,
    evidence: Annotated[str, typer.Option("--evidence", help="For lines that name none.")] = "",
    skip_bad: list_import.SkipBad = False,
    dry_run: list_import.DryRun = False,
) -> None:
    """Add and renew the consents in a CSV file: all of them or none.

    Columns: number, evidence and, if wanted, given_at and valid_until. What the file does not hold stays. A
    consent that was withdrawn or ran out comes back only if it was given after that.
    """
    from ringfence.cli.csv_file import followed, opened
    from ringfence.cli.list_csv import ConsentFile
    from ringfence.cli.number_import import tell_faults
    from ringfence.store import consents, policy
    from ringfence.store.faults import Faults

    faults = Faults()
    with opened(file) as stream:
        content = ConsentFile(stream, session.default_plan, faults, evidence=evidence)
        async with session.database() as connection:
            await policy.require_customer(connection, customer)  # before a long read
            with followed(content, stream, "comparing and writing") as rows:
                loaded = await consents.load(
                    connection,
                    customer,
                    rows,
                    faults,
                    origin=file,
                    digest=lambda: content.digest,
                    skip_bad=skip_bad,
                    dry_run=dry_run,
                )
    counts = {name: getattr(loaded, name, 0) for name in ("rows", "added", "changed", "unchanged", "ended")}
    done = loaded is not None and not dry_run
    document = {"customer": customer, "loaded": done, "dry_run": dry_run, **counts}
    session.output.document({**document, **list_import.fault_fields(faults)})
    tell_faults(faults, refused=loaded is None, done="loaded")
    would = "would be " if dry_run else ""
    session.output.line(
        f"{customer}: {counts['added']:,} {would}added, {counts['changed']:,} {would}changed, "
        f"{counts['unchanged']:,} unchanged; {counts['ended']:,} stay ended, {faults.count:,} lines skipped"
    )


@verb(app, "withdraw")
async def withdraw(
    session: Session,
    *,
    customer: Customer,
    number: Number,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the record.")],
) -> None:
    """End a consent now. It stays on record."""
    from ringfence.cli.number import read_number
    from ringfence.store import consents

    called = read_number(session, number, "NUMBER")
    async with session.database() as connection:
        await consents.withdraw(connection, customer, called, reason)
    session.output.document({"customer": customer, "number": e164(called), "reason": reason})
    session.output.line(f"{customer}: the consent of {e164(called)} holds no longer, from the next attempt on")


@verb(app, "list")
async def list_consents(
    session: Session,
    *,
    customer: Annotated[str | None, typer.Argument(help="Only this customer's.")] = None,
    number: Annotated[str | None, typer.Option("--number", help="Only of this number.")] = None,
    limit: list_import.Limit = 100,
) -> None:
    """Show consents, those that ended included."""
    from ringfence.cli.number import read_number
    from ringfence.store import consents

    wanted = None if number is None else read_number(session, number, "--number")
    async with session.database() as connection:
        found = await consents.listed(connection, customer=customer, number=wanted, limit=limit)
    shown = [{**row, "number": e164(row["number"])} for row in found]
    session.output.document(shown)
    columns = ("customer", "number", "evidence", "given_at", "valid_until", "holds")
    session.output.table(shown, columns, empty="no consent matches")
    if len(shown) == limit:
        session.output.line(f"the first {limit} are shown: --limit shows more")
