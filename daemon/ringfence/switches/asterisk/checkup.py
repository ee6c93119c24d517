"""The check-up of one Asterisk: what is missing or unsafe around the hook. Asks, and changes nothing.

The manager user of the sample may read little, but it may evaluate dialplan functions (Getvar without a channel):
AST_CONFIG shows a configuration file as it is on the switch's disk, IFMODULE a module, DIALPLAN_EXISTS a context.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from panoramisk.message import Message

from ringfence.config import Address, AmiSettings, AsteriskSettings
from ringfence.errors import SwitchError
from ringfence.switches.asterisk import routes
from ringfence.switches.asterisk.calls import EVENTS
from ringfence.switches.asterisk.extensions import read_shown
from ringfence.switches.asterisk.link import Link
from ringfence.switches.findings import (
    Finding,
    Report,
    is_loopback,
    look_at_emergency,
    look_for_daemon,
    plain_error,
)

DEFAULT_AGI = "agi://127.0.0.1:4573/gate"
DEFAULT_EMERGENCY = "911|933|112|988"
NEEDED = ("Getvar", "Hangup", "Setvar", "Status")
TOO_MUCH = ("Command", "DBPut", "ModuleLoad", "Originate", "Reload", "UpdateConfig")
MODULES = (
    *("app_dial", "app_exec", "app_stack", "app_userevent", "func_callerid", "func_cdr", "func_channel"),
    *("func_dialplan", "func_global", "func_hangupcause", "func_logic", "func_strings", "func_timeout"),
    *("func_pjsip_endpoint", "res_agi", "res_pjsip_header_funcs"),
)
CONTEXTS = {"ringfence": "1", "ringfence-before": "1", "ringfence-leg": "s", "ringfence-after": "1"}
CHANNEL_VARIABLES = ("RINGFENCE_DECISION", "RINGFENCE_CUSTOMER")
_MAX_MESSAGE = 1_048_576
_AGI = re.compile(r"(?:h?agi)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?(?:/.*)?")
_AGI_PORT = 4573


class Manager:
    """A logged-in manager connection that is asked a few questions."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.actions: frozenset[str] = frozenset()

    async def learn(self) -> None:
        """Ask what this user may do."""
        self.actions = frozenset(dict(await self._ask({"Action": "ListCommands"})))

    async def value(self, expression: str) -> str:
        """The value of a global variable or of a function; empty if there is none."""
        return str((await self._ask({"Action": "Getvar", "Variable": expression})).value or "")

    async def loaded(self, module: str) -> bool:
        """Whether a module runs. Tells the truth only if func_module does."""
        return await self.value(f"IFMODULE({module}.so)") == "1"

    async def command(self, line: str) -> str:
        """What a CLI command prints."""
        output = (await self._ask({"Action": "Command", "Command": line})).output
        return "\n".join(output) if isinstance(output, list) else str(output or "")

    async def _ask(self, fields: dict[str, str]) -> Message:
        return (await self._link.ask(fields))[0]


async def check_up(
    settings: AsteriskSettings, emergency: Collection[str], dialplan: Collection[Path] = ()
) -> list[Finding]:
    """Look at everything that can be seen over the manager connection and in dialplan files.

    Raises ConfigError if there is no secret.
    """
    report = Report(settings.name)
    _look_at_watch(report, settings)
    if settings.ami is None:
        report.missing("manager", "none is configured: no call's end is recorded, and little can be checked")
        if (found := routes.from_files(report, dialplan, near=True)) is not None:
            routes.look(report, found, settings.watch.trunks, emergency)
        return report.findings
    secret = settings.ami.secret
    link = Link(settings.ami.model_copy(update={"max_message_bytes": _MAX_MESSAGE}), lambda _: None)
    try:
        if await _reached(report, link, settings.ami, secret):
            await _look(report, Manager(link), settings, emergency, dialplan)
    except SwitchError as error:
        report.unreachable("manager", f"it was lost before everything was looked at: {error}")
    finally:
        await link.close()
    return report.findings


