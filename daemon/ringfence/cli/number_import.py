"""`ringfence number import`: grants from a CSV file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.session import Session, verb
from ringfence.errors import BadInputError

if TYPE_CHECKING:
    from ringfence.store.grants import Terms
    from ringfence.store.number_import import Faults, Imported

Source = Annotated[str, typer.Option("--source", help="assigned, letter, callback, bill or resporg.")]
Evidence = Annotated[str, typer.Option("--evidence", help="Where the proof is filed.")]
Attestation = Annotated[str, typer.Option("--attestation", help="A, B or C.")]
From = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Holds from then on, e.g. 2026-11-21.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Ends before then.")]
Shared = Annotated[bool, typer.Option("--shared", help="Other customers may hold it too, if theirs is shared.")]


def terms(
    *,
    source: str,
    evidence: str,
    attestation: str,
    valid_from: str | None,
    valid_until: str | None,
    shared: bool,
) -> Terms:
    """The terms that these options name. Raises BadInputError."""
    from ringfence.cli.times import point
    from ringfence.store.grants import Terms

    found = Terms(
        source.lower(),
        evidence,
        attestation.upper(),
        point(valid_from, "--from") if valid_from else None,
        point(valid_until, "--until") if valid_until else None,
        shared=shared,
    )
    if fault := found.fault():
        raise BadInputError(f"--{fault}".replace("--valid_until", "--until").replace("valid_from", "--from"))
    return found


async def import_file(
    session: Session,
    *,
    file: Annotated[str, typer.Argument(help="CSV file with a header; - reads standard input.")],
    customer: Annotated[
        str | None, typer.Option("--customer", help="Whose numbers, if there is no column for it.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Import the good lines and name the bad.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")] = False,
    replace: Annotated[
        str | None,
        typer.Option("--replace", metavar="CUSTOMER", help="Make this customer's grants equal to the file."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="With --replace: why grants are revoked.")] = "",
    allow_shrink: Annotated[
        bool, typer.Option("--allow-shrink", help="With --replace: more than half may be revoked.")
    ] = False,
    source: Source = "assigned",
    evidence: Evidence = "",
    attestation: Attestation = "A",
    valid_from: From = None,
    valid_until: Until = None,
    shared: Shared = False,
) -> None:
    """Grant the numbers in a CSV file: all of them or none.

    Columns: customer, number or first and last, and, if wanted, source, evidence, attestation, valid_from,
    valid_until, shared; the options stand for what the file leaves out. Numbers that are granted on the same terms
    already are left as they are, so an import may be run again. With --replace, what the file does not hold is
    revoked.
    """
    from ringfence.cli.csv_file import followed, opened
    from ringfence.cli.number_csv import NumberFile
    from ringfence.store import policy
    from ringfence.store.number_import import Faults, Replacing, import_numbers

    on = terms(
        source=source,
        evidence=evidence,
        attestation=attestation,
        valid_from=valid_from,
        valid_until=valid_until,
        shared=shared,
    )
    replacing = None
    if replace is not None:
        if customer is not None:
            raise BadInputError("--customer: --replace names the customer already")
        if skip_bad:
            raise BadInputError("--skip-bad: not with --replace: a bad line would take its number away")
        if reason:
            policy.check_text("--reason", reason)
        customer, replacing = replace, Replacing(replace, reason or "not in the file", allow_shrink)
    elif reason or allow_shrink:
        raise BadInputError(f"{'--reason' if reason else '--allow-shrink'}: only with --replace")
    faults = Faults()
    with opened(file) as stream:
        numbers = NumberFile(stream, session.default_plan, faults, customer=customer, terms=on)
        async with session.database() as connection:
            if customer is not None:
                await policy.refuse_terminated(connection, customer)
            with followed(numbers, stream, "checking and granting") as rows:
                done = await import_numbers(
                    connection,
                    rows,
                    faults,
                    origin=file,
                    digest=lambda: numbers.digest,
                    skip_bad=skip_bad,
                    dry_run=dry_run,
                    replacing=replacing,
                )
    _tell(session, done, faults, skip_bad=skip_bad, dry_run=dry_run)


def _tell(session: Session, done: Imported, faults: Faults, *, skip_bad: bool, dry_run: bool) -> None:
    refused = faults.count > 0 and not skip_bad
    document: dict[str, Any] = {
        "imported": not refused and not dry_run,
        "dry_run": dry_run,
        "grants": done.grants,
        "numbers": done.numbers,
        "customers": done.customers,
        "already_there": done.already_there,
        "revoked": done.revoked,
        "revoked_numbers": done.revoked_numbers,
        "bad_lines": faults.count,
        "first_bad_lines": [{"line": line, "fault": text} for line, text in faults.first()],
    }
    session.output.document(document)
    tell_faults(faults, refused=refused, done="imported")
    session.output.line(
        f"{'would grant' if dry_run else 'granted'} {done.numbers:,} numbers in {done.grants:,} grants to "
        f"{done.customers:,} customer(s); {done.already_there:,} lines already there, {faults.count:,} skipped"
    )
    if done.revoked:
        session.output.line(
            f"{'would take' if dry_run else 'took'} {done.revoked_numbers:,} numbers away; "
            f"{done.revoked:,} grants are replaced or gone"
        )


def tell_faults(faults: Faults, *, refused: bool, done: str) -> None:
    """Name the first bad lines on standard error. Raises BadInputError with them if `refused`."""
    named = [f"line {line}: {text}" for line, text in faults.first()]
    if faults.count > len(named):
        named.append(f"and {faults.count - len(named):,} more bad lines")
    if refused:
        bad = "1 line is bad" if faults.count == 1 else f"{faults.count:,} lines are bad"
        verb = {"imported": "imports", "loaded": "loads"}[done]
        named.append(f"{bad}, so nothing was {done}; --skip-bad {verb} the others")
        raise BadInputError("\n".join(named))
    if named:
        from ringfence.cli.output import complain

        complain("\n".join(named))


def register(app: typer.Typer) -> None:
    """Add the command to the noun."""
    verb(app, "import")(import_file)
