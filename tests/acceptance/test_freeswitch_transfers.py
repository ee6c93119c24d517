"""Transfers and forwards on a real FreeSWITCH: judged for the party that causes them, and showing its number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.freeswitch_site import SEATS, SHIPPED, SUFFIX, FreeSwitchDaemon, FreeSwitchSite, shipped
from tests.acceptance.site import Party, SipCall, SipPhone, wait_for
from tests.lab.available import sipp_program
from tests.lab.freeswitch import FreeSwitch, Gateway, User, freeswitch_prefix
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until
from tests.lab.sipp import ReceivedInvite

pytestmark = pytest.mark.skipif(
    freeswitch_prefix() is None or sipp_program() is None,
    reason="set RINGFENCE_FREESWITCH to the prefix of a FreeSWITCH 1.10; scripts/lab-fetch sipp",
)

DESK = "12125559001"  # what the phone 2000 shows
DESK_USER = "2000"
_ACCOUNT = """
<extension name="account" continue="true"><condition field="network_addr" expression="^(127\\.0\\.(?!71\\.).*)$">
<action application="export" data="accountcode=$1" inline="true"/>
<action application="set" data="hangup_after_bridge=true" inline="true"/>
</condition></extension>
"""
_EXTENSION = """
<extension name="{0}"><condition field="destination_number" expression="^({0})$">{1}</condition></extension>
"""
# Number or pattern called → dial string; $1 is the whole number.
ROUTES = {
    DESK_USER: f"user/{DESK_USER}@127.0.0.1",
    "1907\\d+": "sofia/gateway/rings/$1",
    "1909\\d+": "sofia/gateway/silent/$1",
    "1302\\d+": "sofia/gateway/redirects/$1",
    # follow me: the desk, then or together with numbers outside
    "3101": f"user/{DESK_USER}@127.0.0.1,loopback/12025553101/default",
    "3102": "sofia/gateway/silent/12025553102|loopback/12025553103/default",
    "1\\d+": "sofia/gateway/answers/$1",
}
# Calls for 3000 go on to a number outside: as nobody's, and as the account and number of who has them forwarded.
FORWARDED, FORWARDER_ACCOUNT, FORWARDER = "12025553000", "127.0.62.250", "12125559002"
_FORWARDS = _EXTENSION.format(
    "3000", f'<action application="bridge" data="sofia/gateway/answers/{FORWARDED}"/>'
) + _EXTENSION.format(
    "3001",
    f'<action application="set" data="accountcode={FORWARDER_ACCOUNT}"/>'
    f'<action application="set" data="effective_caller_id_number={FORWARDER}"/>'
    f'<action application="bridge" data="sofia/gateway/answers/{FORWARDED}"/>',
)


class Redirecting(SipPhone):
    """A carrier that sends every call on, to this number at this address."""

    target: tuple[str, int] = ("", 0)

    def _answer(self, call: Any, message: ReceivedInvite, status: str, *args: Any, **options: Any) -> None:
        if status.startswith("302"):
            peer = args[0]
            contact = f"Contact: <sip:{self.forwards_to}@{self.target[0]}:{self.target[1]}>"
            super()._answer(call, message, status, peer, contact)
            return
        super()._answer(call, message, status, *args, **options)


class PhoneSite(FreeSwitchSite):
    """FreeSWITCH with carriers and phones that can transfer."""

    def dial(self, party: Party, called: str, *, caller: str | None = None) -> SipCall:
        """A call by a phone at the party's address; the two talk when this returns."""
        call = self.ring(party, called, caller=caller).wait_for("answered")
        bridged = f"uuid_getvar {self.uuid_of(called)} bridge_uuid"
        wait_until(lambda: "_undef_" not in self.switch.cli(bridged), 5, "they are connected")
        return call

    def ring(self, party: Party, called: str, *, caller: str | None = None) -> SipCall:
        """The same, but this returns at once."""
        phone = self.phones.get(party.source_ip)
        if phone is None:
            phone = self.phones[party.source_ip] = SipPhone(party.source_ip)
            phone.__enter__()
        return phone.dial(called, self.switch.sip_address, caller=party.number if caller is None else caller)

    @property
    def phones(self) -> dict[str, SipPhone]:
        """The phones so far, by their address."""
        found: dict[str, SipPhone] = self.__dict__.setdefault("_all_phones", {})
        return found

    def about(self, called: str) -> dict[str, Any]:
        """The only decision about calls to this number."""
        query = f"select * from ringfence.decisions where called = '{called}'"
        (found,) = wait_for(lambda: self.rows(query), f"a decision about {called}", log=self.daemon.log)
        return found

    def uuid_of(self, number: str, direction: str = "outbound") -> str:
        """The channel that calls this number, or was called by it."""

        def find() -> str:
            rows: Sequence[Mapping[str, str]] = json.loads(self.switch.cli("show channels as json")).get(
                "rows", []
            )
            return next((r["uuid"] for r in rows if r["direction"] == direction and number in r["name"]), "")

        return wait_until(find, 5, f"a channel of {number}")

    def recounted(self) -> list[dict[str, Any]]:
        """The counters that differ from what is live."""
        return self.rows("select * from ringfence.recount()")

    def settle(self) -> None:
        """End every call, and forget the phones' part of it."""
        self.hang_up_all()


