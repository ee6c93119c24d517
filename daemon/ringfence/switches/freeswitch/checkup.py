"""The check-up of one FreeSWITCH: what is missing or unsafe around the gate. Asks, and changes nothing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from ringfence.config import EventSocketSettings, FreeSwitchSettings
from ringfence.errors import SwitchError
from ringfence.switches.findings import Finding, Report, is_loopback, look_for_daemon
from ringfence.switches.freeswitch import variables as variables_of
from ringfence.switches.freeswitch.bridge import Bridge
from ringfence.switches.freeswitch.esl import Connection, RefusedError
from ringfence.switches.freeswitch.protocol import GoneError
from ringfence.switches.freeswitch.variables import HOOK, SCRIPT

DEFAULT_PASSWORD = "ClueCon"  # noqa: S105 - FreeSWITCH's own, known to everybody
_MIN_PASSWORD = 12
# Addresses of documentation (RFC 5737, RFC 3849): whoever lets them in lets everybody in.
_STRANGERS = ("192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1")
_PARAM = re.compile(r'<param name="([^"]*)" value="([^"]*)"')
_ADDRESS = "event socket address"
_FIRES = "hook fires"


class Client:
    """One logged-in event socket that is asked a few questions."""

    def __init__(self, bridge: Bridge, connection: Connection) -> None:
        self._bridge = bridge
        self._connection = connection

    async def api(self, command: str) -> str:
        """What an API command answers. Raises SwitchError if the connection is gone."""
        try:
            reply = await self._bridge.run(self._connection.send, f"api {command}")
        except GoneError as error:
            raise SwitchError(str(error)) from error
        return reply.body.decode("utf-8", errors="replace").strip()

    async def variables(self) -> dict[str, str]:
        """Every global variable."""
        lines = (await self.api("global_getvar")).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    async def params(self, configuration: str) -> list[tuple[str, str]]:
        """The parameters of a configuration file, as the switch has read it."""
        return _PARAM.findall(await self.api(f"xml_locate configuration configuration name {configuration}.conf"))


async def check_up(
    settings: FreeSwitchSettings, emergency: Collection[str], *, fire: bool = False
) -> list[Finding]:
    """Look at everything that can be seen over the event socket.

    With `fire` a leg of the endpoint `null` is originated, which has no network at all, to see the hook run.
    Raises ConfigError if there is no password.
    """
    report = Report(settings.name)
    if settings.event_socket is None:
        report.missing("event socket", "none is configured: no call's end is recorded, and nothing can be checked")
        return report.findings
    password = settings.event_socket.password
    bridge = Bridge()
    bridge.start()
    connection = Connection(settings.event_socket, password, lambda _: None)
    try:
        if await _reached(report, bridge, connection, settings.event_socket):
            _look_at_password(report, password)
            await _look(report, Client(bridge, connection), settings, emergency, fire=fire)
    except SwitchError as error:
        report.unreachable("event socket", f"it was lost before everything was looked at: {error}")
    finally:
        await bridge.run(connection.stop)
        await bridge.stop()
    return report.findings


async def _reached(report: Report, bridge: Bridge, connection: Connection, settings: EventSocketSettings) -> bool:
    where = settings.address
    try:
        await bridge.run(connection.connect)
    except RefusedError as error:
        report.unreachable(
            "event socket", f"{where}: {error}; compare event_socket.conf.xml with this configuration"
        )
    except GoneError as error:
        report.unreachable("event socket", f"{where}: {error}; is mod_event_socket loaded, is the address right?")
    else:
        report.ok("event socket", f"{where} lets us in")
        return True
    return False


def _look_at_password(report: Report, password: str) -> None:
    if password == DEFAULT_PASSWORD:
        report.unsafe("password", "FreeSWITCH's default is known to everybody: change it in event_socket.conf.xml")
    elif len(password) < _MIN_PASSWORD:
        report.unsafe(
            "password", f"it is shorter than {_MIN_PASSWORD} characters: who guesses it may call anything"
        )
    else:
        report.ok("password", "it is not the default")


async def _look(
    report: Report, client: Client, settings: FreeSwitchSettings, emergency: Collection[str], *, fire: bool
) -> None:
    assert settings.event_socket is not None
    near = is_loopback(settings.event_socket.address.host)
    variables = await client.variables()
    await _look_at_listener(report, client)
    hooks = variables_of.look_at_hook(report, variables)
    await _look_at_lua(report, client, variables, hooks)
    await _look_at_expansion(report, client)
    variables_of.look_at_redirects(report, variables)
    variables_of.look_at_settings(report, variables, emergency)
    daemons = variables_of.daemons(variables)
    await look_for_daemon(
        report, daemons, settings.hook.listen, near=near, setting="ringfence_daemons in vars.xml"
    )
    if fire:
        await _fire(report, client)
    else:
        report.unseen(_FIRES, "not tried: --fire originates one leg that cannot leave the switch")
    await _look_for_overrides(report, client, hooks)  # last: an answer too long to be read ends the connection


async def _look_at_listener(report: Report, client: Client) -> None:
    params = await client.params("event_socket")
    if not params:
        report.unseen(_ADDRESS, "the switch does not show event_socket.conf.xml: look for listen-ip there")
        return
    address = dict(params).get("listen-ip", "") or "127.0.0.1"
    lists = [value for name, value in params if name == "apply-inbound-acl" and value] or ["loopback.auto"]
    if is_loopback(address):
        report.ok(_ADDRESS, f"it listens on {address} only")
        return
    for stranger in _STRANGERS:
        if all([await client.api(f"acl {stranger} {name}") == "true" for name in lists]):
            report.unsafe(
                _ADDRESS,
                f"it listens on {address} and lets everybody try the password: listen-ip 127.0.0.1 or "
                "apply-inbound-acl loopback.auto in event_socket.conf.xml",
            )
            return
    report.ok(_ADDRESS, f"it listens on {address}, but {' and '.join(lists)} keeps strangers out")


async def _look_at_lua(
    report: Report, client: Client, variables: Mapping[str, str], hooks: Collection[str]
) -> None:
    if await client.api("module_exists mod_lua") == "true":
        report.ok("mod_lua", "it is loaded")
    else:  # measured: DESTINATION_OUT_OF_ORDER
        report.missing("mod_lua", "it is not loaded, so every outbound leg fails: load it in modules.conf.xml")
    named = next((variables_of.script(variables[name]) for name in hooks), SCRIPT)
    script = PurePosixPath(variables.get("script_dir", "/"), named)
    if await client.api(f"file_exists {script}") == "true":
        report.ok("script", f"{script} is there")
    else:  # measured: mod_lua says that it cannot open it, and the INVITE goes out
        report.unsafe("script", f"{script} is not there, so calls leave unasked: copy {SCRIPT} to it")


async def _look_at_expansion(report: Report, client: Client) -> None:
    told = await client.api("fsctl api_expansion")  # without on or off it only tells
    if told.endswith("is off"):
        report.ok("api-expansion", "it is off")
    elif told.endswith("is on"):
        report.unsafe("api-expansion", "a caller's text can run commands: set it to false in switch.conf.xml")
    else:
        report.unseen("api-expansion", "this FreeSWITCH does not tell: look for it in switch.conf.xml")


async def _look_for_overrides(report: Report, client: Client, hooks: Collection[str]) -> None:
    for section in ("dialplan", "directory"):
        try:
            text = (await client.api(f"xml_locate {section}")).lower()
        except SwitchError:
            report.unseen("overrides", f"the {section} is too long to be read: search it for {HOOK}")
            return
        if any(name.lower() in text for name in hooks):
            report.unsafe(
                "overrides", f"the {section} sets the hook's own variable: such calls are not asked about"
            )
        elif HOOK in text or "api_on_originate" in text:
            report.missing("overrides", f"the {section} sets {HOOK}… or api_on_originate…: such legs are refused")
        else:
            report.ok("overrides", f"the {section} does not touch the hook")


async def _fire(report: Report, client: Client) -> None:
    """A leg of `null/` ends inside the switch: whatever the gate answers, nothing can leave."""
    leg = f"ringfence-doctor-{secrets.token_hex(8)}"
    told = await client.api(f"originate {{origination_uuid={leg}}}null/ringfence-doctor &park")
    try:
        verdict = await client.api(f"uuid_getvar {leg} ringfence_verdict")
        reason = await client.api(f"uuid_getvar {leg} ringfence_reason")
    finally:
        await client.api(f"uuid_kill {leg}")
    if verdict.startswith("allow."):
        report.ok(_FIRES, "a leg that cannot leave was asked about, and the daemon answered")
    elif reason == "internal":
        report.ok(_FIRES, "a leg that cannot leave met the gate, and ringfence_internal let it pass")
    elif reason == "daemon_unavailable" or told == "-ERR SWITCH_CONGESTION":
        report.missing(_FIRES, "a leg that cannot leave met the gate, but no daemon answered it in time")
    elif told == "-ERR DESTINATION_OUT_OF_ORDER":
        report.missing(_FIRES, "a leg that cannot leave could not run the hook and was ended: see mod_lua")
    elif told.startswith("+OK"):
        report.unsafe(_FIRES, "a leg that cannot leave met no gate: real legs leave unasked too")
    else:
        report.unseen(_FIRES, f"the switch makes no leg of the endpoint null ({told}): is mod_loopback loaded?")
