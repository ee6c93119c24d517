"""`ringfence profile`: named sets of caps, and the mode of each rule."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ringfence.cli import caps
from ringfence.cli.session import Session, new_app, verb
from ringfence.errors import BadInputError

app = new_app("Limit profiles: named sets of caps and the mode of each rule; every customer has one.")

Name = Annotated[str, typer.Argument(help="Name of the profile.")]
_MAX = caps.MAX_CAP
_COLUMNS = {
    "--per-day": "calls_per_day",
    "--per-month": "calls_per_month",
    "--minutes-per-day": "minutes_per_day",
    "--minutes-per-month": "minutes_per_month",
    "--per-caller-id-per-day": "caller_id_calls_per_day",
}
_WORDS = {
    "calls_per_day": "calls per day",
    "calls_per_month": "calls per month",
    "minutes_per_day": "minutes per day",
    "minutes_per_month": "minutes per month",
    "caller_id_calls_per_day": "calls per day of one caller ID",
}
_RULE_HELP = "May be repeated; 'ringfence profile show NAME' lists the rules."


@verb(app, "set")
async def set_profile(
    session: Session,
    *,
    name: Name,
    calls_per_second: Annotated[
        float | None,
        typer.Option(min=0.001, max=999_999, help="Sustained rate, e.g. 2.5. A new profile needs it."),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=0, max=_MAX, help="Live calls at once; 0 lets none out. A new profile needs it."),
    ] = None,
    burst: Annotated[
        int | None,
        typer.Option(min=1, max=_MAX, help="Calls at one instant; in a new profile the rate, rounded up."),
    ] = None,
    per_day: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Calls in the customer's day; none lifts the cap.")
    ] = None,
    per_month: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Calls in the customer's month.")
    ] = None,
    minutes_per_day: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Answered minutes a day, counted when a call ends.")
    ] = None,
    minutes_per_month: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Answered minutes a month.")
    ] = None,
    per_caller_id_per_day: Annotated[
        str | None, typer.Option(metavar=caps.METAVAR, help="Calls a day that show the same caller ID.")
    ] = None,
    delay_up_to_ms: Annotated[
        int | None,
        typer.Option(
            min=0, max=10_000, help="Hold a call over the rate up to so long for its slot; 0 refuses it."
        ),
    ] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(
            "--report", metavar="RULE", help=f"Record what the rule would refuse, and refuse nothing. {_RULE_HELP}"
        ),
    ] = None,
    off: Annotated[
        list[str] | None, typer.Option("--off", metavar="RULE", help="Do not judge by the rule. May be repeated.")
    ] = None,
    enforce: Annotated[
        list[str] | None,
        typer.Option("--enforce", metavar="RULE", help="Refuse by the rule again. May be repeated."),
    ] = None,
) -> None:
    """Make a profile, or change one: options that are not given stay as they are. Holds from the next attempt."""
    from decimal import Decimal

    from ringfence.store import profiles

    texts = (per_day, per_month, minutes_per_day, minutes_per_month, per_caller_id_per_day)
    changed: dict[str, Any] = {
        "calls_per_second": None if calls_per_second is None else Decimal(str(round(calls_per_second, 3))),
        "burst": burst,
        "concurrent_calls": concurrent,
        "max_delay_ms": delay_up_to_ms,
    }
    changed = {column: value for column, value in changed.items() if value is not None}
    changed |= caps.named(caps.given(dict(zip(_COLUMNS, texts, strict=True))), _COLUMNS)
    modes = _modes(report, off, enforce)
    if not changed and not modes:
        raise BadInputError("nothing to set: give a cap, such as --calls-per-second, or the mode of a rule")
    async with session.database() as connection:
        created = await profiles.set_profile(connection, name, changed, modes)
        shown = await profiles.show_profile(connection, name)
    session.output.document({"created": created, **shown})
    session.output.line(f"profile {name}: {_sentence(shown)} ({'new' if created else 'changed'})")
    for mode in ("report", "off"):
        if shown[f"{mode}_rules"]:
            what = "only reported" if mode == "report" else "not judged at all"
            session.output.line(f"profile {name}: {what}: {', '.join(shown[f'{mode}_rules'])}")


def _modes(report: list[str] | None, off: list[str] | None, enforce: list[str] | None) -> dict[str, str]:
    modes: dict[str, str] = {}
    for mode, names in (("report", report), ("off", off), ("enforce", enforce)):
        for name in names or ():
            if modes.setdefault(name, mode) != mode:
                raise BadInputError(f"--{mode}: the rule {name!r} is given to --{modes[name]} too: choose one")
    return modes


def _sentence(shown: dict[str, Any]) -> str:
    held = f", held up to {shown['max_delay_ms']} ms" if shown["max_delay_ms"] else ""
    more = caps.sentence(shown, _WORDS)
    return (
        f"{shown['calls_per_second']:g} calls per second, burst {shown['burst']}{held}, "
        f"{shown['concurrent_calls']} at once, {more or 'any number per day and month'}"
    )


@verb(app, "show")
async def show(session: Session, name: Name) -> None:
    """Show one profile: its caps, and every rule with its mode."""
    from ringfence.store import profiles

    async with session.database() as connection:
        shown = await profiles.show_profile(connection, name)
    session.output.document(shown)
    lists = ("rules", "report_rules", "off_rules")
    session.output.facts({key: value for key, value in shown.items() if key not in lists})
    session.output.table(shown["rules"], ("rule", "mode", "sentence"), title="rules")


@verb(app, "list")
async def list_profiles(session: Session) -> None:
    """Show every profile."""
    from ringfence.store import profiles

    async with session.database() as connection:
        found = await profiles.profiles(connection)
    session.output.document(found)
    columns = ("profile", "calls_per_second", "burst", "max_delay_ms", "concurrent_calls", "calls_per_day")
    more = ("calls_per_month", "minutes_per_day", "minutes_per_month", "report_rules", "off_rules", "customers")
    session.output.table(found, columns + more, empty="no profiles: 'ringfence profile set NAME …' makes one")
