"""Notices on their way to people: a real mail server, a real web server, and both of them misbehaving."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog

from ringfence.config import DatabaseSettings, NoticeSettings
from ringfence.errors import DatabaseError, ExitCode
from ringfence.notices.delivery import Courier, channels
from ringfence.store.connect import connected
from ringfence.store.notices import Outbox, mark_delivered, retry_notice, show_notice
from ringfence.store.office import Office
from tests.integration.calls import FOREIGN, attempt, judge, make_customer
from tests.integration.command import Command
from tests.lab.ports import free_port
from tests.lab.receivers import PASSWORD, USER, Hook, Mailbox, certificate, dripping

pytestmark = pytest.mark.integration

SECRET = "a-secret-that-signs"
KIM, NOC = "kim@acme.example", "noc@telecom.example"


class Log:
    """What was logged, and a way to wait for it."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self._came: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.logger = structlog.wrap_logger(
            None, processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, self._keep]
        )

    def _keep(self, _logger: Any, _method: str, event: dict[str, Any]) -> Any:
        self.all.append(event)
        self._came.put_nowait(event)
        raise structlog.DropEvent

    async def until(self, name: str) -> dict[str, Any]:
        """The next event of this name."""
        async with asyncio.timeout(20):
            while (event := await self._came.get())["event"] != name:
                pass
        return event


class Desk:
    """The daemon's role on the test's database, and couriers that run as it."""

    def __init__(self, database: DatabaseSettings, directory: Path) -> None:
        self.database = DatabaseSettings(dsn=database.dsn.replace("postgres@", "login_ringfence_daemon@"))
        self.log = Log()
        self._secrets = directory
        for name, text in (("webhook-secret", SECRET), ("smtp-password", PASSWORD.decode())):
            (directory / name).write_text(text)
            (directory / name).chmod(0o600)

    def settings(
        self,
        *,
        mail: int | None = None,
        hook: str | None = None,
        operators: tuple[str, ...] = (),
        smtp: dict[str, Any] | None = None,
        **more: Any,
    ) -> NoticeSettings:
        """Fast settings for a mail server's port, a webhook's URL, or both."""
        given: dict[str, Any] = {"retry_min_s": 0.05, "retry_max_s": 0.2, "timeout_s": 2.0, **more}
        if mail is not None:
            given["smtp"] = {
                "address": f"127.0.0.1:{mail}",
                "sender": NOC,
                "operators": operators,
                "tls": "none",
                "password_file": self._secrets / "smtp-password",
                **(smtp or {}),
            }
        if hook is not None:
            given["webhook"] = {"url": hook, "secret_file": self._secrets / "webhook-secret"}
        return NoticeSettings.model_validate(given)

    @asynccontextmanager
    async def courier(self, settings: NoticeSettings) -> AsyncIterator[Courier]:
        """A courier that runs."""
        made = Courier(settings, self.database, "pbx1", self.log.logger)
        made.start()
        try:
            yield made
        finally:
            await made.stop()


@pytest.fixture
async def desk(database: DatabaseSettings, connection: asyncpg.Connection, tmp_path: Path) -> Desk:
    """Couriers of a login that is only a member of ringfence_daemon, and the customer acme with an address."""
    await connection.execute(
        "do $$ begin create role login_ringfence_daemon login in role ringfence_daemon; "
        "exception when duplicate_object then null; end $$"
    )
    await make_customer(connection)
    await connection.execute("update customers set contact_email = $1", KIM)
    return Desk(database, tmp_path)


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


async def suspend(connection: asyncpg.Connection, customer: str = "acme", reason: str = "traceback 4711") -> int:
    """Suspend a customer; the number of the notice."""
    await connection.execute("select set_customer_state($1, 'suspended', $2)", customer, reason)
    return await connection.fetchval("select max(notice_id) from notices where customer = $1", customer)


