"""The daemon as systemd and an operator see it: starting, failing to start, reloading, stopping."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.conftest import Stopwatch
from tests.acceptance.daemon import Daemon
from tests.acceptance.site import Site, agi_port
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import Child, wait_until
from tests.lab.sipp import Call

RINGFENCE = [sys.executable, "-c", "from ringfence.cli import main; main()"]


@pytest.fixture
def second(site: Site, tmp_path: Path) -> Iterator[Daemon]:
    """A second daemon for the same switch, not started yet."""
    daemon = Daemon(
        tmp_path,
        dsn=site.postgres.dsn(site.database),
        agi_port=agi_port(),
        ami_port=site.asterisk.ami_port,
        ami_secret="lab-secret",
    )
    yield daemon
    daemon.stop()


def change(daemon: Daemon, section: str, **values: object) -> None:
    """Rewrite one section of the configuration file."""
    settings = yaml.safe_load(daemon.config.read_text())
    settings[section] = {**settings.get(section, {}), **values}
    daemon.config.write_text(yaml.safe_dump(settings))


def serve(daemon: Daemon) -> subprocess.CompletedProcess[str]:
    """`ringfence serve`, which is expected to end by itself."""
    command = [*RINGFENCE, "serve", "--config", str(daemon.config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def assert_one_sentence(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on standard error with these words, no traceback, nothing on standard output."""
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("ringfence: ")
    for word in words:
        assert word in told[0]
    assert (done.returncode, done.stdout) == (code, "")


def test_a_wrong_manager_password_is_told_in_one_sentence(site: Site, second: Daemon) -> None:
    secret = second.config.parent / "ami-secret"
    secret.write_text("wrong")
    done = serve(second)
    assert_one_sentence(done, 7, "switches.lab.ami", "ringfence")
    assert "wrong" not in done.stderr
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", second.agi_port)) != 0


def test_an_unreachable_database_is_told_in_one_sentence(second: Daemon) -> None:
    change(second, "database", dsn=f"postgresql://nobody@127.0.0.1:{free_port()}/ringfence")
    assert_one_sentence(serve(second), 4, "cannot use the database", "refused")


def test_a_database_without_the_schema_is_told_in_one_sentence(
    second: Daemon, postgres: EmbeddedPostgres, request: pytest.FixtureRequest
) -> None:
    name = f"empty_{agi_port()}"
    change(second, "database", dsn=postgres.create_database(name))
    assert_one_sentence(serve(second), 4, "ringfence db migrate")


def test_a_wrong_key_in_the_file_is_told_in_one_sentence(second: Daemon) -> None:
    change(second, "gate", deadlin_ms=1)
    assert_one_sentence(serve(second), 3, "gate.deadlin_ms: is not a setting; did you mean 'deadline_ms'?")


def test_a_taken_gate_port_is_told_in_one_sentence(site: Site, second: Daemon) -> None:
    settings = yaml.safe_load(second.config.read_text())
    settings["switches"][0]["fastagi"]["listen"] = f"127.0.0.1:{site.daemon.agi_port}"
    second.config.write_text(yaml.safe_dump(settings))
    assert_one_sentence(serve(second), 7, "fastagi.listen", "cannot listen")