async def _reached(report: Report, link: Link, ami: AmiSettings, secret: str) -> bool:
    try:
        await link.open()
        login = {"Action": "Login", "Username": ami.username, "Secret": secret, "Events": "off"}
        [response] = await link.ask(login)
    except (OSError, SwitchError) as error:
        why = plain_error(error) if isinstance(error, OSError) else str(error)
        report.unreachable("manager", f"{ami.address}: {why}; is manager.conf enabled, is the address right?")
        return False
    if not response.success:
        report.unreachable(
            "manager", f"{ami.address} refuses {ami.username!r}: compare its secret in manager.conf"
        )
        return False
    report.ok("manager", f"{ami.address} lets {ami.username!r} in")
    return True


async def _look(
    report: Report,
    manager: Manager,
    settings: AsteriskSettings,
    emergency: Collection[str],
    files: Collection[Path],
) -> None:
    ami = settings.ami
    assert ami is not None
    near = is_loopback(ami.address.host)
    await manager.learn()
    _look_at_rights(report, manager)
    if "Getvar" not in manager.actions:
        report.unseen("configuration", "this user may not evaluate anything: give it write=call")
        return
    if await manager.loaded("func_module"):
        await _look_at_modules(report, manager)
    else:
        report.unseen("modules", "func_module is not loaded, so Asterisk does not tell: look at 'module show'")
    await _look_at_contexts(report, manager)
    if await manager.value("AST_CONFIG(manager.conf,general,enabled)"):
        await _look_at_manager_conf(report, manager, ami)
        await _look_at_records(report, manager)
    else:
        report.unseen("manager.conf", "func_config is not loaded, so Asterisk does not show its files")
    pattern = await manager.value("RINGFENCE_EMERGENCY") or DEFAULT_EMERGENCY
    _look_at_emergency(report, pattern, emergency)
    agi = await manager.value("RINGFENCE_AGI") or DEFAULT_AGI
    if found := _AGI.fullmatch(agi):
        listed = (Address(host=found[1].strip("[]"), port=int(found[2] or _AGI_PORT)),)
        await look_for_daemon(report, listed, settings.fastagi.listen, near=near, setting="RINGFENCE_AGI")
    else:
        report.missing("daemon", f"RINGFENCE_AGI is no address: {agi}")
    if files or "Command" not in manager.actions:
        dialplan = routes.from_files(report, files, near=near)
    else:
        dialplan = read_shown(await manager.command("dialplan show"))
    if dialplan is not None:
        routes.look(report, dialplan, settings.watch.trunks, emergency)


def _look_at_watch(report: Report, settings: AsteriskSettings) -> None:
    watch = settings.watch
    if watch.mode == "off" or not watch.trunks:
        report.missing("watch", "nobody looks for calls that go around the hook: name your trunks in watch.trunks")
    else:
        report.ok("watch", f"{', '.join(watch.trunks)} ({watch.mode})")


def _look_at_rights(report: Report, manager: Manager) -> None:
    if absent := sorted(set(NEEDED) - manager.actions):
        report.missing("manager rights", f"this user may not {', '.join(absent)}: write=call in manager.conf")
    if powers := sorted(manager.actions.intersection(TOO_MUCH)):
        report.unsafe("manager rights", f"this user may {', '.join(powers)}: write=call in manager.conf is enough")
    elif not absent:
        report.ok("manager rights", "what the daemon needs, and neither Originate nor Command")


async def _look_at_modules(report: Report, manager: Manager) -> None:
    absent = [module for module in MODULES if not await manager.loaded(module)]
    if absent:
        report.missing("modules", f"the hook needs {', '.join(absent)}: load them in modules.conf")
    else:
        report.ok("modules", f"the {len(MODULES)} that the hook needs are loaded")


