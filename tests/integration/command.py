"""Running `ringfence` as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.config import DatabaseSettings

PROGRAM = [sys.executable, "-c", "from ringfence.cli import main; main()"]


@dataclass(frozen=True, slots=True)
class Ran:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


class Command:
    """`ringfence` with a configuration file for one database."""

    def __init__(self, database: DatabaseSettings, directory: Path) -> None:
        self.config = directory / "ringfence.yaml"
        self.config.write_text(f"host: pbx1\ndatabase:\n  dsn: {json.dumps(database.dsn)}\n", encoding="utf-8")

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every run."""
        return {**os.environ, "RINGFENCE_CONFIG": str(self.config), "COLUMNS": "200", "SUDO_USER": "tester"}

    def __call__(self, *arguments: str, stdin: bytes = b"") -> Ran:
        """Run to the end and return how it went, whatever the exit code."""
        done = subprocess.run(
            [*PROGRAM, *arguments], input=stdin, capture_output=True, timeout=60, env=self.environment, check=False
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def ok(self, *arguments: str, stdin: bytes = b"") -> Ran:
        """Run and require exit code 0."""
        ran = self(*arguments, stdin=stdin)
        assert ran.code == 0, ran.err
        return ran

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start without waiting."""
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
