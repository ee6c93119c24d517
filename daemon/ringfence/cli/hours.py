"""`ringfence hours`: when telemarketing may call."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli.session import Session, new_app, verb

app = new_app("Calling hours: when telemarketing may call, by country and state.")

Country = Annotated[str, typer.Argument(help="ISO country of the called number.")]
State = Annotated[str, typer.Option("--state", help="State or territory of the US; by default the whole country.")]
Days = Annotated[str, typer.Option("--days", help="Such as mon-fri,sat.")]


_Where = tuple[str, str, tuple[int, ...]]  # country, state, weekdays


def _read(country: str, state: str, days: str) -> _Where:
    from ringfence.store import calling_hours, provider

    country = provider.country("COUNTRY", country)
    return country, calling_hours.check_state(country, state), calling_hours.parse_days(days)


async def _set(session: Session, where: _Where, opens: str, closes: str) -> None:
    from ringfence.store import calling_hours

    country, state, weekdays = where
    async with session.database() as connection:
        await calling_hours.set_hours(connection, country, state, weekdays, opens=opens, closes=closes)
        found = await calling_hours.listed(connection)
    shown = [row for row in found if (row["country"], row["state"]) == (country, state)]
    session.output.document(shown)
    for row in shown:
        when = f"{row['opens']} to {row['closes']}" if row["opens"] else "closed"
        session.output.line(
            f"{country}{state and ' ' + state}: {row['days']}: {when}, the called party's local time"
        )


@verb(app, "set")
async def set_hours(
    session: Session,
    *,
    country: Country,
    days: Days,
    opens: Annotated[str, typer.Option("--from", help="Calls may begin at this time, e.g. 08:00.")],
    closes: Annotated[str, typer.Option("--until", help="Calls may begin before this time; 24:00 is midnight.")],
    state: State = "",
) -> None:
    """Let telemarketing call within these hours only. A state's narrow the country's: both must be kept."""
    from ringfence.store import calling_hours

    calling_hours.check_times(opens, closes)
    await _set(session, _read(country, state, days), opens, closes)


@verb(app, "closed")
async def closed(session: Session, *, country: Country, days: Days, state: State = "") -> None:
    """Let telemarketing not call at all on these days."""
    await _set(session, _read(country, state, days), "00:00", "00:00")


@verb(app, "clear")
async def clear(session: Session, *, country: Country, state: State = "", days: Days = "mon-sun") -> None:
    """Take hours away, so that they forbid nothing. The country's still hold in a state."""
    from ringfence.store import calling_hours

    country, state, weekdays = _read(country, state, days)
    async with session.database() as connection:
        count = await calling_hours.clear(connection, country, state, weekdays)
    session.output.document({"country": country, "state": state, "days_cleared": count})
    session.output.line(
        f"{country}{state and ' ' + state}: hours of {count} day{'s' if count > 1 else ''} cleared"
    )


@verb(app, "list")
async def list_hours(session: Session) -> None:
    """Show all calling hours."""
    from ringfence.store import calling_hours

    async with session.database() as connection:
        found = await calling_hours.listed(connection)
    session.output.document(found)
    shown = [{**row, "opens": row["opens"] or "closed"} for row in found]
    columns = ("country", "state", "days", "opens", "closes")
    session.output.table(shown, columns, empty="no hours: telemarketing may call at any time")
