"""Child processes that log to a file, can be ended for sure, and never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(RuntimeError):
    """Something in the lab did not do what it had to in time; the message holds what is known."""


def log_tail(path: Path | None, lines: int = 25) -> str:
    """The last lines of a log file, or a remark that there is none."""
    if path is None or not path.exists():
        return "(no log)"
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(text[-lines:]) or "(log is empty)"


def wait_until(
    predicate: Callable[[], T | None],
    timeout: float,
    what: str,
    *,
    log: Path | None = None,
    interval: float = 0.015,
) -> T:
    """Poll until the predicate is true and return its value.

    Raises `LabError` naming `what` and quoting the end of `log` once `timeout` seconds have passed. A
    predicate that raises `LabError` ends the wait at once.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise LabError(f"not within {timeout:g} s: {what}\n--- {log}\n{log_tail(log)}")
        time.sleep(interval)


class Child:
    """One child process in a session of its own, writing stdout and stderr to a log file.

    The kernel kills it when the *thread* that started it ends, so start children from a thread that
    lives as long as they must (the main thread, in the tests).
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: str | None = None,
    ) -> None:
        self.log = log
        self.arguments = [str(argument) for argument in arguments]
        parent = os.getpid()

        def before_exec() -> None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # the parent was already gone
                os._exit(127)

        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                start_new_session=True,
                preexec_fn=before_exec,  # noqa: PLW1509 - two system calls, no locks
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session and process group."""
        return self._process.pid

    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.poll() is None

    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._process.poll()

    def must_run(self) -> bool:
        """True; raises `LabError` with the end of the log if the process has ended."""
        if not self.running():
            raise LabError(self._told(f"ended with {self.exit_code()}"))
        return True

    def wait(self, timeout: float) -> int:
        """Wait for the end and return the exit code; `LabError` if it does not come in time."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(self._told(f"still runs after {timeout:g} s")) from None

    def _told(self, what: str) -> str:
        return f"{Path(self.arguments[0]).name} {what}\n--- {self.log}\n{log_tail(self.log)}"

    def send(self, number: int) -> None:
        """Send a signal to the process alone, if it still runs."""
        if self.running():
            self._process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the process and to what it started in its group."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def stop(self, timeout: float = 5.0, *, first: int = signal.SIGTERM) -> int:
        """Ask it to end (TERM by default), wait, then kill its whole group; returns the exit code."""
        self.send(first)
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.signal_group(signal.SIGKILL)
            code = self._process.wait(5)
        self.signal_group(signal.SIGKILL)  # whatever it left behind in its group
        return code

    def kill9(self) -> int:
        """Kill the whole group without warning and reap the process."""
        self.signal_group(signal.SIGKILL)
        return self._process.wait(5)
