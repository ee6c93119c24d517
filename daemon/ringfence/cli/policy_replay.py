"""`ringfence policy replay`: which recorded calls another policy would have answered otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.session import Session, verb
from ringfence.errors import BadInputError, ExitCode

if TYPE_CHECKING:
    import asyncpg

    from ringfence.store.replay import Apply, Replayed

SKIPPED = {
    "emergency": "emergency calls, which pass whatever the policy says",
    "not_judged": "answered without the judge",
    "customer_state": "refused for the state of their customer",
}


async def replay(
    session: Session,
    *,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Policy file to try; by default the current policy.")
    ] = None,
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Calls from then on, e.g. 7d.")],
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Calls before then.")] = None,
    as_if_active: Annotated[
        bool,
        typer.Option(
            "--as-if-active/--states-as-now",
            help="Take customers as active, or in the state they have now; restricted ones are so either way.",
        ),
    ] = True,
    refused_call_s: Annotated[
        int,
        typer.Option(
            "--refused-call-s", min=0, max=86_400, help="Seconds a call lasts that was refused and now passes."
        ),
    ] = 60,
    terminate_missing: Annotated[
        bool,
        typer.Option("--terminate-missing", help="Terminate customers that a whole policy lacks, as apply does."),
    ] = False,
    limit: Annotated[int, typer.Option(min=0, max=100_000, help="Name at most so many calls and customers.")] = 50,
) -> ExitCode:
    """Judge recorded calls again under the policy in FILE and name those that would have fared otherwise.

    Nothing is changed and no call waits. Counters are empty at --since. Exits 1 if any call differs.
    """
    from ringfence.cli.times import point
    from ringfence.store import records
    from ringfence.store.replay import Replay

    start = point(since, "--since")
    end = point(until, "--until") if until else None
    apply = _applying(file, terminate_missing) if file is not None else None
    async with session.database() as connection:
        now = await records.clock(connection)
        end = min(end or now, now)
        if end <= start:
            raise BadInputError("--until is not after --since" if until else "--since is not in the past")
        run = Replay(connection, as_if_active=as_if_active, refused_call_s=refused_call_s, limit=limit)
        with _progress(start, end) as told:
            await run.prepare(apply)
            found = await run.run(start, end, told)
        calls = await run.details(found, start, end)
    _tell(session, found, calls, since=start, until=end, file=file, limit=limit)
    return ExitCode.REFUSED if found.differ else ExitCode.OK


def _applying(file: str, terminate_missing: bool) -> Apply:
    from ringfence.cli.policy import loaded
    from ringfence.policy.apply import Terms, apply_document

    document = loaded(file)
    # Nothing is committed, so nobody has to approve; but what an apply would refuse is refused here.
    terms = Terms(reason="policy replay", approved_by="policy replay", terminate_missing=terminate_missing)

    async def apply(connection: asyncpg.Connection) -> None:
        await apply_document(connection, document, origin=file, terms=terms)

    return apply


def _tell(
    session: Session,
    found: Replayed,
    calls: list[dict[str, Any]],
    *,
    since: datetime,
    until: datetime,
    file: str | None,
    limit: int,
) -> None:
    from ringfence.cli.call import shown, with_numbers

    changes = [
        {"calls": count, "was": was[1], "was_verdict": was[0], "would_be": would[1], "would_be_verdict": would[0]}
        for (was, would), count in found.changes.most_common()
    ]
    lost, gained = found.by_reason()
    by_reason = [
        {"reason": reason, "was": lost[reason], "would_be": gained[reason]} for reason in sorted(lost | gained)
    ]
    customers = [
        {"customer": name, **{kind: kinds[kind] for kind in ("refused", "let_out", "otherwise")}}
        for name, kinds in sorted(found.customers.items(), key=lambda item: (-item[1].total(), item[0]))
    ]
    session.output.document(
        {
            "since": since,
            "until": until,
            "file": file,
            "calls": found.calls,
            "skipped": {reason: found.skipped[reason] for reason in SKIPPED},
            "differ": found.differ,
            "changes": changes,
            "by_reason": by_reason,
            "customers_differ": len(customers),
            "customers": customers[:limit],
            "differing": [with_numbers(call) for call in calls],
        }
    )
    session.output.table(changes, ("calls", "was_verdict", "was", "would_be_verdict", "would_be"), empty="")
    if found.differ:
        session.output.table(by_reason, ("reason", "was", "would_be"))
        session.output.table(customers[:limit], ("customer", "refused", "let_out", "otherwise"))
        table = [{**call, "caller": shown(call, "caller"), "called": shown(call, "called")} for call in calls]
        columns = ("decided_at", "customer", "caller", "called", "reason", "would_be_reason", "decision_id")
        session.output.table(table, columns)
        if found.differ > len(calls):
            session.output.line(f"the first {len(calls)} are shown: --limit shows more")
    for reason, meaning in SKIPPED.items():
        if found.skipped[reason]:
            session.output.line(f"left out {found.skipped[reason]:,} {meaning}")
    session.output.line(f"{found.differ:,} of {found.calls:,} calls would have fared otherwise")


@contextmanager
def _progress(since: datetime, until: datetime) -> Iterator[Callable[[datetime, Replayed], None] | None]:
    """A bar on standard error over the time from `since` to `until`, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("taking the policy", total=(until - since).total_seconds())

        def told(reached: datetime, found: Replayed) -> None:
            bar.update(
                task,
                completed=(reached - since).total_seconds(),
                description=f"{found.calls:,} calls, {found.differ:,} differ",
            )

        yield told


def register(app: typer.Typer) -> None:
    """Add the command to the noun."""
    verb(app, "replay")(replay)
