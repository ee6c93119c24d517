"""Calls that go around the hook: each is judged when its leg is seen, and hung up if it may not be.

The watch cannot prevent an INVITE. The table at the end of the run says what reached a carrier, and for how long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.acceptance.conftest import wait_for_manager
from tests.acceptance.site import Party, SipCall, SipPhone, Site, wait_for
from tests.lab.process import wait_until
from tests.lab.sipp import Call

CARRIERS = {"rings": "1907", "answers": "1908", "silent": "1909"}
FOREIGN = "14155550199"
FIELDS = ("asterisk", "created by", "carrier", "INVITE", "answered", "ended by", "ms on the wire")

_measured: list[tuple[str, ...]] = []


@pytest.fixture(scope="session", autouse=True)
def _table(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what was measured when everything has run."""
    yield
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    if not _measured or capture is None:
        return
    rows = (FIELDS, *_measured)
    widths = [max(len(row[column]) for row in rows) for column in range(len(FIELDS))]
    with capture.global_and_fixture_disabled():
        print("\n\nRefused calls that went around the hook:")
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


# --- ways to call out without the hook: party, called number, carrier, the number shown or none -----------------

Way = Callable[[Site, Party, str, str, str], None]


def by_manager(site: Site, party: Party, called: str, carrier: str, caller: str) -> None:
    """AMI Originate of the carrier's channel."""
    originate(site, party, f"PJSIP/{called}@watched-{carrier}", caller)


def by_local_channel(site: Site, party: Party, called: str, carrier: str, caller: str) -> None:
    """AMI Originate of a Local channel into an extension without the hook."""
    originate(site, party, f"Local/{called}@unasked", caller)


def by_command(site: Site, party: Party, called: str, carrier: str, caller: str) -> None:
    """`channel originate`, which can say neither account nor caller ID."""
    site.asterisk.cli(f"channel originate PJSIP/{called}@watched-{carrier} application Wait 1")


def by_call_file(site: Site, party: Party, called: str, carrier: str, caller: str) -> None:
    """A file in the outgoing spool."""
    lines = {"Channel": f"PJSIP/{called}@watched-{carrier}", "Account": party.name, **caller_id(caller)}
    lines |= {"MaxRetries": "0", "Application": "Wait", "Data": "1"}
    spool = site.asterisk.outgoing_spool
    made = spool.parent / "tmp" / called
    made.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    made.rename(spool / called)


def by_extension(site: Site, party: Party, called: str, carrier: str, caller: str) -> None:
    """A customer's call to an extension that lacks the hook."""
    site.start_calls(party, [Call(f"7{called}", caller or "anonymous")], hold_ms=1000)


WAYS: dict[str, Way] = {
    "AMI Originate": by_manager,
    "channel originate": by_command,
    "call file": by_call_file,
    "extension": by_extension,
    "AMI Originate Local": by_local_channel,
}
SAYS_WHO = [name for name in WAYS if name != "channel originate"]
CREATED_BY = {"extension": "dialplan", "AMI Originate Local": "dialplan"}  # everything else is an originate


def caller_id(caller: str) -> dict[str, str]:
    """The header that names it, if there is a number."""
    return {"CallerID": f'"Desk" <{caller}>'} if caller else {}


def originate(site: Site, party: Party, channel: str, caller: str, seconds: float = 1, **more: str) -> None:
    """AMI Originate of a channel that then waits, not waited for."""
    waits = {"Application": "Wait", "Data": str(seconds), "Async": "true"}
    site.manager(
        {"Action": "Originate", "Channel": channel, "Account": party.name, **waits, **caller_id(caller), **more}
    )


def watched(site: Site, carrier: str) -> SipPhone:
    """The carrier that is watched and rings, answers at once, or keeps silent."""
    found = site.carriers[f"watched-{carrier}"]
    assert isinstance(found, SipPhone)
    return found


def decided(site: Site, called: str) -> dict[str, Any]:
    """The only decision about calls to this number."""
    query = f"select * from ringfence.decisions where called = '{called}'"
    (found,) = wait_for(lambda: site.rows(query), f"a decision about {called}", log=site.daemon.log)
    return found


