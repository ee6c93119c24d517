"""`ringfence do-not-originate`: numbers no call may show."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli import list_import
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("The do-not-originate list: numbers no call may show.")

Category = Annotated[
    str, typer.Option("--category", help="subscriber_request, invalid, unallocated or unused (47 CFR 64.1200(o)).")
]
Digits = Annotated[str, typer.Argument(metavar="NUMBER", help="A number, or the digits that numbers begin with.")]


@verb(app, "load")
async def load(
    session: Session,
    *,
    file: list_import.File,
    category: Category,
    source: list_import.Source,
    add_only: list_import.AddOnly = False,
    skip_bad: list_import.SkipBad = False,
    dry_run: list_import.DryRun = False,
    allow_shrink: list_import.AllowShrink = False,
) -> None:
    """Make the list of this category and source equal to a CSV file: all of it or nothing.

    Columns: number, or prefix (leading digits), or first and last; and, if wanted, listed_on. A file of one column
    of numbers needs no header. Only the difference is written.
    """
    from ringfence.cli.list_csv import DoNotOriginateFile
    from ringfence.store.number_lists import do_not_originate

    await list_import.load(
        session,
        file,
        DoNotOriginateFile,
        do_not_originate(category, source),
        add_only=add_only,
        skip_bad=skip_bad,
        dry_run=dry_run,
        allow_shrink=allow_shrink,
    )


@verb(app, "add")
async def add(
    session: Session,
    *,
    number: Digits,
    category: Category,
    source: list_import.Source,
    listed_on: list_import.ListedOn = None,
) -> None:
    """Let no call show a number, or any number that begins with these digits."""
    from ringfence.store import number_lists

    onto, prefix = number_lists.do_not_originate(category, source), _digits(session, number, "NUMBER")
    on = list_import.day(listed_on)
    async with session.database() as connection:
        added = await number_lists.add(connection, onto, prefix, on)
    session.output.document({"prefix": f"+{prefix}", **onto.detail, "already_there": not added})
    session.output.line(f"+{prefix}: {'listed' if added else 'already listed'} as {category} from {source}")


@verb(app, "remove")
async def remove(
    session: Session,
    *,
    number: Digits,
    category: Category,
    source: list_import.Source,
    reason: list_import.Reason = "",
) -> None:
    """Take a number, or leading digits, off the list exactly as they stand on it."""
    from ringfence.store import number_lists, policy

    off, prefix = number_lists.do_not_originate(category, source), _digits(session, number, "NUMBER")
    if reason:
        policy.check_text("--reason", reason)
    async with session.database() as connection:
        await number_lists.remove(connection, off, prefix, reason)
        others = await number_lists.listed_do_not_originate(
            connection, category=None, source=None, number=prefix, limit=1
        )
    still = f"+{others[0]['prefix']}" if others else None
    session.output.document({"prefix": f"+{prefix}", **off.detail, "still_listed_under": still})
    session.output.line(f"+{prefix}: no longer listed as {category} from {source}")
    if others:
        session.output.line(
            f"it is still refused: {still} is listed as {others[0]['category']} from {others[0]['source']}"
        )


@verb(app, "list")
async def list_entries(
    session: Session,
    *,
    category: Annotated[str | None, typer.Option("--category", help="Only of this category.")] = None,
    source: list_import.SourceFilter = None,
    number: Annotated[str | None, typer.Option("--number", help="Only entries that hold this number.")] = None,
    limit: list_import.Limit = 100,
) -> None:
    """Show what is listed."""
    from ringfence.store import number_lists

    wanted = None if number is None else _digits(session, number, "--number")
    async with session.database() as connection:
        found = await number_lists.listed_do_not_originate(
            connection, category=category, source=source, number=wanted, limit=limit
        )
    shown = [{**row, "prefix": f"+{row['prefix']}"} for row in found]
    session.output.document(shown)
    session.output.table(shown, ("prefix", "category", "source", "listed_on"), empty="no entry matches")
    if len(shown) == limit:
        session.output.line(f"the first {limit} are shown: --limit shows more")


@verb(app, "sources")
async def sources(session: Session) -> None:
    """Show each list: how many entries, the newest date among them, when it was last loaded."""
    from ringfence.store import number_lists

    async with session.database() as connection:
        found = await number_lists.sources(connection, "do_not_originate")
    session.output.document(found)
    columns = ("category", "source", "entries", "newest", "loaded_at")
    session.output.table(found, columns, empty="nothing is listed: 'ringfence do-not-originate load' fills a list")


def _digits(session: Session, text: str, what: str) -> int:
    from ringfence.cli.list_csv import read_digits

    found = read_digits(text, session.default_plan, whole=False)
    if isinstance(found, str):
        raise BadInputError(f"{what}: {found}")
    return found