async def raise_many(connection: asyncpg.Connection, count: int) -> None:
    """Notices in one go."""
    await connection.execute(
        """select raise_notice('breach', 'acme', 'breach ' || i, '{"rule": "calls_per_day"}')
           from generate_series(1, $1) i""",
        count,
    )


async def raise_one(connection: asyncpg.Connection) -> int:
    """One notice; its number."""
    await raise_many(connection, 1)
    return await connection.fetchval("select max(notice_id) from notices")


async def the_notice(connection: asyncpg.Connection, notice: int) -> asyncpg.Record:
    """The row of a notice."""
    row = await connection.fetchrow("select * from notices where notice_id = $1", notice)
    assert row is not None
    return row


async def ways(connection: asyncpg.Connection, notice: int) -> dict[str, asyncpg.Record]:
    """The deliveries of a notice by address."""
    rows = await connection.fetch("select * from notice_deliveries where notice_id = $1", notice)
    return {row["address"]: row for row in rows}


# --- where a notice goes ------------------------------------------------------------------------------------


async def test_a_suspension_reaches_the_customer_the_operator_and_the_webhook(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox, hook: Hook
) -> None:
    settings = desk.settings(mail=mailbox.port, hook=hook.url, operators=(NOC,))
    async with desk.courier(settings):
        notice = await suspend(connection)
        mails = {mail.recipients[0]: mail for mail in [await mailbox.next(), await mailbox.next()]}
        posted = await hook.next()
        sent = [await desk.log.until("notice.sent") for _ in range(3)]
    assert {event["notice"] for event in sent} == {notice}
    assert set(mails) == {KIM, NOC}
    assert mails[KIM].sender == NOC
    assert mails[KIM].message["Subject"] == "Your service is suspended: acme"
    assert "The reason: traceback 4711" in mails[KIM].message.get_content()
    assert mails[KIM].message["Message-ID"].startswith(f"<notice-{notice}.")
    assert mails[NOC].message["Subject"].startswith("[acme] ")
    assert "A copy of what customer acme is told by e-mail." in mails[NOC].message.get_content()
    document = json.loads(posted.content)
    assert (document["id"], document["kind"], document["customer"]) == (notice, "suspension", "acme")
    assert document["tell_customer"] is False
    row = await the_notice(connection, notice)
    assert row["delivered_at"] is not None
    assert row["delivered_how"] == f"email to {KIM}"


async def test_a_webhook_is_signed_and_can_be_told_from_a_repetition(
    desk: Desk, connection: asyncpg.Connection, hook: Hook
) -> None:
    hook.answers = [503]
    async with desk.courier(desk.settings(hook=hook.url)):
        notice = await suspend(connection)
        first, again = await hook.next(), await hook.next()
        await desk.log.until("notice.sent")
    for posted in (first, again):
        assert posted.path == "/notices?from=ringfence"
        assert posted.headers["idempotency-key"] == str(notice)
        assert posted.headers["content-type"] == "application/json"
        timestamp = posted.headers["ringfence-timestamp"]
        assert abs(time.time() - int(timestamp)) < 60
        expected = hmac.new(SECRET.encode(), timestamp.encode() + b"." + posted.content, hashlib.sha256)
        assert posted.headers["ringfence-signature"] == f"sha256={expected.hexdigest()}"
    assert first.content == again.content


@pytest.mark.parametrize("address", ["", "not an address", "kim@acme.example\r\nBcc: x@y.example"])
async def test_a_customer_that_cannot_be_mailed_is_told_by_whoever_runs_the_webhook(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox, hook: Hook, address: str
) -> None:
    await connection.execute("update customers set contact_email = $1", address)
    async with desk.courier(desk.settings(mail=mailbox.port, hook=hook.url, operators=(NOC,))):
        notice = await suspend(connection)
        assert json.loads((await hook.next()).content)["tell_customer"] is True
        mail = await mailbox.next()
        for _ in range(2):
            await desk.log.until("notice.sent")
    assert mail.recipients == [NOC]
    assert "The webhook was asked to tell it" in mail.message.get_content()
    assert (await the_notice(connection, notice))["delivered_how"] == f"webhook to {hook.url}"


