"""`scripts/demo` as a newcomer runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.available import asterisk_versions
from tests.lab.process import wait_until

ROOT = Path(__file__).parents[2]


def command() -> list[str]:
    """What scripts/demo runs once everything is installed."""
    versions = asterisk_versions()
    if not versions:
        pytest.skip("the lab has no Asterisk: run scripts/lab-fetch asterisk22")
    return [sys.executable, "-m", "scripts.demo", "--asterisk", str(versions[-1])]


def processes_of(place: str) -> list[str]:
    """Command lines of running processes that name this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if place in line:
            found.append(line)
    return found


def test_the_demo_shows_each_outcome_and_cleans_up() -> None:
    done = subprocess.run(command(), cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [re.split(r"\s*│\s*", line)[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    shown = {row[0]: row[2:] for row in rows if len(row) == 4}
    assert shown["Acme shows its own number"] == ["200", "1"]
    assert shown["Acme shows someone else's number"] == ["403", "0"]
    assert shown["Dialer makes 6 calls at once, its cap is 2 a second"] == ["2 x 200, 4 x 480", "2"]
    assert shown["Sleeper is suspended"] == ["403", "0"]
    assert shown["Sleeper, suspended, dials 911"] == ["200", "1"]
    assert '"event": "call.decided"' in done.stdout
    assert "Latency" in done.stdout


@pytest.fixture
def place() -> Iterator[Path]:
    """A temporary directory that root's PostgreSQL, which runs as another user, can pass through."""
    with tempfile.TemporaryDirectory(prefix="rf-demo-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_ctrl_c_stops_everything_the_demo_started(place: Path) -> None:
    demo = subprocess.Popen(
        command(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home()), "TMPDIR": str(place)},
        start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(
            lambda: any("asterisk" in line for line in processes_of(str(place))), 60, "the demo runs an Asterisk"
        )
        demo.send_signal(signal.SIGINT)
        out, _ = demo.communicate(timeout=30)
        assert demo.returncode == 130, out
        assert processes_of(str(place)) == []
        assert list(place.glob("ringfence-demo-*")) == []
    finally:
        demo.kill()
