"""The shipped unit as systemd itself reads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.lab.available import systemd_analyze

UNIT = Path(__file__).parents[2] / "systemd" / "ringfence.service"


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """systemd-analyze, which finds the targets it knows among its own files: this machine may have none."""
    program = systemd_analyze()
    assert program is not None, "run scripts/lab-fetch systemd"
    units = [program.parent / "root" / where / "systemd" / "system" for where in ("lib", "usr/lib")]
    environment = {"SYSTEMD_COLORS": "0", "SYSTEMD_UNIT_PATH": ":".join(str(path) for path in units)}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=60
    )


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as shipped, but for the programs, which verify wants to find on this machine."""
    text = UNIT.read_text()
    for program in ("/opt/ringfence/bin/ringfence", "/bin/kill"):
        assert program in text
        text = text.replace(program, "/bin/true")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    return copy


def test_systemd_finds_no_fault_in_the_unit(unit: Path) -> None:
    result = analyze("verify", "--man=no", unit)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_check_would_see_a_misspelt_directive(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectClock=yes", "ProtectClok=yes"))
    assert "ProtectClok" in analyze("verify", "--man=no", unit).stderr


def test_the_service_is_exposed_less_than_two_points(unit: Path) -> None:
    result = analyze("security", "--offline=true", "--no-pager", unit)
    exposure = re.search(r"Overall exposure level for ringfence.service: ([0-9.]+)", result.stdout)
    assert exposure is not None, result.stderr
    assert float(exposure[1]) < 2.0


def test_systemd_restarts_the_daemon_whatever_ends_it_and_watches_that_it_lives() -> None:
    lines = UNIT.read_text().splitlines()
    for wanted in ("Type=notify", "Restart=always", "StartLimitIntervalSec=0", "User=ringfence"):
        assert wanted in lines
    assert any(line.startswith("WatchdogSec=") for line in lines)