async def test_a_copy_to_the_operator_alone_delivers_nothing_to_the_customer(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox
) -> None:
    await connection.execute("update customers set contact_email = ''")
    async with desk.courier(desk.settings(mail=mailbox.port, operators=(NOC,))):
        notice = await suspend(connection)
        assert f"ringfence notice delivered {notice}" in (await mailbox.next()).message.get_content()
        await desk.log.until("notice.sent")
    assert (await the_notice(connection, notice))["delivered_at"] is None


async def test_a_notice_that_leads_nowhere_waits_until_something_is_configured(
    desk: Desk, connection: asyncpg.Connection, hook: Hook
) -> None:
    async with desk.courier(desk.settings()):
        await desk.log.until("notice.no_channel")
        notice = await suspend(connection)
    assert (await the_notice(connection, notice))["planned_at"] is None
    async with desk.courier(desk.settings(hook=hook.url)):
        await hook.next()
        await desk.log.until("notice.sent")
    assert (await the_notice(connection, notice))["delivered_at"] is not None


async def test_a_customer_without_an_address_does_not_keep_others_waiting_and_is_told_once_it_has_one(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox
) -> None:
    await connection.execute("update customers set contact_email = ''")
    await make_customer(connection, "beta")
    await connection.execute("update customers set contact_email = 'ann@beta.example' where customer = 'beta'")
    await raise_many(connection, 1100)
    async with desk.courier(desk.settings(mail=mailbox.port)):
        await suspend(connection, "beta")
        assert (await mailbox.next()).recipients == ["ann@beta.example"]
        await connection.execute("delete from notices where customer = 'acme' and once <> 'breach 1'")
        await connection.execute("update customers set contact_email = $1 where customer = 'acme'", KIM)
        assert (await mailbox.next()).recipients == [KIM]


async def test_a_name_cannot_put_a_recipient_or_a_header_into_a_mail(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox
) -> None:
    evil = "Acme\r\nBcc: victim@evil.example\r\nRCPT TO:<victim@evil.example>"
    await connection.execute("update customers set name = $1", evil)
    await connection.execute("update provider set name = $1", evil)
    async with desk.courier(desk.settings(mail=mailbox.port)):
        await suspend(connection, reason="x\r\n.\r\nMAIL FROM:<a@b>")
        mail = await mailbox.next()
    assert mail.recipients == [KIM]
    assert mail.message["Bcc"] is None
    assert mail.message["From"].addresses[0].addr_spec == NOC
    assert mailbox.received.empty()


async def test_a_warning_that_arrived_makes_the_next_attempt_count(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox
) -> None:
    await connection.execute("update provider set infraction_hours = 0")
    consequences = "select consequence from infractions order by infraction_id"
    await judge(connection, attempt(caller=FOREIGN))
    await judge(connection, attempt(caller=FOREIGN))
    assert [row[0] for row in await connection.fetch(consequences)] == ["warned"]
    async with desk.courier(desk.settings(mail=mailbox.port)):
        assert f"+{FOREIGN}" in (await mailbox.next()).message.get_content()
        await desk.log.until("notice.sent")
    await judge(connection, attempt(caller=FOREIGN))
    assert [row[0] for row in await connection.fetch(consequences)] == ["warned", "suspended"]


# --- when it does not arrive --------------------------------------------------------------------------------


async def test_a_webhook_that_fails_is_tried_again_until_it_answers_2xx(
    desk: Desk, connection: asyncpg.Connection, hook: Hook
) -> None:
    hook.answers = [500, 404]
    async with desk.courier(desk.settings(hook=hook.url)):
        notice = await suspend(connection)
        assert "answered 500 no, \\x1b[31mnot now" in (await desk.log.until("notice.not_sent"))["error"]
        assert "answered 404" in (await desk.log.until("notice.not_sent"))["error"]
        assert (await desk.log.until("notice.sent"))["attempt"] == 3
    way = (await ways(connection, notice))[hook.url]
    assert (way["attempts"], way["last_error"]) == (3, "")


