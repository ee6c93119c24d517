"""SIPp as the customer who places calls and as the carrier that receives them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ParamSpec

from tests.lab.available import sipp_program
from tests.lab.ports import free_port
from tests.lab.process import Child, LabError, log_tail, wait_until
from tests.lab.scenario import render
from tests.lab.sipp_values import (
    Call,
    CallResult,
    ReceivedInvite,
    parse_invites,
    read_results,
    statuses,
)

__all__ = ["Call", "CallResult", "CallRun", "Carrier", "ReceivedInvite", "place_calls", "statuses"]

P = ParamSpec("P")

_UDP_TABLE = Path("/proc/net/udp")


def _arguments(scenario: Path, address: str, port: int, log: Path) -> list[str | Path]:
    program = sipp_program()
    if program is None:
        raise LabError("the lab has no SIPp: run scripts/lab-fetch sipp")
    where: list[str | Path] = ["-i", address, "-p", str(port), "-mi", address, "-mp", str(free_port(address))]
    logging: list[str | Path] = [
        "-trace_logs",
        "-log_file",
        log,
        "-trace_err",
        "-error_file",
        log.with_suffix(".errors"),
    ]
    return [program, "-sf", scenario, *where, *logging, "-nostdin"]


class Carrier:
    """SIPp answering calls on `address`, keeping every INVITE it gets.

    `scenario` is one of `carrier` (rings, answers), `carrier-busy` (refuses with `status`),
    `carrier-silent` (never answers), `carrier-hangs-up` (answers, hangs up after `talk_ms`).
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.2",
        port: int | None = None,
        scenario: str = "carrier",
        ring_ms: int = 20,
        talk_ms: int = 100,
        status: str = "486 Busy Here",
    ) -> None:
        self.address = address
        self.port = port or free_port(address)
        self.directory = directory
        values = {"RING_MS": str(max(ring_ms, 1)), "TALK_MS": str(max(talk_ms, 1)), "STATUS": status}
        self._scenario = render(scenario, values, directory)
        self.log = directory / "carrier.log"
        self._child: Child | None = None

    def start(self) -> Carrier:
        """Start it and return once its port is bound."""
        self.log.unlink(missing_ok=True)
        arguments = _arguments(self._scenario, self.address, self.port, self.log)
        self._child = child = Child(arguments, self.directory / "carrier.out", cwd=self.directory)
        octets = "".join(f"{int(octet):02X}" for octet in reversed(self.address.split(".")))
        bound = f" {octets}:{self.port:04X} "
        wait_until(
            lambda: child.must_run() and bound in _UDP_TABLE.read_text(),
            10,
            f"the carrier listens on {self.address}:{self.port}",
            log=child.log,
        )
        return self

    def stop(self) -> None:
        """End it at once. What it received stays readable."""
        if self._child is not None:
            self._child.stop(2, first=signal.SIGTERM)

    def invites(self) -> list[ReceivedInvite]:
        """The INVITEs received so far, oldest first."""
        if not self.log.exists():
            return []
        return parse_invites(self.log.read_text(encoding="utf-8", errors="replace"))

    def wait_for(self, count: int, timeout: float = 10.0) -> list[ReceivedInvite]:
        """Wait until at least so many INVITEs have come, and return all."""
        what = f"{count} INVITEs at the carrier"
        wait_until(lambda: len(self.invites()) >= count, timeout, what, log=self.log)
        return self.invites()

    def __enter__(self) -> Carrier:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class CallRun:
    """A number of calls being placed by one customer; `start` returns at once, `wait` gives the results."""

    def __init__(
        self,
        calls: Sequence[Call],
        directory: Path,
        *,
        target: tuple[str, int],
        source_ip: str = "127.0.0.11",
        scenario: str = "customer",
        hold_ms: int = 50,
        cancel_ms: int = 200,
        transfer_to: str = "",
        transfer_ms: int = 5_000,
        headers: Sequence[str] = (),
        rate: float = 10.0,
        limit: int | None = None,
        answer_timeout: float = 15.0,
        timeout: float = 60.0,
    ) -> None:
        self.calls = tuple(calls)
        self.directory = directory
        self.log = directory / "customer.log"
        self._timeout = timeout
        values = {
            "HOLD_MS": str(max(hold_ms, 1)),
            "CANCEL_MS": str(max(cancel_ms, 1)),
            "TRANSFER_TO": transfer_to,
            "TRANSFER_MS": str(transfer_ms),
            "HEADERS": "\n".join(headers),
        }
        rendered = render(scenario, values, directory)
        injected = directory / "calls.csv"
        rows = "".join(f"{call.row(index)}\n" for index, call in enumerate(self.calls))
        injected.write_text(f"SEQUENTIAL\n{rows}", encoding="utf-8")
        # Rates below one a second are told to SIPp as so many calls in a longer period.
        period = 1_000 if rate >= 1 else round(1_000 / rate)
        pace = [str(max(round(rate), 1)), "-rp", str(period), "-m", str(len(self.calls))]
        bounds = ["-l", str(limit or max(len(self.calls), 1)), "-timeout", f"{max(round(timeout), 1)}s"]
        waits = ["-recv_timeout", str(round(answer_timeout * 1_000)), "-timeout_error"]
        self._arguments: list[str | Path] = [
            *_arguments(rendered, source_ip, free_port(source_ip), self.log),
            *("-inf", injected),
            *("-r", *pace, *bounds, *waits),
            f"{target[0]}:{target[1]}",
        ]
        self._child: Child | None = None

    def start(self) -> CallRun:
        """Begin to place the calls."""
        self.log.unlink(missing_ok=True)
        self._child = Child(self._arguments, self.directory / "customer.out", cwd=self.directory)
        return self

    def wait(self) -> list[CallResult]:
        """The results by call index, once all calls have ended or the time is up (SIPp is then killed)."""
        if self._child is None:
            self.start()
        assert self._child is not None
        try:
            code = self._child.wait(self._timeout + 5)
        except LabError:
            self._child.kill9()
            return self.results()
        if not self.log.exists():
            told = log_tail(self.log.with_suffix(".errors")) + "\n" + log_tail(self._child.log)
            raise LabError(f"SIPp ended with {code} and placed no call: {told}")
        return self.results()

    def stop(self) -> None:
        """Stop placing calls at once, leaving open ones as they are."""
        if self._child is not None:
            self._child.kill9()

    def results(self) -> list[CallResult]:
        """What is known by now about every call, by index."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return read_results(self.calls, text)


def _waiting_for(place: Callable[P, CallRun]) -> Callable[P, list[CallResult]]:
    def wait(*args: P.args, **kwargs: P.kwargs) -> list[CallResult]:
        return place(*args, **kwargs).wait()

    return wait


# Takes what `CallRun` takes, and returns the results once all calls have ended.
place_calls = _waiting_for(CallRun)
