"""`ringfence doctor` on real switches that were set up with what `ringfence hook` prints."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.cli.app import app
from tests.acceptance.daemon import Daemon
from tests.acceptance.freeswitch_site import FreeSwitchDaemon
from tests.lab.asterisk import Asterisk, Trunk
from tests.lab.available import asterisk_versions
from tests.lab.freeswitch import FreeSwitch, Gateway, freeswitch_prefix
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres

SHIPPED = Path(__file__).parents[2] / "dialplan"
CARRIER = ("127.0.0.2", 9)  # the discard port: nobody is there
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Answer:
    """What the doctor said."""

    code: int
    findings: list[dict[str, str]]

    def states(self, *states: str) -> dict[str, str]:
        """State by what was looked at, for these states."""
        return {f["check"]: f["state"] for f in self.findings if f["state"] in states}

    @property
    def wrong(self) -> dict[str, str]:
        """What is missing, unsafe or unreachable."""
        return self.states("missing", "unsafe", "unreachable")


def run(capsys: Capture, *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = app([*arguments, "--json"], prog_name="ringfence", standalone_mode=False)
    return int(code or 0), json.loads(capsys.readouterr().out)


def hook(kind: str, port: int) -> Any:
    """What `ringfence hook` prints for a daemon at this port."""
    with redirect_stdout(text := io.StringIO()):
        arguments = ["--config", "/nonexistent", "hook", kind, "--daemon", f"127.0.0.1:{port}", "--json"]
        app(arguments, prog_name="ringfence", standalone_mode=False)
    return json.loads(text.getvalue())


@pytest.fixture(scope="module")
def database(postgres: EmbeddedPostgres) -> Callable[[str], str]:
    return postgres.create_database


# --- FreeSWITCH -----------------------------------------------------------------------------------------------


class Careless(FreeSwitch):
    """A FreeSWITCH whose admin loaded no mod_lua."""

    def write_configuration(self) -> None:
        super().write_configuration()
        path = self.directory / "conf" / "freeswitch.xml"
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace('<load module="mod_lua"/>', ""), encoding="utf-8")


needs_freeswitch = pytest.mark.skipif(
    freeswitch_prefix() is None, reason="RINGFENCE_FREESWITCH names no FreeSWITCH"
)


@dataclass
class Switch:
    """A running FreeSWITCH with its daemon."""

    switch: FreeSwitch
    daemon: FreeSwitchDaemon
    hook: str

    def doctor(self, capsys: Capture, *options: str) -> Answer:
        code, told = run(capsys, "--config", str(self.daemon.config), "doctor", *options)
        assert told["ok"] is (code == 0)
        return Answer(code, told["findings"])

    @contextmanager
    def globals(self, **values: str) -> Iterator[None]:
        before = {name: self.switch.variables.get(name, "") for name in values}
        for name, value in values.items():
            self.switch.set_global(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                self.switch.set_global(name, value)


@pytest.fixture(scope="module")
def freeswitch(tmp_path_factory: pytest.TempPathFactory, database: Callable[[str], str]) -> Iterator[Switch]:
    directory, port = tmp_path_factory.mktemp("doctor-fs"), free_port()
    printed = hook("freeswitch", port)
    gate = Path(printed["copy"]["gate"])
    switch = FreeSwitch(
        directory / "switch",
        gateways=[Gateway("carrier", *CARRIER)],
        scripts={gate.name: gate.read_text(encoding="utf-8")},
        variables=printed["variables"],
        password=printed["password"],
    )
    daemon = FreeSwitchDaemon(
        directory / "daemon",
        dsn=database("doctor_fs"),
        hook_port=port,
        socket_port=switch.socket_port,
        password=printed["password"],
    )
    daemon.operator("db", "migrate")
    with switch:
        daemon.start()
        yield Switch(switch, daemon, next(name for name in printed["variables"] if "originate" in name))
        daemon.stop()


@needs_freeswitch
def test_a_freeswitch_set_up_as_printed_is_all_ok(freeswitch: Switch, capsys: Capture) -> None:
    before = freeswitch.switch.cli("global_getvar")
    answer = freeswitch.doctor(capsys, "--fire")
    assert answer.states("missing", "unsafe", "unreachable", "unseen") == {}
    assert answer.code == 0
    assert freeswitch.switch.cli("global_getvar") == before
    assert freeswitch.switch.active_channels() == 0
    assert "sending invite" not in freeswitch.switch.log_text()


@needs_freeswitch
@pytest.mark.parametrize(
    ("variable", "value", "check", "state"),
    [
        ("HOOK", "", "hook", "missing"),
        ("HOOK", "socket 127.0.0.1:8084 full", "other hooks", "unsafe"),
        ("outbound_redirect_fatal", "", "redirects", "unsafe"),
        ("execute_on_originate_default", "lua ringfence_gate.lua", "hook suffix", "unsafe"),
        ("ringfence_daemons", "127.0.0.1:1", "daemon", "missing"),
        ("ringfence_emergency", "911", "emergency", "missing"),
        ("HOOK", "lua ringfence_gate.lua.old", "script", "unsafe"),
    ],
)
def test_a_variable_that_is_wrong_on_freeswitch_is_named(
    freeswitch: Switch, capsys: Capture, variable: str, value: str, check: str, state: str
) -> None:
    with freeswitch.globals(**{variable.replace("HOOK", freeswitch.hook): value}):
        answer = freeswitch.doctor(capsys)
    assert answer.wrong[check] == state
    assert answer.code == 1
    assert freeswitch.doctor(capsys).wrong == {}


@needs_freeswitch
def test_api_expansion_is_named_and_left_as_it_is(freeswitch: Switch, capsys: Capture) -> None:
    freeswitch.switch.cli("fsctl api_expansion on")
    assert freeswitch.doctor(capsys).wrong == {"api-expansion": "unsafe"}
    assert "is on" in freeswitch.switch.cli("fsctl api_expansion")
    freeswitch.switch.cli("fsctl api_expansion off")
    assert freeswitch.doctor(capsys).wrong == {}


@needs_freeswitch
def test_firing_shows_a_hook_that_is_gone_and_a_daemon_that_is_down(freeswitch: Switch, capsys: Capture) -> None:
    with freeswitch.globals(**{freeswitch.hook: ""}):
        assert freeswitch.doctor(capsys, "--fire").wrong == {"hook": "missing", "hook fires": "unsafe"}
    freeswitch.daemon.stop()
    try:
        assert freeswitch.doctor(capsys, "--fire").wrong == {"daemon": "missing", "hook fires": "missing"}
    finally:
        freeswitch.daemon.start()
    assert "sending invite" not in freeswitch.switch.log_text()


@needs_freeswitch
def test_a_careless_freeswitch_is_told_everything_at_once(tmp_path: Path, capsys: Capture) -> None:
    port = free_port()
    dialplan = '<extension name="x"><condition><action application="set" data="execute_on_originate_1=info"/>'
    switch = Careless(
        tmp_path / "switch",
        password="ClueCon",
        switch_params={"api-expansion": "true"},
        dialplan=f"{dialplan}</condition></extension>",
    )
    daemon = FreeSwitchDaemon(
        tmp_path / "daemon",
        dsn="postgresql:///x",
        hook_port=port,
        socket_port=switch.socket_port,
        password="ClueCon",
    )
    with switch:
        answer = Switch(switch, daemon, "").doctor(capsys)
    assert answer.wrong == {
        "password": "unsafe", "hook": "missing", "mod_lua": "missing", "script": "unsafe",
        "api-expansion": "unsafe", "redirects": "unsafe", "daemon": "missing",
        "daemon address": "missing", "overrides": "missing",
    }  # fmt: skip
    gone = Switch(switch, daemon, "").doctor(capsys)
    assert (gone.code, gone.wrong) == (7, {"event socket": "unreachable"})


# --- Asterisk ---------------------------------------------------------------------------------------------------


@dataclass
class Pbx:
    """A running Asterisk with its daemon."""

    asterisk: Asterisk
    daemon: Daemon

    def doctor(self, capsys: Capture, *, dialplan: Path | None = None, **ami: str) -> Answer:
        settings = yaml.safe_load(self.daemon.config.read_text(encoding="utf-8"))
        settings["switches"][0]["ami"] |= ami
        config = self.daemon.config.with_name("doctor.yaml")
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        files = dialplan or self.asterisk.etc / "extensions.conf"
        code, told = run(capsys, "--config", str(config), "doctor", "--dialplan", str(files))
        return Answer(code, told["findings"])

    @contextmanager
    def changed(self, name: str, changes: Mapping[str, str]) -> Iterator[None]:
        """A configuration file with these texts replaced."""
        before = (self.asterisk.etc / name).read_text(encoding="utf-8")
        text = before
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        self.asterisk.write(name, text)
        try:
            yield
        finally:
            self.asterisk.write(name, before)


@pytest.fixture(scope="module", params=(16, 22), ids=("asterisk16", "asterisk22"))
def pbx(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    database: Callable[[str], str],
) -> Iterator[Pbx]:
    version: int = request.param
    if version not in asterisk_versions():
        pytest.skip(f"the lab has no Asterisk {version}")
    directory, port = tmp_path_factory.mktemp(f"doctor-{version}"), free_port()
    printed = hook("asterisk", port)
    add = {name: "\n".join(lines) for name, lines in printed["add"].items()}
    copied = [Path(printed["copy"]["hook"]), *map(Path, printed["copy"]["call_records"])]
    asterisk = Asterisk(
        version,
        directory / "asterisk",
        trunks=[Trunk("carrier", *CARRIER)],
        extensions=f"{add['extensions_conf']}\n[from-customer]\n{add['each_extension']}\n",
        files={path.name.removesuffix(".sample"): path.read_text(encoding="utf-8") for path in copied},
        extra_modules=("func_module", "func_config"),  # as in every ordinary installation
    )
    manager = add["manager_conf"].replace("port=5038", f"port={asterisk.ami_port}")
    strong = f"[strong]\nsecret={printed['secret']}\nread=all\nwrite=all\n"
    asterisk.write("manager.conf", f"{manager}\n{strong}")
    daemon = Daemon(
        directory / "daemon",
        dsn=database(f"doctor_{version}"),
        agi_port=port,
        ami_port=asterisk.ami_port,
        ami_secret=printed["secret"],
        watched=["PJSIP/carrier"],
    )
    daemon.operator("db", "migrate")
    with asterisk:
        daemon.start()
        yield Pbx(asterisk, daemon)
        daemon.stop()


def test_an_asterisk_set_up_as_printed_is_all_ok(pbx: Pbx, capsys: Capture) -> None:
    answer = pbx.doctor(capsys)
    assert answer.states("missing", "unsafe", "unreachable", "unseen") == {}
    assert answer.code == 0
    assert "warning" not in pbx.daemon.log.read_text(encoding="utf-8")


def test_a_module_that_the_hook_needs_is_named(pbx: Pbx, capsys: Capture) -> None:
    pbx.asterisk.cli("module unload func_hangupcause.so")
    answer = pbx.doctor(capsys)
    pbx.asterisk.cli("module load func_hangupcause.so")
    assert (answer.code, answer.wrong) == (1, {"modules": "missing"})
    assert any("func_hangupcause" in finding["sentence"] for finding in answer.findings)


def test_a_user_with_too_much_power_is_named(pbx: Pbx, capsys: Capture) -> None:
    answer = pbx.doctor(capsys, username="strong")
    assert answer.wrong == {"manager rights": "unsafe"} | answer.states("missing")
    (finding,) = [finding for finding in answer.findings if finding["check"] == "manager rights"]
    assert "Originate" in finding["sentence"]
    assert "Command" in finding["sentence"]


def test_an_extension_without_the_hook_is_named(pbx: Pbx, capsys: Capture, tmp_path: Path) -> None:
    around = tmp_path / "extensions.conf"
    around.write_text("[out]\nexten => _X.,1,Dial(PJSIP/${EXTEN}@carrier)\n", encoding="utf-8")
    answer = pbx.doctor(capsys, dialplan=around)
    assert (answer.code, answer.wrong) == (1, {"extensions": "unsafe"})
    assert "out, _X. (extensions.conf:2) dials PJSIP/carrier unasked" in answer.findings[-1]["sentence"]


def test_the_running_dialplan_says_the_same_as_its_files(pbx: Pbx, capsys: Capture, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    shown.write_text(pbx.asterisk.cli("dialplan show"), encoding="utf-8")
    assert pbx.doctor(capsys, dialplan=shown).findings[-1] == pbx.doctor(capsys).findings[-1]


def test_a_hook_that_is_not_included_is_named(pbx: Pbx, capsys: Capture) -> None:
    with pbx.changed("extensions.conf", {"#include ringfence.conf": ""}):
        pbx.asterisk.cli("dialplan reload")
        assert pbx.doctor(capsys).wrong == {"hook": "missing"}
    pbx.asterisk.cli("dialplan reload")
    assert pbx.doctor(capsys).wrong == {}


@pytest.mark.parametrize(
    ("name", "old", "new", "check", "state"),
    [
        ("manager.conf", "channelvars=", ";channelvars=", "channelvars", "missing"),
        ("manager.conf", "eventfilter=", ";eventfilter=", "event filter", "missing"),
        ("manager.conf", "read=call,user", "read=call", "manager events", "missing"),
        ("cdr.conf", "unanswered=yes", "unanswered=no", "refused calls", "missing"),
    ],
)
def test_a_file_that_lacks_what_the_daemon_needs_is_named(
    pbx: Pbx, capsys: Capture, name: str, old: str, new: str, check: str, state: str
) -> None:
    with pbx.changed(name, {old: new}):
        assert pbx.doctor(capsys).wrong == {check: state}
    assert pbx.doctor(capsys).wrong == {}


def test_a_daemon_that_is_down_is_named_and_a_switch_that_is_down_ends_with_7(pbx: Pbx, capsys: Capture) -> None:
    pbx.daemon.stop()
    try:
        assert pbx.doctor(capsys).wrong == {"daemon": "missing"}
    finally:
        pbx.daemon.start()
    pbx.asterisk.stop()
    try:
        answer = pbx.doctor(capsys)
        assert (answer.code, answer.wrong) == (7, {"manager": "unreachable"})
    finally:
        pbx.asterisk.start()
