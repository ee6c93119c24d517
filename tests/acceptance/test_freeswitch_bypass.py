"""What goes around FreeSWITCH's gate is judged when it is seen; what crashes leaves the books right."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from tests.acceptance import site as asterisk_site
from tests.acceptance.freeswitch_site import SEATS, SUFFIX, FreeSwitchDaemon
from tests.acceptance.site import Party, SipCall, SipPhone, wait_for
from tests.acceptance.test_freeswitch_transfers import (
    PhoneSite,
    Redirecting,
    configure,
    phone_site,
    reconciliations,
    wait_for_reconciliation,
)
from tests.lab.available import asterisk_versions, sipp_program
from tests.lab.freeswitch import freeswitch_prefix
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until

pytestmark = pytest.mark.skipif(
    freeswitch_prefix() is None or sipp_program() is None,
    reason="set RINGFENCE_FREESWITCH to the prefix of a FreeSWITCH 1.10; scripts/lab-fetch sipp",
)
HOOK = f"execute_on_originate_{SUFFIX}"
PREFIXES = {"answers": "1202", "rings": "1907", "silent": "1909"}
# From the INVITE on: mod_event_socket looks for events every 20 ms, and the host may be busy.
MOST_MS = 500
RECONCILE_S = 15  # check_interval_s, and the ten seconds of a call's youth
LIVE = "select coalesce(sum(live_calls), 0)::int as live from ringfence.counters"


@dataclass
class Table:
    """Which way around the gate reached which carrier, and for how long."""

    rows: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, way: str, carrier: str, call: SipCall | None) -> None:
        """What this attempt came to at the carrier."""
        if call is None:
            self.rows.append((way, carrier, "no", "", ""))
            return
        ended = call.ms("INVITE", "ended")
        how = "BYE" if "BYE" in call.times else "CANCEL"
        self.rows.append((way, carrier, "yes", f"{ended:.1f}" if ended is not None else "stays", how))

    def __str__(self) -> str:
        rows = [("way around the gate", "carrier", "reached", "ms on the wire", "ended by"), *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = ["  ".join(map(str.ljust, row, widths)) for row in rows]
        return "\n".join([*lines, *self.notes])


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    """Printed when the module is done, even if output is captured."""
    made = Table()
    yield made
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n\n{made}\n")


@pytest.fixture(scope="module")
def site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneSite]:
    with phone_site(tmp_path_factory.mktemp("fsb"), postgres, SEATS[:250]) as made:
        yield made


@pytest.fixture(autouse=True)
def no_calls_left(site: PhoneSite) -> Iterator[None]:
    yield
    site.settle()
    assert wait_until(lambda: not site.recounted(), 5, "counters are what is live")


@contextmanager
def global_variables(site: PhoneSite, **values: str) -> Iterator[None]:
    before = {name: site.switch.variables.get(name, "") for name in values}
    for name, value in values.items():
        site.switch.set_global(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            site.switch.set_global(name, value)


@contextmanager
def no_hook(site: PhoneSite) -> Iterator[None]:
    with global_variables(site, **{HOOK: ""}):
        yield


@contextmanager
def nobody_answers(site: PhoneSite) -> Iterator[None]:
    with global_variables(site, ringfence_daemons="127.0.0.1:1", ringfence_fail="open"):
        yield


@contextmanager
def redirects_followed(site: PhoneSite) -> Iterator[None]:
    with global_variables(site, outbound_redirect_fatal="false"):
        yield


@contextmanager
def hook_after_the_gate(site: PhoneSite) -> Iterator[None]:
    script = site.switch.directory / "scripts" / "later.lua"
    script.write_text(
        'local to = session:getVariable("test_rewritten_to") or ""\n'
        'if to ~= "" then session:setVariable("sip_invite_req_uri", to) end\n'
    )
    with global_variables(site, execute_on_originate_zz_later="lua later.lua"):
        yield


@contextmanager
def as_it_is(_: PhoneSite) -> Iterator[None]:
    yield


def api(site: PhoneSite, party: Party, called: str, shown: str, carrier: str) -> None:
    site.originate(party, f"sofia/gateway/{carrier}/{called}", caller=shown, command="bgapi originate")


def extension(site: PhoneSite, party: Party, called: str, shown: str, carrier: str) -> None:
    site.ring(party, called, caller=shown)


def click_to_dial(site: PhoneSite, party: Party, called: str, shown: str, carrier: str) -> None:
    """The phone is called, answers, and its leg goes to an extension that calls out."""
    desk = site.phones["127.0.71.1"]
    dial = f"sofia/internal/2000@{desk.address}:{desk.port}"
    variables = {"effective_caller_id_number": shown}
    app = f"{called} XML default"
    site.originate(party, dial, app=app, command="bgapi originate", variables=variables)


def overridden(site: PhoneSite, party: Party, called: str, shown: str, carrier: str) -> None:
    variables = {HOOK: "log:INFO"}
    dial = f"sofia/gateway/{carrier}/{called}"
    site.originate(party, dial, caller=shown, command="bgapi originate", variables=variables)


def forged(site: PhoneSite, party: Party, called: str, shown: str, carrier: str) -> None:
    variables = {
        "ringfence_decision": "01a20030-de26-7d13-a86f-a79572f7845a",
        "ringfence_verdict": "allow.00",
        "ringfence_seal": "WyIwMSJd." + "0" * 64,
        "ringfence_reason": "internal",
        "originate_endpoint": "loopback",
    }
    dial = f"sofia/gateway/{carrier}/{called}"
    site.originate(party, dial, caller=shown, command="bgapi originate", variables=variables)


def redirected(site: PhoneSite, party: Party, called: str, shown: str, carrier: str) -> None:
    """The first call is the customer's own; where the carrier sends it on to cannot be a number."""
    redirects, target = site.carriers["redirects"], site.carriers[carrier]
    assert isinstance(redirects, Redirecting)
    redirects.forwards_to, redirects.target = called, (target.address, target.port)
    site.originate(party, f"sofia/gateway/redirects/{site.new_number()}", command="bgapi originate")


