"""`ringfence hook` and `ringfence doctor` as an admin runs them; neither needs a database."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.config import DatabaseSettings
from ringfence.errors import ExitCode
from tests.integration.command import Command

DIALPLAN = Path(__file__).parents[2] / "dialplan"
SUFFIX = re.compile(r"execute_on_originate_([0-9a-f]{24})=lua ringfence_gate\.lua")


@pytest.fixture
def ringfence(tmp_path: Path) -> Command:
    return Command(DatabaseSettings(), tmp_path)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield unused.getsockname()[1]


def configure(ringfence: Command, text: str) -> None:
    with ringfence.config.open("a", encoding="utf-8") as file:
        file.write(text)


def set_in(text: str) -> dict[str, str]:
    """The global variables that a vars.xml sets."""
    return dict(pair.split("=", 1) for pair in re.findall(r'cmd="set" data="([^"]*)"', text))


def test_each_run_prints_another_suffix_and_another_password(ringfence: Command) -> None:
    first, second = (ringfence.ok("hook", "freeswitch").out for _ in range(2))
    suffixes = {SUFFIX.findall(text)[0] for text in (first, second)}
    passwords = {re.findall(r'name="password" value="(\w{32})"', text)[0] for text in (first, second)}
    assert (len(suffixes), len(passwords)) == (2, 2)


def test_what_is_printed_sets_what_the_shipped_sample_sets(ringfence: Command) -> None:
    printed = set_in(ringfence.ok("hook", "freeswitch").out)
    sample = set_in((DIALPLAN / "freeswitch" / "ringfence_vars.xml.sample").read_text(encoding="utf-8"))
    hook = next(name for name in printed if name.startswith("execute_on_originate_"))
    printed["execute_on_originate_SUFFIX"] = printed.pop(hook)
    assert printed == sample


def test_what_is_printed_for_asterisk_is_the_shipped_sample_with_a_secret(ringfence: Command) -> None:
    told = ringfence.ok("hook", "asterisk", "--json").json
    sample = (DIALPLAN / "asterisk" / "manager.conf.sample").read_text(encoding="utf-8")
    lines = [line for line in sample.splitlines() if line and not line.startswith(";")]
    assert told["add"]["manager_conf"] == [line.replace("CHANGE-ME", told["secret"]) for line in lines]
    assert "#include ringfence.conf" in told["add"]["extensions_conf"]


def test_every_file_that_is_to_be_copied_is_there(ringfence: Command) -> None:
    for switch in ("freeswitch", "asterisk"):
        for named in ringfence.ok("hook", switch, "--json").json["copy"].values():
            for path in named if isinstance(named, list) else [named]:
                assert Path(path).is_file()


def test_the_address_is_the_configured_one_or_what_was_asked_for(ringfence: Command) -> None:
    configure(ringfence, "switches: [{kind: freeswitch, hook: {listen: '0.0.0.0:9000'}}]\n")
    assert "ringfence_daemons=127.0.0.1:9000" in ringfence.ok("hook", "freeswitch").out
    several = ringfence.ok("hook", "freeswitch", "--daemon", "10.0.0.1:1", "--daemon", "[::1]:2").out
    assert "ringfence_daemons=10.0.0.1:1,[::1]:2" in several
    assert "ringfence_dialplan_daemons=10.0.0.1:1|[::1]:2" in several
    assert "agi://10.0.0.1:1/gate" in ringfence.ok("hook", "asterisk", "--daemon", "10.0.0.1:1").out
    assert ringfence("hook", "freeswitch", "--daemon", "nonsense").code == ExitCode.BAD_INPUT


def test_a_new_installation_needs_no_configuration_to_print_its_hook(ringfence: Command) -> None:
    ringfence.config.unlink()
    assert "ringfence_daemons=127.0.0.1:8084" in ringfence.ok("hook", "freeswitch").out


def test_a_switch_that_cannot_be_reached_ends_with_7(ringfence: Command, tmp_path: Path, closed_port: int) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-some-length", encoding="utf-8")
    secret.chmod(0o600)
    where = f"{{address: '127.0.0.1:{closed_port}', %s: {secret}}}"
    configure(
        ringfence,
        f"switches:\n- {{kind: freeswitch, name: fs, event_socket: {where % 'password_file'}}}\n"
        f"- {{kind: asterisk, name: pbx, ami: {where % 'secret_file'}, watch: {{trunks: ['PJSIP/carrier']}}}}\n",
    )
    ran = ringfence("doctor", "--json")
    assert ran.code == ExitCode.SWITCH
    told = [(f["switch"], f["check"], f["state"]) for f in ran.json["findings"]]
    assert ("fs", "event socket", "unreachable") in told
    assert ("pbx", "manager", "unreachable") in told
    assert ran.json["ok"] is False
    only = ringfence("doctor", "--switch", "fs")
    assert only.code == ExitCode.SWITCH
    assert "pbx" not in only.out
    assert ringfence("doctor", "--switch", "nobody").code == ExitCode.NOT_FOUND


def test_something_missing_ends_with_1(ringfence: Command) -> None:
    configure(ringfence, "switches: [{kind: freeswitch, event_socket: null}]\n")
    ran = ringfence("doctor")
    assert ran.code == ExitCode.REFUSED
    assert "1 missing" in ran.out


def test_no_switch_at_all_is_a_fault_of_the_configuration(ringfence: Command) -> None:
    assert ringfence("doctor").code == ExitCode.CONFIG