def make_switch(directory: Path, carriers: Mapping[str, SipPhone], hook_port: int, desk: SipPhone) -> FreeSwitch:
    """A FreeSWITCH with the shipped gate, one phone inside and extensions that forward."""
    routes = "".join(
        _EXTENSION.format(pattern, f'<action application="bridge" data="{dial}"/>')
        for pattern, dial in ROUTES.items()
    )
    dial_desk = f"[effective_caller_id_number={DESK}]sofia/internal/{DESK_USER}@{desk.address}:{desk.port}"
    return FreeSwitch(
        directory,
        gateways=[Gateway(name, each.address, each.port) for name, each in carriers.items()],
        users=[User(DESK_USER, dial_desk)],
        dialplan=_ACCOUNT + _FORWARDS + routes,
        contexts=shipped("ringfence_dialplan.xml"),
        scripts={"ringfence_gate.lua": (SHIPPED / "ringfence_gate.lua").read_text(encoding="utf-8")},
        variables={
            f"execute_on_originate_{SUFFIX}": "lua ringfence_gate.lua",
            "ringfence_daemons": f"127.0.0.1:{hook_port}",
            "outbound_redirect_fatal": "true",
        },
    )


@contextmanager
def phone_site(
    directory: Path, postgres: EmbeddedPostgres, seats: Sequence[Party], **freeswitch: Any
) -> Iterator[PhoneSite]:
    """Everything, running. `freeswitch` are more settings of the daemon for this switch."""
    carriers = {
        "answers": SipPhone("127.0.0.2"),
        "rings": SipPhone("127.0.0.6", answers_after=0.4),
        "silent": SipPhone("127.0.0.8", answers_after=None, silent=True),
        "redirects": Redirecting("127.0.0.9", forwards_to="12025550302"),
    }
    desk = SipPhone("127.0.71.1")
    hook_port = free_port()
    switch = make_switch(directory / "freeswitch", carriers, hook_port, desk)
    name = directory.name.replace("-", "_")
    daemon = FreeSwitchDaemon(
        directory / "daemon",
        dsn=postgres.create_database(name),
        hook_port=hook_port,
        socket_port=switch.socket_port,
        password=switch.password,
    )
    configure(daemon, legs={"internal": [{"profile": "internal"}]}, **freeswitch)
    site = PhoneSite(
        version=0,
        directory=directory,
        postgres=postgres,
        database=name,
        daemon=daemon,
        asterisk=switch,  # type: ignore[arg-type]
        carriers=carriers,
        parties={("simple", ""): list(seats)},
        _counter=count(1),
    )
    with ExitStack() as stack:
        for phone in (*carriers.values(), desk):
            stack.enter_context(phone)
        daemon.operator("db", "migrate")
        stack.enter_context(switch)
        daemon.start()
        stack.callback(daemon.kill9)
        wait_for_reconciliation(site)
        site.phones[desk.address] = desk
        yield site
        for phone in site.phones.values():
            phone.__exit__()


def configure(daemon: FreeSwitchDaemon, **freeswitch: Any) -> None:
    """Change what the daemon's next start reads about its FreeSWITCH."""
    settings = yaml.safe_load(daemon.config.read_text(encoding="utf-8"))
    settings["switches"][0].update(freeswitch)
    daemon.config.write_text(yaml.safe_dump(settings), encoding="utf-8")


def reconciliations(site: FreeSwitchSite) -> int:
    return site.daemon.log.read_text(errors="replace").count("esl.reconciled")


