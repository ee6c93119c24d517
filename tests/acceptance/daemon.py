"""The daemon as an operator runs it: `ringfence serve` with a configuration file, and the operator's commands."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from ringfence.cli.app import app
from tests.lab.process import Child, LabError, wait_until

_SOURCE = Path(__file__).parents[2] / "daemon"
_COMMAND = [sys.executable, "-c", "from ringfence.cli import main; main()"]


class Daemon:
    """One `ringfence serve` for one Asterisk. It watches the trunks that `watched` names."""

    def __init__(
        self,
        directory: Path,
        *,
        dsn: str,
        agi_port: int,
        ami_port: int,
        ami_secret: str,
        host: str = "lab-host",
        watched: Sequence[str] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        secret = directory / "ami-secret"
        secret.write_text(ami_secret, encoding="utf-8")
        secret.chmod(0o600)
        self.agi_port = agi_port
        self.log = directory / "daemon.log"
        self.config = directory / "ringfence.yaml"
        switch = {
            "kind": "asterisk",
            "name": "lab",
            "fastagi": {"listen": f"127.0.0.1:{agi_port}"},
            "ami": {
                "address": f"127.0.0.1:{ami_port}",
                "secret_file": str(secret),
                "reconnect_min_s": 0.05,
                "reconnect_max_s": 0.2,
            },
            "watch": {"mode": "kill", "trunks": list(watched)},
        }
        settings = {
            "host": host,
            "database": {"dsn": dsn},
            "switches": [switch],
            "journal": {"spool_directory": str(directory / "spool")},
            "logging": {"format": "json"},
        }
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        self._child: Child | None = None

    def start(self) -> Daemon:
        """Start it and return once its gate answers connections."""
        environment = {**os.environ, "PYTHONPATH": str(_SOURCE)}
        self._child = child = Child([*_COMMAND, "serve", "--config", self.config], self.log, env=environment)
        wait_until(lambda: child.must_run() and self._listens(), 15, "the daemon's gate listens", log=self.log)
        return self

    def stop(self) -> None:
        """Stop it as systemd does."""
        if self._child is not None and self._child.running() and (code := self._child.stop(10)) != 0:
            raise LabError(f"the daemon ended with {code}: see {self.log}")

    def watch(self, mode: str) -> None:
        """Have it treat legs that nobody asked about in this way, from its next start on."""
        settings = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        settings["switches"][0]["watch"]["mode"] = mode
        self.config.write_text(yaml.safe_dump(settings), encoding="utf-8")

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._child is not None
        self._child.send(number)

    def kill9(self) -> None:
        """Kill it without warning."""
        if self._child is not None:
            self._child.kill9()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections to it are accepted (by the kernel) and nobody ever answers."""
        assert self._child is not None
        self._child.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.send(signal.SIGCONT)

    def operator(self, *arguments: str) -> None:
        """Run an operator's command with the daemon's configuration, in this process for speed."""
        code = app(["--config", str(self.config), *arguments], prog_name="ringfence", standalone_mode=False)
        if code not in (None, 0):
            raise LabError(f"ringfence {' '.join(arguments)} ended with {code}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.agi_port)) == 0