async def test_a_redirect_is_not_followed(desk: Desk, connection: asyncpg.Connection, hook: Hook) -> None:
    with Hook() as elsewhere:
        hook.answers, hook.location = [307], elsewhere.url
        async with desk.courier(desk.settings(hook=hook.url)):
            await suspend(connection)
            assert "answered 307" in (await desk.log.until("notice.not_sent"))["error"]
            await desk.log.until("notice.sent")
        assert elsewhere.received.empty()


async def test_a_mail_server_that_refuses_is_tried_again(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox
) -> None:
    mailbox.refusals = ["451 greylisted", "550 no such user"]
    async with desk.courier(desk.settings(mail=mailbox.port)):
        await suspend(connection)
        assert "the server answered 451 greylisted" in (await desk.log.until("notice.not_sent"))["error"]
        assert "the server answered 550 no such user" in (await desk.log.until("notice.not_sent"))["error"]
        await desk.log.until("notice.sent")


@pytest.mark.parametrize("channel", ["email", "webhook"])
async def test_a_server_that_is_away_gets_the_notice_when_it_is_back(
    desk: Desk, connection: asyncpg.Connection, channel: str
) -> None:
    port = free_port()
    hook_url = f"http://127.0.0.1:{port}/notices?from=ringfence"
    way: dict[str, Any] = {"mail": port} if channel == "email" else {"hook": hook_url}
    async with desk.courier(desk.settings(**way)):
        await suspend(connection)
        assert "connection refused" in (await desk.log.until("notice.not_sent"))["error"]
        with Mailbox(port=port) if channel == "email" else Hook(port=port) as back:
            await back.next()
            await desk.log.until("notice.sent")


@pytest.mark.parametrize("byte", [b"2", b"\x00"])
async def test_a_server_that_drips_for_ever_is_cut_off_in_time(
    desk: Desk, connection: asyncpg.Connection, byte: bytes
) -> None:
    with dripping(byte) as port:
        hook_url = f"http://127.0.0.1:{port}/"
        settings = desk.settings(mail=port, hook=hook_url, timeout_s=0.5)
        async with desk.courier(settings):
            began = time.monotonic()
            await suspend(connection)
            errors = [(await desk.log.until("notice.not_sent"))["error"] for _ in range(2)]
            assert time.monotonic() - began < 5
    assert all("in time" in error for error in errors), errors


async def test_a_channel_that_hangs_does_not_hold_up_the_other_nor_the_end(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox, hook: Hook
) -> None:
    hook.held.set()
    await raise_many(connection, 20)
    settings = desk.settings(mail=mailbox.port, hook=hook.url, timeout_s=60)
    async with desk.courier(settings) as courier:
        for _ in range(20):
            await mailbox.next()
        began = time.monotonic()
        await courier.stop()
        assert time.monotonic() - began < 1.5


async def test_what_was_sent_and_not_settled_is_sent_again(
    desk: Desk, connection: asyncpg.Connection, hook: Hook
) -> None:
    settings = desk.settings(hook=hook.url, timeout_s=0.5)
    notice = await suspend(connection)
    outbox = Outbox(desk.database)
    await outbox.open(lambda: None)
    await outbox.plan(mail=False, operators=(), webhook=hook.url)
    [taken] = await outbox.claim("webhook", hook.url, limit=5, hold_s=1.5, give_up_s=60)
    [webhook] = channels(settings, "pbx1")
    await asyncio.to_thread(webhook.send, taken, time.monotonic() + 5)
    outbox.close()  # the daemon dies here
    first = await hook.next()
    async with desk.courier(settings):
        again = await hook.next()
        assert (await desk.log.until("notice.sent"))["attempt"] == 2
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"] == str(notice)
    assert (await the_notice(connection, notice))["delivered_at"] is not None


