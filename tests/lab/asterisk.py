"""A stand-alone Asterisk 16 or 22 with its own configuration, ports and directories."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.asterisk_config import (
    CDR_FIELDS,
    MODULES,
    OPTIONAL_MODULES,
    PLAIN_FILES,
    cdr_custom,
    directories,
    manager,
    pjsip,
)
from tests.lab.available import asterisk_directory
from tests.lab.ports import free_port
from tests.lab.process import Child, LabError, log_tail, wait_until

# What a switch does when nobody asks it anything: every call goes out through the carrier.
OPEN_DIALPLAN = """
[from-customer]
exten => _X.,1,Dial(PJSIP/${EXTEN}@carrier,30)
 same => n,Hangup()
"""


@dataclass(frozen=True)
class Customer:
    """A PJSIP endpoint recognised by the address its calls come from."""

    name: str
    source_ip: str
    accountcode: str = ""
    context: str = "from-customer"
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trunk:
    """A PJSIP endpoint that calls leave through; calls from its address come into `context`."""

    name: str
    address: str
    port: int
    context: str = "from-carrier"
    options: str = ""


class Asterisk:
    """One Asterisk instance below `directory`, on 127.0.0.1 with ports of its own.

    `extensions` becomes extensions.conf as it stands; `files` are put beside it under their names, so
    the dialplan can `#include` them. A name of `files` that the lab writes too (`pjsip.conf`, …) wins.
    """

    def __init__(
        self,
        version: int,
        directory: Path,
        *,
        customers: Sequence[Customer] = (Customer("customer", "127.0.0.11", "ACME"),),
        trunks: Sequence[Trunk] = (),
        extensions: str = OPEN_DIALPLAN,
        files: Mapping[str, str] | None = None,
        extra_pjsip: str = "",
        extra_modules: Sequence[str] = (),
        channel_variables: Sequence[str] = (),
        ami_user: str = "ringfence",
        ami_secret: str = "lab-secret",
        extra_manager: str = "",
        cdr_variables: Sequence[str] = (),
    ) -> None:
        self._installed = asterisk_directory(version)
        if not (self._installed / "asterisk").is_file():
            raise LabError(f"the lab has no Asterisk {version}: run scripts/lab-fetch asterisk{version}")
        self.version = version
        self.directory = directory
        self.customers = tuple(customers)
        self.trunks = tuple(trunks)
        self.sip_port = free_port()
        self.ami_port = free_port()
        self.ami_user = ami_user
        self.ami_secret = ami_secret
        self.etc = directory / "etc"
        self.log = directory / "log" / "full"
        self.console_log = directory / "console.log"
        self.cdr_csv = directory / "log" / "cdr-custom" / "Custom.csv"
        self.outgoing_spool = directory / "spool" / "outgoing"
        self._cdr_fields = (*CDR_FIELDS, *cdr_variables)
        self._run_directory: Path | None = None
        self._child: Child | None = None
        for each in ("etc", "lib", "spool/outgoing", "spool/tmp", "log/cdr-csv", "log/cdr-custom"):
            (directory / each).mkdir(parents=True, exist_ok=True)
        optional = [name for name in OPTIONAL_MODULES if (self._modules() / f"{name}.so").exists()]
        self._files = {
            **PLAIN_FILES,
            "modules.conf": "[modules]\nautoload=no\n"
            + "".join(f"load={module}.so\n" for module in (*optional, *MODULES, *extra_modules)),
            "logger.conf": "[general]\ndateformat=%F %T.%3q\n[logfiles]\nfull => notice,warning,error\n",
            "rtp.conf": "[general]\nrtpstart=20000\nrtpend=29999\nstrictrtp=no\nicesupport=no\n",
            "pjsip.conf": pjsip(self.sip_port, self.customers, self.trunks) + extra_pjsip,
            "manager.conf": manager(self.ami_port, ami_user, ami_secret, channel_variables) + extra_manager,
            "cdr.conf": "[general]\nenable=yes\nunanswered=yes\ncongestion=yes\n",
            "cdr_custom.conf": cdr_custom(self._cdr_fields),
            "cdr_manager.conf": "[general]\nenabled=yes\n[mappings]\n"
            + "".join(f"{name} => {name}\n" for name in cdr_variables),
            "extensions.conf": extensions,
            **(files or {}),
        }
        for name, text in self._files.items():
            self.write(name, text)

    # --- life ----------------------------------------------------------------------------------------

    def start(self, timeout: float = 20.0) -> Asterisk:
        """Start it and return once it is fully booted."""
        if self._child is not None and self._child.running():
            raise LabError("Asterisk already runs")
        # Its control socket's path may have no more than 107 characters.
        self._run_directory = run = Path(tempfile.mkdtemp(prefix="rf-ast-"))
        self.write("asterisk.conf", directories(self.directory, run, self._modules(), self._data()))
        self._child = child = Child([*self._command(), "-f"], self.console_log, env=self._environment())
        wait_until(
            lambda: child.must_run() and "fully booted" in self._try_cli("core waitfullybooted"),
            timeout,
            f"Asterisk {self.version} is fully booted",
            log=self.console_log,
        )
        return self

    def stop(self) -> None:
        """End it at once but in order, calls included."""
        if self._child is not None and self._child.running():
            self._child.stop(8)
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
            raise LabError("Asterisk was not started")
        return self._child.pid

    # --- use -----------------------------------------------------------------------------------------

    @property
    def sip_address(self) -> tuple[str, int]:
        """Where customers send their INVITEs."""
        return ("127.0.0.1", self.sip_port)

    def cli(self, command: str) -> str:
        """The output of one CLI command; `LabError` when Asterisk cannot be reached."""
        done = self._run_cli(command)
        if done.returncode != 0:
            raise LabError(f"asterisk -rx {command!r}: {done.stdout}{done.stderr}\n{log_tail(self.log)}")
        return done.stdout

    def active_channels(self) -> int:
        """How many channels there are now."""
        return len(self.cli("core show channels concise").strip().splitlines())

    def write(self, name: str, text: str) -> None:
        """Put a file into the configuration directory; reload what uses it with `cli`."""
        path = self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def cdrs(self) -> list[dict[str, str]]:
        """The call records written so far, oldest first, by field name."""
        if not self.cdr_csv.exists():
            return []
        with self.cdr_csv.open(encoding="utf-8", errors="replace", newline="") as lines:
            return [dict(zip(self._cdr_fields, row, strict=False)) for row in csv.reader(lines)]

    def log_text(self) -> str:
        """Notices, warnings and errors so far."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    # --- inside --------------------------------------------------------------------------------------

    def __enter__(self) -> Asterisk:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _forget(self) -> None:
        self._child = None
        if self._run_directory is not None:
            shutil.rmtree(self._run_directory, ignore_errors=True)
            self._run_directory = None

    def _command(self) -> list[str]:
        return [str(self._installed / "asterisk"), "-C", str(self.etc / "asterisk.conf")]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TERM": "dumb", "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def _run_cli(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command(), "-rx", command],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            env=self._environment(),
            check=False,
        )

    def _try_cli(self, command: str) -> str:
        if self._run_directory is None or not (self._run_directory / "asterisk.ctl").exists():
            return ""
        return self._run_cli(command).stdout

    def _modules(self) -> Path:
        lib = self._installed / "root" / "usr" / "lib"
        found = [*lib.glob("*-linux-gnu/asterisk/modules"), *lib.glob("asterisk/modules")]
        return next(path for path in found if (path / "chan_pjsip.so").exists())

    def _data(self) -> Path:
        return self._installed / "root" / "usr" / "share" / "asterisk"
