"""`ringfence doctor`: what is missing or unsafe on each switch, one line for each thing that was looked at."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli.session import Session, verb
from ringfence.errors import ConfigError, ExitCode, NotFoundError

if TYPE_CHECKING:
    from ringfence.config import AsteriskSettings, FreeSwitchSettings
    from ringfence.switches.findings import Finding


async def doctor(
    session: Session,
    *,
    switch: Annotated[str | None, typer.Option(metavar="NAME", help="Only this switch.")] = None,
    fire: Annotated[
        bool, typer.Option("--fire", help="FreeSWITCH: originate a leg that cannot leave, to see the hook run.")
    ] = False,
    dialplan: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Asterisk: extensions.conf, or what 'dialplan show' printed; may be given several times.",
        ),
    ] = None,
) -> int:
    """Ask each switch what is missing or unsafe around its hook. Changes nothing there.

    Exits 0 if everything that can be seen is right, 1 if something is missing or unsafe, 7 if a switch cannot
    be asked.
    """
    from ringfence.switches.findings import State

    chosen = _chosen(session, switch)
    findings: list[Finding] = []
    for settings in chosen:
        findings += await _check_up(session, settings, fire=fire, dialplan=dialplan or [])
    states = {finding.state for finding in findings}
    rows = [asdict(finding) for finding in findings]
    session.output.document({"ok": states <= {State.OK, State.UNSEEN}, "findings": rows})
    session.output.table(rows, ("switch", "check", "state", "sentence"))
    counted = [f"{sum(f.state is state for f in findings)} {state}" for state in State if state in states]
    session.output.line(f"\n{', '.join(counted)}".lstrip("\n"))
    if State.UNREACHABLE in states:
        return ExitCode.SWITCH
    return ExitCode.REFUSED if states & {State.MISSING, State.UNSAFE} else ExitCode.OK


def _chosen(session: Session, name: str | None) -> list[AsteriskSettings | FreeSwitchSettings]:
    every = list(session.settings.switches)
    if not every:
        raise ConfigError(f"{session.config_path}: switches: none is configured")
    chosen = [settings for settings in every if name in (None, settings.name)]
    if not chosen:
        known = ", ".join(settings.name for settings in every)
        raise NotFoundError(f"no switch is called {name!r}; configured: {known}")
    return chosen


async def _check_up(
    session: Session, settings: AsteriskSettings | FreeSwitchSettings, *, fire: bool, dialplan: list[Path]
) -> list[Finding]:
    emergency = session.settings.numbering.emergency
    if settings.kind == "freeswitch":
        from ringfence.switches.freeswitch import checkup as freeswitch

        return await freeswitch.check_up(settings, emergency, fire=fire)
    from ringfence.switches.asterisk import checkup as asterisk

    return await asterisk.check_up(settings, emergency, dialplan)


def register(app: typer.Typer) -> None:
    """Add the command to the top."""
    verb(app, "doctor")(doctor)
