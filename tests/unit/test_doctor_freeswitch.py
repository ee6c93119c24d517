"""What the check-up of a FreeSWITCH says, against a scripted event socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ringfence.config import FreeSwitchSettings
from ringfence.errors import ConfigError
from ringfence.switches.findings import Finding, State
from ringfence.switches.freeswitch.checkup import check_up
from ringfence.switches.freeswitch.variables import is_guessable
from tests.unit.test_freeswitch_esl import Server

EMERGENCY = ("911", "933", "112", "988")
PASSWORD = "correct-horse-battery"
SUFFIX = "0c10c39ca0ebead88093baa4"
HOOK = f"execute_on_originate_{SUFFIX}"
EVENT_SOCKET = "xml_locate configuration configuration name event_socket.conf"
LISTENS = '<param name="listen-ip" value="{}"></param>\n\n<param name="apply-inbound-acl" value="{}"></param>'


class Switch(Server):
    """A FreeSWITCH on which everything is as it should be."""

    def __init__(self, daemon_port: int) -> None:
        super().__init__()
        self.password = PASSWORD
        self.daemon_port = daemon_port
        self.variables = {
            "script_dir": "/usr/share/freeswitch/scripts",
            HOOK: "lua ringfence_gate.lua",
            "outbound_redirect_fatal": "true",
            "ringfence_daemons": f"127.0.0.1:{daemon_port}",
        }
        self.api |= {
            "module_exists mod_lua": b"true",
            "file_exists /usr/share/freeswitch/scripts/ringfence_gate.lua": b"true",
            "fsctl api_expansion": b"+OK api_expansion is off \n",
            EVENT_SOCKET: LISTENS.format("127.0.0.1", "loopback.auto").encode(),
            "xml_locate dialplan": b"<section/>",
            "xml_locate directory": b"<section/>",
        }

    def answer(self, command: str) -> bytes:
        self.api["global_getvar"] = "\n".join(f"{n}={v}" for n, v in self.variables.items()).encode()
        for prefix, body in self.api.items():
            if prefix.endswith("*") and command.startswith(f"api {prefix[:-1]}"):
                return super().answer(f"api {prefix}") if body is not None else b""
        return super().answer(command)

    async def check(self, tmp_path: Path, password: str = PASSWORD, **options: bool) -> list[Finding]:
        secret = tmp_path / "password"
        secret.write_text(password, encoding="utf-8")
        secret.chmod(0o600)
        settings = FreeSwitchSettings.model_validate(
            {
                "kind": "freeswitch",
                "name": "fs",
                "hook": {"listen": f"127.0.0.1:{self.daemon_port}"},
                "event_socket": {
                    "address": f"127.0.0.1:{self.port}", "password_file": str(secret), "command_timeout_s": 0.5,
                },
            }
        )  # fmt: skip
        return await check_up(settings, EMERGENCY, **options)


@pytest.fixture
async def switch() -> AsyncIterator[Switch]:
    daemon = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    server = Switch(daemon.sockets[0].getsockname()[1])
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    yield server
    listening.close()
    daemon.close()


def wrong(findings: list[Finding]) -> dict[str, State]:
    """What is neither ok nor unseen, by what was looked at."""
    return {f.check: f.state for f in findings if f.state not in (State.OK, State.UNSEEN)}


async def test_a_switch_as_it_should_be_is_all_ok(switch: Switch, tmp_path: Path) -> None:
    findings = await switch.check(tmp_path)
    assert wrong(findings) == {}
    assert [f.check for f in findings if f.state is State.UNSEEN] == ["hook fires"]
    assert SUFFIX not in "".join(f.sentence for f in findings)


async def test_nothing_but_questions_is_ever_sent(switch: Switch, tmp_path: Path) -> None:
    await switch.check(tmp_path)
    (told,) = switch.told
    asked = {command.split()[1] for command in told if command.startswith("api ")}
    assert asked == {"global_getvar", "xml_locate", "module_exists", "file_exists", "fsctl"}
    assert "api fsctl api_expansion" in told
    assert [command for command in told if not command.startswith("api ")] == [f"auth {PASSWORD}"]


@pytest.mark.parametrize(
    ("command", "answer", "check", "state"),
    [
        ("module_exists mod_lua", b"false", "mod_lua", State.MISSING),
        ("file_exists *", b"false", "script", State.UNSAFE),
        ("fsctl api_expansion", b"+OK api_expansion is on \n", "api-expansion", State.UNSAFE),
        ("xml_locate dialplan", f"data='{HOOK}=none'".encode(), "overrides", State.UNSAFE),
        ("xml_locate directory", b"name='execute_on_originate_x'", "overrides", State.MISSING),
    ],
)
async def test_what_is_wrong_is_named(
    switch: Switch, tmp_path: Path, command: str, answer: bytes, check: str, state: State
) -> None:
    switch.api.pop("file_exists /usr/share/freeswitch/scripts/ringfence_gate.lua" if "*" in command else "", None)
    switch.api[command] = answer
    assert wrong(await switch.check(tmp_path)) == {check: state}


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"outbound_redirect_fatal": "false"}, "redirects", State.UNSAFE),
        ({HOOK: "none"}, "hook", State.MISSING),
        ({"execute_on_originate_two00abcdef": "lua ringfence_gate.lua"}, "hook", State.UNSAFE),
        ({"execute_on_originate_other": "set a=b"}, "other hooks", State.UNSAFE),
        ({"ringfence_emergency": "911"}, "emergency", State.MISSING),
        ({"ringfence_emergency": "911,933,112,988,999"}, "emergency", State.UNSAFE),
        ({"ringfence_internal": "loopback/*, sofia/external/*"}, "internal legs", State.UNSAFE),
        ({"ringfence_daemons": "127.0.0.1:1"}, "daemon", State.MISSING),
    ],
)
async def test_a_global_variable_that_is_wrong_is_named(
    switch: Switch, tmp_path: Path, changes: dict[str, str], check: str, state: State
) -> None:
    switch.variables |= changes
    assert wrong(await switch.check(tmp_path))[check] is state


async def test_a_short_suffix_can_be_guessed(switch: Switch, tmp_path: Path) -> None:
    del switch.variables[HOOK]
    switch.variables["execute_on_originate_default"] = "lua ringfence_gate.lua"
    assert wrong(await switch.check(tmp_path)) == {"hook suffix": State.UNSAFE}
    assert is_guessable("a" * 24)
    assert not is_guessable(SUFFIX)


@pytest.mark.parametrize("password", ["ClueCon", "short"])
async def test_a_password_that_others_know_is_unsafe(switch: Switch, tmp_path: Path, password: str) -> None:
    switch.password = password
    assert wrong(await switch.check(tmp_path, password)) == {"password": State.UNSAFE}


async def test_an_event_socket_for_everybody_is_unsafe_and_one_with_an_access_list_is_not(
    switch: Switch, tmp_path: Path
) -> None:
    switch.api[EVENT_SOCKET] = LISTENS.format("::", "lan").encode()
    switch.api["acl *"] = b"true"
    assert wrong(await switch.check(tmp_path)) == {"event socket address": State.UNSAFE}
    switch.api["acl *"] = b"false"
    assert wrong(await switch.check(tmp_path)) == {}


@pytest.mark.parametrize(
    ("originate", "verdict", "reason", "state"),
    [
        (b"+OK leg", b"allow.0123", b"internal", State.OK),
        (b"+OK leg", b"_undef_", b"internal", State.OK),
        (b"+OK leg", b"_undef_", b"_undef_", State.UNSAFE),
        (b"+OK leg", b"_undef_", b"daemon_unavailable", State.MISSING),
        (b"-ERR SWITCH_CONGESTION", b"-ERR No such channel!", b"-ERR No such channel!", State.MISSING),
        (b"-ERR CHAN_NOT_IMPLEMENTED", b"-ERR No such channel!", b"-ERR No such channel!", State.UNSEEN),
    ],
)
async def test_firing_makes_one_leg_that_has_no_network_and_ends_it(
    switch: Switch, tmp_path: Path, originate: bytes, verdict: bytes, reason: bytes, state: State
) -> None:
    switch.api |= {"originate *": originate, "uuid_kill *": b"+OK"}

    def answer(command: str) -> bytes:
        body = {"ringfence_verdict": verdict, "ringfence_reason": reason}.get(command.rsplit(maxsplit=1)[-1])
        if body is None:
            return Switch.answer(switch, command)
        return b"Content-Type: api/response\nContent-Length: %d\n\n%s" % (len(body), body)

    switch.answer = answer  # type: ignore[method-assign]
    findings = await switch.check(tmp_path, fire=True)
    assert {f.check: f.state for f in findings}["hook fires"] is state
    (told,) = switch.told
    (made,) = [command for command in told if "originate " in command]
    leg = made.partition("origination_uuid=")[2].partition("}")[0]
    assert made == f"api originate {{origination_uuid={leg}}}null/ringfence-doctor &park"
    assert f"api uuid_kill {leg}" in told


async def test_a_wrong_password_and_a_closed_port_are_told_apart(switch: Switch, tmp_path: Path) -> None:
    (refused,) = await switch.check(tmp_path, "something-else")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        switch.port = unused.getsockname()[1]
        (absent,) = await switch.check(tmp_path)
    assert {refused.state, absent.state} == {State.UNREACHABLE}
    assert "refuses the password" in refused.sentence
    assert "Connection refused" in absent.sentence


async def test_a_switch_that_falls_silent_is_unreachable_in_the_middle(switch: Switch, tmp_path: Path) -> None:
    switch.api["module_exists mod_lua"] = None
    assert wrong(await switch.check(tmp_path)) == {"event socket": State.UNREACHABLE}


async def test_a_dialplan_too_long_to_read_is_only_not_seen(switch: Switch, tmp_path: Path) -> None:
    switch.api["xml_locate dialplan"] = None
    findings = await switch.check(tmp_path)
    assert wrong(findings) == {}
    assert [f.check for f in findings if f.state is State.UNSEEN] == ["hook fires", "overrides"]


async def test_without_a_password_nothing_is_tried(switch: Switch) -> None:
    settings = FreeSwitchSettings.model_validate({"kind": "freeswitch"})
    with pytest.raises(ConfigError, match="no password"):
        await check_up(settings, EMERGENCY)


async def test_without_an_event_socket_that_is_what_is_missing() -> None:
    settings = FreeSwitchSettings.model_validate({"kind": "freeswitch", "event_socket": None})
    assert wrong(await check_up(settings, EMERGENCY)) == {"event socket": State.MISSING}