def measure(site: Site, way: str, carrier: str, call: SipCall) -> None:
    """Add a line to the table."""
    method = "BYE" if "BYE" in call.times else "CANCEL"
    ms = call.ms("INVITE", method)
    answered = "yes" if "answered" in call.times else "no"
    _measured.append((str(site.version), way, carrier, "yes", answered, method, f"{ms:.1f}" if ms else "?"))


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("way", WAYS)
def test_a_call_with_a_foreign_number_is_hung_up_at_once(site: Site, way: str, carrier: str) -> None:
    party, called = site.customer(), site.new_number(CARRIERS[carrier])
    WAYS[way](site, party, called, carrier, FOREIGN)
    call = watched(site, carrier).call_to(called).wait_for("ended")
    measure(site, way, carrier, call)
    decision = decided(site, called)
    assert (decision["entry"], decision["verdict"]) == ("watch", "reject")
    assert decision["places"]["created_by"] == CREATED_BY.get(way, "originate")
    if way == "channel originate":
        assert (decision["reason"], decision["caller"]) == ("endpoint_unknown", "")
    else:
        assert (decision["reason"], decision["caller"]) == ("caller_id_not_authorized", FOREIGN)
    on_the_wire = call.ms("INVITE", "ended")
    assert on_the_wire is not None
    assert on_the_wire < 500
    site.wait_until_idle()
    assert len(watched(site, carrier).calls_to(called)) == 1
    assert site.rows(f"select 1 from ringfence.leases where customer = '{party.name}'") == []


@pytest.mark.parametrize("way", SAYS_WHO)
def test_a_call_without_a_number_is_hung_up_at_once(site: Site, way: str) -> None:
    party, called = site.customer(), site.new_number("1908")
    WAYS[way](site, party, called, "answers", "")
    watched(site, "answers").call_to(called).wait_for("ended", 1)
    expected = (
        "caller_id_withheld" if way == "extension" else "caller_id_missing"
    )  # a phone says that it withholds it
    assert decided(site, called)["reason"] == expected


# --- what is allowed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("carrier", ["rings", "answers"])
@pytest.mark.parametrize("way", SAYS_WHO)
def test_a_call_with_an_own_number_goes_on_and_is_counted(site: Site, way: str, carrier: str) -> None:
    party, called = site.customer(), site.new_number(CARRIERS[carrier])
    WAYS[way](site, party, called, carrier, party.number)
    call = watched(site, carrier).call_to(called)
    decision = decided(site, called)
    assert (decision["entry"], decision["verdict"], decision["customer"]) == ("watch", "allow", party.name)
    lease = f"select 1 from ringfence.leases where decision_id = '{decision['decision_id']}'"
    assert len(site.rows(lease)) == 1
    call.wait_for("ended")
    lived = call.ms("answered", "BYE")
    assert lived is not None
    assert lived > 500
    end = site.end_of(decision)
    assert (end["source"], end["sip_status"], end["trunk"]) == ("event", 200, f"watched-{carrier}")
    assert end["answered_at"] is not None
    site.wait_until_free(party)


def test_a_call_that_was_hooked_is_not_judged_again(site: Site, form: str) -> None:
    party = site.customer(form)
    called = [site.new_number(prefix) for prefix in CARRIERS.values() for _ in range(3)]
    calls = [Call(number, party.number) for number in called]
    site.start_calls(party, calls, scenario="customer-cancels", cancel_ms=800, rate=50).wait()
    site.wait_until_idle()
    rows = site.decisions(party.name)
    assert sorted(row["called"] for row in rows) == sorted(called)
    assert {row["entry"] for row in rows} == {"hook"}


def test_an_emergency_call_without_the_hook_is_left_alone_and_recorded(site: Site) -> None:
    stranger = site.stranger()
    before = len(watched(site, "answers").calls_to("112"))
    (result,) = site.start_calls(stranger, [Call("7112", "anonymous")], hold_ms=700).wait()
    assert (result.status, result.ended_by) == (200, "caller")
    assert len(watched(site, "answers").calls_to("112")) == before + 1
    (decision,) = wait_for(lambda: site.decisions(stranger.name), "the decision", log=site.daemon.log)
    assert (decision["entry"], decision["verdict"], decision["reason"]) == ("watch", "allow", "emergency")


def test_a_customer_over_the_cap_gets_no_further_by_going_around_the_hook(site: Site) -> None:
    party = site.customer(concurrent=1)
    first, second = site.new_number("1908"), site.new_number("1908")
    originate(site, party, f"PJSIP/{first}@watched-answers", party.number, 2)
    wait_for(lambda: site.decisions(party.name), "the first decision", log=site.daemon.log)
    originate(site, party, f"PJSIP/{second}@watched-answers", party.number, 2)
    watched(site, "answers").call_to(second).wait_for("ended", 1)
    assert decided(site, second)["reason"] == "concurrent_calls_exceeded"
    assert watched(site, "answers").call_to(first).up


def test_a_suspension_ends_a_call_that_went_around_the_hook(site: Site) -> None:
    party, called = site.customer(), site.new_number("1908")
    originate(site, party, f"PJSIP/{called}@watched-answers", party.number, 20)
    decision = decided(site, called)
    site.daemon.operator("customer", "suspend", party.name, "--reason=complaint 12")
    watched(site, "answers").call_to(called).wait_for("ended", 2)
    end = site.end_of(decision)
    assert (end["hung_up_by"], end["detail"]) == ("ringfence", "the customer was suspended")


# --- PreDialGoSub (22 only) -------------------------------------------------------------------------------------