def rewritten(site: PhoneSite, party: Party, called: str, shown: str, carrier: str) -> None:
    target = site.carriers[carrier]
    variables = {"test_rewritten_to": f"sip:{called}@{target.address}:{target.port}"}
    dial = f"sofia/gateway/{carrier}/{site.new_number()}"
    site.originate(party, dial, command="bgapi originate", variables=variables)


@dataclass(frozen=True)
class Way:
    """One way around the gate. `by_number`: what may not be is the number called, not the one shown."""

    name: str
    setting: Callable[[PhoneSite], Any]
    place: Callable[[PhoneSite, Party, str, str, str], None]
    created_by: str
    by_number: bool = False


WAYS = [
    Way("hook removed: API originate", no_hook, api, "api"),
    Way("hook removed: dialplan", no_hook, extension, "dialplan"),
    Way("hook removed: click to dial", no_hook, click_to_dial, "transfer"),
    Way("hook removed: forged variables", no_hook, forged, "api"),
    Way("hook overridden by its own name", as_it_is, overridden, "api"),
    Way("no daemon, fail=open: API originate", nobody_answers, api, "api"),
    Way("no daemon, fail=open: dialplan", nobody_answers, extension, "dialplan"),
    Way("302 followed on the same leg", redirects_followed, redirected, "redirect", by_number=True),
    Way("hook after the gate rewrites the leg", hook_after_the_gate, rewritten, "rewritten", by_number=True),
]
# No event tells of a redirect before its new target says something.
WAYS_AND_CARRIERS = [
    pytest.param(way, carrier, id=f"{way.name}, {carrier}")
    for way in WAYS
    for carrier in ("rings", "answers", "silent")
    if (way.created_by, carrier) != ("redirect", "silent")
]


def carrier_of(site: PhoneSite, name: str) -> SipPhone:
    carrier = site.carriers[name]
    assert isinstance(carrier, SipPhone)
    return carrier


def watched(site: PhoneSite, called: str) -> dict[str, Any]:
    """The only decision of the watch about this number."""
    query = f"select * from ringfence.decisions where called = '{called}' and entry = 'watch'"
    (found,) = wait_for(lambda: site.rows(query), f"the watch judges {called}", log=site.daemon.log)
    return found


def live_calls(site: PhoneSite) -> int:
    return int(site.rows(LIVE)[0]["live"])


