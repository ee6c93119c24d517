"""What `pip install .` puts on a machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as built and installed, away from the source tree."""
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", place], cwd=ROOT, check=True)
    [wheel] = place.glob("*.whl")
    target = place / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(pip, check=True)
    return target


def test_the_sql_files_are_shipped_and_found(installed: Path) -> None:
    script = (
        "import ringfence, ringfence.store.sqlfiles as s; print(ringfence.__file__); "
        "print(len(s.migrations()), len(s.functions()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(installed)}, cwd="/", capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    where, counts = done.stdout.splitlines()
    assert where.startswith(str(installed))
    migrations, functions = (
        len(list((ROOT / "sql" / part).glob("*.sql"))) for part in ("migrations", "functions")
    )
    assert counts == f"{migrations} {functions}"


def test_the_files_an_admin_copies_are_shipped(installed: Path) -> None:
    shared = installed / "share" / "ringfence"
    for path in ("dialplan/asterisk/ringfence.conf", "systemd/ringfence.service", "systemd/ringfence.yaml"):
        assert (shared / path).read_bytes() == (ROOT / path).read_bytes()


def test_the_command_runs_from_the_installed_package(installed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ringfence", "--version"], env={"PYTHONPATH": str(installed)}, cwd="/",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("ringfence ")
