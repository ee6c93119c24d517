"""Every noun and verb put together, and the options that stand before the noun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ringfence import __version__
from ringfence.cli import (
    bypass,
    call,
    campaign,
    check,
    consent,
    customer,
    daemon,
    database,
    destination,
    do_not_call,
    do_not_originate,
    doctor,
    endpoint,
    finding,
    hook,
    hours,
    infraction,
    notice,
    number,
    policy,
    profile,
    provider,
    tail,
)
from ringfence.cli.session import CONFIG_HELP, JSON_HELP, Globals, new_app

app = new_app("Lets only calls out that it can vouch for: the daemon and its policy.")
app.add_typer(database.app, name="db")
app.add_typer(provider.app, name="provider")
app.add_typer(profile.app, name="profile")
app.add_typer(customer.app, name="customer")
app.add_typer(endpoint.app, name="endpoint")
app.add_typer(number.app, name="number")
app.add_typer(do_not_originate.app, name="do-not-originate")
app.add_typer(destination.app, name="destination")
app.add_typer(campaign.app, name="campaign")
app.add_typer(hours.app, name="hours")
app.add_typer(do_not_call.app, name="do-not-call")
app.add_typer(consent.app, name="consent")
app.add_typer(infraction.app, name="infraction")
app.add_typer(finding.app, name="finding")
app.add_typer(notice.app, name="notice")
app.add_typer(policy.app, name="policy")
app.add_typer(call.app, name="call")
app.add_typer(bypass.app, name="bypass")
app.add_typer(hook.app, name="hook")
daemon.register(app)
check.register(app)
doctor.register(app)
tail.register(app)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"ringfence {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="PATH", envvar="RINGFENCE_CONFIG", help=CONFIG_HELP)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    context.obj = Globals(config, as_json)
