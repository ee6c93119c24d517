"""`ringfence policy log`: who changed what, and which change a decision's policy version names."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ringfence.cli.output import plain, to_json
from ringfence.cli.session import Session, verb
from ringfence.errors import BadInputError

_ACTION = re.compile(r"[a-z]+([-_][a-z]+)*\.[a-z]+([-_][a-z]+)*")
_COLUMNS = ("version", "changed_at", "changed_by", "action", "customer", "detail")
_DETAIL_WIDTH = 160
_SINCE = "7d"


async def log(
    session: Session,
    *,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help=f"From then on; {_SINCE} by default.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then.")] = None,
    customer: Annotated[str | None, typer.Option("--customer", help="Only what concerns this customer.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", metavar="NOUN.VERB", help="Only these changes, e.g. number.grant.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option("--version", min=0, max=2**63 - 1, help="Exactly this change in full, and the one before."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 100,
) -> None:
    """Show who changed the policy, the newest first. A decision's policy_version is the number of a change."""
    if version is not None:
        others = {"--since": since, "--until": until, "--customer": customer, "--action": action}
        for option, given in others.items():
            if given is not None:
                raise BadInputError(f"{option}: --version shows exactly one change: give one or the other")
        await _one(session, version)
        return
    from ringfence.cli.times import point
    from ringfence.store import policy, policy_log

    if action is not None and _ACTION.fullmatch(action) is None:
        raise BadInputError(f"--action: {action[:64]!r} is not NOUN.VERB, such as number.grant")
    search = policy_log.Search(
        since=point(since or _SINCE, "--since"),
        until=point(until, "--until") if until else None,
        customer=customer,
        action=action,
        limit=limit,
    )
    if search.until is not None and search.until <= search.since:
        raise BadInputError("--until is not after --since")
    async with session.database() as connection:
        if customer is not None:
            await policy.require_customer(connection, customer)
        found = await policy_log.changes(connection, search)
    session.output.document(found)
    table = [{**entry, "detail": _shortened(plain(entry["detail"]))} for entry in found]
    session.output.table(table, _COLUMNS, empty="no changes match; --since 30d looks back further")
    if len(found) == limit:
        session.output.line(f"the newest {limit} are shown: --limit shows more")


async def _one(session: Session, version: int) -> None:
    from ringfence.store import policy_log

    if version == 0:
        raise BadInputError("--version: 0 is the policy before its first change: no change made it")
    async with session.database() as connection:
        found = await policy_log.change(connection, version)
    session.output.document(found)
    before, detail = found.pop("before"), found.pop("detail")
    session.output.facts(found, title="change")
    # Nothing is left out: that a cap became none is a change too.
    lines = [{"field": key, "value": value if isinstance(value, str) else to_json(value)}
             for key, value in detail.items()]  # fmt: skip
    session.output.table(lines, ("field", "value"), title="detail", empty="nothing more is recorded")
    if before is None:
        session.output.line("before: nothing: this is the first change")
    else:
        session.output.line(_sentence(before))


def _sentence(entry: dict[str, Any]) -> str:
    whose = f" of {entry['customer']}" if entry["customer"] else ""
    return (
        f"before: version {entry['version']}, {entry['action']}{whose} by {entry['changed_by']} "
        f"at {plain(entry['changed_at'])}: 'ringfence policy log --version {entry['version']}' shows it"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _DETAIL_WIDTH else text[: _DETAIL_WIDTH - 1] + "…"


def register(app: typer.Typer) -> None:
    """Add the command to the noun."""
    verb(app, "log")(log)
