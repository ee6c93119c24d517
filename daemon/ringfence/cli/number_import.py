"""`ringfence number import`: grants from a CSV file."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ringfence.cli.session import Session, verb
from ringfence.errors import BadInputError

if TYPE_CHECKING:
    from ringfence.cli.number_csv import NumberFile
    from ringfence.store.grants import Terms
    from ringfence.store.number_import import Faults, Imported, ImportRow

Source = Annotated[str, typer.Option("--source", help="assigned, letter, callback, bill or resporg.")]
Evidence = Annotated[str, typer.Option("--evidence", help="Where the proof is filed.")]
Attestation = Annotated[str, typer.Option("--attestation", help="A, B or C.")]
From = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Holds from then on, e.g. 2026-11-21.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Ends before then.")]


def terms(source: str, evidence: str, attestation: str, valid_from: str | None, valid_until: str | None) -> Terms:
    """The terms that these options name. Raises BadInputError."""
    from ringfence.cli.times import point
    from ringfence.store.grants import Terms

    found = Terms(
        source.lower(),
        evidence,
        attestation.upper(),
        point(valid_from, "--from") if valid_from else None,
        point(valid_until, "--until") if valid_until else None,
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
    source: Source = "assigned",
    evidence: Evidence = "",
    attestation: Attestation = "A",
    valid_from: From = None,
    valid_until: Until = None,
) -> None:
    """Grant the numbers in a CSV file: all of them or none.

    Columns: customer, number or first and last, and, if wanted, source, evidence, attestation, valid_from,
    valid_until; the options stand for what the file leaves out. Numbers that are granted on the same terms
    already are left as they are, so an import may be run again.
    """
    from ringfence.cli.number_csv import NumberFile
    from ringfence.store import policy
    from ringfence.store.number_import import Faults, import_numbers

    on = terms(source, evidence, attestation, valid_from, valid_until)
    plan = session.default_plan
    faults = Faults()
    # asyncio would only note the interrupt, and a read from a silent pipe go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _opened(file) as stream:
        numbers = NumberFile(stream, plan, faults, customer=customer, terms=on)
        async with session.database() as connection:
            if customer is not None:
                await policy.require_customer(connection, customer)
            with _progress(numbers, stream) as rows:
                done = await import_numbers(
                    connection, rows, faults, origin=file, skip_bad=skip_bad, dry_run=dry_run
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
        "bad_lines": faults.count,
        "first_bad_lines": [{"line": line, "fault": text} for line, text in faults.first()],
    }
    session.output.document(document)
    named = [f"line {line}: {text}" for line, text in faults.first()]
    if faults.count > len(named):
        named.append(f"and {faults.count - len(named):,} more bad lines")
    if refused:
        bad = "1 line is bad" if faults.count == 1 else f"{faults.count:,} lines are bad"
        named.append(f"{bad}, so nothing was imported; --skip-bad imports the others")
        raise BadInputError("\n".join(named))
    if named:
        from ringfence.cli.output import complain

        complain("\n".join(named))
    session.output.line(
        f"{'would grant' if dry_run else 'granted'} {done.numbers:,} numbers in {done.grants:,} grants to "
        f"{done.customers:,} customer(s); {done.already_there:,} lines already there, {faults.count:,} skipped"
    )


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(file, "rb")  # noqa: SIM115 - closed below; errors while it is read are not errors of opening
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}") from error
    with stream:
        yield stream


@contextmanager
def _progress(numbers: NumberFile, stream: BinaryIO) -> Iterator[Iterator[ImportRow]]:
    """The rows, with a bar on standard error that follows them, if that is a terminal."""
    if not sys.stderr.isatty():
        yield numbers.rows()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    status = os.fstat(stream.fileno())
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)

        def followed() -> Iterator[ImportRow]:
            for place, row in enumerate(numbers.rows()):
                if place % 10_000 == 0:
                    bar.update(task, completed=numbers.bytes_read, description=f"reading, {place:,} lines")
                yield row
            bar.update(task, total=None, description="checking and granting")

        yield followed()


def register(app: typer.Typer) -> None:
    """Add the command to the noun."""
    verb(app, "import")(import_file)
