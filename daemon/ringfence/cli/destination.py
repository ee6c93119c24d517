"""`ringfence destination`: where calls may go."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ringfence.cli import caps
from ringfence.cli.number import DEFECTS
from ringfence.cli.output import e164
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("Destinations: where calls may go, by prefix, country and class.")

What = Annotated[
    str,
    typer.Argument(
        help="+ and leading digits, an ISO country, or premium, satellite, toll_free, international, domestic or "
        "service (short codes)."
    ),
]
Customer = Annotated[
    str | None, typer.Option("--customer", help="Only for this customer; goes before a rule for all.")
]
_COLUMNS = {
    "--calls-per-day": "calls_per_day",
    "--calls-per-month": "calls_per_month",
    "--minutes-per-day": "minutes_per_day",
    "--minutes-per-month": "minutes_per_month",
}
_WORDS = {column: column.replace("_", " ") for column in _COLUMNS.values()}
_SHOWN = ("rule", "customer", "destination", "action", *_COLUMNS.values())
_USED = ("calls_today", "calls_this_month", "minutes_today", "minutes_this_month")


async def _set(
    session: Session, what: str, customer: str | None, action: str, given: dict[str, int | None] | None = None
) -> None:
    from ringfence.store import destinations

    destination = destinations.parse(what)
    async with session.database() as connection:
        rule = await destinations.set_rule(connection, destination, customer or destinations.ALL, action, given)
    session.output.document(rule)
    session.output.line(f"rule {rule['rule']}: {_whose(rule)} to {rule['destination']}: {_does(rule)}")


def _whose(rule: dict[str, Any]) -> str:
    return "all customers' calls" if rule["customer"] == "*" else f"calls of {rule['customer']}"


def _does(rule: dict[str, Any]) -> str:
    if rule["action"] == "cap":
        return f"allowed up to {caps.sentence(rule, _WORDS)}, for each customer by itself"
    return "allowed" if rule["action"] == "allow" else "denied"


@verb(app, "allow")
async def allow(session: Session, what: What, customer: Customer = None) -> None:
    """Let calls there pass. What no rule is for is allowed anyway: this makes exceptions from a wider rule."""
    await _set(session, what, customer, "allow")


@verb(app, "deny")
async def deny(session: Session, what: What, customer: Customer = None) -> None:
    """Refuse calls there as destination_denied."""
    await _set(session, what, customer, "deny")


@verb(app, "cap")
async def cap(
    session: Session,
    *,
    what: What,
    customer: Customer = None,
    calls_per_day: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Calls in the customer's day; none lifts the cap.")
    ] = None,
    calls_per_month: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Calls in the customer's month.")
    ] = None,
    minutes_per_day: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Answered minutes a day, counted when a call ends.")
    ] = None,
    minutes_per_month: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Answered minutes a month.")
    ] = None,
) -> None:
    """Let so much pass there for each customer. In a cap that is there, options not given stay as they are."""
    texts = (calls_per_day, calls_per_month, minutes_per_day, minutes_per_month)
    given = caps.given(dict(zip(_COLUMNS, texts, strict=True)))
    if not given:
        raise BadInputError(f"give a cap: {', '.join(_COLUMNS)}")
    await _set(session, what, customer, "cap", caps.named(given, _COLUMNS))


@verb(app, "remove")
async def remove(session: Session, what: What, customer: Customer = None) -> None:
    """Take a rule away, and with it its counters."""
    from ringfence.store import destinations

    destination = destinations.parse(what)
    async with session.database() as connection:
        rule = await destinations.remove(connection, destination, customer or destinations.ALL)
    session.output.document({"removed": rule, "customer": customer or "*", "destination": str(destination)})
    session.output.line(f"rule {rule} for {destination} removed")


@verb(app, "list")
async def list_rules(
    session: Session,
    customer: Annotated[
        str | None, typer.Option("--customer", help="Rules that hold for this customer, and what it has used.")
    ] = None,
) -> None:
    """Show the rules."""
    from ringfence.store import destinations

    async with session.database() as connection:
        found = await destinations.listed(connection, customer)
    session.output.document(found)
    columns = _SHOWN if customer is None else _SHOWN + _USED
    session.output.table(found, columns, empty="no rules: calls may go anywhere")


@verb(app, "explain")
async def explain(
    session: Session,
    number: Annotated[str, typer.Argument(help="A called number, as it would be dialled.")],
    customer: Annotated[str | None, typer.Option("--customer", help="As one of this customer's calls.")] = None,
) -> None:
    """Say which rule holds for a number, and why it wins over the others."""
    from ringfence.numbering import canonical
    from ringfence.store import destinations

    plan = session.default_plan
    read = canonical(number, plan, called=True)
    if read.e164 is None:
        raise BadInputError(
            f"NUMBER: {number[:64]!r} {DEFECTS[read.defect]} (read under the plan of {plan.country}): "
            "write it as + and digits, e.g. +12025550123"
        )
    async with session.database() as connection:
        told = await destinations.explain(connection, read.e164, customer)
    told["number"] = e164(read.e164)
    session.output.document(told)
    session.output.facts({key: value for key, value in told.items() if key != "rules"})
    session.output.table(told["rules"], (*_SHOWN, "outcome"), title="rules that fit", empty="none: allowed")
    if told["rules"]:
        winner = told["rules"][0]
        session.output.line(
            f"rule {winner['rule']} holds: {_whose(winner)} to {winner['destination']}: {_does(winner)}"
        )
