"""`ringfence policy`: the whole policy as files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli import policy_log, policy_replay
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError, ExitCode

if TYPE_CHECKING:
    from ringfence.policy.difference import Difference
    from ringfence.policy.document import Document

app = new_app("Policy as files: export, diff, apply and replay; and who changed it.")

MAX_FILE = 1_000_000_000  # bytes

PolicyFile = Annotated[str, typer.Argument(metavar="FILE", help="Policy file; - reads standard input.")]


@verb(app, "export")
async def export(
    session: Session,
    *,
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="Where to; by default standard output.")] = "-",
    customer: Annotated[str | None, typer.Option("--customer", help="Only this customer.")] = None,
    without_numbers: Annotated[
        bool, typer.Option("--without-numbers", help="Say nothing about grants; an apply leaves them alone.")
    ] = False,
) -> None:
    """Write the policy as YAML: the same policy is the same bytes. Tax ids are never in it."""
    from ringfence.policy.export import Exported
    from ringfence.policy.export import export as exported

    done, digest = Exported(), hashlib.sha256()
    async with session.database() as connection:
        parts = exported(connection, done, customer=customer, numbers=not without_numbers)
        with _written(file, session.output.as_json) as stream:
            async with contextlib.aclosing(parts):
                async for part in parts:
                    stream.write(part)
                    digest.update(part.encode())
            text = stream.getvalue() if hasattr(stream, "getvalue") else None
    document: dict[str, Any] = {
        "file": None if file == "-" else file,
        "policy_version": done.policy_version,
        "customers": done.customers,
        "grants": done.grants,
        "sha256": digest.hexdigest(),
    }
    session.output.document(document if text is None else {**document, "text": text})
    if file != "-":
        session.output.line(
            f"policy version {done.policy_version}: {done.customers:,} customer(s), {done.grants:,} grant(s) "
            f"written to {file}"
        )


@verb(app, "diff")
async def diff(session: Session, file: PolicyFile) -> ExitCode:
    """Show what applying the file would change; exit 1 if anything."""
    from ringfence.policy.difference import changes, difference, some

    document = loaded(file)
    async with (
        session.database() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        found = await difference(connection, document, file)
    session.output.document(
        {"policy_version": found.policy_version, "missing": found.missing, "changes": list(changes(found))}
    )
    _show(session, found, file)
    if found.missing:
        session.output.line(
            f"the file says nothing about customer {some(found.missing)}: 'policy apply' refuses that without "
            "--terminate-missing, and with it they are terminated, not deleted: they give up what they hold, and "
            "stay on record"
        )
    if not found:
        session.output.line(f"no difference; the policy is at version {found.policy_version}")
    return ExitCode.REFUSED if found else ExitCode.OK


@verb(app, "apply")
async def apply(
    session: Session,
    *,
    file: PolicyFile,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Try it all and take it back.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", help="Why, for the record; needed to restrict, suspend or terminate.")
    ] = "",
    approved_by: Annotated[
        str, typer.Option("--approved-by", help="Who approved that suspended customers are reinstated.")
    ] = "",
    terminate_missing: Annotated[
        bool, typer.Option("--terminate-missing", help="Terminate customers that a whole policy lacks.")
    ] = False,
    expect_version: Annotated[
        int | None, typer.Option("--expect-version", metavar="N", help="Only if the policy is at this version.")
    ] = None,
) -> None:
    """Show what changes and make what the file says true: all of it in one transaction, or nothing."""
    from ringfence.policy.apply import Terms, apply_file
    from ringfence.policy.difference import changes
    from ringfence.store.policy import check_text

    if reason:
        check_text("--reason", reason)
    if approved_by:
        check_text("--approved-by", approved_by)
    document = loaded(file)
    shown: list[Difference] = []

    def show(found: Difference) -> None:
        shown.append(found)
        _show(session, found, file)

    async with session.database() as connection:
        done = await apply_file(
            connection,
            document,
            origin=file,
            terms=Terms(reason, approved_by, terminate_missing),
            expect_version=expect_version,
            dry_run=dry_run,
            show=show,
        )
    applied = bool(shown[0]) and not dry_run
    version = done.policy_version if applied else shown[0].policy_version
    session.output.document(
        {
            "applied": applied,
            "dry_run": dry_run,
            "policy_version": version,
            "counts": done.counts,
            "missing": shown[0].missing,
            "changes": list(changes(shown[0])),
        }
    )
    counted = ", ".join(f"{what.replace('_', ' ')} {count:,}" for what, count in done.counts.items())
    if not shown[0]:
        session.output.line(f"no difference; the policy stays at version {version}")
    elif dry_run:
        session.output.line(f"would apply: {counted}; nothing was changed, the policy is at version {version}")
    else:
        session.output.line(f"applied: {counted}; the policy is at version {version}")


def loaded(file: str) -> Document:
    """The policy in a file, or on standard input, of at most a gigabyte. Raises BadInputError."""
    from ringfence.policy.document import load

    origin = "standard input" if file == "-" else file
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise BadInputError(f"{origin}: longer than {MAX_FILE:,} bytes: this is no policy file")
    return load(data, origin)


def _show(session: Session, found: Difference, file: str) -> None:
    from ringfence.policy.difference import unified

    if not session.output.as_json:
        _show_lines(unified(found, file))


def _show_lines(lines: Iterable[str]) -> None:
    """Write the lines of a diff, coloured on a terminal."""
    from ringfence.cli.output import safe

    if not sys.stdout.isatty():
        for line in lines:
            print(safe(line))
        return
    from rich.console import Console

    colours = {"@": "cyan", "+": "green", "-": "red"}
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    for line in lines:
        style = "bold" if line.startswith(("--- ", "+++ ")) else colours.get(line[:1])
        console.print(safe(line), style=style)


@contextlib.contextmanager
def _written(file: str, as_json: bool) -> Iterator[Any]:
    """Where the text goes. A file is replaced when all of it is there, and is its owner's alone if it is new."""
    if file == "-":
        import io

        yield io.StringIO() if as_json else sys.stdout
        return
    path = Path(file)
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as stream:
            try:
                yield stream
                stream.flush()
                if path.exists():
                    os.chmod(stream.name, path.stat().st_mode & 0o7777)
                os.replace(stream.name, path)
            except BaseException:
                os.unlink(stream.name)
                raise
    except OSError as error:
        raise BadInputError(f"{file}: cannot be written: {error.strerror}") from error


policy_replay.register(app)
policy_log.register(app)
