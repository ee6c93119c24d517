"""A whole site: one Asterisk with the dialplan as it is shipped, four carriers, a database and the daemon."""

from __future__ import annotations

import csv
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from tests.acceptance.daemon import Daemon
from tests.lab.asterisk import Asterisk, Customer, Trunk
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until
from tests.lab.sipp import Call, CallResult, CallRun, Carrier, ReceivedInvite

T = TypeVar("T")

DIALPLAN = Path(__file__).parents[2] / "dialplan" / "asterisk"
FORMS = ("simple", "strict")
VARIANTS = ("", "open", "scripted", "scripted-open")
_AMI_SECRET = "lab-secret"
_PARTIES = {"": 70, "open": 3, "scripted": 20, "scripted-open": 3}  # endpoints of each variant, in each form

# What is called decides which carrier gets it and how long it may ring: prefix → trunk, seconds.
ROUTES = {
    "1202": ("carrier", 30),
    "1303": ("busy", 30),
    "1404": ("silent", 1),
    "1606": ("silent", 30),
    "1505": ("fickle", 30),
    "": ("carrier", 30),
}

_SIMPLE = """\
exten => {pattern},1,Gosub(ringfence,${{EXTEN}},1)
 same => n,Dial(PJSIP/${{RINGFENCE_NUMBER}}@{trunk},{seconds},b(ringfence-identity^s^1))
 same => n,Hangup()
"""
_STRICT = """\
exten => {pattern},1,Gosub(ringfence-before,${{EXTEN}},1)
 same => n(dial),Dial(PJSIP/${{RINGFENCE_NUMBER}}@{trunk},{seconds},b(ringfence-leg^s^1(${{RINGFENCE_NUMBER}})))
 same => n,Gosub(ringfence-after,${{RINGFENCE_NUMBER}},1)
 same => n,GotoIf($["${{GOSUB_RETVAL}}" = "again"]?dial)
 same => n,Hangup()
"""
# An admin's own time limit before the hook, and two calls of one channel, one after the other.
_LIMITED = "exten => _1707.,1,Set(TIMEOUT(absolute)=2)\n same => n,"
_TWICE = """\
exten => _1808.,1,Gosub(ringfence,${EXTEN},1)
 same => n,Dial(PJSIP/${RINGFENCE_NUMBER}@busy,30,b(ringfence-identity^s^1))
 same => n,Gosub(ringfence,1202${EXTEN:4},1)
 same => n,Dial(PJSIP/${RINGFENCE_NUMBER}@carrier,30,b(ringfence-identity^s^1))
 same => n,Hangup()
"""
_HOSTILE = """\
[hostile-{form}]
exten => _X.,1,Set(CALLERID(name)=${{URIDECODE(${{HOSTILE_NAME}})}})
 same => n,GotoIf($[${{LEN(${{HOSTILE_NUMBER}})}} = 0]?go)
 same => n,Set(CALLERID(num)=${{URIDECODE(${{HOSTILE_NUMBER}})}})
 same => n(go),Goto(from-{form},${{EXTEN}},1)
"""


@dataclass(frozen=True)
class Party:
    """A PBX endpoint that places calls, and the customer in the database that answers for them (if any)."""

    name: str
    source_ip: str
    form: str
    numbers: tuple[str, ...] = ()

    @property
    def number(self) -> str:
        """A number it may show."""
        return self.numbers[0]

    @property
    def context(self) -> str:
        """The dialplan context its calls come into."""
        return f"from-{self.form}"


class SilentServer:
    """Accepts every connection and never says a word."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._socket.getsockname()[1]
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop, and close what is open."""
        self._socket.close()
        for connection in self._held:
            connection.close()

    def _serve(self, connection: socket.socket) -> None:
        self._held.append(connection)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._socket.accept()[0]
            except OSError:
                return
            self._serve(connection)


