"""A whole site: one Asterisk with the dialplan as it is shipped, carriers, phones, a database and the daemon."""

from __future__ import annotations

import csv
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.acceptance.daemon import Daemon
from tests.lab.asterisk import Asterisk, Customer, Trunk
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until
from tests.lab.sipp import Call, CallResult, CallRun, Carrier, ReceivedInvite
from tests.lab.sipp_values import parse_invites

T = TypeVar("T")

DIALPLAN = Path(__file__).parents[2] / "dialplan" / "asterisk"
FORMS = ("simple", "strict")
VARIANTS = ("", "open", "scripted", "scripted-open")
_AMI_SECRET = "lab-secret"
_PARTIES = {"": 200, "open": 3, "scripted": 20, "scripted-open": 3}  # endpoints of each variant, in each form

# What is called decides which carrier gets it and how long it may ring: prefix → trunk, seconds.
ROUTES = {
    "1202": ("carrier", 30),
    "1303": ("busy", 30),
    "1404": ("silent", 1),
    "1606": ("silent", 30),
    "1505": ("fickle", 30),
    "1907": ("watched-rings", 30),
    "1908": ("watched-answers", 30),
    "1909": ("watched-silent", 30),
    "": ("carrier", 30),
}
WATCHED = ("PJSIP/watched-*",)  # what leaves here unasked is hung up; the other carriers nobody watches
_PHONES = 40  # in each form: an endpoint of the PBX, named by its number
_PHONE_PREFIX = {"simple": "1212444", "strict": "1212445"}

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
# No hook: what the watch is for. Customers reach it with a 7 before the number.
_UNASKED = """\
[unasked]
exten => _1907.,1,Dial(PJSIP/${EXTEN}@watched-rings,30)
exten => _1908.,1,Dial(PJSIP/${EXTEN}@watched-answers,30)
exten => _1909.,1,Dial(PJSIP/${EXTEN}@watched-silent,30)
exten => 112,1,Dial(PJSIP/${EXTEN}@watched-answers,30)
"""
# Calls to the phones. An extension 8… forwards to where the global FORWARD_… says.
_INSIDE = """\
exten => _{prefix}XXXX,1,Set(__TRANSFER_CONTEXT=from-{form})
 same => n,Set(__FORWARD_CONTEXT=from-{form})
 same => n,Dial(PJSIP/${{EXTEN}},20)
 same => n,Hangup()
exten => _8{prefix}XXXX,1,Gosub(ringfence-party,s,1(${{EXTEN:1}},${{EXTEN:1}}))
 same => n,Dial(${{GLOBAL(FORWARD_${{EXTEN:1}})}},20)
 same => n,Hangup()
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


class AnswersCalls(Protocol):
    """A carrier, whoever plays it."""

    address: str
    port: int

    def invites(self) -> list[ReceivedInvite]: ...
    def __enter__(self) -> AnswersCalls: ...
    def __exit__(self, *_: object) -> None: ...


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
class SipCall:
    """One call as the SIP phone at one end sees it. Times are of `time.monotonic`, by what happened then."""

    phone: SipPhone
    invite: ReceivedInvite
    incoming: bool
    times: dict[str, float] = field(default_factory=dict)
    status: int | None = None  # the final status of an outgoing call
    transfer: list[str] = field(default_factory=list)  # statuses told about a REFER, its own answer first
    peer: tuple[str, int] = ("", 0)
    remote: str = ""  # the other side's contact, From or To, as in a request to it
    local: str = ""
    to: str = ""
    cseq: int = 1

    @property
    def up(self) -> bool:
        """Answered, and not over."""
        return "answered" in self.times and "ended" not in self.times

    def ms(self, first: str, then: str) -> float | None:
        """Milliseconds between two things that happened, or None."""
        if first not in self.times or then not in self.times:
            return None
        return (self.times[then] - self.times[first]) * 1000

    def wait_for(self, what: str, timeout: float = 10) -> SipCall:
        """Wait until this has happened."""
        wait_until(lambda: what in self.times, timeout, f"{what} on the call {self.invite.request_line}")
        return self

    def hang_up(self) -> None:
        """Say BYE."""
        self.phone.request(self, "BYE")
        self.times.setdefault("ended", time.monotonic())

    def refer(self, number: str, replaces: SipCall | None = None) -> None:
        """Transfer the other side to a number, or to the other side of another call of this phone."""
        query = ""
        if replaces is not None:
            far, near = (_tag(value) for value in (replaces.to, replaces.local))
            query = f"?Replaces={replaces.invite.call_id}%3Bto-tag%3D{far}%3Bfrom-tag%3D{near}"
        target = f"<sip:{number}@{self.peer[0]}:{self.peer[1]}{query}>"
        self.phone.request(self, "REFER", f"Refer-To: {target}", f"Referred-By: {self.local.split(';')[0]}")


class SipPhone:
    """A SIP phone or carrier with a clock: SIPp tells whole milliseconds and plays one part at a time.

    Called, it rings (unless `silent`), and answers after `answers_after` seconds unless that is None;
    or it sends the caller on to the number `forwards_to`.
    """

    def __init__(
        self,
        address: str,
        port: int | None = None,
        *,
        answers_after: float | None = 0.0,
        silent: bool = False,
        forwards_to: str = "",
    ) -> None:
        self.address = address
        self.port = port or free_port(address)
        self.answers_after = answers_after
        self.silent = silent
        self.forwards_to = forwards_to
        self.calls: list[SipCall] = []
        self._by_id: dict[str, SipCall] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._ids = count(1)

    def __enter__(self) -> SipPhone:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._socket.bind((self.address, self.port))
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def invites(self) -> list[ReceivedInvite]:
        """The INVITEs that came in, oldest first."""
        return [call.invite for call in list(self.calls) if call.incoming]

    def call_to(self, number: str, timeout: float = 10) -> SipCall:
        """The latest call that came in for this number, once there is one."""
        return wait_until(
            lambda: next((call for call in self.calls_to(number)[::-1]), None), timeout, f"a call to {number}"
        )

    def calls_to(self, number: str) -> list[SipCall]:
        """The calls that came in for this number."""
        return [call for call in list(self.calls) if call.incoming and call.invite.request_user == number]

    def dial(self, number: str, target: tuple[str, int], *, caller: str) -> SipCall:
        """Call a number at a switch. Returns at once."""
        me, uri = f"sip:{caller}@{self.address}:{self.port}", f"sip:{number}@{target[0]}:{target[1]}"
        local, call_id = f"<{me}>;tag=p{next(self._ids)}", f"{next(self._ids)}-{self.port}-{time.time_ns()}"
        lines = [
            f"INVITE {uri} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bK{call_id}",
            "Max-Forwards: 70",
            f"From: {local}",
            f"To: <{uri}>",
            f"Call-ID: {call_id}",
            "CSeq: 1 INVITE",
            f"Contact: <{me}>",
            "Content-Type: application/sdp",
        ]
        call = SipCall(
            self, _message("\n".join(lines)), False, peer=target, remote=uri, local=local, to=f"<{uri}>"
        )
        call.times["INVITE"] = time.monotonic()
        self._by_id[call_id] = call
        self.calls.append(call)
        self._send(lines, self._sdp(), target)
        return call

    def request(self, call: SipCall, method: str, *headers: str) -> None:
        """Send a request within a call."""
        call.cseq += 1
        lines = self._head(call, f"{method} {call.remote} SIP/2.0", f"{call.cseq} {method}")
        self._send([*lines, *headers], "", call.peer)

    # --- inside ---------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(65_535)
            except OSError:
                return
            if data.strip():
                self._take(data.decode(errors="replace").replace("\r", ""), peer, time.monotonic())

    def _take(self, text: str, peer: tuple[str, int], at: float) -> None:
        message = _message(text)
        call = self._by_id.get(message.call_id)
        first, second = message.request_line.split(" ")[:2]
        if first == "SIP/2.0" and call is not None:
            self._response(call, int(second), message, at)
        elif first == "INVITE" and call is None:
            self._incoming(message, peer, at)
        elif first != "SIP/2.0" and first != "ACK":
            self._within(call, first, message, peer, at)

    def _incoming(self, invite: ReceivedInvite, peer: tuple[str, int], at: float) -> None:
        local = f"{invite.value('To')};tag=p{next(self._ids)}"
        call = SipCall(
            self, invite, True, {"INVITE": at}, None, [], peer, _uri(invite), local, invite.value("From") or ""
        )
        self._by_id[invite.call_id] = call
        self.calls.append(call)
        if self.forwards_to:
            contact = f"Contact: <sip:{self.forwards_to}@{self.address}:{self.port}>"
            self._answer(call, invite, "302 Moved Temporarily", peer, contact)
            call.times["ended"] = at
            return
        self._answer(call, invite, "100 Trying" if self.silent else "180 Ringing", peer)
        if self.answers_after == 0:
            self._pick_up(call)
        elif self.answers_after is not None:
            threading.Timer(self.answers_after, self._pick_up, [call]).start()

    def _pick_up(self, call: SipCall) -> None:
        if "ended" not in call.times:
            call.times["answered"] = time.monotonic()
            self._answer(call, call.invite, "200 OK", call.peer, body=self._sdp())

    def _within(
        self, call: SipCall | None, method: str, message: ReceivedInvite, peer: tuple[str, int], at: float
    ) -> None:
        """A request of a known call, or one that has none."""
        if call is not None and method == "INVITE" and message.value("CSeq") == call.invite.value("CSeq"):
            return  # sent again
        self._answer(call, message, "200 OK", peer, body=self._sdp() if method == "INVITE" else "")
        if call is None:
            return
        if method == "NOTIFY" and (found := re.search(r"^SIP/2.0 (\d+)", message.text.split("\n\n", 1)[-1])):
            call.transfer.append(found[1])
            if found[1] == "200" and call.up:
                call.hang_up()
        if method == "CANCEL" and not call.up:
            self._answer(call, call.invite, "487 Request Terminated", peer)
        if method in ("BYE", "CANCEL"):
            call.times.setdefault(method, at)
            call.times.setdefault("ended", at)

    def _response(self, call: SipCall, status: int, message: ReceivedInvite, at: float) -> None:
        number, method = (message.value("CSeq") or "").split(" ")
        if method == "REFER":
            call.transfer.append(str(status))
        if method != "INVITE" or status < 200:
            return
        call.to, call.status = message.value("To") or call.to, status
        if status < 300:
            call.remote = _uri(message)
            call.times.setdefault("answered", at)
        else:
            call.times.setdefault("ended", at)
        branch = "" if status < 300 else call.invite.call_id
        self._send(self._head(call, f"ACK {call.remote} SIP/2.0", f"{number} ACK", branch), "", call.peer)

    def _head(self, call: SipCall, first: str, cseq: str, branch: str = "") -> list[str]:
        via = branch or f"{next(self._ids)}-{time.time_ns()}"
        return [
            first,
            f"Via: SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bK{via}",
            "Max-Forwards: 70",
            f"From: {call.local}",
            f"To: {call.to}",
            f"Call-ID: {call.invite.call_id}",
            f"CSeq: {cseq}",
            f"Contact: <sip:phone@{self.address}:{self.port}>",
        ]

    def _answer(
        self,
        call: SipCall | None,
        message: ReceivedInvite,
        status: str,
        peer: tuple[str, int],
        *headers: str,
        body: str = "",
    ) -> None:
        to = message.value("To") or ""
        lines = [f"SIP/2.0 {status}", *(f"Via: {via}" for via in message.values("Via"))]
        lines += [
            f"From: {message.value('From')}",
            f"Call-ID: {message.call_id}",
            f"CSeq: {message.value('CSeq')}",
        ]
        lines.append(f"To: {call.local if call is not None and ';tag=' not in to and call.incoming else to}")
        lines += headers or [f"Contact: <sip:phone@{self.address}:{self.port}>"]
        self._send(lines, body, peer)

    def _sdp(self) -> str:
        where = f"IN IP4 {self.address}"
        return f"v=0\no=lab 1 1 {where}\ns=-\nc={where}\nt=0 0\nm=audio 9999 RTP/AVP 0\na=rtpmap:0 PCMU/8000\n"

    def _send(self, lines: Sequence[str], body: str, peer: tuple[str, int]) -> None:
        body = body.replace("\n", "\r\n")
        kind = ["Content-Type: application/sdp"] if body and "Content-Type: application/sdp" not in lines else []
        text = "\r\n".join([*lines, *kind, f"Content-Length: {len(body)}", "", body])
        with suppress(OSError):
            self._socket.sendto(text.encode(), peer)


def _message(text: str) -> ReceivedInvite:
    return parse_invites(f"--- invite 0\n{text}\n--- end")[0]


def _uri(message: ReceivedInvite) -> str:
    found = re.search(r"<?(sip:[^>;]+)", message.value("Contact") or "")
    return found[1] if found else ""


def _tag(header: str) -> str:
    return header.partition(";tag=")[2].partition(";")[0]


@dataclass
class Site:
    """What a test gets. Customers and numbers are new for each test; processes are shared."""

    version: int
    directory: Path
    postgres: EmbeddedPostgres
    database: str
    daemon: Daemon
    asterisk: Asterisk
    carriers: Mapping[str, AnswersCalls]
    parties: dict[tuple[str, str], list[Party]]
    scripted: ScriptedGate = field(default_factory=ScriptedGate)
    _counter: count[int] = field(default_factory=lambda: count(1))
    _phones: dict[str, count[int]] = field(default_factory=dict)

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
            "customer", "add", seat.name, f"--name={seat.name}", profile, f"--account={seat.name}",
            "--vetted-by=site",
        )  # fmt: skip
        self.daemon.operator("number", "grant", seat.name, f"+{granted[0]}", f"+{granted[-1]}")
        return Party(seat.name, seat.source_ip, seat.form, granted)

    def phone(self, form: str = "simple", *, registered: bool = True, **behaviour: Any) -> tuple[Party, SipPhone]:
        """A phone of this PBX that is not switched on yet; its number belongs to a customer of its own."""
        taken = f"phone-{form}"
        index = self._phones.setdefault(taken, count())
        trunks = [trunk for trunk in self.asterisk.trunks if trunk.name.startswith(_PHONE_PREFIX[form])]
        trunk = trunks[next(index)]
        limits = ("--calls-per-second=500", "--burst=500", "--concurrent=500")
        self.daemon.operator("profile", "set", trunk.name, *limits)
        if registered:
            account = f"--account={trunk.name}"
            profile = f"--profile={trunk.name}"
            self.daemon.operator(
                "customer", "add", trunk.name, f"--name={trunk.name}", profile, account, "--vetted-by=site"
            )
            self.daemon.operator("number", "grant", trunk.name, f"+{trunk.name}", f"+{trunk.name}")
        party = Party(trunk.name, trunk.address, form, (trunk.name,))
        return party, SipPhone(trunk.address, trunk.port, **behaviour)

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
        waiting = {"Application": "Wait", "Data": "0.1", "CallerID": caller, "Account": account, "Timeout": "5000"}
        answer = self.manager({"Action": "Originate", "Channel": channel, **waiting}, variables)
        self.wait_until_idle()
        return answer

    def manager(self, action: Mapping[str, str], variables: Mapping[str, str] | None = None) -> str:
        """One manager action, and all that was answered until it was over."""
        text = "".join(f"{name}: {value}\r\n" for name, value in action.items())
        text += "".join(f"Variable: {name}={value}\r\n" for name, value in (variables or {}).items())
        login = f"Action: Login\r\nUsername: lab\r\nSecret: {_AMI_SECRET}\r\nEvents: off\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.asterisk.ami_port), timeout=15) as connection:
            connection.sendall(f"{login}{text}\r\nAction: Logoff\r\n\r\n".encode())
            answer = b""
            while chunk := connection.recv(4096):
                answer += chunk
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
    inside = [_INSIDE.format(form=form, prefix=prefix) for form, prefix in _PHONE_PREFIX.items()]
    parts = [f"[globals]\nRINGFENCE_AGI=agi://127.0.0.1:{agi_port}/gate\n"]
    for form, lines in (("simple", _SIMPLE), ("strict", _STRICT)):
        parts.append(f"[from-{form}]\n")
        for prefix, (trunk, seconds) in ROUTES.items():
            pattern = f"_{prefix}." if prefix else "_X."
            parts.append(lines.format(pattern=pattern, trunk=trunk, seconds=seconds))
        limited = lines.format(pattern="", trunk="carrier", seconds=30)
        parts.append(_LIMITED + limited.removeprefix("exten => ,1,") + _TWICE)
        parts.append("exten => _7X.,1,Goto(unasked,${EXTEN:1},1)\n")
        parts += [*inside, _HOSTILE.format(form=form)]
    parts += [_UNASKED, "[from-carrier]\nexten => _X.,1,Hangup(1)\n", *inside]
    return "".join(parts) + "#include ringfence.conf\n"


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
    carriers: Mapping[str, AnswersCalls],
) -> Asterisk:
    """An Asterisk with the shipped files, each as it is shipped."""
    asterisk = Asterisk(
        version,
        directory,
        customers=endpoints,
        trunks=[*(Trunk(name, each.address, each.port) for name, each in carriers.items()), *make_phones()],
        extensions=extensions(agi_port),
        files={
            "ringfence.conf": (DIALPLAN / "ringfence.conf").read_text(),
            "cdr_custom.conf": (DIALPLAN / "cdr_custom.conf.sample").read_text(),
            "cdr_manager.conf": (DIALPLAN / "cdr_manager.conf.sample").read_text(),
        },
    )
    asterisk.write("manager.conf", manager(asterisk.ami_port))
    return asterisk


def make_phones() -> list[Trunk]:
    """Endpoints of the PBX itself: named by their number, with an account of that name and a fixed caller ID."""
    phones = []
    addresses = (f"127.0.{block}.{host}" for block in range(50, 60) for host in range(1, 200))
    for form in FORMS:
        for index in range(_PHONES):
            name, address = f"{_PHONE_PREFIX[form]}{index:04}", next(addresses)
            options = f"accountcode={name}\ncallerid=Phone <{name}>"
            phones.append(Trunk(name, address, free_port(address), f"from-{form}", options))
    return phones


def make_daemon(directory: Path, *, dsn: str, agi_port: int, ami_port: int) -> Daemon:
    """A daemon for that Asterisk."""
    settings: dict[str, Any] = {"dsn": dsn, "agi_port": agi_port, "ami_port": ami_port, "watched": WATCHED}
    return Daemon(directory, ami_secret=_AMI_SECRET, **settings)


def carriers(directory: Path) -> dict[str, AnswersCalls]:
    """Four carriers that nobody watches: one answers, one is busy, one never answers, one hangs up soon after its
    answer. Three that are watched: one rings for a while, one answers at once, one never says more than 100."""
    return {
        "carrier": Carrier(directory / "carrier", address="127.0.0.2"),
        "busy": Carrier(directory / "busy", address="127.0.0.3", scenario="carrier-busy"),
        "silent": Carrier(directory / "silent", address="127.0.0.4", scenario="carrier-silent"),
        "fickle": Carrier(directory / "fickle", address="127.0.0.5", scenario="carrier-hangs-up", talk_ms=300),
        "watched-rings": SipPhone("127.0.0.6", answers_after=0.4),
        "watched-answers": SipPhone("127.0.0.7"),
        "watched-silent": SipPhone("127.0.0.8", answers_after=None, silent=True),
    }


def agi_port() -> int:
    """A port for the daemon's gate."""
    return free_port()
