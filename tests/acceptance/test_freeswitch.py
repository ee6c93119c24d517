"""The same sentences as for Asterisk, on a real FreeSWITCH (RINGFENCE_FREESWITCH names its prefix)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ringfence import reasons
from tests.acceptance import freeswitch_site as sites
from tests.acceptance.conftest import Stopwatch
from tests.acceptance.freeswitch_site import SUFFIX, USER_NUMBER, FreeSwitchSite
from tests.acceptance.site import Party, SilentServer, wait_for
from tests.lab.available import sipp_program
from tests.lab.freeswitch import freeswitch_prefix
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until
from tests.lab.sipp import Call, Carrier
from tests.lab.sipp_values import statuses

pytestmark = pytest.mark.skipif(
    freeswitch_prefix() is None or sipp_program() is None,
    reason="set RINGFENCE_FREESWITCH to the prefix of a FreeSWITCH 1.10; scripts/lab-fetch sipp",
)
WAIT_S = 3.0  # ringfence_wait of the shipped gate
SLACK_S = 1.0


@pytest.fixture(scope="module")
def site(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FreeSwitchSite]:
    directory = tmp_path_factory.mktemp("fs")
    with ExitStack() as stack:
        started = {key: stack.enter_context(each) for key, each in sites.carriers(directory).items()}
        made = sites.make_site(directory, postgres, directory.name.replace("-", "_"), started)
        made.daemon.operator("db", "migrate")
        stack.enter_context(made.switch)
        made.daemon.start()
        stack.callback(made.daemon.stop)
        wait_for_event_socket(made)
        yield made


@pytest.fixture(autouse=True)
def no_calls_left(site: FreeSwitchSite) -> Iterator[None]:
    yield
    site.hang_up_all()


def wait_for_event_socket(site: FreeSwitchSite, times: int = 1) -> None:
    wait_until(
        lambda: site.daemon.log.read_text(errors="replace").count("esl.reconciled") >= times,
        15, "the daemon is logged in to the event socket", log=site.daemon.log, interval=0.1,
    )  # fmt: skip


def reconciliations(site: FreeSwitchSite) -> int:
    return site.daemon.log.read_text(errors="replace").count("esl.reconciled")


def assert_refused(site: FreeSwitchSite, party: Party, called: str, reason: str) -> None:
    """No INVITE left, and the only decision about the party says why."""
    assert site.invites(called) == []
    decision = site.decision(party)
    assert (decision["verdict"], decision["reason"]) == ("reject", reason)


@contextmanager
def globals_of(site: FreeSwitchSite, **values: str) -> Iterator[None]:
    before = {name: site.switch.variables.get(name, "") for name in values}
    for name, value in values.items():
        site.switch.set_global(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            site.switch.set_global(name, value)


# --- what leaves and what does not ----------------------------------------------------------------------------


def test_own_number_reaches_the_carrier_and_its_cdr_says_why(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    assert site.call(party, called).status == 200
    (invite,) = site.invites(called)
    assert invite.from_user == party.number
    decision = site.decision(party)
    assert (decision["verdict"], decision["reason"]) == ("allow", "authorized")
    assert (decision["customer"], decision["caller"], decision["called"]) == (party.name, party.number, called)
    assert decision["source_address"] == party.source_ip
    end = site.end_of(decision)
    assert (end["hung_up_by"], end["sip_status"], end["q850_cause"]) == ("caller", 200, 16)
    assert (end["trunk"], end["source"]) == ("carrier", "event")
    site.wait_until_free(party)
    both = wait_for(
        lambda: [
            cdr for cdr in site.switch.cdrs()
            if cdr["variables"].get("ringfence_decision") == decision["decision_id"]
        ][:2],
        "both legs' CDRs",
    )  # fmt: skip
    assert {cdr["variables"]["ringfence_customer"] for cdr in both} == {party.name}
    assert {cdr["variables"]["direction"] for cdr in both} == {"inbound", "outbound"}


def test_someone_elses_number_never_reaches_the_carrier(site: FreeSwitchSite) -> None:
    owner, thief, called = site.customer(), site.customer(), site.new_number()
    assert site.call(thief, called, caller=owner.number).status == 403
    assert_refused(site, thief, called, "caller_id_not_authorized")


def test_a_call_without_a_caller_id_is_refused(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    assert site.call(party, called, caller="anonymous").status == 403
    assert_refused(site, party, called, "caller_id_withheld")


def test_an_unknown_endpoint_is_refused(site: FreeSwitchSite) -> None:
    owner, stranger, called = site.customer(), site.stranger(), site.new_number()
    assert site.call(stranger, called, caller=owner.number).status == 403
    assert_refused(site, stranger, called, "endpoint_unknown")


def test_a_suspended_customer_is_refused_but_may_call_911(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    site.daemon.operator("customer", "suspend", party.name, "--reason=robocalls")
    assert site.call(party, called).status == 403
    assert_refused(site, party, called, "customer_suspended")
    before = len(site.invites("911"))
    assert site.call(party, "911").status == 200
    assert [invite.from_user for invite in site.invites("911")[before:]] == [party.number]


def test_calls_over_the_rate_are_refused_with_480(site: FreeSwitchSite) -> None:
    party = site.customer(calls_per_second=0.01, burst=2)
    calls = [Call(site.new_number(), party.number) for _ in range(5)]
    results = site.start_calls(party, calls, rate=50).wait()
    assert statuses(results) == {200: 2, 480: 3}
    left = sum(bool(site.invites(call.called)) for call in calls)
    assert left == 2


def test_calls_over_the_concurrency_cap_are_refused_and_the_cap_is_given_back(site: FreeSwitchSite) -> None:
    party = site.customer(concurrent=1)
    calls = [Call(site.new_number(), party.number) for _ in range(3)]
    results = site.start_calls(party, calls, rate=50, hold_ms=800).wait()
    assert statuses(results) == {200: 1, 480: 2}
    site.wait_until_free(party)
    assert site.call(party, site.new_number()).status == 200


@pytest.mark.parametrize("command", ["originate", "bgapi originate"])
def test_originates_over_the_api_are_judged(site: FreeSwitchSite, command: str) -> None:
    party, thief, called, stolen = site.customer(), site.customer(), site.new_number(), site.new_number()
    site.originate(party, f"sofia/gateway/carrier/{called}", command=command)
    wait_for(lambda: site.invites(called), "the carrier is called")
    answer = site.originate(thief, f"sofia/gateway/carrier/{stolen}", caller=party.number, command=command)
    assert site.decision(thief)["reason"] == "caller_id_not_authorized"
    assert site.invites(stolen) == []
    if command == "originate":
        assert answer == "-ERR CALL_REJECTED"
    site.hang_up_all()
    end = site.end_of(site.decision(party))
    assert (end["hung_up_by"], end["sip_status"]) == ("switch", 200)


def test_a_leg_names_its_campaign(site: FreeSwitchSite) -> None:
    party = site.customer()
    site.daemon.operator("campaign", "add", party.name, "spring", "--traffic=conversational")
    for campaign, expected in (("spring", "authorized"), ("autumn", "campaign_unknown")):
        called = site.new_number()
        site.originate(
            party, f"sofia/gateway/carrier/{called}", variables={"ringfence_campaign": campaign}, app="&hangup"
        )
        [row] = site.rows(f"select reason, campaign from ringfence.decisions where called = '{called}'")
        assert (row["reason"], row["campaign"]) == (expected, campaign)


def test_originates_to_an_address_without_a_gateway_are_judged(site: FreeSwitchSite) -> None:
    thief, called, carrier = site.customer(), site.new_number(), site.carriers["carrier"]
    dial = f"sofia/external/{called}@{carrier.address}:{carrier.port}"
    assert site.originate(thief, dial, caller="12125550000") == "-ERR CALL_REJECTED"
    assert_refused(site, thief, called, "caller_id_not_authorized")


@pytest.mark.parametrize("prefix", ["1202", "1505", "1606", "1707", "1808", "1901"])
def test_however_it_is_dialled_one_attempt_is_one_decision(site: FreeSwitchSite, prefix: str) -> None:
    """A gateway, `|`, `,`, enterprise, loopback, user/: the legs share the decision; refused, none leaves."""
    party, thief, called, stolen = (
        site.customer(),
        site.customer(),
        site.new_number(prefix),
        site.new_number(prefix),
    )
    before = len(site.invites(USER_NUMBER))
    # What a loopback channel tells on is the cause alone, and FreeSWITCH makes 603 of it.
    assert site.call(thief, stolen, caller=party.number).status == (603 if prefix == "1808" else 403)
    assert site.decision(thief)["reason"] == "caller_id_not_authorized"
    assert site.invites(stolen) == []
    assert len(site.invites(USER_NUMBER)) == before
    assert site.call(party, called).status == 200
    reached = USER_NUMBER if prefix == "1901" else called
    legs = len(site.invites(reached)) - (before if prefix == "1901" else 0)
    assert legs == (2 if prefix in ("1505", "1606", "1707") else 1)
    decision = site.decision(party)
    assert (decision["verdict"], decision["called"]) == ("allow", reached)
    end = site.end_of(decision)
    assert (end["sip_status"], end["trunk"]) == (200, "external" if prefix == "1901" else "carrier")


def test_a_loopback_originate_is_judged_where_it_leaves(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    site.originate(party, f"loopback/plain{called}/default", caller="12125550000")
    wait_for(lambda: site.rows(f"select 1 from ringfence.decisions where called = '{called}'"), "a decision")
    assert site.invites(called) == []


def test_a_busy_carrier_is_recorded(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number("1303")
    assert site.call(party, called).status == 486
    end = site.end_of(site.decision(party))
    assert (end["hung_up_by"], end["sip_status"], end["q850_cause"]) == ("callee", 486, 17)
    assert "Busy Here" in end["detail"]


def test_a_caller_who_gives_up_is_recorded(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number("1404")
    result = site.call(party, called, scenario="customer-cancels", cancel_ms=300)
    assert result.status == 487
    end = site.end_of(site.decision(party))
    assert (end["hung_up_by"], end["answered_at"]) == ("caller", None)


def test_a_suspension_hangs_up_the_customers_live_calls(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    run = site.start_calls(party, [Call(called, party.number)], hold_ms=15_000)
    wait_for(lambda: site.invites(called), "the carrier is called")
    wait_until(lambda: "ACTIVE" in site.switch.cli("show channels"), 5, "the call is answered", interval=0.1)
    site.daemon.operator("customer", "suspend", party.name, "--reason=robocalls")
    (result,) = run.wait()
    assert (result.status, result.ended_by) == (200, "callee")
    end = site.end_of(site.decision(party))
    assert (end["hung_up_by"], end["q850_cause"]) == ("ringfence", 21)
    assert "suspended" in end["detail"]


def test_a_redirect_by_the_carrier_sends_no_second_invite(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number("1406")
    assert site.call(party, called).status not in (None, 200)
    redirect = site.carriers["redirect"]
    assert [invite.request_user for invite in redirect.invites()].count(called) == 1
    assert [invite for invite in redirect.invites() if invite.request_user == "carrier"] == []


# --- what a dial string may try -------------------------------------------------------------------------------

FORGERIES = {
    "sip_from_uri": "sip:12125550000@carrier.example",
    "sip_invite_from_uri": "sip:12125550000@carrier.example",
    "sip_force_full_from": "<sip:12125550000@carrier.example>",
    "sip_handle_full_from": "<sip:12125550000@carrier.example>",
    "sip_invite_full_from": "<sip:12125550000@carrier.example>",
    "sip_h_P-Asserted-Identity": "<sip:12125550000@carrier.example>",
    "sip_h_p-preferred-identity": "<sip:12125550000@carrier.example>",
    "sip_h_Remote-Party-ID": "<sip:12125550000@carrier.example>",
    "sip_h_From": "<sip:12125550000@carrier.example>",
    "sip_h_f": "<sip:12125550000@carrier.example>",
    "execute_on_originate_later": "set:sip_from_uri=sip:12125550000@x",
    "api_on_originate": "uuid_dump",
    "sip_destination_url": "sip:911@carrier.example",
    "origination_channel_name": "sofia/external/911",
    "sip_invite_to_uri": "sip:12125559999@x",
    "sip_invite_params": "x?P-Asserted-Identity=12125550000",
    "sip_invite_from_params": "x>;y=<sip:12125550000@y",
    "sip_invite_tel_params": "rn=+12125550000",
    "sip_from_display": "x%0d%0aP-Asserted-Identity:12125550000",
}


@pytest.mark.parametrize("variable", FORGERIES)
def test_no_variable_of_a_dial_string_shows_another_number(site: FreeSwitchSite, variable: str) -> None:
    party, called = site.customer(), site.new_number()
    variables = {variable: FORGERIES[variable]}
    assert site.originate(party, f"sofia/gateway/carrier/{called}", variables=variables).startswith("-ERR")
    assert site.invites(called) == []
    assert site.decision(party)["reason"] in ("caller_id_conflict", reasons.MALFORMED_ATTEMPT)


@pytest.mark.parametrize(
    "variables",
    [
        {"ringfence_verdict": "allow", "ringfence_nonce": "0" * 32},
        {"ringfence_fail": "open", "ringfence_daemons": "127.0.0.1:1"},
        {"ringfence_internal": "sofia/*", "ringfence_emergency": "1202"},
        {"destination_number": "911"},
        {"socket_resume": "true"},
        {"execute_on_originate_x": "set:ringfence_verdict=allow"},
        {"sip_gateway_name": "loopback", "originate_endpoint": "loopback"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_no_variable_of_a_dial_string_opens_the_gate(site: FreeSwitchSite, variables: dict[str, str]) -> None:
    thief, called = site.customer(), site.new_number()
    site.originate(thief, f"sofia/gateway/carrier/{called}", caller="12125550000", variables=variables)
    assert site.invites(called) == []
    assert site.decision(thief)["verdict"] == "reject"


@pytest.mark.parametrize("tail", ["/911", ":911", "^x/911", "@x/911", ";x=/911"])
def test_a_dialled_string_that_ends_like_an_emergency_number_is_none(site: FreeSwitchSite, tail: str) -> None:
    thief, called = site.customer(), site.new_number()
    site.originate(thief, f"sofia/gateway/carrier/{called}{tail}", caller="12125550000")
    assert site.invites(called) == []
    assert not site.invites_from("12125550000")


def test_the_called_number_is_that_of_the_request_uri(site: FreeSwitchSite) -> None:
    party, called, other = site.customer(), site.new_number(), site.new_number()
    carrier = site.carriers["carrier"]
    uri = f"sip:{other}@{carrier.address}:{carrier.port}"
    site.originate(party, f"sofia/gateway/carrier/{called}^{other}", variables={"sip_invite_req_uri": uri})
    (invite,) = site.invites(other)
    assert site.decision(party)["called"] == other
    assert invite.request_user == other


# --- the hook in the dialplan alone ---------------------------------------------------------------------------


@pytest.fixture
def dialplan_alone(site: FreeSwitchSite) -> Iterator[FreeSwitchSite]:
    """The gate lets every leg out, so that only ringfence_dialplan.xml asks."""
    with globals_of(site, ringfence_internal="sofia/external/*"):
        yield site


def test_the_dialplan_hook_lets_own_numbers_out_and_no_others(dialplan_alone: FreeSwitchSite) -> None:
    site = dialplan_alone
    party, thief, called, stolen = site.customer(), site.customer(), site.new_number(), site.new_number()
    assert site.call(party, f"dialled{called}").status == 200
    assert len(site.invites(called)) == 1
    decision = site.decision(party)
    assert (decision["reason"], decision["called"], decision["customer"]) == ("authorized", called, party.name)
    end = site.end_of(decision)
    assert (end["hung_up_by"], end["sip_status"]) == ("caller", 200)
    site.wait_until_free(party)
    assert site.call(thief, f"dialled{stolen}", caller=party.number).status == 403
    assert_refused(site, thief, stolen, "caller_id_not_authorized")
    before = len(site.invites("911"))
    assert site.call(thief, "dialled911").status == 200
    assert len(site.invites("911")) == before + 1
    assert site.call(party, "dialledx1202").status not in (None, 200)


def test_the_dialplan_hook_refuses_when_nobody_answers(site: FreeSwitchSite, stopwatch: Stopwatch) -> None:
    party, called = site.customer(), site.new_number()
    with globals_of(site, ringfence_internal="sofia/external/*"), site.daemon.frozen():
        assert site.call(party, f"dialled{called}").status == 503
    assert site.invites(called) == []
    assert stopwatch.seconds < WAIT_S + 2 * SLACK_S


def test_the_shipped_call_records_have_the_tags(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    site.call(party, called)
    decision = site.decision(party)
    logs = site.switch.directory / "log"

    def records() -> list[str]:
        files = [path for name in ("json_cdr", "xml_cdr", "cdr-csv") for path in (logs / name).rglob("*.*")]
        return [path.parent.name for path in files if decision["decision_id"] in path.read_text(errors="replace")]

    wait_for(lambda: {"json_cdr", "xml_cdr", "cdr-csv"} <= set(records()), "all three kinds of call records")


# --- when something is down -----------------------------------------------------------------------------------


def assert_emergency_passes(site: FreeSwitchSite) -> None:
    before = len(site.invites("911"))
    assert site.call(site.stranger(), "911", caller="12125550000").status == 200
    assert len(site.invites("911")) == before + 1


def test_with_no_daemon_calls_are_refused_and_emergency_calls_pass(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    with globals_of(site, ringfence_daemons="127.0.0.1:1"):
        assert site.call(party, called).status == 503
        assert site.invites(called) == []
        assert_emergency_passes(site)
        with globals_of(site, ringfence_fail="open"):
            assert site.call(party, called).status == 200
    assert len(site.invites(called)) == 1


def test_the_second_daemon_is_asked_when_the_first_is_not_there(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    with closing_server() as closed:
        addresses = f"127.0.0.1:1,127.0.0.1:{closed},127.0.0.1:{site.daemon.agi_port}"
        with globals_of(site, ringfence_daemons=addresses):
            assert site.call(party, called).status == 200
    assert site.decision(party)["reason"] == "authorized"


def test_a_daemon_that_closes_early_refuses(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    with closing_server() as closed, globals_of(site, ringfence_daemons=f"127.0.0.1:{closed}"):
        assert site.call(party, called).status == 503
    assert site.invites(called) == []


def test_a_silent_daemon_holds_a_call_no_longer_than_the_wait(site: FreeSwitchSite, stopwatch: Stopwatch) -> None:
    party, called = site.customer(), site.new_number()
    silent = SilentServer()
    with globals_of(site, ringfence_daemons=f"127.0.0.1:{silent.port}"):
        assert site.call(party, called).status == 503
        assert_emergency_passes(site)
    assert stopwatch.seconds < WAIT_S + 2 * SLACK_S
    assert site.invites(called) == []
    silent.close()


def test_a_daemon_that_hangs_after_its_question_holds_a_call_no_longer(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    with hanging_server() as hung, globals_of(site, ringfence_daemons=f"127.0.0.1:{hung}"):
        assert site.call(party, called).status == 503
    assert site.invites(called) == []


def test_a_frozen_daemon_refuses(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    with site.daemon.frozen():
        assert site.call(party, called).status == 503
    assert site.invites(called) == []
    wait_until(lambda: site.call(party, site.new_number()).status == 200, 10, "the daemon answers again")


def test_a_wrong_password_ends_the_daemon_with_a_reason(site: FreeSwitchSite) -> None:
    other = sites.FreeSwitchDaemon(
        site.directory / "wrong",
        dsn=site.postgres.dsn(site.database),
        hook_port=sites.free_port(),
        socket_port=site.switch.socket_port,
        password="not-the-password",
    )
    with pytest.raises(Exception, match="ended with 7"):
        other.start()
    assert "refuses the password" in other.log.read_text()


def test_calls_survive_a_restart_of_the_daemon_and_their_ends_are_recorded(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number()
    run = site.start_calls(party, [Call(called, party.number)], hold_ms=4000)
    wait_for(lambda: site.invites(called), "the call is up")
    decision = site.decision(party)
    site.daemon.stop()
    site.daemon.start()
    (result,) = run.wait()
    assert (result.status, result.ended_by) == (200, "caller")
    assert site.end_of(decision)["source"] == "event"
    site.wait_until_free(party)


def test_an_end_missed_while_the_daemon_was_down_is_reconciled(site: FreeSwitchSite) -> None:
    party, called = site.customer(), site.new_number("1404")
    run = site.start_calls(party, [Call(called, party.number)], scenario="customer-cancels", cancel_ms=800)
    wait_for(lambda: site.invites(called), "the carrier is called")
    decision = site.decision(party)
    site.daemon.kill9()
    run.wait()
    site.wait_until_idle()
    site.daemon.start()
    assert site.end_of(decision)["source"] == "reconciled"
    site.wait_until_free(party)


def test_a_restart_of_freeswitch_closes_its_calls_and_keeps_the_gate(site: FreeSwitchSite) -> None:
    party, called, stolen = site.customer(), site.new_number("1404"), site.new_number()
    run = site.start_calls(party, [Call(called, party.number)], scenario="customer-cancels", cancel_ms=20_000)
    wait_for(lambda: site.invites(called), "the carrier is called")
    before = reconciliations(site)
    site.switch.kill9()
    run.stop()
    site.switch.start()
    wait_for_event_socket(site, before + 1)
    assert site.end_of(site.decision(party))["source"] == "reconciled"
    assert site.call(party, stolen, caller="12125550000").status == 403
    assert site.invites(stolen) == []
    assert f"execute_on_originate_{SUFFIX}" in site.switch.cli("global_getvar")


def test_a_restart_of_the_daemon_under_load_lets_nothing_out_unjudged(site: FreeSwitchSite) -> None:
    party, thief = site.customer(), site.customer()
    good = [Call(site.new_number(), party.number) for _ in range(120)]
    bad = [Call(site.new_number(), party.number) for _ in range(60)]
    runs = [site.start_calls(party, good, rate=30, limit=60), site.start_calls(thief, bad, rate=15, limit=60)]
    wait_for(lambda: len(site.decisions(party.name)) > 20, "calls are being placed")
    site.daemon.stop()
    site.daemon.start()
    allowed, refused = (run.wait() for run in runs)
    assert set(statuses(refused)) <= {403, 503}
    assert set(statuses(allowed)) <= {200, 503}
    assert statuses(allowed)[200] > 20, (statuses(allowed), statuses(refused))
    site.wait_until_idle()
    assert not any(site.invites(call.called) for call in bad)
    left = sorted(call.called for call in good if site.invites(call.called))
    judged = {row["called"] for row in site.decisions(party.name) if row["verdict"] == "allow"}
    assert set(left) <= judged
    site.wait_until_free(party)


@contextmanager
def closing_server() -> Iterator[int]:
    """Accepts and closes at once."""
    with _server(lambda connection: connection.close()) as port:
        yield port


@contextmanager
def hanging_server() -> Iterator[int]:
    """Asks for the channel data and never says another word."""
    held: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(b"connect\n\n")
        held.append(connection)

    with _server(serve) as port:
        yield port
    for connection in held:
        connection.close()


@contextmanager
def _server(serve: object) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                serve(listener.accept()[0])  # type: ignore[operator]
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def test_carriers_are_sane(site: FreeSwitchSite) -> None:
    """Every INVITE of this suite that a carrier saw belongs to an allowed decision or an emergency number."""
    judged = {row["called"] for row in site.rows("select called from ringfence.decisions where verdict = 'allow'")}
    everything = [invite for carrier in site.carriers.values() for invite in _all(carrier)]
    assert everything
    opened = {invite.request_user for invite in everything} - judged - {"911"}
    assert len(opened) <= 1  # the one call let out by ringfence_fail=open


def _all(carrier: Carrier) -> list:  # type: ignore[type-arg]
    return carrier.invites()