def originate_with_a_hook(site: Site, party: Party, called: str, **more: str) -> None:
    """AMI Originate with the shipped hook on the leg it makes."""
    if site.version < 22:
        pytest.skip("Originate has no PreDialGoSub before Asterisk 22")
    channel, hook = f"PJSIP/{called}@watched-answers", f"ringfence-leg,s,1({called})"
    who = {"Account": party.name, **caller_id(party.number)}
    site.manager({"Action": "Originate", "Channel": channel, "PreDialGoSub": hook, **who, **more})


def test_a_hook_before_an_originate_dials_refuses_it_before_any_invite(site: Site) -> None:
    """And every other: caller ID and account are put on the channel only after it."""
    party, called = site.customer(), site.new_number("1908")
    originate_with_a_hook(site, party, called, Context="unasked", Exten="112", Priority="1")
    decision = decided(site, called)
    assert (decision["entry"], decision["reason"]) == ("hook", "endpoint_unknown")
    assert (decision["caller"], decision["account"]) == ("", "")
    site.wait_until_idle()
    assert watched(site, "answers").calls_to(called) == []
    _measured.append((str(site.version), "AMI Originate, PreDialGoSub", "answers", "no", "-", "-", "0"))


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"Application": "Wait", "Data": "1"}, id="application"),
        pytest.param({"Context": "unasked", "Exten": "112", "Priority": "1", "Async": "true"}, id="async"),
    ],
)
def test_a_hook_before_an_originate_dials_is_ignored_unless_it_waits_for_an_extension(
    site: Site, more: dict[str, str]
) -> None:
    party, called = site.stranger(), site.new_number("1908")
    originate_with_a_hook(site, replace(party, numbers=(FOREIGN,)), called, **more)
    assert decided(site, called)["entry"] == "watch"
    watched(site, "answers").call_to(called).wait_for("ended", 1)


# --- report -----------------------------------------------------------------------------------------------------


@pytest.fixture
def reporting(site: Site) -> Iterator[Site]:
    """The site while its daemon only reports."""
    for mode in ("report", "kill"):
        site.daemon.stop()
        site.daemon.watch(mode)
        site.daemon.start()
        wait_for_manager(site)
        if mode == "report":
            yield site


def test_a_watch_that_only_reports_lets_the_call_go_on_and_records_it(reporting: Site) -> None:
    site = reporting
    party, called = site.customer(), site.new_number("1908")
    by_manager(site, party, called, "answers", FOREIGN)
    call = watched(site, "answers").call_to(called).wait_for("ended")
    lived = call.ms("answered", "BYE")
    assert lived is not None
    assert lived > 800
    decision = decided(site, called)
    assert (decision["entry"], decision["reason"]) == ("watch", "caller_id_not_authorized")
    assert '"watch.bypass"' in site.daemon.log.read_text()


# --- legs that were there before the daemon ---------------------------------------------------------------------


def test_legs_that_left_while_the_daemon_was_away_are_judged_when_it_is_back(site: Site) -> None:
    party, foreign = site.customer(), site.customer()
    site.daemon.stop()
    numbers = {name: site.new_number(CARRIERS[name]) for name in CARRIERS}
    for carrier, called in numbers.items():
        originate(site, foreign, f"PJSIP/{called}@watched-{carrier}", FOREIGN, 60, Timeout="60000")
    extension = [site.new_number("1908"), site.new_number("1908")]
    kept = site.start_calls(party, [Call(f"7{extension[0]}", party.number)], hold_ms=12_000)
    site.start_calls(foreign, [Call(f"7{extension[1]}", FOREIGN)], hold_ms=60_000)
    calls = {called: watched(site, carrier).call_to(called) for carrier, called in numbers.items()}
    calls |= {called: watched(site, "answers").call_to(called) for called in extension}
    youngest = max(call.times["INVITE"] for call in calls.values())
    wait_until(lambda: time.monotonic() > youngest + 5, 10, "the switch counts five seconds", interval=0.1)

    site.daemon.start()
    wait_for_manager(site)
    for called in (*numbers.values(), extension[1]):
        calls[called].wait_for("ended", 1)
        decision = decided(site, called)
        assert (decision["entry"], decision["reason"]) == ("watch", "caller_id_not_authorized")
        assert (decision["caller"], decision["account"]) == (FOREIGN, foreign.name)
    allowed = decided(site, extension[0])
    assert (allowed["entry"], allowed["verdict"], allowed["caller"]) == ("watch", "allow", party.number)
    assert calls[extension[0]].up

    # A decision stays with its leg: another daemon does not judge it again.
    site.daemon.kill9()
    site.daemon.start()
    wait_for_manager(site)
    (result,) = kept.wait()
    assert (result.status, result.ended_by) == (200, "caller")
    end = site.end_of(allowed)
    assert (end["source"], end["sip_status"]) == ("event", 200)
    assert len(site.decisions(party.name)) == 1
    site.wait_until_free(party)
