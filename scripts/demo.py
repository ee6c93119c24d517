"""Real calls through a real Asterisk, judged in a real Postgres. Run it with `scripts/demo`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.lab.asterisk import Asterisk, Customer, Trunk
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import Child, LabError, wait_until
from tests.lab.sipp import Call, Carrier, place_calls

ROOT = Path(__file__).parents[1]
RINGFENCE = Path(sys.executable).with_name("ringfence")
SECRET = "lab-secret"
CALLED = "14155550123"

EXTENSIONS = """
#include ringfence.conf

[globals]
RINGFENCE_AGI=agi://127.0.0.1:{agi_port}/gate

[from-customer]
exten => _X.,1,Gosub(ringfence,${{EXTEN}},1)
 same => n,Dial(PJSIP/${{RINGFENCE_NUMBER}}@carrier,30,b(ringfence-identity^s^1))
 same => n,Hangup()
"""

CONFIG = """
host: demo
database: {{dsn: "{dsn}"}}
journal: {{spool_directory: {spool}}}
switches:
  - kind: asterisk
    name: asterisk{version}
    fastagi: {{listen: "127.0.0.1:{agi_port}"}}
    ami: {{address: "127.0.0.1:{ami_port}", username: ringfence, secret_file: {secret}}}
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing to show: who calls, showing what, and what should come of it."""

    story: str
    source_ip: str
    caller: str
    called: str = CALLED
    calls: int = 1
    expected: str = ""


SCENES = (
    Scene("Acme shows its own number", "127.0.0.11", "12125550100", expected="the carrier gets the INVITE"),
    Scene("Acme shows someone else's number", "127.0.0.11", "13105550199", expected="403, no INVITE"),
    Scene("Acme shows no number at all", "127.0.0.11", "anonymous", expected="403, no INVITE"),
    Scene("Dialer makes 6 calls at once, its cap is 2 a second", "127.0.0.12", "12125551000", calls=6,
          expected="2 leave, 4 get 480"),
    Scene("Sleeper is suspended", "127.0.0.13", "12125552000", expected="403, no INVITE"),
    Scene("Sleeper, suspended, dials 911", "127.0.0.13", "12125552000", "911", expected="it leaves at once"),
)  # fmt: skip


class Demo:
    """The stage: Postgres, Asterisk, carrier and daemon, all in one temporary directory."""

    def __init__(self, directory: Path, version: int, console: Console, stack: ExitStack) -> None:
        self.directory = directory
        self.console = console
        self.log = directory / "daemon.log"
        agi_port = free_port()
        with console.status("starting Postgres"):
            self.postgres = stack.enter_context(EmbeddedPostgres(18, directory / "pg"))
        with console.status(f"starting Asterisk {version} and a carrier"):
            self.carrier = stack.enter_context(Carrier(directory / "carrier", address="127.0.0.2"))
            customers = [
                Customer(name, f"127.0.0.{11 + number}", name.upper())
                for number, name in enumerate(("acme", "dialer", "sleeper"))
            ]
            dialplan = ROOT / "dialplan" / "asterisk" / "ringfence.conf"
            self.asterisk = stack.enter_context(
                Asterisk(
                    version,
                    directory / "asterisk",
                    customers=customers,
                    trunks=[Trunk("carrier", "127.0.0.2", self.carrier.port)],
                    extensions=EXTENSIONS.format(agi_port=agi_port),
                    files={"ringfence.conf": dialplan.read_text()},
                    channel_variables=("RINGFENCE_DECISION", "RINGFENCE_CUSTOMER"),
                    ami_secret=SECRET,
                    cdr_variables=(
                        "ringfence_decision",
                        "ringfence_customer",
                        "ringfence_reason",
                        "ringfence_attest",
                    ),
                )
            )
        secret = directory / "ami-secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        self.config = directory / "ringfence.yaml"
        self.config.write_text(
            CONFIG.format(
                dsn=self.postgres.dsn("postgres"),
                spool=directory / "spool",
                version=version,
                agi_port=agi_port,
                ami_port=self.asterisk.ami_port,
                secret=secret,
            )
        )

    def load_policy(self) -> None:
        """The commands an admin types."""
        for command in (
            "db migrate",
            "profile set office --calls-per-second 10 --concurrent 30",
            "profile set dialer --calls-per-second 2 --burst 2 --concurrent 30",
            "customer add acme --name Acme --profile office --account ACME --vetted-by demo",
            "number grant acme 12125550000 12125550999 --source assigned",
            "customer add dialer --name Dialer --profile dialer --account DIALER --vetted-by demo",
            "number grant dialer 12125551000 --source letter --evidence LOA-7",
            "customer add sleeper --name Sleeper --profile office --account SLEEPER --vetted-by demo",
            "number grant sleeper 12125552000",
            "customer suspend sleeper --reason 'complaint 12'",
        ):
            self.console.print(f"[dim]$ ringfence {command}[/dim]", highlight=False)
            words = [word.strip("'") for word in command.replace("'complaint 12'", "'complaint-12'").split()]
            subprocess.run([RINGFENCE, *words], env=self.environment(), check=True, stdout=subprocess.DEVNULL)

    def environment(self) -> dict[str, str]:
        """For every ringfence process."""
        return {**os.environ, "RINGFENCE_CONFIG": str(self.config)}

    def start_daemon(self, stack: ExitStack) -> None:
        """`ringfence serve`, ready when it says so."""
        daemon = Child([RINGFENCE, "serve"], self.log, env=self.environment())
        stack.callback(daemon.stop)
        wait_until(
            lambda: daemon.must_run() and "service.started" in self.log.read_text(), 15, "the daemon serves",
            log=self.log,
        )  # fmt: skip
        wait_until(
            lambda: "ami.connected" in self.log.read_text(), 15, "the daemon hears the switch", log=self.log
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """The daemon's log events of one name."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == name]

    def play(self, scene: Scene, number: int) -> tuple[str, str]:
        """Place the scene's calls: what the caller got, and how many INVITEs the carrier got."""
        before = len(self.carrier.invites())
        results = place_calls(
            [Call(scene.called, scene.caller)] * scene.calls,
            self.directory / f"scene{number}",
            target=self.asterisk.sip_address,
            source_ip=scene.source_ip,
            rate=200.0,
            hold_ms=100,
        )
        got = sorted(str(result.status or "none") for result in results)
        shown = ", ".join(
            f"{got.count(status)} x {status}" if scene.calls > 1 else status for status in dict.fromkeys(got)
        )
        return shown, str(len(self.carrier.invites()) - before)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", title_style="bold")
    for row in rows:
        table.add_row(*row)
    return table