def test_systemd_is_told_when_it_serves_that_it_lives_and_when_it_stops(second: Daemon, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(address)
        told.settimeout(15)
        environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"}
        child = Child([*RINGFENCE, "serve", "--config", second.config], second.log, env=environment)
        try:
            messages = [told.recv(4096).decode()]
            while sum("WATCHDOG=1" in message for message in messages) < 3:
                messages.append(told.recv(4096).decode())
            assert any("READY=1" in message for message in messages)
            child.send(signal.SIGTERM)
            while "STOPPING=1" not in messages[-1]:
                messages.append(told.recv(4096).decode())
            assert child.wait(5) == 0
        finally:
            child.stop()


def test_a_reload_takes_over_what_can_be_and_names_what_waits_for_a_restart(second: Daemon) -> None:
    second.start()
    change(second, "gate", deadline_ms=900)
    change(second, "journal", max_batch=7)
    second.send(signal.SIGHUP)
    wait_until(lambda: "config.needs_restart" in second.log.read_text(), 5, "the reload is logged", log=second.log)
    reloaded, waiting = (
        next(line for line in second.log.read_text().splitlines() if event in line)
        for event in ("config.reloaded", "config.needs_restart")
    )
    assert '"changed": ["gate"]' in reloaded
    assert '"changed": ["journal"]' in waiting


def test_a_reload_of_a_file_with_a_fault_changes_nothing(second: Daemon) -> None:
    second.start()
    second.config.write_text("gate: {deadline_ms: soon}\n")
    second.send(signal.SIGHUP)
    wait_until(
        lambda: "config.reload_refused" in second.log.read_text(), 5, "the refusal is logged", log=second.log
    )
    assert "gate.deadline_ms" in second.log.read_text()


def test_a_daemon_told_to_stop_answers_what_is_in_hand_and_is_gone_within_five_seconds(
    site: Site, stopwatch: Stopwatch
) -> None:
    party = site.customer()
    calls = [Call(site.new_number(), party.number) for _ in range(40)]
    run = site.start_calls(party, calls, rate=40.0, hold_ms=100)
    wait_until(lambda: len(site.decisions(party.name)) >= 5, 10, "calls are being decided", interval=0.05)
    began = stopwatch.seconds
    site.daemon.stop()
    assert stopwatch.seconds - began < 5
    results = run.wait()
    site.daemon.start()
    assert {result.status for result in results} == {200, 503}
    site.wait_until_idle()
    decisions = site.decisions(party.name)
    allowed = {row["decision_id"] for row in decisions if row["verdict"] == "allow"}
    assert len(allowed) == sum(result.status == 200 for result in results)
    ended = f"select decision_id from ringfence.call_ends where customer = '{party.name}'"
    wait_until(
        lambda: {row["decision_id"] for row in site.rows(ended)} == allowed, 15, "every allowed call has its end",
        log=site.daemon.log, interval=0.1,
    )  # fmt: skip
    site.wait_until_free(party)


def test_a_suspension_ends_live_calls_within_a_second_but_not_emergency_calls(site: Site, form: str) -> None:
    party = site.customer(form)
    calls = [Call(site.new_number(), party.number) for _ in range(10)] + [Call("911", party.number)]
    run = site.start_calls(party, calls, rate=50.0, hold_ms=6000)
    wait_until(lambda: site.asterisk.active_channels() >= 22, 10, "all calls are up", interval=0.05)
    watch = Stopwatch()
    site.daemon.operator("customer", "suspend", party.name, "--reason=complaint 12")
    wait_until(lambda: site.asterisk.active_channels() <= 2, 5, "only the emergency call is up", interval=0.02)
    assert watch.seconds < 2  # of which the operator's command takes a part
    assert site.asterisk.active_channels() == 2
    ended = f"select hung_up_by, detail from ringfence.call_ends where customer = '{party.name}'"
    wait_until(lambda: len(site.rows(ended)) == 10, 10, "ten ends are recorded", log=site.daemon.log, interval=0.1)
    assert {(row["hung_up_by"], row["detail"]) for row in site.rows(ended)} == {
        ("ringfence", "the customer was suspended")
    }
    results = run.wait()
    assert [result.ended_by for result in results].count("caller") == 1
    site.wait_until_idle()
    site.wait_until_free(party)


def test_a_suspension_may_let_live_calls_finish(site: Site) -> None:
    party = site.customer()
    run = site.start_calls(party, [Call(site.new_number(), party.number)], hold_ms=1500)
    wait_until(lambda: site.asterisk.active_channels() >= 2, 10, "the call is up", interval=0.05)
    site.daemon.operator("customer", "suspend", party.name, "--reason=x", "--let-calls-finish")
    [result] = run.wait()
    assert (result.status, result.ended_by) == (200, "caller")
    assert site.call(party, site.new_number()).status == 403


def test_calls_that_ended_while_the_daemon_was_dead_are_reconciled_and_live_ones_are_kept(site: Site) -> None:
    party = site.customer(concurrent=4)
    short = site.start_calls(
        party, [Call(site.new_number(), party.number) for _ in range(2)], rate=50.0, hold_ms=500
    )
    long = site.start_calls(
        party, [Call(site.new_number(), party.number) for _ in range(2)], rate=50.0, hold_ms=9000
    )
    wait_until(lambda: len(site.decisions(party.name)) == 4, 10, "four calls are decided", interval=0.05)
    site.daemon.kill9()
    short.wait()
    wait_until(lambda: site.asterisk.active_channels() == 4, 10, "two calls are still up", interval=0.05)
    # The daemon takes no decision younger than a few seconds for lost.
    mine = f"from ringfence.leases where customer = '{party.name}'"
    oldest = f"select 1 {mine} having max(taken_at) < now() - interval '4 s'"
    wait_until(lambda: site.rows(oldest), 10, "the calls are a few seconds old", interval=0.1)
    site.daemon.start()
    live = f"select 1 from ringfence.counters where customer = '{party.name}' and live_calls = 2"
    wait_until(lambda: site.rows(live), 10, "two calls are counted", log=site.daemon.log, interval=0.1)
    long.wait()
    site.wait_until_idle()
    site.wait_until_free(party)
    sources = f"select source from ringfence.call_ends where customer = '{party.name}' order by source"
    wait_until(lambda: len(site.rows(sources)) == 4, 10, "four ends are recorded", interval=0.1)
    assert [row["source"] for row in site.rows(sources)] == ["event", "event", "reconciled", "reconciled"]