async def test_two_daemons_never_send_the_same_twice(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox, hook: Hook
) -> None:
    settings = desk.settings(mail=mailbox.port, hook=hook.url, operators=(NOC,), timeout_s=60)
    count = 40
    async with desk.courier(settings), desk.courier(settings), desk.courier(settings):
        await raise_many(connection, count)
        for _ in range(3 * count):
            await desk.log.until("notice.sent")
    mails: Counter[tuple[str, str]] = Counter()
    while not mailbox.received.empty():
        mail = mailbox.received.get_nowait()
        mails[mail.recipients[0], mail.message["X-Ringfence-Notice"]] += 1
    posts: Counter[str] = Counter()
    while not hook.received.empty():
        posts[hook.received.get_nowait().headers["idempotency-key"]] += 1
    assert (len(mails), set(mails.values())) == (2 * count, {1})
    assert (len(posts), set(posts.values())) == (count, {1})


async def test_what_one_daemon_has_taken_no_other_gets(desk: Desk, connection: asyncpg.Connection) -> None:
    await raise_many(connection, 30)
    outboxes = [Outbox(desk.database) for _ in range(5)]
    for outbox in outboxes:
        await outbox.open(lambda: None)
    await asyncio.gather(*(outbox.plan(mail=False, operators=(), webhook="https://x") for outbox in outboxes))
    claims = await asyncio.gather(
        *(outbox.claim("webhook", "https://x", limit=10, hold_s=60, give_up_s=60) for outbox in outboxes)
    )
    taken = [delivery.notice.notice_id for claim in claims for delivery in claim]
    for outbox in outboxes:
        outbox.close()
    assert len(taken) == len(set(taken)) == 30


async def test_a_failure_that_comes_late_does_not_undo_a_success(
    desk: Desk, connection: asyncpg.Connection
) -> None:
    notice = await suspend(connection)
    outbox = Outbox(desk.database)
    await outbox.open(lambda: None)
    await outbox.plan(mail=False, operators=(), webhook="https://x")
    [slow] = await outbox.claim("webhook", "https://x", limit=5, hold_s=0, give_up_s=60)
    [other] = await outbox.claim("webhook", "https://x", limit=5, hold_s=60, give_up_s=60)
    assert await outbox.settle(slow, "no answer", retry_in_s=0) is False  # the other one is at it
    assert await outbox.settle(other, None) is True
    assert await outbox.settle(slow, None) is False
    assert (await ways(connection, notice))["https://x"]["sent_at"] is not None
    outbox.close()


async def test_what_is_given_up_is_told_with_its_number_and_can_be_tried_again(
    desk: Desk, connection: asyncpg.Connection, hook: Hook, ringfence: Command
) -> None:
    hook.answers = [500]
    async with desk.courier(desk.settings(hook=hook.url, give_up_after_h=0)):
        notice = await suspend(connection)
        gone = await desk.log.until("notice.gave_up")
        assert (gone["level"], gone["notice"], gone["customer"]) == ("error", notice, "acme")
        [listed] = ringfence.ok("notice", "list", "--undelivered", "--json").json
        assert (listed["notice_id"], listed["ways"]) == (notice, ["webhook given up"])
        assert ringfence.ok("notice", "retry", str(notice), "--json").json["due_again"] == 1
        await desk.log.until("notice.sent")
    assert (await the_notice(connection, notice))["delivered_at"] is not None


async def test_a_way_that_is_configured_no_more_is_given_up_with_a_word(
    desk: Desk, connection: asyncpg.Connection, hook: Hook, mailbox: Mailbox
) -> None:
    with Hook() as former:
        former.answers = [500] * 1000
        async with desk.courier(desk.settings(hook=former.url)):
            notice = await suspend(connection)
            await desk.log.until("notice.not_sent")
    await connection.execute("update notices set planned_at = now() - interval '5 days'")
    async with desk.courier(desk.settings(mail=mailbox.port)):
        gone = await desk.log.until("notice.gave_up")
    assert (gone["notice"], gone["channel"], gone["address"]) == (notice, "webhook", former.url)
    assert (await ways(connection, notice))[former.url]["gave_up_at"] is not None


