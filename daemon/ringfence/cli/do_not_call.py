"""`ringfence do-not-call`: numbers telemarketing may not call."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli import list_import
from ringfence.cli.output import e164
from ringfence.cli.session import Session, new_app, verb

app = new_app("Do-not-call lists: numbers telemarketing may not call.")

Customer = Annotated[str, typer.Option("--customer", help="Whose own list; by default one that holds for all.")]
Number = Annotated[str, typer.Argument(help="The number.")]


@verb(app, "load")
async def load(
    session: Session,
    *,
    file: list_import.File,
    source: list_import.Source,
    customer: Customer = "*",
    add_only: list_import.AddOnly = False,
    skip_bad: list_import.SkipBad = False,
    dry_run: list_import.DryRun = False,
    allow_shrink: list_import.AllowShrink = False,
) -> None:
    """Make the list of this source equal to a CSV file: all of it or nothing.

    Columns: number and, if wanted, area_code and listed_on. A file of one column of numbers needs no header, nor
    does one of area codes and seven-digit numbers. Only the difference is written.
    """
    from ringfence.cli.list_csv import DoNotCallFile
    from ringfence.store.number_lists import do_not_call

    await list_import.load(
        session,
        file,
        DoNotCallFile,
        do_not_call(customer, source),
        add_only=add_only,
        skip_bad=skip_bad,
        dry_run=dry_run,
        allow_shrink=allow_shrink,
    )


@verb(app, "add")
async def add(
    session: Session,
    *,
    number: Number,
    source: list_import.Source,
    customer: Customer = "*",
    listed_on: list_import.ListedOn = None,
) -> None:
    """Let no telemarketing call reach a number."""
    from ringfence.cli.number import read_number
    from ringfence.store import number_lists

    onto, called = number_lists.do_not_call(customer, source), read_number(session, number, "NUMBER")
    on = list_import.day(listed_on)
    async with session.database() as connection:
        added = await number_lists.add(connection, onto, called, on)
    session.output.document({"number": e164(called), **onto.detail, "already_there": not added})
    session.output.line(f"{e164(called)}: {'listed' if added else 'already listed'} for {customer} from {source}")


@verb(app, "remove")
async def remove(
    session: Session,
    *,
    number: Number,
    source: list_import.Source,
    customer: Customer = "*",
    reason: list_import.Reason = "",
) -> None:
    """Take a number off the list of this source."""
    from ringfence.cli.number import read_number
    from ringfence.store import number_lists, policy

    off, called = number_lists.do_not_call(customer, source), read_number(session, number, "NUMBER")
    if reason:
        policy.check_text("--reason", reason)
    async with session.database() as connection:
        await number_lists.remove(connection, off, called, reason)
    session.output.document({"number": e164(called), **off.detail})
    session.output.line(f"{e164(called)}: no longer listed for {customer} from {source}")


@verb(app, "list")
async def list_entries(
    session: Session,
    *,
    customer: Annotated[
        str | None, typer.Option("--customer", help="Only this customer's own; * is for all.")
    ] = None,
    source: list_import.SourceFilter = None,
    number: Annotated[str | None, typer.Option("--number", help="Only lists that hold this number.")] = None,
    limit: list_import.Limit = 100,
) -> None:
    """Show what is listed."""
    from ringfence.cli.number import read_number
    from ringfence.store import number_lists

    wanted = None if number is None else read_number(session, number, "--number")
    async with session.database() as connection:
        found = await number_lists.listed_do_not_call(
            connection, customer=customer, source=source, number=wanted, limit=limit
        )
    shown = [{**row, "number": e164(row["number"])} for row in found]
    session.output.document(shown)
    session.output.table(shown, ("number", "customer", "source", "listed_on"), empty="no entry matches")
    if len(shown) == limit:
        session.output.line(f"the first {limit} are shown: --limit shows more")


@verb(app, "sources")
async def sources(session: Session) -> None:
    """Show each list: how many entries, the newest date among them, when it was last loaded."""
    from ringfence.store import number_lists

    async with session.database() as connection:
        found = await number_lists.sources(connection, "do_not_call")
    session.output.document(found)
    columns = ("customer", "source", "entries", "newest", "loaded_at")
    session.output.table(found, columns, empty="nothing is listed: 'ringfence do-not-call load' fills a list")
