"""A stand-alone FreeSWITCH 1.10 with its own configuration, ports and directories."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab.available import lab_directory
from tests.lab.freeswitch_config import Gateway, User, document
from tests.lab.ports import free_port
from tests.lab.process import Child, LabError, log_tail, wait_until

__all__ = ["FreeSwitch", "Gateway", "User", "freeswitch_prefix"]

_OTHER_PLACES = ("temp", "storage", "cache", "recordings", "sounds", "htdocs", "grammar")


def freeswitch_prefix() -> Path | None:
    """Where FreeSWITCH is installed: what RINGFENCE_FREESWITCH names, or None."""
    named = os.environ.get("RINGFENCE_FREESWITCH")
    if not named:
        return None
    if not Path(named, "bin", "freeswitch").is_file():
        raise LabError(f"RINGFENCE_FREESWITCH={named}: there is no bin/freeswitch")
    return Path(named)


class FreeSwitch:
    """One FreeSWITCH below `directory`, on 127.0.0.1 with ports of its own.

    Customers call in on the profile `internal` (context `default`); gateways belong to `external`.
    `dialplan` is the extensions of that context, `contexts` are more contexts; `scripts` are put where the
    application `lua` looks; `variables` become global variables, `switch_params` go into switch.conf, `settings`
    is more configuration (call records among them).
    """

    def __init__(
        self,
        directory: Path,
        *,
        gateways: Sequence[Gateway] = (),
        users: Sequence[User] = (),
        dialplan: str = "",
        contexts: str = "",
        scripts: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        switch_params: Mapping[str, str] | None = None,
        password: str = "lab-password",
        settings: str = "",
    ) -> None:
        prefix = freeswitch_prefix()
        if prefix is None:
            raise LabError("the lab has no FreeSWITCH: set RINGFENCE_FREESWITCH to its prefix")
        self._prefix = prefix
        self.directory = directory
        self.sip_port = free_port()
        self.external_port = free_port()
        self.socket_port = free_port()
        self.password = password
        self.log = directory / "log" / "freeswitch.log"
        self.console_log = directory / "console.log"
        self.cdr_directory = directory / "log" / "json_cdr"
        self.variables = dict(variables or {})
        self._content = {
            "gateways": gateways,
            "users": users,
            "dialplan": dialplan,
            "contexts": contexts,
            "switch_params": dict(switch_params or {}),
            "settings": settings,
        }
        self._child: Child | None = None
        self._run_directory: Path | None = None
        for each in ("conf", "log", "db", "scripts", "data"):
            (directory / each).mkdir(parents=True, exist_ok=True)
        for name, text in (scripts or {}).items():
            (directory / "scripts" / name).write_text(text, encoding="utf-8")

    # --- life ----------------------------------------------------------------------------------------

    def start(self, timeout: float = 40.0) -> FreeSwitch:
        """Start it and return once it says it is up."""
        if self._child is not None and self._child.running():
            raise LabError("FreeSWITCH already runs")
        self.write_configuration()
        certificates = lab_directory() / "freeswitch-certs"  # making them takes eight seconds: once is enough
        certificates.mkdir(parents=True, exist_ok=True)
        self._run_directory = run = Path(tempfile.mkdtemp(prefix="rf-fs-"))
        places: dict[str, Path] = {
            "conf": self.directory / "conf",
            "log": self.directory / "log",
            "db": self.directory / "db",
            "scripts": self.directory / "scripts",
            "run": run,
            "certs": certificates,
            **dict.fromkeys(_OTHER_PLACES, self.directory / "data"),
        }
        arguments: list[str | Path] = [self._prefix / "bin" / "freeswitch", "-nonat", "-nonatmap", "-nc", "-nf"]
        for name, place in places.items():
            arguments += [f"-{name}", place]
        self._child = child = Child(arguments, self.console_log, cwd=self.directory)
        wait_until(
            lambda: child.must_run() and "UP" in self._try_cli("status") and self._profiles_run(),
            timeout,
            "FreeSWITCH is up",
            log=self.log,
            interval=0.2,
        )
        return self

    def stop(self) -> None:
        """End it at once but in order, calls included."""
        if self._child is not None and self._child.running():
            self._child.stop(15)
        self._forget()

    def kill9(self) -> None:
        """Kill it as a crash would."""
        if self._child is not None:
            self._child.kill9()
        self._forget()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same ports with the same files."""
        self.stop()
        self.start()

    def running(self) -> bool:
        """Whether the process runs."""
        return self._child is not None and self._child.running()

    @property
    def pid(self) -> int:
        """The process id; `LabError` when it was not started."""
        if self._child is None:
            raise LabError("FreeSWITCH was not started")
        return self._child.pid

    # --- use -----------------------------------------------------------------------------------------

    @property
    def sip_address(self) -> tuple[str, int]:
        """Where customers send their INVITEs."""
        return ("127.0.0.1", self.sip_port)

    def cli(self, command: str, timeout: float = 30) -> str:
        """The output of one API command."""
        done = self._run_cli(command, timeout)
        if done.returncode not in (0, 255):  # 255: the command answered -ERR
            raise LabError(f"fs_cli -x {command!r}: {done.stdout}{done.stderr}\n{log_tail(self.log)}")
        return done.stdout

    def set_global(self, name: str, value: str) -> None:
        """Change a global variable while it runs."""
        self.variables[name] = value
        self.cli(f"global_setvar {name}={value}")

    def active_channels(self) -> int:
        """How many channels there are now."""
        rows: dict[str, Any] = json.loads(self.cli("show channels as json"))
        return int(rows["row_count"])

    def cdrs(self) -> list[dict[str, Any]]:
        """The JSON call records written so far."""
        return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(self.cdr_directory.glob("*.json"))]

    def log_text(self) -> str:
        """The log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def write_configuration(self) -> None:
        """Write freeswitch.xml from what it was made with and the present `variables`."""
        text = document(
            sip_port=self.sip_port,
            external_port=self.external_port,
            socket_port=self.socket_port,
            password=self.password,
            variables=self.variables,
            **self._content,  # type: ignore[arg-type]
        )
        (self.directory / "conf" / "freeswitch.xml").write_text(text, encoding="utf-8")

    # --- inside --------------------------------------------------------------------------------------

    def __enter__(self) -> FreeSwitch:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _forget(self) -> None:
        self._child = None
        if self._run_directory is not None:
            shutil.rmtree(self._run_directory, ignore_errors=True)
            self._run_directory = None

    def _profiles_run(self) -> bool:
        status = self._try_cli("sofia status")
        return status.count("RUNNING") >= 2

    def _run_cli(self, command: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        program = self._prefix / "bin" / "fs_cli"
        where = ["-H", "127.0.0.1", "-P", str(self.socket_port), "-p", self.password]
        return subprocess.run(
            [program, *where, "-x", command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def _try_cli(self, command: str) -> str:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.socket_port)) != 0:
                return ""
        return self._run_cli(command).stdout
