"""What happens when the daemon or the database is not there: refusals in bounded time, emergency calls at once."""

from __future__ import annotations

from tests.acceptance.site import FORMS, Party, Site, wait_for
from tests.lab.process import wait_until
from tests.lab.sipp import Call

AT_ONCE_MS = 500
WAIT_MS = 2_000  # RINGFENCE_WAIT of the shipped dialplan
SLACK_MS = 700
DATABASE_REASONS = {"database_unavailable", "deadline_exceeded"}


def assert_emergency_passes_at_once(site: Site) -> None:
    """An endpoint that nobody owns reaches 911 in both forms."""
    for form in FORMS:
        stranger = site.stranger(form)
        before = len(site.invites("911"))
        result = site.call(stranger, "911", caller="12125550000")
        assert result.status == 200
        assert result.setup_ms is not None
        assert result.setup_ms < AT_ONCE_MS
        assert len(site.invites("911")) == before + 1


def test_an_emergency_call_passes_while_the_customer_is_suspended(site: Site, form: str) -> None:
    party = site.customer(form)
    site.daemon.operator("customer", "suspend", party.name, "--reason=robocalls")
    before = len(site.invites("911"))
    assert site.call(party, "911").status == 200
    assert [invite.from_user for invite in site.invites("911")[before:]] == [party.number]


def test_without_the_daemon_calls_are_refused_and_emergency_calls_pass(stopped_daemon: Site) -> None:
    site = stopped_daemon
    for form in FORMS:
        stranger, called = site.stranger(form), site.new_number()
        result = site.call(stranger, called, caller="12125550000")
        assert result.status == 503
        assert result.setup_ms is not None
        assert result.setup_ms < AT_ONCE_MS
        assert site.invites(called) == []
        (record,) = site.wait_for_cdrs(stranger.name)
        assert (record["ringfence_reason"], record["ringfence_decision"]) == ("daemon_unavailable", "")
    assert_emergency_passes_at_once(site)


def test_without_the_daemon_a_hook_that_fails_open_lets_calls_out(stopped_daemon: Site) -> None:
    site = stopped_daemon
    for form in FORMS:
        stranger, called = site.stranger(form, "open"), site.new_number()
        assert site.call(stranger, called, caller="12125550000").status == 200
        assert len(site.invites(called)) == 1
        (record,) = site.wait_for_cdrs(stranger.name)
        assert (record["ringfence_reason"], record["ringfence_decision"]) == ("daemon_unavailable", "")
        stranger, busy = site.stranger(form, "open"), site.new_number("1303")
        assert site.call(stranger, busy, caller="12125550000").status == 486
        assert len(site.invites(busy)) == 1


def test_a_hung_daemon_leads_to_a_refusal_in_two_seconds_and_emergency_calls_pass(site: Site) -> None:
    parties = [(site.customer(form), site.new_number()) for form in FORMS]
    with site.daemon.frozen():
        for party, called in parties:
            result = site.call(party, called)
            assert result.status == 503
            assert result.setup_ms is not None
            assert WAIT_MS - 100 <= result.setup_ms <= WAIT_MS + SLACK_MS
        assert_emergency_passes_at_once(site)
    for party, called in parties:
        assert site.invites(called) == []
        site.wait_until_idle()
        assert site.call(party, called).status == 200  # it is answered again as soon as the daemon goes on


def test_a_server_that_never_answers_leads_to_a_refusal_in_two_seconds(site: Site, form: str) -> None:
    stranger, called = site.stranger(form, "scripted"), site.new_number()
    result = site.call(stranger, called, caller="12125550000")
    assert result.status == 503
    assert result.setup_ms is not None
    assert WAIT_MS - 100 <= result.setup_ms <= WAIT_MS + SLACK_MS
    assert site.invites(called) == []


def test_a_server_that_never_answers_delays_a_hook_that_fails_open(site: Site, form: str) -> None:
    stranger, called = site.stranger(form, "scripted-open"), site.new_number()
    result = site.call(stranger, called, caller="12125550000", hold_ms=2_500)
    assert (result.status, result.ended_by) == (
        200,
        "caller",
    )  # and the time limit does not end the call later
    assert result.setup_ms is not None
    assert WAIT_MS - 100 <= result.setup_ms <= WAIT_MS + SLACK_MS
    assert len(site.invites(called)) == 1


def test_a_caller_who_hangs_up_during_the_question_leaves_nothing_behind(site: Site, form: str) -> None:
    stranger, called = site.stranger(form, "scripted"), site.new_number()
    result = site.call(stranger, called, caller="12125550000", scenario="customer-cancels", cancel_ms=300)
    assert result.status == 487
    assert site.invites(called) == []


def test_a_daemon_killed_during_the_question_leads_to_a_refusal(site: Site) -> None:
    party, called = site.customer(), site.new_number()
    with site.daemon.frozen():
        run = site.start_calls(party, [Call(called, party.number)])
        wait_until(lambda: site.asterisk.active_channels() == 1, 5, "the question is put")
        site.daemon.kill9()
    (result,) = run.wait()
    site.daemon.start()
    assert result.status == 503
    assert site.invites(called) == []


def test_without_postgres_emergency_calls_pass_and_others_get_503(site: Site) -> None:
    parties = [(site.customer(form), site.new_number()) for form in FORMS]
    site.postgres.kill9()
    try:
        for party, called in parties:
            assert site.call(party, called).status == 503
            assert site.invites(called) == []
        assert_emergency_passes_at_once(site)
    finally:
        site.postgres.restart()
    for party, called in parties:
        assert_passes_again(site, party, called)


def assert_passes_again(site: Site, party: Party, called: str) -> None:
    """Calls pass, and the refusals of the time without the database are on record."""
    wait_until(lambda: site.call(party, called).status == 200, 15, "calls pass again")
    wait_for(
        lambda: {row["reason"] for row in site.decisions(party.name)} & DATABASE_REASONS,
        "the refusals are on record",
        log=site.daemon.log,
    )
