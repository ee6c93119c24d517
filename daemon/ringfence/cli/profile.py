"""`ringfence profile`: named sets of caps."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from ringfence.cli.session import Session, new_app, verb

app = new_app("Limit profiles: named sets of caps; every customer has one.")


@verb(app, "set")
async def set_profile(
    session: Session,
    *,
    name: Annotated[str, typer.Argument(help="Name of the profile.")],
    calls_per_second: Annotated[float, typer.Option(min=0.001, max=999_999, help="Sustained rate, e.g. 2.5.")],
    concurrent: Annotated[
        int, typer.Option(min=0, max=2_000_000_000, help="Live calls at once; 0 lets none out.")
    ],
    burst: Annotated[
        int | None,
        typer.Option(min=1, max=2_000_000_000, help="Calls at one instant; by default the rate, rounded up."),
    ] = None,
    per_day: Annotated[
        int | None,
        typer.Option(min=0, max=2_000_000_000, help="Calls in the customer's day; unlimited by default."),
    ] = None,
) -> None:
    """Make a profile, or replace the caps of one. Running daemons follow within a second."""
    from decimal import Decimal

    from ringfence.store import policy

    rate = Decimal(str(round(calls_per_second, 3)))
    burst = burst or max(1, math.ceil(rate))
    async with session.database() as connection:
        created = await policy.set_profile(
            connection,
            name,
            calls_per_second=rate,
            burst=burst,
            concurrent_calls=concurrent,
            calls_per_day=per_day,
        )
    session.output.document(
        {
            "profile": name,
            "created": created,
            "calls_per_second": float(rate),
            "burst": burst,
            "concurrent_calls": concurrent,
            "calls_per_day": per_day,
        }
    )
    session.output.line(
        f"profile {name}: {rate:f} calls per second, burst {burst}, {concurrent} at once, "
        f"{'any number' if per_day is None else per_day} per day ({'new' if created else 'changed'})"
    )


@verb(app, "list")
async def list_profiles(session: Session) -> None:
    """Show every profile."""
    from ringfence.store import policy

    async with session.database() as connection:
        found = await policy.profiles(connection)
    session.output.document(found)
    columns = ("profile", "calls_per_second", "burst", "concurrent_calls", "calls_per_day", "customers")
    session.output.table(found, columns, empty="no profiles: 'ringfence profile set NAME …' makes one")
