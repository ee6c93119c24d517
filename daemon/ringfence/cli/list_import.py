"""Loading a list of numbers from a CSV file: what the nouns that keep such lists share."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.session import Session
from ringfence.errors import BadInputError

if TYPE_CHECKING:
    from ringfence.cli.csv_file import CsvFile
    from ringfence.store.faults import Faults
    from ringfence.store.list_import import ListRow, Loaded
    from ringfence.store.number_lists import NumberList

File = Annotated[str, typer.Argument(help="CSV file; - reads standard input.")]
Source = Annotated[str, typer.Option("--source", help="Where the list comes from.")]
SourceFilter = Annotated[str | None, typer.Option("--source", help="Only from this source.")]
AddOnly = Annotated[bool, typer.Option("--add-only", help="Take nothing off that the file does not hold.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Load the good lines and name the bad.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and compare everything and change nothing.")]
AllowShrink = Annotated[bool, typer.Option("--allow-shrink", help="More than half of the list may go.")]
ListedOn = Annotated[str | None, typer.Option("--listed-on", metavar="DATE", help="Since when; by default today.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many.")]


def day(text: str | None) -> date | None:
    """The date that `--listed-on` names. Raises BadInputError."""
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise BadInputError(f"--listed-on: {text!r} is not a date: write 2026-11-21") from None


async def load(
    session: Session,
    file: str,
    kind: type[CsvFile[ListRow]],
    onto: NumberList,
    *,
    add_only: bool,
    skip_bad: bool,
    dry_run: bool,
    allow_shrink: bool,
) -> None:
    """Make the list equal to the file and tell what changed. Raises BadInputError if lines are bad."""
    from ringfence.cli.csv_file import followed, opened
    from ringfence.store.faults import Faults
    from ringfence.store.list_import import load_list
    from ringfence.store.number_lists import require_list

    faults = Faults()
    with opened(file) as stream:
        content = kind(stream, session.default_plan, faults)
        async with session.database() as connection:
            await require_list(connection, onto)  # before a long read
            with followed(content, stream, "comparing and writing") as rows:
                loaded = await load_list(
                    connection,
                    onto,
                    rows,
                    faults,
                    origin=file,
                    digest=lambda: content.digest,
                    add_only=add_only,
                    skip_bad=skip_bad,
                    dry_run=dry_run,
                    allow_shrink=allow_shrink,
                )
    _tell(session, onto, loaded, faults, dry_run=dry_run)


def _tell(session: Session, onto: NumberList, loaded: Loaded | None, faults: Faults, *, dry_run: bool) -> None:
    from ringfence.cli.number_import import tell_faults

    counts = {name: getattr(loaded, name, 0) for name in ("rows", "added", "removed", "redated", "unchanged")}
    samples: dict[str, list[str]] = {
        name: [f"+{entry}" for entry in getattr(loaded, name, ())] for name in ("first_added", "first_removed")
    }
    document: dict[str, Any] = {**onto.detail, "loaded": loaded is not None and not dry_run, "dry_run": dry_run}
    document |= {**counts, **samples, **fault_fields(faults)}
    session.output.document(document)
    tell_faults(faults, refused=loaded is None, done="loaded")
    would = "would be " if dry_run else ""
    session.output.line(
        f"{onto.values[0]}, {onto.values[1]}: {counts['added']:,} {would}added, "
        f"{counts['removed']:,} {would}removed, {counts['redated']:,} given another date, "
        f"{counts['unchanged']:,} unchanged; {faults.count:,} lines skipped"
    )
    if dry_run:
        for name, entries in samples.items():
            if entries:
                more = "" if counts[name.removeprefix("first_")] <= len(entries) else ", …"
                session.output.line(f"{name.removeprefix('first_')}: {', '.join(entries)}{more}")


def fault_fields(faults: Faults) -> dict[str, Any]:
    """The bad lines of a file as fields of a document."""
    return {
        "bad_lines": faults.count,
        "first_bad_lines": [{"line": line, "fault": text} for line, text in faults.first()],
    }