async def _look_at_contexts(report: Report, manager: Manager) -> None:
    told = {name: await manager.value(f"DIALPLAN_EXISTS({name},{exten},1)") for name, exten in CONTEXTS.items()}
    if "1" not in told.values() and "0" not in told.values():
        report.unseen(
            "hook", "func_dialplan is not loaded, so Asterisk does not tell whether ringfence.conf is there"
        )
    elif absent := [name for name, value in told.items() if value != "1"]:
        report.missing("hook", f"no context {', '.join(absent)}: '#include ringfence.conf' in extensions.conf")
    else:
        report.ok("hook", "ringfence.conf is part of the dialplan")


async def _look_at_manager_conf(report: Report, manager: Manager, ami: AmiSettings) -> None:
    async def conf(name: str, category: str = ami.username) -> str:
        return await manager.value(f"AST_CONFIG(manager.conf,{category},{name})")

    classes = {word.strip() for word in (await conf("read")).split(",")}
    if not classes & {"all"} and not classes.issuperset(("call", "user")):
        report.missing("manager events", f"read=call,user is needed by [{ami.username}] in manager.conf")
    _look_at_filter(report, await conf("eventfilter"), dynamic="Filter" in manager.actions)
    shown = {word.strip() for word in (await conf("channelvars", "general")).split(",")}
    if absent := [name for name in CHANNEL_VARIABLES if name not in shown]:
        report.missing("channelvars", f"add {','.join(absent)} in [general] of manager.conf")
    else:
        report.ok("channelvars", "events name the decision and the customer")
    address = await conf("bindaddr", "general") or "0.0.0.0"  # noqa: S104 - what Asterisk then takes
    if is_loopback(address) or await conf("permit") or await conf("acl"):
        report.ok(
            "manager address", f"it listens on {address}" + ("" if is_loopback(address) else ", with a permit")
        )
    else:
        report.unsafe(
            "manager address", f"it listens on {address} for everybody: bindaddr=127.0.0.1 in manager.conf"
        )


def _look_at_filter(report: Report, text: str, *, dynamic: bool) -> None:
    if not text:
        advice = "the daemon sets one" if dynamic else "about a hundred events a call are sent: see the sample"
        (report.ok if dynamic else report.missing)("event filter", f"manager.conf has none; {advice}")
        return
    try:
        lost = [event for event in EVENTS if not re.search(text, f"Event: {event}\r\n")]
    except re.error:
        lost = []
    if text.startswith("!"):
        report.unseen(
            "event filter", "it begins with an exclusion, which is not read here: compare it with the sample"
        )
    elif lost:
        report.missing("event filter", f"it keeps {', '.join(lost)} from the daemon: compare it with the sample")
    else:
        report.ok("event filter", "only what the daemon needs is sent")


async def _look_at_records(report: Report, manager: Manager) -> None:
    mapped = (
        await manager.value("AST_CONFIG(cdr_custom.conf,mappings,ringfence.csv)"),
        await manager.value("AST_CONFIG(cdr_manager.conf,mappings,ringfence_decision)"),
    )
    if any(mapped):
        report.ok("call records", "they name the decision")
    else:
        report.missing("call records", "neither cdr_custom.conf nor cdr_manager.conf maps ringfence_decision")
    if await manager.value("AST_CONFIG(cdr.conf,general,unanswered)") not in ("yes", "true", "on", "1"):
        report.missing("refused calls", "they leave no call record: unanswered=yes in [general] of cdr.conf")


def _look_at_emergency(report: Report, pattern: str, emergency: Collection[str]) -> None:
    try:
        known = [number for number in emergency if re.fullmatch(pattern, number)]
    except re.error:
        report.unseen("emergency", f"RINGFENCE_EMERGENCY is not read here: {pattern}")
        return
    plain = [part for part in pattern.split("|") if part.isascii() and part.isdecimal()]
    look_at_emergency(report, {*known, *plain}, emergency, setting="RINGFENCE_EMERGENCY")
