"""Every noun and verb put together, and the options that stand before the noun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ringfence import __version__
from ringfence.cli import (
    bypass,
    call,
    check,
    customer,
    daemon,
    database,
    doctor,
    endpoint,
    hook,
    number,
    profile,
    tail,
)
from ringfence.cli.session import CONFIG_HELP, JSON_HELP, Globals, new_app

app = new_app("Lets only calls out that it can vouch for: the daemon and its policy.")
app.add_typer(database.app, name="db")
app.add_typer(profile.app, name="profile")
app.add_typer(customer.app, name="customer")
app.add_typer(endpoint.app, name="endpoint")
app.add_typer(number.app, name="number")
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