def wait_for_reconciliation(site: FreeSwitchSite, after: int = 0) -> None:
    wait_until(
        lambda: reconciliations(site) > after, 20, "the daemon is logged in and has compared",
        log=site.daemon.log, interval=0.05,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneSite]:
    with phone_site(tmp_path_factory.mktemp("fst"), postgres, SEATS[250:290]) as made:
        limits = ("--calls-per-second=500", "--burst=500", "--concurrent=500")
        made.daemon.operator("profile", "set", "desk", *limits)
        for name, endpoint, number in (
            ("desk", f"--sip-user={DESK_USER}", DESK),
            ("forwarder", f"--account={FORWARDER_ACCOUNT}", FORWARDER),
        ):
            made.daemon.operator(
                "customer", "add", name, f"--name={name}", "--profile=desk", endpoint, "--vetted-by=site"
            )
            made.daemon.operator("number", "grant", name, f"+{number}", f"+{number}", "--shared")
        yield made


@pytest.fixture(autouse=True)
def no_calls_left(site: PhoneSite) -> Iterator[None]:
    yield
    site.settle()
    assert wait_until(lambda: not site.recounted(), 5, "counters are what is live")


@pytest.fixture
def desk(site: PhoneSite) -> SipPhone:
    """The phone 2000."""
    return site.phones["127.0.71.1"]


@pytest.fixture
def nobody_at_the_desk(desk: SipPhone) -> Iterator[None]:
    """The phone 2000 only rings."""
    desk.answers_after = None
    yield
    desk.answers_after = 0.0


def answers(site: PhoneSite) -> SipPhone:
    carrier = site.carriers["answers"]
    assert isinstance(carrier, SipPhone)
    return carrier


def assert_judged_for(site: PhoneSite, called: str, customer: str, number: str) -> dict[str, Any]:
    """The only leg to `called` shows this number, and was allowed to this customer with it."""
    invite = answers(site).call_to(called).invite
    assert (invite.from_user, invite.asserted_user or number) == (number, number)
    assert len(site.invites(called)) == 1
    decision = site.about(called)
    assert (decision["verdict"], decision["reason"], decision["entry"]) == ("allow", "authorized", "hook")
    assert (decision["customer"], decision["caller"]) == (customer, number)
    return decision


def assert_refused(site: PhoneSite, called: str, reason: str) -> None:
    decision = site.about(called)
    assert (decision["verdict"], decision["reason"], decision["entry"]) == ("reject", reason, "hook")
    assert site.invites(called) == []


# --- REFER -------------------------------------------------------------------------------------------------------


def test_a_refer_by_the_caller_is_judged_and_shown_as_the_callers_own_call(site: PhoneSite) -> None:
    party, called, target = site.customer(), site.new_number(), site.new_number()
    call = site.dial(party, called)
    call.refer(target)
    decision = assert_judged_for(site, target, party.name, party.number)
    assert decision["places"]["passed_through"] == called
    assert decision["account"] == party.source_ip
    display = answers(site).call_to(target).invite.value("From") or ""
    assert called not in display
    wait_until(lambda: call.transfer[:1] == ["202"], 5, "the REFER is accepted")
    site.settle()
    ends = [site.end_of(site.about(number)) for number in (called, target)]
    assert [end["source"] for end in ends] == ["event", "event"]
    site.wait_until_free(party)


def test_a_refer_by_the_caller_counts_against_the_callers_cap(site: PhoneSite) -> None:
    party, called, target = site.customer(concurrent=1), site.new_number(), site.new_number()
    site.dial(party, called).refer(target)
    assert_refused(site, target, "concurrent_calls_exceeded")


def test_a_refer_by_a_callee_outside_is_refused(site: PhoneSite) -> None:
    party, called, target = site.customer(), site.new_number(), site.new_number()
    site.dial(party, called)
    answers(site).call_to(called).wait_for("answered").refer(target)
    assert_refused(site, target, "endpoint_unknown")
    assert site.about(target)["places"]["passed_through"] == party.number


def test_whom_the_caller_was_transferred_to_cannot_transfer_at_his_expense(site: PhoneSite) -> None:
    party, called, second, third = site.customer(), *(site.new_number() for _ in range(3))
    site.dial(party, called).refer(second)
    onward = answers(site).call_to(second).wait_for("answered")
    wait_until(lambda: "bridge_uuid" in site.switch.cli(f"uuid_dump {site.uuid_of(second)}"), 5, "they talk")
    onward.refer(third)
    assert_refused(site, third, "endpoint_unknown")


def test_a_refer_by_a_phone_that_was_called_is_judged_as_that_phones_own_call(
    site: PhoneSite, desk: SipPhone
) -> None:
    party, target = site.customer(), site.new_number()
    site.dial(party, DESK_USER)
    desk.calls[-1].refer(target)
    decision = assert_judged_for(site, target, "desk", DESK)
    assert (decision["sip_user"], decision["places"]["passed_through"]) == (DESK_USER, party.number)