# --- ways around the gate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "carrier"), WAYS_AND_CARRIERS)
def test_what_may_not_be_is_hung_up(site: PhoneSite, table: Table, way: Way, carrier: str) -> None:
    owner, party = site.customer(), site.customer()
    # No exchange begins with 0, so nobody may call that number.
    called = (
        f"{PREFIXES[carrier]}0{site.new_number()[5:]}" if way.by_number else site.new_number(PREFIXES[carrier])
    )
    with way.setting(site):
        way.place(site, party, called, owner.number, carrier)
        call = carrier_of(site, carrier).call_to(called)
        decision = watched(site, called)
        call.wait_for("ended")
    table.add(way.name, carrier, call)
    assert (decision["verdict"], decision["places"]["created_by"]) == ("reject", way.created_by)
    if not way.by_number:
        assert (decision["reason"], decision["account"]) == ("caller_id_not_authorized", party.source_ip)
    lasted = call.ms("INVITE", "ended")
    assert lasted is not None
    assert lasted < MOST_MS + (400 if way.created_by == "redirect" else 0)
    site.settle()
    if way.by_number:
        site.wait_until_free(party)
    assert site.rows(f"select 1 from ringfence.decisions where called = '{called}'") == [{"?column?": 1}]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_what_may_be_stays_and_is_counted_and_recorded(site: PhoneSite, way: Way) -> None:
    party, called = site.customer(), site.new_number()
    with way.setting(site):
        way.place(site, party, called, party.number, "answers")
        call = carrier_of(site, "answers").call_to(called).wait_for("answered")
        decision = watched(site, called)
        wait_until(lambda: "watch.bypass" in log_of(site, decision), 5, "it is logged")
        assert (decision["verdict"], decision["reason"]) == ("allow", "authorized")
        assert (decision["customer"], decision["places"]["created_by"]) == (party.name, way.created_by)
        wait_for(lambda: live_calls(site) == 1, "it is counted")
        assert call.up
        assert site.recounted() == []
    site.settle()
    end = site.end_of(decision)
    assert (end["source"], end["sip_status"]) == ("event", 200)
    site.wait_until_free(party)
    assert decision["decision_id"] in bypasses(site)


def log_of(site: PhoneSite, decision: dict[str, Any]) -> str:
    lines = site.daemon.log.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines if decision["decision_id"] in line)


def bypasses(site: PhoneSite) -> str:
    """What `ringfence bypass list` reads."""
    return json.dumps(site.rows("select * from ringfence.decisions where entry = 'watch'"))


def test_a_transfer_that_goes_around_the_gate_is_named_so(site: PhoneSite) -> None:
    party, called, target = site.customer(), site.new_number(), site.new_number()
    call = site.dial(party, called)
    with no_hook(site):
        call.refer(target)
        carrier_of(site, "answers").call_to(target).wait_for("ended")
    assert watched(site, target)["places"]["created_by"] == "transfer"


def test_an_emergency_call_is_left_alone(site: PhoneSite) -> None:
    carrier, party = carrier_of(site, "answers"), site.stranger()
    with no_hook(site):
        dial = "sofia/gateway/answers/911"
        variables = {"sip_from_display": "x%0d%0ay"}  # no reason to hang up either
        site.originate(party, dial, caller="12125550000", command="bgapi originate", variables=variables)
        call = carrier.call_to("911").wait_for("answered")
        decision = watched(site, "911")
        assert (decision["verdict"], decision["reason"]) == ("allow", "emergency")
        assert call.up
    assert "watch.bypass" not in log_of(site, decision)


def test_legs_that_stay_inside_are_never_judged(site: PhoneSite) -> None:
    party = site.customer()
    desk = site.phones["127.0.71.1"]
    with no_hook(site):
        site.ring(party, "2000").wait_for("answered")
        assert desk.calls[-1].up
    site.settle()
    assert site.rows("select 1 from ringfence.decisions where called = '2000'") == []


def test_no_leg_that_asked_is_judged_again(site: PhoneSite) -> None:
    party = site.customer()
    numbers = [site.new_number() for _ in range(100)]
    for number in numbers:
        site.ring(party, number)
    for number in numbers:
        carrier_of(site, "answers").call_to(number).wait_for("answered")
    wait_for(lambda: live_calls(site) == 100, "all are counted")
    query = f"select entry, count(*) from ringfence.decisions where account = '{party.source_ip}' group by entry"
    assert site.rows(query) == [{"entry": "hook", "count": 100}]


