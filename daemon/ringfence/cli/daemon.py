"""`ringfence serve` and `ringfence check-config`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.output import complain
from ringfence.cli.session import Session, verb
from ringfence.errors import ExitCode, RingfenceError, SwitchError

if TYPE_CHECKING:
    from ringfence.config import AmiSettings, Settings


def serve(session: Session) -> int:
    """Run the daemon until it is told to stop."""
    from ringfence import service

    return service.run(session.settings, session.config_path)


async def check_config(
    session: Session,
    *,
    connect: Annotated[
        bool, typer.Option("--connect", help="Also try the database and each Asterisk's manager.")
    ] = False,
) -> int:
    """Read and check the configuration file and show what it says."""
    settings = session.settings
    shown = _summary(settings)
    faults: list[RingfenceError] = []
    if connect:
        trials = {"database answer": _try_database(session)}
        for switch in settings.switches:
            if switch.kind == "asterisk" and switch.ami is not None:
                trials[f"{switch.name} answer"] = _try_manager(switch.name, switch.ami)
        for what, trial in trials.items():
            try:
                shown[what.replace(" ", "_")] = await trial
            except RingfenceError as error:
                shown[what.replace(" ", "_")] = str(error)
                faults.append(error)
    session.output.document({"config": str(session.config_path), "ok": not faults, **shown})
    session.output.facts(shown, title=f"{session.config_path}: {'see below' if faults else 'correct'}")
    for fault in faults:
        complain(str(fault))
    return faults[0].exit_code if faults else ExitCode.OK


def _summary(settings: Settings) -> dict[str, Any]:
    gate, numbering = settings.gate, settings.numbering
    return {
        "host": settings.host,
        "database": f"{settings.database.dsn}, {settings.database.connections} connections",
        "database_password": "yes" if settings.database.password is not None else "none",
        "gate": f"{gate.deadline_ms} ms for a decision, {gate.on_database_down} when the database is down",
        "numbering": f"plan {numbering.default_plan} ({numbering.plans[numbering.default_plan].country})",
        "emergency": list(numbering.emergency),
        "switches": [f"{switch.name} ({switch.kind})" for switch in settings.switches],
        "spool": str(settings.journal.spool_directory),
    }


async def _try_database(session: Session) -> str:
    from ringfence.store import migrate

    async with session.database() as connection:
        version = connection.get_server_version()
        current = await migrate.is_current(connection)
    schema = "current" if current else "not current: run 'ringfence db migrate'"
    return f"PostgreSQL {version.major}.{version.minor}, schema {schema}"


async def _try_manager(name: str, settings: AmiSettings) -> str:
    import structlog

    from ringfence.switches.asterisk.ami import Ami

    logged_in = asyncio.Event()

    async def note() -> None:
        logged_in.set()

    silent = structlog.wrap_logger(
        None, processors=[], wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )
    ami = Ami(settings, silent, switch=name, events=("Hangup",), on_event=lambda _: None, on_connected=note)
    await ami.start()
    try:
        async with asyncio.timeout(1):
            await logged_in.wait()
    except TimeoutError:
        raise SwitchError(f"switches.{name}.ami: the manager at {settings.address} cannot be reached") from None
    finally:
        await ami.stop()
    return f"the manager at {settings.address} lets {settings.username!r} in"


def register(app: typer.Typer) -> None:
    """Add the daemon's commands to the top."""
    verb(app, "serve")(serve)
    verb(app, "check-config")(check_config)