def test_a_phone_transfers_a_caller_from_outside_as_its_own_call(site: PhoneSite, desk: SipPhone) -> None:
    target = site.new_number()
    site.dial(site.stranger(), DESK_USER, caller="14155550123")
    desk.calls[-1].refer(target)
    decision = assert_judged_for(site, target, "desk", DESK)
    assert decision["places"]["passed_through"] == "14155550123"


def test_a_caller_from_outside_cannot_transfer_a_phone_to_the_outside(site: PhoneSite) -> None:
    target = site.new_number()
    site.dial(site.stranger(), DESK_USER, caller="14155550123").refer(target)
    assert_refused(site, target, "endpoint_unknown")


def test_a_refer_by_a_phone_that_called_a_phone_is_judged_as_its_own_call(site: PhoneSite) -> None:
    party, target = site.customer(), site.new_number()
    site.dial(party, DESK_USER).refer(target)
    assert_judged_for(site, target, party.name, party.number)


def test_a_refer_after_a_restart_of_the_daemon_is_still_the_callers(site: PhoneSite) -> None:
    party, called, target = site.customer(), site.new_number(), site.new_number()
    call = site.dial(party, called)
    before = reconciliations(site)
    site.daemon.kill9()
    site.daemon.start()
    wait_for_reconciliation(site, before)
    call.refer(target)
    assert_judged_for(site, target, party.name, party.number)


def test_an_attended_transfer_joins_two_calls_that_were_both_judged(site: PhoneSite) -> None:
    party, called, target = site.customer(), site.new_number(), site.new_number()
    first, second = site.dial(party, called), site.dial(party, target)
    first.refer(target, replaces=second)
    wait_until(lambda: "200" in first.transfer, 5, "the transfer is done")
    for number in (called, target):
        assert_judged_for(site, number, party.name, party.number)
    joined = site.uuid_of(called)
    wait_until(
        lambda: site.switch.cli(f"uuid_getvar {joined} bridge_uuid").strip() == site.uuid_of(target), 5, "joined"
    )
    live = f"select live_calls from ringfence.counters where customer = '{party.name}'"
    assert site.rows(live) == [{"live_calls": 2}]
    site.settle()
    site.wait_until_free(party)


# --- by the switch -----------------------------------------------------------------------------------------------


def test_an_attended_transfer_by_the_switch_is_judged_as_the_callers_own_call(site: PhoneSite) -> None:
    party, called, target = site.customer(), site.new_number(), site.new_number()
    site.dial(party, called)
    caller = site.uuid_of(party.number, "inbound")
    site.switch.cli(f"uuid_broadcast {caller} att_xfer::sofia/gateway/answers/{target} aleg")
    assert_judged_for(site, target, party.name, party.number)


@pytest.mark.parametrize("leg", ["", "-bleg "], ids=["caller", "callee"])
def test_a_transfer_by_the_switch_is_judged_as_the_callers_own_call(site: PhoneSite, leg: str) -> None:
    party, called, target = site.customer(), site.new_number(), site.new_number()
    site.dial(party, called)
    site.switch.cli(f"uuid_transfer {site.uuid_of(party.number, 'inbound')} {leg}{target}")
    assert_judged_for(site, target, party.name, party.number)


def test_an_explicit_number_of_the_customers_own_stays(site: PhoneSite) -> None:
    party, called, target = site.customer(numbers=2), site.new_number(), site.new_number()
    site.dial(party, called)
    far = site.uuid_of(called)
    site.switch.cli(f"uuid_setvar {far} effective_caller_id_number {party.numbers[1]}")
    site.switch.cli(f"uuid_transfer {far} {target}")
    assert_judged_for(site, target, party.name, party.numbers[1])


def test_an_explicit_number_of_somebody_elses_is_refused(site: PhoneSite) -> None:
    party, other, called, target = site.customer(), site.customer(), site.new_number(), site.new_number()
    site.dial(party, called)
    far = site.uuid_of(called)
    site.switch.cli(f"uuid_setvar {far} effective_caller_id_number {other.number}")
    site.switch.cli(f"uuid_transfer {far} {target}")
    assert_refused(site, target, "caller_id_not_authorized")


def test_a_forwarded_call_is_refused_unless_the_dialplan_says_whose_it_is(site: PhoneSite) -> None:
    outside = site.stranger()
    site.ring(outside, "3000", caller="14155550123")
    assert_refused(site, FORWARDED, "endpoint_unknown")
    site.settle()
    site.ring(outside, "3001", caller="14155550123")
    invite = answers(site).call_to(FORWARDED).invite
    assert invite.from_user == FORWARDER
    decision = site.rows(f"select * from ringfence.decisions where called = '{FORWARDED}' and verdict = 'allow'")
    assert [(row["customer"], row["caller"]) for row in decision] == [("forwarder", FORWARDER)]