def test_a_leg_that_left_while_no_daemon_ran_is_judged_when_one_starts(site: PhoneSite, table: Table) -> None:
    owner, good, bad = site.customer(), site.customer(), site.customer()
    allowed, refused = site.new_number(), site.new_number()
    site.daemon.kill9()
    with nobody_answers(site):
        site.ring(good, allowed)
        site.ring(bad, refused, caller=owner.number)
        kept, ended = (
            carrier_of(site, "answers").call_to(number).wait_for("answered") for number in (allowed, refused)
        )
    began = time.monotonic()
    site.daemon.start()
    ended.wait_for("ended")
    table.rows.append(
        (
            "no daemon at all, one starts",
            "answers",
            "yes",
            f"{(time.monotonic() - began) * 1000:.0f} after start",
            "BYE",
        )
    )
    assert watched(site, refused)["reason"] == "caller_id_not_authorized"
    assert watched(site, allowed)["customer"] == good.name
    wait_for(lambda: live_calls(site) == 1 and not site.recounted(), "what may be is counted")
    assert kept.up
    wait_until_sealed(site, allowed)
    before = reconciliations(site)
    site.daemon.kill9()
    site.daemon.start()
    wait_for_reconciliation(site, before)
    query = f"select count(*) from ringfence.decisions where called = '{allowed}'"
    assert site.rows(query) == [{"count": 1}]  # the leg carries its decision
    site.settle()
    assert site.end_of(watched(site, allowed))["source"] == "event"


def test_a_decision_of_another_daemon_is_known_by_its_seal(site: PhoneSite) -> None:
    party, called = site.customer(), site.new_number()
    other = FreeSwitchDaemon(
        site.directory / "other",
        dsn=site.postgres.dsn(site.database),
        hook_port=free_port(),
        socket_port=site.switch.socket_port,
        password=site.switch.password,
    )
    configure(other, legs={"internal": [{"profile": "internal"}]}, name="other")
    other.start()
    try:
        with global_variables(site, ringfence_daemons=f"127.0.0.1:{other.agi_port}"):
            site.dial(party, called)
            site.settle()
    finally:
        other.stop()
    (decision,) = site.rows(f"select * from ringfence.decisions where called = '{called}'")
    assert (decision["switch"], decision["entry"]) == ("other", "hook")


@pytest.mark.parametrize("mode", ["report", "off"])
def test_the_watch_does_only_what_it_is_told(site: PhoneSite, mode: str) -> None:
    owner, party, called = site.customer(), site.customer(), site.new_number()
    restart(site, watch={"mode": mode})
    try:
        with no_hook(site):
            api(site, party, called, owner.number, "answers")
            call = carrier_of(site, "answers").call_to(called).wait_for("answered")
            if mode == "report":
                decision = watched(site, called)
                wait_until(lambda: '"hung_up": false' in log_of(site, decision), 5, "it is reported")
                wait_until_sealed(site, called)
            before = reconciliations(site)
            site.daemon.kill9()
            site.daemon.start()
            wait_for_reconciliation(site, before)
            assert call.up
            found = site.rows(f"select verdict from ringfence.decisions where called = '{called}'")
            assert found == ([{"verdict": "reject"}] if mode == "report" else [])
            assert live_calls(site) == 0
    finally:
        site.settle()
        restart(site, watch={"mode": "kill"})


def wait_until_sealed(site: PhoneSite, called: str) -> None:
    sealed = f"uuid_getvar {site.uuid_of(called)} ringfence_seal"
    wait_until(lambda: "." in site.switch.cli(sealed), 5, "the leg carries its decision")


def restart(site: PhoneSite, **freeswitch: Any) -> None:
    before = reconciliations(site)
    site.daemon.stop()
    assert isinstance(site.daemon, FreeSwitchDaemon)
    configure(site.daemon, **freeswitch)
    site.daemon.start()
    wait_for_reconciliation(site, before)


# --- crashes: counters are what is live, within one interval -----------------------------------------------------


def some_calls(site: PhoneSite, party: Party, number: int) -> list[SipCall]:
    called = [site.new_number() for _ in range(number)]
    for each in called:
        site.ring(party, each)
    calls = [carrier_of(site, "answers").call_to(each).wait_for("answered") for each in called]
    wait_for(lambda: live_calls(site) == number, f"{number} calls are counted")
    return calls


