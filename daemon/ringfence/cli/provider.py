"""`ringfence provider`: what holds for every customer."""

from __future__ import annotations

from typing import Annotated

import typer

from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("The provider: what holds for every customer.")


@verb(app, "show")
async def show(session: Session) -> None:
    """Show what is set."""
    from ringfence.store import provider

    async with session.database() as connection:
        shown = await provider.show(connection)
    session.output.document(shown)
    session.output.facts(shown)


@verb(app, "set")
async def change(
    session: Session,
    *,
    name: Annotated[str | None, typer.Option(help="Legal name, for notices.")] = None,
    role: Annotated[
        str | None,
        typer.Option(
            help="As filed in the Robocall Mitigation Database: originating, gateway, intermediate, terminating."
        ),
    ] = None,
    frn: Annotated[str | None, typer.Option(help="FCC Registration Number.")] = None,
    ocn: Annotated[str | None, typer.Option(help="Operating Company Number.")] = None,
    rmd_number: Annotated[
        str | None, typer.Option(help="Number of the filing in the Robocall Mitigation Database.")
    ] = None,
    home_country: Annotated[
        str | None, typer.Option(help="ISO country; calls to others are of the class international.")
    ] = None,
    assigned_numbers_only: Annotated[
        bool | None,
        typer.Option(
            "--assigned-numbers-only/--validated-numbers-too",
            help="Whether only numbers that you assigned may be shown, or others that you validated too.",
        ),
    ] = None,
    aup_version: Annotated[
        str | None, typer.Option(help="The acceptable-use policy that customers accept now.")
    ] = None,
    vetting_valid_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="How long a vetting holds if nothing else is said.")
    ] = None,
    expiry_notice_days: Annotated[
        int | None,
        typer.Option(min=0, max=365, help="How long before a grant or vetting runs out a notice is given."),
    ] = None,
    strikes: Annotated[
        bool | None,
        typer.Option(
            "--strikes/--no-strikes", help="Whether showing somebody else's number counts against a customer."
        ),
    ] = None,
    warnings_before_suspension: Annotated[
        int | None, typer.Option(min=0, max=100, help="How many infractions only warn; 0 suspends at the first.")
    ] = None,
    infraction_hours: Annotated[
        int | None, typer.Option(min=0, max=8760, help="Attempts within so many hours belong to one infraction.")
    ] = None,
    infractions_count_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Older infractions no longer count.")
    ] = None,
    suspension_hangs_up: Annotated[
        bool | None,
        typer.Option(
            "--suspension-hangs-up/--suspension-lets-calls-finish",
            help="Whether a suspension by infraction also ends the live calls.",
        ),
    ] = None,
) -> None:
    """Change what is given and leave the rest. Holds for every customer from the next attempt on."""
    from ringfence.store import provider

    options = {
        "name": name,
        "role": role,
        "frn": frn,
        "ocn": ocn,
        "rmd_number": rmd_number,
        "home_country": home_country,
        "assigned_numbers_only": assigned_numbers_only,
        "aup_version": aup_version,
        "vetting_valid_days": vetting_valid_days,
        "expiry_notice_days": expiry_notice_days,
        "strikes": strikes,
        "warnings_before_suspension": warnings_before_suspension,
        "infraction_hours": infraction_hours,
        "infractions_count_days": infractions_count_days,
        "suspension_hangs_up": suspension_hangs_up,
    }
    changes = {column: value for column, value in options.items() if value is not None}
    if not changes:
        raise BadInputError("nothing to set: give an option, such as --name; --help tells all")
    async with session.database() as connection:
        shown = await provider.change(connection, changes)
    session.output.document(shown)
    session.output.facts(shown)