class ScriptedGate(SilentServer):
    """A FastAGI server that answers what a test tells it to, and is silent while it is told nothing."""

    def __init__(self) -> None:
        self._answers: list[Mapping[str, str]] = []
        super().__init__()

    def say(self, *answers: Mapping[str, str]) -> None:
        """One answer a call, the last one again and again; names of variables without their RINGFENCE_."""
        self._answers = list(answers)

    def _serve(self, connection: socket.socket) -> None:
        if not self._answers:
            super()._serve(connection)
            return
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        with connection, connection.makefile("rwb") as lines:
            while lines.readline().strip():
                pass
            for name, value in answer.items():
                lines.write(f'SET VARIABLE RINGFENCE_{name} "{value}"\n'.encode())
                lines.flush()
                lines.readline()


@dataclass
class Site:
    """What a test gets. Customers and numbers are new for each test; processes are shared."""

    version: int
    directory: Path
    postgres: EmbeddedPostgres
    database: str
    daemon: Daemon
    asterisk: Asterisk
    carriers: Mapping[str, Carrier]
    parties: dict[tuple[str, str], list[Party]]
    scripted: ScriptedGate = field(default_factory=ScriptedGate)
    _counter: count[int] = field(default_factory=lambda: count(1))

    # --- customers ------------------------------------------------------------------------------------------

    def stranger(self, form: str = "simple", variant: str = "") -> Party:
        """An endpoint that no customer owns."""
        return self.parties[form, variant].pop()

    def customer(self, form: str = "simple", variant: str = "", *, numbers: int = 1, **caps: float) -> Party:
        """A new active customer with an endpoint, numbers and caps (by default wide ones)."""
        seat = self.stranger(form, variant)
        granted = tuple(f"1212{5_550_000 + next(self._counter)}" for _ in range(numbers))
        limits = {"calls_per_second": 500, "burst": 500, "concurrent": 500, **caps}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in limits.items()]
        self.daemon.operator("profile", "set", seat.name, *options)
        profile = f"--profile={seat.name}"
        self.daemon.operator(
            "customer", "add", seat.name, f"--name={seat.name}", profile, f"--account={seat.name}"
        )
        self.daemon.operator("number", "grant", seat.name, f"+{granted[0]}", f"+{granted[-1]}")
        return Party(seat.name, seat.source_ip, seat.form, granted)

    def new_number(self, prefix: str = "1202") -> str:
        """A number that nobody has called yet; `prefix` chooses the carrier (ROUTES)."""
        return f"{prefix}{5_550_000 + next(self._counter)}"

    # --- calls ----------------------------------------------------------------------------------------------

    def start_calls(self, party: Party, calls: Sequence[Call], **options: Any) -> CallRun:
        """Begin to place calls from the party's address."""
        directory = self.directory / f"calls-{next(self._counter)}"
        run = CallRun(calls, directory, target=self.asterisk.sip_address, source_ip=party.source_ip, **options)
        return run.start()

    def call(
        self, party: Party, called: str, *, caller: str | None = None, display: str = "", **options: Any
    ) -> CallResult:
        """Place one call and wait until every trace of it has left the switch."""
        shown = party.number if caller is None else caller
        (result,) = self.start_calls(party, [Call(called, shown, display)], **options).wait()
        self.wait_until_idle()
        return result

    def originate(self, channel: str, *, caller: str, account: str, variables: Mapping[str, str]) -> str:
        """AMI Originate of `channel` to a waiting application; the message of the answer, once it is over."""
        lines = {
            "Action": "Originate",
            "Channel": channel,
            "Application": "Wait",
            "Data": "0.1",
            "CallerID": caller,
            "Account": account,
            "Timeout": "5000",
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        text += "".join(f"Variable: {name}={value}\r\n" for name, value in variables.items())
        login = f"Action: Login\r\nUsername: lab\r\nSecret: {_AMI_SECRET}\r\nEvents: off\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.asterisk.ami_port), timeout=15) as connection:
            connection.sendall(f"{login}{text}\r\nAction: Logoff\r\n\r\n".encode())
            answer = b""
            while chunk := connection.recv(4096):
                answer += chunk
        self.wait_until_idle()
        return answer.decode(errors="replace")

    def wait_until_idle(self) -> None:
        """Wait until the switch has no channel left."""
        log = self.asterisk.log
        wait_until(lambda: self.asterisk.active_channels() == 0, 10, "no channels", log=log, interval=0.05)

    def invites(self, called: str) -> list[ReceivedInvite]:
        """The INVITEs to this number, at whatever carrier."""
        return [
            invite
            for carrier in self.carriers.values()
            for invite in carrier.invites()
            if invite.request_user == called
        ]

    def invites_from(self, caller: str) -> list[ReceivedInvite]:
        """The INVITEs that show this caller ID, at whatever carrier."""
        found = [invite for carrier in self.carriers.values() for invite in carrier.invites()]
        return [invite for invite in found if invite.from_user == caller]

    def cdrs(self, account: str) -> list[dict[str, str]]:
        """The call records of an account so far, by the names in cdr_custom.conf.sample."""
        names = re.findall(r"\$\{CDR\((\w+)\)\}", (DIALPLAN / "cdr_custom.conf.sample").read_text())
        path = self.asterisk.directory / "log" / "cdr-custom" / "ringfence.csv"
        if not path.exists():
            return []
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            rows = [dict(zip(names, row, strict=True)) for row in csv.reader(lines)]
        return [row for row in rows if row["accountcode"] == account]

    def wait_for_cdrs(self, account: str, number: int = 1) -> list[dict[str, str]]:
        """The call records of an account, once there are so many."""
        wait_until(lambda: len(self.cdrs(account)) >= number, 10, f"{number} call records of {account}")
        return self.cdrs(account)

    # --- the database -----------------------------------------------------------------------------------------

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        found = self.postgres.psql(f"select coalesce(json_agg(r), '[]') from ({query}) r", self.database)
        rows: list[dict[str, Any]] = json.loads(found)
        return rows

    def decisions(self, account: str) -> list[dict[str, Any]]:
        """The decisions on calls of an account, oldest first."""
        return self.rows(f"select * from ringfence.decisions where account = '{account}' order by decision_id")

    def decision(self, party: Party) -> dict[str, Any]:
        """The only decision on this party's calls."""
        (found,) = wait_for(lambda: self.decisions(party.name), f"a decision about {party.name}")
        return found

    def end_of(self, decision: Mapping[str, Any]) -> dict[str, Any]:
        """How the call of this decision ended, once that is recorded."""
        query = f"select * from ringfence.call_ends where decision_id = '{decision['decision_id']}'"
        (end,) = wait_for(lambda: self.rows(query), "the end of the call is recorded", log=self.daemon.log)
        return end

    def wait_until_free(self, party: Party) -> None:
        """Wait until no live call is counted against the customer."""
        query = f"select 1 from ringfence.counters where customer = '{party.name}' and live_calls = 0"
        wait_for(lambda: self.rows(query), f"no live call of {party.name} is counted", log=self.daemon.log)


def wait_for(predicate: Callable[[], T | None], what: str, *, timeout: float = 10, log: Path | None = None) -> T:
    """Poll at a pace that a query bears, and return what the predicate gave."""
    return wait_until(predicate, timeout, what, log=log, interval=0.1)


def extensions(agi_port: int) -> str:
    """extensions.conf: each form of the hook as the documentation shows it, for each route."""
    parts = [f"[globals]\nRINGFENCE_AGI=agi://127.0.0.1:{agi_port}/gate\n"]
    for form, lines in (("simple", _SIMPLE), ("strict", _STRICT)):
        parts.append(f"[from-{form}]\n")
        for prefix, (trunk, seconds) in ROUTES.items():
            pattern = f"_{prefix}." if prefix else "_X."
            parts.append(lines.format(pattern=pattern, trunk=trunk, seconds=seconds))
        limited = lines.format(pattern="", trunk="carrier", seconds=30)
        parts.append(_LIMITED + limited.removeprefix("exten => ,1,") + _TWICE)
        parts.append(_HOSTILE.format(form=form))
    return "".join(parts) + "[from-carrier]\nexten => _X.,1,Hangup(1)\n#include ringfence.conf\n"


def manager(port: int) -> str:
    """manager.conf as it is shipped, with this port and secret, and a second user for the tests."""
    text = (DIALPLAN / "manager.conf.sample").read_text()
    text = text.replace("port=5038", f"port={port}").replace("secret=CHANGE-ME", f"secret={_AMI_SECRET}")
    return f"{text}\n[lab]\nsecret={_AMI_SECRET}\nread=all\nwrite=all\n"


def make_parties(scripted_port: int) -> tuple[dict[tuple[str, str], list[Party]], list[Customer]]:
    """Endpoints for every form and variant, each with an address and an account of its own."""
    variables = {
        "": {},
        "open": {"RINGFENCE_FAIL": "open"},
        "scripted": {"RINGFENCE_AGI": f"agi://127.0.0.1:{scripted_port}/gate"},
        "scripted-open": {"RINGFENCE_AGI": f"agi://127.0.0.1:{scripted_port}/gate", "RINGFENCE_FAIL": "open"},
    }
    parties: dict[tuple[str, str], list[Party]] = {}
    endpoints = []
    addresses = (f"127.0.{block}.{host}" for block in range(20, 40) for host in range(1, 200))
    for form in FORMS:
        for variant in VARIANTS:
            for index in range(_PARTIES[variant]):
                name = f"{form}-{variant or 'plain'}-{index}"
                party = Party(name, next(addresses), form)
                parties.setdefault((form, variant), []).append(party)
                endpoints.append(Customer(name, party.source_ip, name, party.context, variables[variant]))
    return parties, endpoints


def make_asterisk(
    version: int,
    directory: Path,
    *,
    agi_port: int,
    endpoints: Sequence[Customer],
    carriers: Mapping[str, Carrier],
) -> Asterisk:
    """An Asterisk with the shipped files, each as it is shipped."""
    asterisk = Asterisk(
        version,
        directory,
        customers=endpoints,
        trunks=[Trunk(name, carrier.address, carrier.port) for name, carrier in carriers.items()],
        extensions=extensions(agi_port),
        files={
            "ringfence.conf": (DIALPLAN / "ringfence.conf").read_text(),
            "cdr_custom.conf": (DIALPLAN / "cdr_custom.conf.sample").read_text(),
            "cdr_manager.conf": (DIALPLAN / "cdr_manager.conf.sample").read_text(),
        },
    )
    asterisk.write("manager.conf", manager(asterisk.ami_port))
    return asterisk


def make_daemon(directory: Path, *, dsn: str, agi_port: int, ami_port: int) -> Daemon:
    """A daemon for that Asterisk."""
    return Daemon(directory, dsn=dsn, agi_port=agi_port, ami_port=ami_port, ami_secret=_AMI_SECRET)


def carriers(directory: Path) -> dict[str, Carrier]:
    """Four carriers: one answers, one is busy, one never answers, one hangs up soon after its answer."""
    return {
        "carrier": Carrier(directory / "carrier", address="127.0.0.2"),
        "busy": Carrier(directory / "busy", address="127.0.0.3", scenario="carrier-busy"),
        "silent": Carrier(directory / "silent", address="127.0.0.4", scenario="carrier-silent"),
        "fickle": Carrier(directory / "fickle", address="127.0.0.5", scenario="carrier-hangs-up", talk_ms=300),
    }


def agi_port() -> int:
    """A port for the daemon's gate."""
    return free_port()