def assert_books_are_right(site: PhoneSite, live: int) -> None:
    def right() -> bool:
        return live_calls(site) == live and not site.recounted()

    wait_for(right, f"{live} live calls are counted", timeout=RECONCILE_S, log=site.daemon.log)
    both = "select decision_id from ringfence.call_ends group by decision_id having count(*) > 1"
    assert site.rows(both) == []


def test_kill_9_of_the_daemon(site: PhoneSite) -> None:
    party = site.customer()
    calls = some_calls(site, party, 10)
    before = reconciliations(site)
    site.daemon.kill9()
    for call in calls[:6]:
        call.hang_up()
    wait_until(lambda: site.switch.active_channels() == 8, 5, "six have ended")
    site.daemon.start()
    wait_for_reconciliation(site, before)
    assert_books_are_right(site, 4)
    sources = site.rows("select source from ringfence.call_ends where source = 'reconciled'")
    assert len(sources) >= 6


def test_kill_9_of_freeswitch(site: PhoneSite) -> None:
    some_calls(site, site.customer(), 10)
    before = reconciliations(site)
    site.switch.kill9()
    site.switch.start()
    wait_for_reconciliation(site, before)
    assert_books_are_right(site, 0)


def test_kill_9_of_both(site: PhoneSite) -> None:
    some_calls(site, site.customer(), 10)
    before = reconciliations(site)
    site.daemon.kill9()
    site.switch.kill9()
    site.switch.start()
    site.daemon.start()
    wait_for_reconciliation(site, before)
    assert_books_are_right(site, 0)


def test_a_lost_event(site: PhoneSite) -> None:
    """The connection drops every end of two of ten calls, and says nothing."""
    with Forgetful(site.switch.socket_port) as between:
        settings = yaml.safe_load(site.daemon.config.read_text())["switches"][0]["event_socket"]
        restart(site, event_socket={**settings, "address": f"127.0.0.1:{between.port}"})
        try:
            calls = some_calls(site, site.customer(), 10)
            for call in calls[:2]:
                between.forget(site.uuid_of(call.invite.request_user))
                call.hang_up()
            for call in calls[2:5]:
                call.hang_up()
            assert_books_are_right(site, 5)
            assert between.forgotten >= 2
        finally:
            site.settle()
            restart(site, event_socket=settings)


def test_a_suspension_ends_fifty_calls_within_a_second(site: PhoneSite, table: Table) -> None:
    party, other = site.customer(), site.customer()
    kept = site.dial(other, site.new_number())
    calls = some_calls_of(site, party, 50)
    assert live_calls(site) == 51
    began = time.monotonic()
    site.daemon.operator("customer", "suspend", party.name, "--reason=robocalls")
    told = time.monotonic()
    for call in calls:
        call.wait_for("ended")
    last = max(call.times["ended"] for call in calls)
    after = [call.times["ended"] - began for call in calls]
    table.notes.append(
        f"suspension of 50 calls: the first is down {min(after) * 1000:.0f} ms after the command began, the last "
        f"{max(after) * 1000:.0f} ms; the command took {(told - began) * 1000:.0f} ms"
    )
    assert last - told < 1
    assert kept.up
    query = f"select hung_up_by, detail from ringfence.call_ends where customer = '{party.name}'"
    ends = wait_for(lambda: found if len(found := site.rows(query)) == 50 else None, "all ends are recorded")
    assert {(end["hung_up_by"], end["detail"]) for end in ends} == {("ringfence", "the customer was suspended")}
    assert_books_are_right(site, 1)


def some_calls_of(site: PhoneSite, party: Party, number: int) -> list[SipCall]:
    called = [site.new_number() for _ in range(number)]
    for each in called:
        site.ring(party, each)
    return [carrier_of(site, "answers").call_to(each).wait_for("answered") for each in called]


# --- one daemon, two kinds of switches ---------------------------------------------------------------------------


