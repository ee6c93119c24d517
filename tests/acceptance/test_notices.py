"""The daemon as a process telling people: also when it is killed in the middle, and when nobody answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.acceptance.daemon import Daemon
from tests.lab.ports import free_port
from tests.lab.postgres import EmbeddedPostgres
from tests.lab.process import wait_until
from tests.lab.receivers import Hook, Mailbox

KIM, NOC = "kim@acme.example", "noc@telecom.example"


@pytest.fixture
def dsn(postgres: EmbeddedPostgres) -> str:
    """A database of its own."""
    return postgres.create_database(f"notices_{free_port()}")


@pytest.fixture
def daemon(dsn: str, tmp_path: Path, hook: Hook, mailbox: Mailbox) -> Iterator[Daemon]:
    """A daemon that is not started yet and has no switch to talk to, and the customer acme."""
    made = Daemon(tmp_path / "daemon", dsn=dsn, agi_port=free_port(), ami_port=free_port(), ami_secret="x" * 16)
    secret = tmp_path / "webhook-secret"
    secret.write_text("a-secret-that-signs")
    secret.chmod(0o600)
    settings = yaml.safe_load(made.config.read_text())
    settings["notices"] = {
        "smtp": {"address": f"127.0.0.1:{mailbox.port}", "sender": NOC, "operators": [NOC], "tls": "none"},
        "webhook": {"url": hook.url, "secret_file": str(secret)},
        "timeout_s": 1,
        "retry_min_s": 0.1,
        "retry_max_s": 0.5,
    }
    made.config.write_text(yaml.safe_dump(settings))
    made.operator("db", "migrate")
    yield made
    made.stop()


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A mail server."""
    with Mailbox() as running:
        yield running


@pytest.fixture
def hook() -> Iterator[Hook]:
    """A webhook."""
    with Hook() as running:
        yield running


@pytest.fixture
def suspend(postgres: EmbeddedPostgres, dsn: str, daemon: Daemon) -> Callable[[], int]:
    """Suspends the customer acme and gives the notice's number."""
    database = dsn.partition("?")[0].rpartition("/")[2]

    def run() -> int:
        postgres.psql(
            "insert into ringfence.limit_profiles (profile, calls_per_second, burst, concurrent_calls) "
            "values ('p', 1, 1, 1); "
            "insert into ringfence.customers (customer, name, profile, state, contact_email) "
            f"values ('acme', 'Acme', 'p', 'active', '{KIM}'); "
            "select ringfence.set_customer_state('acme', 'suspended', 'traceback')",
            database,
        )
        return int(postgres.psql("select max(notice_id) from ringfence.notices", database))

    return run


def delivered_how(postgres: EmbeddedPostgres, dsn: str) -> str:
    """How the only notice was delivered; empty if it was not yet."""
    return postgres.psql("select delivered_how from ringfence.notices", dsn.partition("?")[0].rpartition("/")[2])


def test_a_running_daemon_tells_the_customer_the_operator_and_the_webhook(
    postgres: EmbeddedPostgres, dsn: str, daemon: Daemon, suspend: Callable[[], int], mailbox: Mailbox, hook: Hook
) -> None:
    daemon.start()
    notice = suspend()
    mails = [asyncio.run(mailbox.next()) for _ in range(2)]
    assert {mail.recipients[0] for mail in mails} == {KIM, NOC}
    assert {mail.message["X-Ringfence-Notice"] for mail in mails} == {str(notice)}
    assert json.loads(asyncio.run(hook.next()).content)["id"] == notice
    wait_until(lambda: delivered_how(postgres, dsn) == f"email to {KIM}", 10, "it is delivered", log=daemon.log)


def test_a_daemon_killed_between_sending_and_settling_sends_again(
    postgres: EmbeddedPostgres, dsn: str, daemon: Daemon, suspend: Callable[[], int], mailbox: Mailbox, hook: Hook
) -> None:
    mailbox.held.set()
    hook.held.set()
    daemon.start()
    notice = suspend()
    first = asyncio.run(hook.next())
    mails = {mail.recipients[0]: mail for mail in (asyncio.run(mailbox.next()) for _ in range(2))}
    daemon.kill9()
    assert delivered_how(postgres, dsn) == ""
    hook.release()
    mailbox.release()
    daemon.start()
    again = asyncio.run(hook.next())
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] == str(notice)
    for mail in (asyncio.run(mailbox.next()) for _ in range(2)):
        assert mail.message["Message-ID"] == mails[mail.recipients[0]].message["Message-ID"]
    wait_until(lambda: delivered_how(postgres, dsn) == f"email to {KIM}", 10, "it is delivered", log=daemon.log)


def test_a_daemon_ends_in_time_while_nobody_answers_its_notices(
    daemon: Daemon, suspend: Callable[[], int], mailbox: Mailbox, hook: Hook
) -> None:
    mailbox.held.set()
    hook.held.set()
    settings = yaml.safe_load(daemon.config.read_text())
    settings["notices"]["timeout_s"] = 60
    daemon.config.write_text(yaml.safe_dump(settings))
    daemon.start()
    suspend()
    asyncio.run(hook.next())
    asyncio.run(mailbox.next())
    began = time.monotonic()
    daemon.stop()  # exit code 0, or it raises
    assert time.monotonic() - began < 5


def test_a_daemon_without_its_webhooks_secret_does_not_start(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").unlink()
    with pytest.raises(Exception, match=r"notices\.webhook\.secret_file: cannot read"):
        daemon.start()
