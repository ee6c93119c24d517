"""What the check-up of an Asterisk says, against a stand-in manager."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from ringfence.config import AsteriskSettings
from ringfence.switches.asterisk.checkup import MODULES, NEEDED, check_up
from ringfence.switches.findings import Finding, State
from tests.unit.test_ami import SECRET, StandInAmi, response

EMERGENCY = ("911", "933", "112", "988")
FILTER = "Event: (AttendedTransfer|BlindTransfer|DialBegin|DialEnd|DialState|Hangup|HangupRequest|UserEvent)"
HOOKED = """\
[out]
exten => _X.,1,Gosub(ringfence,${EXTEN},1)
 same => n,Dial(PJSIP/${RINGFENCE_NUMBER}@carrier,30)
exten => 911,1,Dial(PJSIP/${EXTEN}@carrier,30)
"""
UNHOOKED = "[out]\nexten => _X.,1,Dial(PJSIP/${EXTEN}@carrier,30)\n"


class Manager(StandInAmi):
    """A manager whose Asterisk is as it should be."""

    def __init__(self, daemon_port: int) -> None:
        super().__init__()
        self.daemon_port = daemon_port
        self.may = [*NEEDED, "Ping"]
        self.prints: list[str] = []
        self.replies = {"ListCommands": self._list, "Getvar": self._getvar, "Command": self._command}
        self.values = {
            "RINGFENCE_AGI": f"agi://127.0.0.1:{daemon_port}/gate",
            **{f"IFMODULE({module}.so)": "1" for module in (*MODULES, "func_module")},
            **{f"DIALPLAN_EXISTS(ringfence{form},1,1)": "1" for form in ("", "-before", "-after")},
            "DIALPLAN_EXISTS(ringfence-leg,s,1)": "1",
            "AST_CONFIG(manager.conf,general,enabled)": "yes",
            "AST_CONFIG(manager.conf,general,bindaddr)": "127.0.0.1",
            "AST_CONFIG(manager.conf,general,channelvars)": "RINGFENCE_DECISION,RINGFENCE_CUSTOMER",
            "AST_CONFIG(manager.conf,ringfence,read)": "call,user",
            "AST_CONFIG(manager.conf,ringfence,eventfilter)": FILTER,
            "AST_CONFIG(cdr_custom.conf,mappings,ringfence.csv)": "${CDR(ringfence_decision)}",
            "AST_CONFIG(cdr.conf,general,unanswered)": "yes",
        }

    def _list(self, action: Mapping[str, str]) -> str:
        return response(action, **{name: f"Does it.  (Priv: {name})" for name in self.may})

    def _getvar(self, action: Mapping[str, str]) -> str:
        variable = action["Variable"]
        return response(action, Variable=variable, Value=self.values.get(variable, ""))

    def _command(self, action: Mapping[str, str]) -> str:
        lines = "".join(f"Output: {line}\r\n" for line in self.prints)
        return response(action, Message="Command output follows").removesuffix("\r\n") + lines + "\r\n"

    async def check(self, tmp_path: Path, dialplan: str | None = HOOKED, **changes: object) -> list[Finding]:
        secret, extensions = tmp_path / "secret", tmp_path / "extensions.conf"
        secret.write_text(SECRET, encoding="utf-8")
        secret.chmod(0o600)
        extensions.write_text(dialplan or "", encoding="utf-8")
        settings = AsteriskSettings.model_validate(
            {
                "kind": "asterisk",
                "name": "pbx",
                "fastagi": {"listen": f"127.0.0.1:{self.daemon_port}"},
                "ami": {"address": f"127.0.0.1:{self.port}", "secret_file": str(secret), "action_timeout_s": 1},
                "watch": {"trunks": ["PJSIP/carrier"]},
                **changes,
            }
        )
        return await check_up(settings, EMERGENCY, [extensions] if dialplan is not None else [])


@pytest.fixture
async def pbx() -> AsyncIterator[Manager]:
    daemon = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    manager = Manager(daemon.sockets[0].getsockname()[1])
    await manager.start()
    yield manager
    await manager.stop()
    daemon.close()


def wrong(findings: list[Finding]) -> dict[str, State]:
    return {f.check: f.state for f in findings if f.state not in (State.OK, State.UNSEEN)}


def unseen(findings: list[Finding]) -> list[str]:
    return [f.check for f in findings if f.state is State.UNSEEN]


async def test_a_switch_as_it_should_be_is_all_ok(pbx: Manager, tmp_path: Path) -> None:
    findings = await pbx.check(tmp_path)
    assert (wrong(findings), unseen(findings)) == ({}, [])


async def test_nothing_but_questions_is_ever_sent(pbx: Manager, tmp_path: Path) -> None:
    await pbx.check(tmp_path)
    assert {action["Action"] for action in pbx.actions} == {"Login", "ListCommands", "Getvar"}


@pytest.mark.parametrize(
    ("changes", "check", "state"),
    [
        ({"IFMODULE(func_hangupcause.so)": "0"}, "modules", State.MISSING),
        ({"DIALPLAN_EXISTS(ringfence-leg,s,1)": "0"}, "hook", State.MISSING),
        ({"AST_CONFIG(manager.conf,general,channelvars)": "OTHER"}, "channelvars", State.MISSING),
        ({"AST_CONFIG(manager.conf,general,bindaddr)": "0.0.0.0"}, "manager address", State.UNSAFE),
        ({"AST_CONFIG(manager.conf,ringfence,read)": "call"}, "manager events", State.MISSING),
        ({"AST_CONFIG(manager.conf,ringfence,eventfilter)": ""}, "event filter", State.MISSING),
        ({"AST_CONFIG(manager.conf,ringfence,eventfilter)": "Event: Hangup"}, "event filter", State.MISSING),
        ({"AST_CONFIG(cdr_custom.conf,mappings,ringfence.csv)": ""}, "call records", State.MISSING),
        ({"AST_CONFIG(cdr.conf,general,unanswered)": ""}, "refused calls", State.MISSING),
        ({"RINGFENCE_EMERGENCY": "911"}, "emergency", State.MISSING),
        ({"RINGFENCE_EMERGENCY": "911|933|112|988|999"}, "emergency", State.UNSAFE),
        ({"RINGFENCE_AGI": "http://127.0.0.1"}, "daemon", State.MISSING),
    ],
)
async def test_what_is_wrong_is_named(
    pbx: Manager, tmp_path: Path, changes: dict[str, str], check: str, state: State
) -> None:
    pbx.values |= changes
    assert wrong(await pbx.check(tmp_path)) == {check: state}


async def test_a_daemon_that_does_not_answer_where_it_is_asked_is_missing(pbx: Manager, tmp_path: Path) -> None:
    pbx.values["RINGFENCE_AGI"] = "agi://127.0.0.1:1/gate"
    assert wrong(await pbx.check(tmp_path)) == {"daemon": State.MISSING, "daemon address": State.MISSING}


async def test_a_user_with_too_little_or_too_much_power_is_named(pbx: Manager, tmp_path: Path) -> None:
    pbx.may = ["Getvar", "Originate", "Command", "Ping"]
    findings = await pbx.check(tmp_path)
    states = [(f.state, re.findall(r"[A-Z]\w+", f.sentence)) for f in findings if f.check == "manager rights"]
    assert states == [
        (State.MISSING, ["Hangup", "Setvar", "Status"]),
        (State.UNSAFE, ["Command", "Originate"]),
    ]


async def test_extensions_that_go_around_the_hook_are_listed(pbx: Manager, tmp_path: Path) -> None:
    findings = await pbx.check(tmp_path, UNHOOKED)
    assert wrong(findings) == {"extensions": State.UNSAFE}
    assert "out, _X. (extensions.conf:2) dials PJSIP/carrier unasked" in findings[-1].sentence


async def test_without_a_file_the_dialplan_is_not_seen_unless_the_user_may_ask(
    pbx: Manager, tmp_path: Path
) -> None:
    assert unseen(await pbx.check(tmp_path, None)) == ["extensions"]
    pbx.may.append("Command")
    pbx.prints = ["[ Context 'out' created by 'pbx_config' ]", "  '_X.' => 1. Dial(PJSIP/1@carrier) [a.conf:1]"]
    assert wrong(await pbx.check(tmp_path, None)) == {"manager rights": State.UNSAFE, "extensions": State.UNSAFE}


async def test_what_asterisk_does_not_tell_is_said_to_be_unseen(pbx: Manager, tmp_path: Path) -> None:
    kept = {"RINGFENCE_AGI"}
    pbx.values = {name: value for name, value in pbx.values.items() if name in kept}
    findings = await pbx.check(tmp_path)
    assert (wrong(findings), unseen(findings)) == ({}, ["modules", "hook", "manager.conf"])


async def test_a_file_that_cannot_be_read_is_named(pbx: Manager, tmp_path: Path) -> None:
    settings = AsteriskSettings.model_validate({"kind": "asterisk", "ami": None})
    findings = await check_up(settings, EMERGENCY, [tmp_path / "none.conf"])
    assert wrong(findings) == {"watch": State.MISSING, "manager": State.MISSING}
    assert "none.conf: No such file" in findings[-1].sentence


async def test_a_refused_login_and_a_closed_port_are_told_apart(pbx: Manager, tmp_path: Path) -> None:
    pbx.replies["Login"] = lambda action: response(action, "Error", Message="Authentication failed")
    refused = (await pbx.check(tmp_path))[-1]
    await pbx.stop()
    absent = (await pbx.check(tmp_path))[-1]
    assert {refused.state, absent.state} == {State.UNREACHABLE}
    assert "refuses 'ringfence'" in refused.sentence
    assert "Connection refused" in absent.sentence


async def test_a_manager_that_falls_silent_is_unreachable_in_the_middle(pbx: Manager, tmp_path: Path) -> None:
    pbx.replies["ListCommands"] = lambda _: None
    assert wrong(await pbx.check(tmp_path)) == {"manager": State.UNREACHABLE}