def test_one_daemon_serves_a_freeswitch_and_an_asterisk(
    site: PhoneSite, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A customer with an account on each: its cap and its suspension hold for both, its calls end on both."""
    versions = asterisk_versions()
    if not versions:
        pytest.skip("the lab has no Asterisk: run scripts/lab-fetch asterisk22")
    directory = tmp_path_factory.mktemp("both")
    with ExitStack() as stack:
        carriers = {key: stack.enter_context(each) for key, each in asterisk_site.carriers(directory).items()}
        parties, endpoints = asterisk_site.make_parties(free_port())
        agi_port = asterisk_site.agi_port()
        asterisk = asterisk_site.make_asterisk(
            versions[-1], directory / "asterisk", agi_port=agi_port, endpoints=endpoints, carriers=carriers
        )
        stack.enter_context(asterisk)
        daemon = asterisk_site.make_daemon(
            directory / "daemon",
            dsn=postgres.dsn(site.database),
            agi_port=agi_port,
            ami_port=asterisk.ami_port,
        )
        settings, both = (yaml.safe_load(each.config.read_text()) for each in (daemon, site.daemon))
        both["switches"].append({**settings["switches"][0], "name": "asterisk"})
        daemon.config.write_text(yaml.safe_dump(both))
        site.daemon.stop()
        stack.callback(restart_after, site)
        stack.callback(daemon.stop)
        daemon.start()
        wait_until(
            lambda: "ringfence" in asterisk.cli("manager show connected")
            and "esl.reconciled" in daemon.log.read_text(),
            15, "the daemon is logged in to both", log=daemon.log, interval=0.1,
        )  # fmt: skip

        party = site.customer(concurrent=2)
        other = next(iter(parties["simple", ""]))
        daemon.operator("endpoint", "add", party.name, f"--account={other.name}")
        numbers = [site.new_number() for _ in range(4)]
        on_freeswitch = site.dial(party, numbers[0])
        on_asterisk = stack.enter_context(SipPhone(other.source_ip))
        there = on_asterisk.dial(numbers[1], asterisk.sip_address, caller=party.number).wait_for("answered")
        wait_for(lambda: live_calls(site) == 2, "one call on each is counted", log=daemon.log)
        assert site.ring(party, numbers[2]).wait_for("ended").status == 480
        over = on_asterisk.dial(numbers[3], asterisk.sip_address, caller=party.number).wait_for("ended")
        assert over.status == 480
        query = f"select switch, entry, verdict from ringfence.decisions where called in {tuple(numbers)}"
        assert sorted(map(tuple, (row.values() for row in site.rows(query)))) == [
            ("asterisk", "hook", "allow"), ("asterisk", "hook", "reject"),
            ("lab", "hook", "allow"), ("lab", "hook", "reject"),
        ]  # fmt: skip
        daemon.operator("customer", "suspend", party.name, "--reason=robocalls")
        told = time.monotonic()
        for call in (on_freeswitch, there):
            call.wait_for("ended")
            assert call.times["ended"] - told < 1
        assert_books_are_right(site, 0)
        ends = site.rows(f"select hung_up_by from ringfence.call_ends where customer = '{party.name}'")
        assert ends == [{"hung_up_by": "ringfence"}] * 2


def restart_after(site: PhoneSite) -> None:
    before = reconciliations(site)
    site.daemon.start()
    wait_for_reconciliation(site, before)


class Forgetful:
    """Between a daemon and its event socket: loses what the switch says about some channels."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lost: set[bytes] = set()
        self._stack = ExitStack()
        self.forgotten = 0

    def forget(self, uuid: str) -> None:
        """Lose every event of this channel from now on."""
        self._lost.add(f'"Unique-ID":\t"{uuid}"'.replace("\t", "").encode())

    def __enter__(self) -> Forgetful:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._stack.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._stack.enter_context(self._listener.accept()[0])
                far = self._stack.enter_context(socket.create_connection(self._target))
                threading.Thread(target=self._commands, args=(near, far), daemon=True).start()
                threading.Thread(target=self._messages, args=(far, near), daemon=True).start()

    @staticmethod
    def _commands(near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while data := near.recv(65_536):
                far.sendall(data)
            far.shutdown(socket.SHUT_RDWR)

    def _messages(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError), far.makefile("rb") as lines:
            while head := b"".join(iter(lines.readline, b"\n")):
                length = next((int(v) for k, _, v in _fields(head) if k == b"Content-Length"), 0)
                body = lines.read(length)
                if b"event-json" in head and any(uuid in body for uuid in self._lost):
                    self.forgotten += 1
                    continue
                near.sendall(head + b"\n" + body)


def _fields(head: bytes) -> list[tuple[bytes, bytes, bytes]]:
    return [line.partition(b": ") for line in head.splitlines()]