@pytest.mark.usefixtures("nobody_at_the_desk")
@pytest.mark.parametrize(("extension", "reached"), [("3101", "12025553101"), ("3102", "12025553103")])
def test_follow_me_is_judged_as_the_callers_own_call(site: PhoneSite, extension: str, reached: str) -> None:
    """`,` with the desk and `|` after a carrier that is silent: the outer leg shows the caller, who may do so."""
    party, outside = site.customer(), site.stranger()
    site.ring(outside, extension, caller="14155550123")
    query = f"select * from ringfence.decisions where called = '{reached}' and account = '%s' and verdict = '%s'"
    wait_for(lambda: site.rows(query % (outside.source_ip, "reject")), "the stranger is refused")
    assert site.invites(reached) == []
    site.settle()
    before = len(site.invites(reached))
    call = site.ring(party, extension)
    if extension == "3102":
        silent = site.carriers["silent"]
        assert isinstance(silent, SipPhone)
        silent.call_to("12025553102")
        site.switch.cli(f"uuid_kill {site.uuid_of('12025553102')} USER_BUSY")
    invite = wait_until(lambda: site.invites(reached)[before:], 10, "the number outside is called")[0]
    assert invite.from_user == party.number
    (row,) = wait_for(lambda: site.rows(query % (party.source_ip, "allow")), "a decision")
    assert row["customer"] == party.name
    call.wait_for("answered")


# --- click to call -----------------------------------------------------------------------------------------------


def test_click_to_call_between_two_numbers_outside_is_the_originators_call_twice(site: PhoneSite) -> None:
    party, first, second = site.customer(), site.new_number(), site.new_number()
    site.originate(party, f"sofia/gateway/answers/{first}", app=f"&bridge(sofia/gateway/answers/{second})")
    for number in (first, second):
        assert_judged_for(site, number, party.name, party.number)
    assert site.about(second)["places"]["passed_through"] == first


def test_click_to_call_from_a_phone_shows_the_phones_number(site: PhoneSite, desk: SipPhone) -> None:
    party, target = site.customer(), site.new_number()
    site.daemon.operator("number", "grant", party.name, f"+{DESK}", f"+{DESK}", "--shared")
    site.originate(party, f"user/{DESK_USER}@127.0.0.1", app=f"&bridge(sofia/gateway/answers/{target})")
    assert_judged_for(site, target, party.name, DESK)


def test_click_to_call_to_a_phone_judges_the_leg_outside(site: PhoneSite, desk: SipPhone) -> None:
    party, thief, target, stolen = site.customer(), site.customer(), site.new_number(), site.new_number()
    app = f"&bridge(user/{DESK_USER}@127.0.0.1)"
    site.originate(party, f"sofia/gateway/answers/{target}", app=app)
    assert_judged_for(site, target, party.name, party.number)
    assert site.originate(thief, f"sofia/gateway/answers/{stolen}", caller=party.number, app=app).startswith(
        "-ERR"
    )
    assert_refused(site, stolen, "caller_id_not_authorized")


# --- 3xx ---------------------------------------------------------------------------------------------------------


def test_a_carrier_that_sends_the_caller_on_by_302_is_refused(site: PhoneSite) -> None:
    """With outbound_redirect_fatal=false, and a Contact that is this switch: the dialplan would call on."""
    party, called, target = site.customer(), site.new_number("1302"), site.new_number()
    redirects = site.carriers["redirects"]
    assert isinstance(redirects, Redirecting)
    redirects.forwards_to, redirects.target = target, site.switch.sip_address
    site.switch.set_global("outbound_redirect_fatal", "false")
    try:
        site.ring(party, called)
        assert_refused(site, target, "endpoint_unknown")
    finally:
        site.switch.set_global("outbound_redirect_fatal", "true")


def test_a_dial_string_cannot_allow_redirects(site: PhoneSite) -> None:
    party, called, target = site.customer(), site.new_number("1302"), site.new_number()
    redirects, carrier = site.carriers["redirects"], answers(site)
    assert isinstance(redirects, Redirecting)
    redirects.forwards_to, redirects.target = target, (carrier.address, carrier.port)
    variables = {"outbound_redirect_fatal": "false"}
    answer = site.originate(party, f"sofia/gateway/redirects/{called}", variables=variables)
    assert answer.startswith("-ERR")
    assert len(redirects.calls_to(called)) == 1
    assert site.invites(target) == []
