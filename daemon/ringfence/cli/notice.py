"""`ringfence notice`: what people must be told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError, ConfigError, ExitCode

if TYPE_CHECKING:
    from ringfence.notices.delivery import Channel
    from ringfence.store.notices import Delivery

app = new_app("Notices: warnings, suspensions, expiries and breaches, and whether they arrived.")

NoticeId = Annotated[int, typer.Argument(metavar="ID", help="The notice's number.")]


@verb(app, "list")
async def list_notices(
    session: Session,
    *,
    customer: Annotated[str | None, typer.Option(help="Only this customer's.")] = None,
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="Only those that have not reached the customer.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
) -> None:
    """Show notices and how far they got, the newest first."""
    from ringfence.store import notices

    async with session.database() as connection:
        found = await notices.notices(connection, customer=customer, undelivered=undelivered, limit=limit)
    session.output.document(found)
    columns = ("notice_id", "created_at", "kind", "customer", "delivered_at", "delivered_how", "ways")
    session.output.table(found, columns, empty="no notices")


@verb(app, "show")
async def show(session: Session, notice_id: NoticeId) -> None:
    """Show one notice: its text, its facts, and every way it goes out."""
    from ringfence.notices.text import render
    from ringfence.store import notices

    async with session.database() as connection:
        notice, row = await notices.show_notice(connection, notice_id)
    text = render(notice)
    session.output.document({**row, "subject": text.subject, "text": text.body})
    facts = {key: value for key, value in row.items() if key not in ("deliveries", "notice_id")}
    session.output.facts(facts, title=f"notice {notice_id}")
    session.output.line("")
    for line in [text.subject, "", *text.body.rstrip().split("\n")]:
        session.output.line(f"    {line}".rstrip())
    session.output.line("")
    columns = (
        "channel", "address", "to_customer", "attempts", "sent_at", "next_attempt_at", "gave_up_at", "last_error",
    )  # fmt: skip
    empty = "nowhere yet" if row["planned_at"] is None else "none"
    session.output.table(row["deliveries"], columns, title="deliveries", empty=empty)


@verb(app, "delivered")
async def delivered(
    session: Session,
    *,
    notice_id: NoticeId,
    how: Annotated[str, typer.Option("--how", help="How the customer was told: 'phone call with Kim'.")],
) -> None:
    """Write down that you told the customer."""
    from ringfence.store import notices

    async with session.database() as connection:
        customer = await notices.mark_delivered(connection, notice_id, how)
    session.output.document({"notice_id": notice_id, "customer": customer, "delivered_how": how})
    session.output.line(f"notice {notice_id}: {customer} was told by {how}")


@verb(app, "retry")
async def retry(session: Session, notice_id: NoticeId) -> None:
    """Send a notice again by every way that did not work, and by addresses that are new since."""
    from ringfence.store import notices

    async with session.database() as connection:
        due = await notices.retry_notice(connection, notice_id)
    session.output.document({"notice_id": notice_id, "due_again": due})
    session.output.line(f"notice {notice_id}: {due} way(s) due again, and new ones are looked for")


@verb(app, "test")
async def send_test(
    session: Session,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="ADDRESS", help="Mail it there, not to the operators.")
    ] = None,
) -> int:
    """Send a test by every configured way, with this file's settings and secrets, and say what happened."""
    from ringfence.notices.delivery import channels

    settings = session.settings.notices
    ways = channels(settings, session.settings.host)
    if not ways:
        raise ConfigError("notices: neither smtp nor webhook is configured: see docs/notices.md")
    if to is not None and settings.smtp is None:
        raise BadInputError("--to: notices.smtp is not configured, so nothing can be mailed")
    operators = (to,) if to is not None else settings.smtp.operators if settings.smtp else ()
    if settings.smtp is not None and not operators:
        raise BadInputError("--to: give an address: notices.smtp.operators names nobody")
    tries = [
        (way, _delivery(way, address))
        for way in ways
        for address in (operators if way.name == "email" else (settings.webhook.url if settings.webhook else "",))
    ]
    results = await asyncio.gather(*(_attempt(way, delivery, settings.timeout_s) for way, delivery in tries))
    session.output.document(results)
    session.output.table(results, ("channel", "address", "sent", "error"))
    return ExitCode.OK if all(result["sent"] for result in results) else ExitCode.REFUSED


def _delivery(way: Channel, address: str) -> Delivery:
    from datetime import UTC, datetime

    from ringfence.store.notices import Delivery, Notice

    now = datetime.now(UTC)
    # Not the number of any notice, and another for every test.
    notice = Notice(-int(now.timestamp()), "test", "test", "Test", "", now, {})
    as_it_is = way.name == "email"  # without a word ahead; and nobody is to tell a customer
    return Delivery(notice, way.name, address, to_customer=as_it_is, told_by="", attempt=1, overdue=True)


async def _attempt(way: Channel, delivery: Delivery, timeout_s: float) -> dict[str, Any]:
    import time

    from ringfence.notices.line import NotSentError

    error = ""
    try:
        await asyncio.to_thread(way.send, delivery, time.monotonic() + timeout_s)
    except NotSentError as fault:
        error = str(fault)
    return {"channel": delivery.channel, "address": delivery.address, "sent": not error, "error": error}
