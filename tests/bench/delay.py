"""`python -m tests.bench delay`: what the gate adds to a real call, on real switches, in one run.

The delay is the time from the customer's INVITE to the carrier's, both taken by this process. Without the gate
no daemon runs. Rounds with and without take turns, so that whatever else the machine does falls on both. CPU is
what the kernel charged to the switch and to the daemon, less what they take when idle. Machines are noisy: read
the ratios and the differences.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.acceptance import freeswitch_site as freeswitch_sites
from tests.acceptance import site as sites
from tests.acceptance.daemon import Daemon
from tests.acceptance.site import SipCall, SipPhone
from tests.lab.asterisk import Asterisk, Customer, Trunk
from tests.lab.freeswitch import FreeSwitch, Gateway, freeswitch_prefix
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until

ROUNDS = 4
RATE = 20.0  # calls a second
_TALK_S = 0.1
_IDLE_S = 2.0
_CALLER, _CALLED = "12125550100", "1202555"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Way:
    """One way calls take through a switch: who places them, and what must be set before."""

    name: str
    customer: SipPhone
    gated: bool
    prepare: Callable[[], None] = lambda: None
    delays_ms: list[float] = field(default_factory=list)
    switch_cpu_s: float = 0.0
    daemon_cpu_s: float = 0.0

    def row(self, base: Way) -> list[str]:
        """Its line in the report."""
        calls = len(self.delays_ms)
        mine, plain = (_percentiles(way.delays_ms) for way in (self, base))
        cpu, plain_cpu = (way.switch_cpu_s / len(way.delays_ms) * 1000 for way in (self, base))
        return [
            self.name,
            str(calls),
            *(f"{value:.1f}" for value in mine),
            *("" if self is base else f"+{value - other:.1f}" for value, other in zip(mine, plain, strict=True)),
            "" if self is base else f"{mine[0] / plain[0]:.1f}",
            f"{cpu:.1f}",
            "" if self is base else f"{cpu / plain_cpu:.2f}",
            f"{self.daemon_cpu_s / calls * 1000:.1f}" if self.gated else "",
        ]


@dataclass
class Bench:
    """One switch, its carrier and its daemon."""

    pid: Callable[[], int]
    target: tuple[str, int]
    carrier: SipPhone
    daemon: Daemon
    ways: list[Way]
    _numbers: Iterator[int] = field(default_factory=lambda: count(1_000))
    _idle: tuple[float, float] = (0.0, 0.0)  # CPU seconds a second, of the switch and of the daemon

    def measure(self, seconds: float) -> None:
        """Rounds of so many seconds together for each way, in turns."""
        calls = max(10, round(seconds * RATE / ROUNDS))
        for way in self.ways:
            self._round(way, 10, counts=False)
        before = self._cpu()
        time.sleep(_IDLE_S)
        now = self._cpu()
        self._idle = ((now[0] - before[0]) / _IDLE_S, (now[1] - before[1]) / _IDLE_S)
        for _ in range(ROUNDS):
            for way in self.ways:
                self._round(way, calls, counts=True)

    def _round(self, way: Way, calls: int, *, counts: bool) -> None:
        way.prepare()
        if not way.gated:
            self.daemon.stop()
        elif not self._daemon_runs():
            self.daemon.start()
        before, began = self._cpu(), time.monotonic()
        placed: list[SipCall] = []
        for index in range(calls):
            time.sleep(max(0.0, began + index / RATE - time.monotonic()))
            placed.append(way.customer.dial(f"{_CALLED}{next(self._numbers)}", self.target, caller=_CALLER))
            _hang_up(placed, older_than=_TALK_S)
        wait_until(lambda: all(call.up or "ended" in call.times for call in placed), 10, "every call is answered")
        _hang_up(placed, older_than=0)
        arrived = {call.invite.request_user: call.times["INVITE"] for call in list(self.carrier.calls)}
        delays = [(arrived[_number(call)] - call.times["INVITE"]) * 1000 for call in placed]
        wait_until(lambda: not any(call.up for call in list(self.carrier.calls)), 10, "every call is over")
        if counts:
            way.delays_ms += delays
            took, now = time.monotonic() - began, self._cpu()
            way.switch_cpu_s += now[0] - before[0] - took * self._idle[0]
            way.daemon_cpu_s += now[1] - before[1] - took * self._idle[1] if way.gated else 0.0

    def _daemon_runs(self) -> bool:
        return self.daemon._child is not None and self.daemon._child.running()

    def _cpu(self) -> tuple[float, float]:
        daemon = self.daemon._child if self._daemon_runs() else None
        return _cpu_s(self.pid()), _cpu_s(daemon.pid) if daemon is not None else 0.0


def run(seconds: float) -> None:
    """Measure every switch there is, and print."""
    table = Table(
        "way", "calls", "p50 ms", "p90 ms", "p99 ms", "p50", "p90", "p99", "p50 ratio", "CPU ms a call", "ratio",
        "daemon CPU ms", title="INVITE to INVITE, and CPU a call",
    )  # fmt: skip
    with (
        tempfile.TemporaryDirectory(prefix="rf-bench-", ignore_cleanup_errors=True) as directory,
        EmbeddedPostgres(18, Path(directory) / "pg") as postgres,
    ):
        for name, opened in (("asterisk", _asterisk), ("freeswitch", _freeswitch)):
            if name == "freeswitch" and freeswitch_prefix() is None:
                continue
            with opened(Path(directory) / name, postgres) as bench:
                bench.measure(seconds)
            for way in bench.ways:
                table.add_row(*way.row(bench.ways[0]))
            table.add_section()
    Console(width=150).print(table)
    if freeswitch_prefix() is None:
        Console().print("FreeSWITCH: not measured; RINGFENCE_FREESWITCH names none")


@contextmanager
def _asterisk(directory: Path, postgres: EmbeddedPostgres) -> Iterator[Bench]:
    names = ("plain", "simple", "strict")
    carrier, phones = _phones(names)
    port = free_port()
    switch = Asterisk(
        22,
        directory / "switch",
        customers=[Customer(name, phone.address, name, f"from-{name}") for name, phone in phones.items()],
        trunks=[Trunk("carrier", carrier.address, carrier.port)],
        extensions=f"{sites.extensions(port)}\n"
        "[from-plain]\nexten => _X.,1,Dial(PJSIP/${EXTEN}@carrier,30)\n same => n,Hangup()\n",
        files={name: (sites.DIALPLAN / name).read_text() for name in ("ringfence.conf",)},
    )
    switch.write("manager.conf", sites.manager(switch.ami_port))
    daemon = sites.make_daemon(
        directory / "daemon", dsn=postgres.create_database("asterisk"), agi_port=port, ami_port=switch.ami_port
    )
    _register(daemon, [(name, name) for name in names[1:]])
    ways = [
        Way("Asterisk 22", phones["plain"], False),
        Way("Asterisk 22, simple form", phones["simple"], True),
        Way("Asterisk 22, strict form", phones["strict"], True),
    ]
    with _running(switch, daemon, carrier, *phones.values()):
        yield Bench(lambda: switch.pid, switch.sip_address, carrier, daemon, ways)


@contextmanager
def _freeswitch(directory: Path, postgres: EmbeddedPostgres) -> Iterator[Bench]:
    carrier, phones = _phones(("customer",))
    phone = phones["customer"]
    port = free_port()
    hook, gate = "execute_on_originate_bench0123456789", freeswitch_sites.SHIPPED / "ringfence_gate.lua"
    switch = FreeSwitch(
        directory / "switch",
        gateways=[Gateway("carrier", carrier.address, carrier.port)],
        dialplan=freeswitch_sites.dialplan(),
        scripts={gate.name: gate.read_text(encoding="utf-8")},
        variables={"outbound_redirect_fatal": "true", "ringfence_daemons": f"127.0.0.1:{port}"},
    )
    daemon = freeswitch_sites.FreeSwitchDaemon(
        directory / "daemon",
        dsn=postgres.create_database("freeswitch"),
        hook_port=port,
        socket_port=switch.socket_port,
        password=switch.password,
    )
    _register(daemon, [("customer", phone.address)])
    ways = [
        Way("FreeSWITCH", phone, False, lambda: switch.set_global(hook, "")),
        Way("FreeSWITCH, gate", phone, True, lambda: switch.set_global(hook, f"lua {gate.name}")),
    ]
    with _running(switch, daemon, carrier, phone):
        yield Bench(lambda: switch.pid, switch.sip_address, carrier, daemon, ways)


def _phones(names: Sequence[str]) -> tuple[SipPhone, dict[str, SipPhone]]:
    """A carrier that answers at once, and customers at addresses of their own."""
    return SipPhone("127.0.0.2"), {
        name: SipPhone(f"127.0.70.{index}") for index, name in enumerate(names, start=1)
    }


@contextmanager
def _running(switch: Asterisk | FreeSwitch, daemon: Daemon, *phones: SipPhone) -> Iterator[None]:
    with ExitStack() as stack:
        for phone in phones:
            stack.enter_context(phone)
        stack.enter_context(switch)
        daemon.start()
        stack.callback(daemon.stop)
        yield


def _register(daemon: Daemon, customers: Sequence[tuple[str, str]]) -> None:
    """Customers whose calls all pass; the same number for each."""
    limits = ("--calls-per-second=10000", "--burst=10000", "--concurrent=10000")
    with redirect_stdout(io.StringIO()):
        daemon.operator("db", "migrate")
        daemon.operator("profile", "set", "wide", *limits)
        for name, account in customers:
            daemon.operator(
                "customer", "add", name, f"--name={name}", "--profile=wide", f"--account={account}",
                "--vetted-by=bench",
            )  # fmt: skip
            daemon.operator("number", "grant", name, f"+{_CALLER}", f"+{_CALLER}")


def _hang_up(calls: Sequence[SipCall], *, older_than: float) -> None:
    now = time.monotonic()
    for call in calls:
        if call.up and now - call.times["answered"] >= older_than:
            call.hang_up()


def _number(call: SipCall) -> str:
    return call.invite.request_user


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    cuts = statistics.quantiles(values, n=100)
    return cuts[49], cuts[89], cuts[98]


def _cpu_s(pid: int) -> float:
    """User and system time of a process so far (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