async def test_a_notice_in_hand_is_left_alone_by_a_retry(
    desk: Desk, connection: asyncpg.Connection, hook: Hook, ringfence: Command
) -> None:
    hook.held.set()
    async with desk.courier(desk.settings(hook=hook.url, timeout_s=60)):
        notice = await suspend(connection)
        await hook.next()
        assert ringfence.ok("notice", "retry", str(notice), "--json").json["due_again"] == 0
        hook.release()
        await desk.log.until("notice.sent")
    assert hook.received.empty()


async def test_the_courier_goes_on_after_its_connection_broke(
    desk: Desk, connection: asyncpg.Connection, hook: Hook
) -> None:
    async with desk.courier(desk.settings(hook=hook.url)):
        await suspend(connection)
        await desk.log.until("notice.sent")
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'ringfence notices' and datname = current_database()"
        )
        await desk.log.until("notice.database_down")
        await raise_many(connection, 1)
        await desk.log.until("notice.sent")


# --- encrypted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["starttls", "tls"])
async def test_mail_goes_encrypted_and_logged_in(
    desk: Desk, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    context, trusted = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    served: dict[str, Any] = {"starttls": context, "login": True} if mode == "starttls" else {"tls": context}
    login = {"username": USER.decode()} if mode == "starttls" else {}
    with Mailbox(**served) as mailbox:
        async with desk.courier(desk.settings(mail=mailbox.port, smtp={"tls": mode, **login})):
            await suspend(connection)
            mail = await mailbox.next()
    assert (mail.encrypted, mail.login) == (True, login.get("username", ""))


async def test_nothing_is_sent_to_a_server_that_nobody_vouches_for(
    desk: Desk, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    context, _ = certificate(tmp_path)
    with Mailbox(starttls=context) as mailbox, Hook(tls=context) as hook:
        settings = desk.settings(mail=mailbox.port, hook=hook.url, smtp={"tls": "starttls"})
        async with desk.courier(settings):
            await suspend(connection)
            errors = [(await desk.log.until("notice.not_sent"))["error"] for _ in range(2)]
        assert all(
            "CERTIFICATE_VERIFY_FAILED" in error or "certificate verify failed" in error for error in errors
        )
        assert mailbox.received.empty()
        assert hook.received.empty()


async def test_a_webhook_over_https_is_told_if_its_certificate_is_trusted(
    desk: Desk, connection: asyncpg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with Hook(tls=context) as hook:
        async with desk.courier(desk.settings(hook=hook.url)):
            notice = await suspend(connection)
            assert json.loads((await hook.next()).content)["id"] == notice


async def test_mail_does_not_fall_back_to_the_clear_if_starttls_is_not_offered(
    desk: Desk, connection: asyncpg.Connection, mailbox: Mailbox
) -> None:
    async with desk.courier(desk.settings(mail=mailbox.port, smtp={"tls": "starttls"})):
        await suspend(connection)
        assert "STARTTLS" in (await desk.log.until("notice.not_sent"))["error"]
    assert mailbox.received.empty()


# --- chores -------------------------------------------------------------------------------------------------


@pytest.fixture
async def office(desk: Desk) -> AsyncIterator[Office]:
    """The daemon's chores, as the daemon's role."""
    made = Office(desk.database)
    yield made
    await made.close()


async def test_an_import_that_runs_out_on_a_day_is_one_notice_and_another_when_it_has_run_out(
    office: Office, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "insert into grants (customer, first, last, valid_until) select 'acme', 13000000000 + 2 * i, "
        "13000000000 + 2 * i, date_trunc('day', now()) + interval '10 days' + i * interval '1 minute' "
        "from generate_series(1, 200) i"
    )
    await connection.execute(
        "insert into grants (customer, first, last, valid_until) "
        "values ('acme', 14000000000, 14000000099, now() + interval '31 days'), "
        "('acme', 15000000000, 15000000099, 'infinity')"
    )
    assert await office.raise_expiries() == 1
    assert await office.raise_expiries() == 0
    row = await connection.fetchrow("select * from notices")
    assert row is not None
    data = json.loads(row["data"])
    assert (row["kind"], row["customer"]) == ("expiry", "acme")
    assert row["once"] == f"expiry of grants of acme on {data['day']}"
    assert (data["grants"], data["numbers"], len(data["blocks"]), data["ended"]) == (200, 200, 20, False)
    await connection.execute("alter table grants disable trigger user")
    await connection.execute(
        "update grants set valid_until = now() - interval '1 hour', valid_from = '-infinity' "
        "where first between 13000000000 and 13999999999"
    )
    assert await office.raise_expiries() == 1
    ended = await connection.fetchval("select data from notices order by notice_id desc limit 1")
    assert json.loads(ended)["ended"] is True


async def test_a_vetting_is_noticed_before_it_runs_out_and_once_more_when_it_has(
    office: Office, connection: asyncpg.Connection
) -> None:
    raised = "select once, data->>'what', data->>'ended' from notices order by notice_id"
    await connection.execute("update customers set vetted_until = now() + interval '20 days'")
    assert await office.raise_expiries() == 1
    await connection.execute("update customers set vetted_until = now() - interval '1 minute'")
    assert await office.raise_expiries() == 1
    assert await office.raise_expiries() == 0
    found = [tuple(row) for row in await connection.fetch(raised)]
    assert [(row[0].partition(" on ")[0], *row[1:]) for row in found] == [
        ("expiry of the vetting of acme", "vetting", "false"),
        ("end of the vetting of acme", "vetting", "true"),
    ]
    await connection.execute("update customers set vetted_until = now() - interval '8 days'")
    assert await office.raise_expiries() == 0
    await connection.execute("update customers set vetted_until = now() + interval '2 days', state = 'terminated'")
    assert await office.raise_expiries() == 0


async def test_a_suspension_that_a_call_could_not_carry_out_is_made_up_for(
    office: Office, database: DatabaseSettings, connection: asyncpg.Connection
) -> None:
    await connection.execute("update provider set warnings_before_suspension = 0")
    holder = await asyncpg.connect(database.dsn, server_settings={"search_path": "ringfence"})
    async with holder.transaction():
        await holder.execute("select from customers where customer = 'acme' for no key update")
        await judge(connection, attempt(caller=FOREIGN))
        assert await connection.fetchval("select state from customers") == "active"
    await holder.close()
    assert await office.settle_infractions() == 1
    assert await connection.fetchval("select state from customers") == "suspended"
    assert await office.settle_infractions() == 0


async def test_counters_of_months_that_are_over_are_dropped(
    office: Office, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "insert into usage (customer, scope, day) values ('acme', 'caller:1', current_date - 41), "
        "('acme', 'caller:2', current_date)"
    )
    assert await office.forget_usage() == 1
    assert await office.forget_usage() == 0
    assert await connection.fetchval("select scope from usage") == "caller:2"


# --- the command line ---------------------------------------------------------------------------------------


@pytest.fixture
def ringfence(database: DatabaseSettings, tmp_path: Path) -> Command:
    """The command line on the test's database."""
    (tmp_path / "cli").mkdir()
    return Command(database, tmp_path / "cli")


async def test_an_operator_reads_notices_and_says_that_the_customer_was_told(
    desk: Desk, ringfence: Command, connection: asyncpg.Connection
) -> None:
    assert "no notices" in ringfence.ok("notice", "list").out
    await make_customer(connection, "beta")
    notice = await suspend(connection)
    other = await suspend(connection, "beta")
    assert [row["notice_id"] for row in ringfence.ok("notice", "list", "--json").json] == [other, notice]
    assert [row["notice_id"] for row in ringfence.ok("notice", "list", "--limit", "1", "--json").json] == [other]
    assert ringfence("notice", "list", "--customer", "nobody").code == ExitCode.NOT_FOUND
    shown = ringfence.ok("notice", "show", str(notice)).out
    assert "Your service is suspended: acme" in shown
    assert "deliveries: nowhere yet" in shown
    assert ringfence.ok("notice", "delivered", str(notice), "--how", "phone call with Kim").code == 0
    assert [row["notice_id"] for row in ringfence.ok("notice", "list", "--undelivered", "--json").json] == [other]
    document = ringfence.ok("notice", "show", str(notice), "--json").json
    assert (document["delivered_how"], document["subject"]) == (
        "phone call with Kim",
        "Your service is suspended: acme",
    )
    change = await connection.fetchrow(
        "select action, customer, changed_by, detail from policy_changes order by version desc limit 1"
    )
    assert change is not None
    assert (change["action"], change["customer"], change["changed_by"]) == ("notice.delivered", "acme", "tester")
    again = ringfence("notice", "delivered", str(notice), "--how", "a letter")
    assert (again.code, "phone call with Kim" in again.err) == (ExitCode.CONFLICT, True)
    assert ringfence("notice", "delivered", str(other), "--how", "\x1b").code == ExitCode.BAD_INPUT
    assert ringfence("notice", "retry", str(notice)).code == ExitCode.CONFLICT
    for verb in (["show", "999"], ["retry", "999"], ["delivered", "999", "--how", "x"]):
        assert ringfence("notice", *verb).code == ExitCode.NOT_FOUND


async def test_whoever_edits_policy_may_say_that_a_customer_was_told_and_who_only_reads_may_not(
    desk: Desk, database: DatabaseSettings, connection: asyncpg.Connection
) -> None:
    told, untold = await suspend(connection), await raise_one(connection)
    for role in ("ringfence_admin", "ringfence_auditor"):
        await connection.execute(
            f"do $$ begin create role login_{role} login in role {role}; "
            "exception when duplicate_object then null; end $$"
        )
    admin, auditor = (
        DatabaseSettings(dsn=database.dsn.replace("postgres@", f"login_ringfence_{who}@"))
        for who in ("admin", "auditor")
    )
    async with connected(admin, application="test") as opened:
        await mark_delivered(opened, told, "phone call")
        assert await retry_notice(opened, untold) == 0
    async with connected(auditor, application="test") as opened:
        assert (await show_notice(opened, told))[1]["delivered_how"] == "phone call"
    with pytest.raises(DatabaseError, match="permission denied"):
        async with connected(auditor, application="test") as opened:
            await mark_delivered(opened, untold, "phone call")
    with pytest.raises(DatabaseError, match="permission denied"):
        async with connected(desk.database, application="test") as opened:
            await mark_delivered(opened, untold, "phone call")


async def test_a_test_goes_out_by_every_way_and_says_what_failed(
    desk: Desk, ringfence: Command, mailbox: Mailbox, hook: Hook
) -> None:
    assert ringfence("notice", "test").code == ExitCode.CONFIG
    settings = desk.settings(mail=mailbox.port, hook=hook.url).model_dump(mode="json", exclude_none=True)
    settings["smtp"]["address"] = f"127.0.0.1:{mailbox.port}"
    before = ringfence.config.read_text()
    ringfence.config.write_text(before + f"notices: {json.dumps(settings)}\n")
    assert "--to" in ringfence("notice", "test").err
    ran = ringfence.ok("notice", "test", "--to", KIM, "--json")
    assert [(row["channel"], row["address"], row["sent"]) for row in ran.json] == [
        ("email", KIM, True),
        ("webhook", hook.url, True),
    ]
    assert (await mailbox.next()).message["Subject"] == "Test: Test"
    assert json.loads((await hook.next()).content)["tell_customer"] is False
    hook.answers, mailbox.refusals = [500], ["550 who?"]
    failed = ringfence("notice", "test", "--to", KIM)
    assert failed.code == ExitCode.REFUSED
    assert "550 who?" in failed.out
    assert "answered 500" in failed.out