def show(console: Console, version: int) -> None:
    """Set the stage, play every scene, and print what came of it."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ringfence-demo-")))
        directory.chmod(0o755)
        demo = Demo(directory, version, console, stack)
        demo.load_policy()
        demo.start_daemon(stack)
        rows = []
        for number, scene in enumerate(SCENES):
            with console.status(scene.story):
                status, invites = demo.play(scene, number)
            rows.append((scene.story, scene.expected, status, invites))
        answered = sum(int(row[3]) for row in rows)
        wait_until(lambda: len(demo.events("call.ended")) >= answered - 1, 10, "every end is told", log=demo.log)
        console.print(_table("Verdicts", ("call", "expected", "caller got", "INVITEs at the carrier"), rows))
        _show_records(console, demo)


def _show_records(console: Console, demo: Demo) -> None:
    decided = demo.events("call.decided")
    console.print("[bold]What the daemon logged[/bold] (JSON, one line a decision)")
    for event in decided:
        console.print_json(json.dumps(event), indent=None)
    keys = ("src", "dst", "disposition", "billsec", "ringfence_customer", "ringfence_reason", "ringfence_attest",
            "ringfence_decision")  # fmt: skip
    wait_until(lambda: len(demo.asterisk.cdrs()) >= len(decided), 10, "Asterisk wrote its CDRs")
    console.print(
        _table("Asterisk's own CDRs", keys, [[cdr.get(key, "") for key in keys] for cdr in demo.asterisk.cdrs()])
    )
    ends = demo.postgres.psql(
        "select json_agg(e) from (select customer, hung_up_by, billable_ms, post_dial_delay_ms, q850_cause, "
        "sip_status, trunk from ringfence.call_ends order by decision_id) e"
    )
    end_rows = json.loads(ends)
    console.print(
        _table("Call ends in Postgres", list(end_rows[0]), [[str(v) for v in row.values()] for row in end_rows])
    )
    times = sorted(event["latency_ms"] for event in decided)
    console.print(
        f"[bold]Latency[/bold] of {len(times)} decisions, question to answer: median "
        f"{statistics.median(times):.1f} ms, worst {times[-1]:.1f} ms (a commit to disk each)"
    )


def main() -> int:
    """Run the demo; 0 if it ran to its end."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--asterisk", type=int, choices=(16, 22), default=22)
    arguments = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        show(console, arguments.asterisk)
    except KeyboardInterrupt:
        console.print("\nstopped; everything the demo had started is stopped too")
        return 130
    except (LabError, subprocess.CalledProcessError) as error:
        console.print(f"the demo could not run: {error}", markup=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
