"""The words of a notice, and the shape it goes out in: nothing that somebody chose gets out of its place."""

from __future__ import annotations

import email
import email.policy
import hashlib
import hmac
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import config
from ringfence.config import WebhookSettings
from ringfence.errors import ConfigError
from ringfence.notices.line import NotSentError
from ringfence.notices.mail import compose
from ringfence.notices.text import for_operator, render
from ringfence.notices.webhook import Webhook, body, signature
from ringfence.reasons import REASONS
from ringfence.store.notices import Delivery, Notice

AT = datetime(2026, 11, 21, 14, 30, tzinfo=UTC)
KINDS = ("warning", "suspension", "breach", "expiry")


def notice(kind: str, name: str = "Acme Ltd", provider: str = "", **data: Any) -> Notice:
    return Notice(17, kind, "acme", name, provider, AT, data)


def delivery(told: Notice, *, to_customer: bool = True, address: str = "kim@acme.example") -> Delivery:
    return Delivery(told, "email", address, to_customer, "email", 1, False)


def test_a_warning_says_which_number_was_shown_when_and_what_follows() -> None:
    text = render(
        notice("warning", "Acme Ltd", "Example Telecom", caller="13105550199", reason="caller_id_not_authorized",
               happened_at="2026-11-21T14:29:03.12345+00:00", decision="019a", warnings_left=0)
    )  # fmt: skip
    assert text.subject == "Warning: caller ID that is not yours: Acme Ltd"
    for words in (
        "+13105550199",
        "at 2026-11-21 14:29 UTC",
        "The caller ID +13105550199 is not granted to you.",
        "If it happens again, your service is suspended.",
        "Reference: 019a",
        "Example Telecom",
        "Notice 17, 2026-11-21 14:30 UTC.",
    ):
        assert words in text.body


@pytest.mark.parametrize(
    "reason", ["caller_id_not_authorized", "caller_id_do_not_originate", "caller_id_unallocated"]
)
def test_every_reason_that_can_strike_is_told_to_the_customer_as_you(reason: str) -> None:
    for text in (
        render(notice("warning", caller="13105550199", reason=reason)),
        render(notice("suspension", caller="13105550199", cause=reason, infraction=2, reason="infraction 2: …")),
    ):
        assert "The caller ID +13105550199 is not granted to you." in text.body
        assert "customer" not in text.body
        assert "infraction" not in text.body


@pytest.mark.parametrize(
    "reason", [each.code for each in REASONS if each.sip_status == 480 and each.code.endswith("_exceeded")]
)
def test_a_breach_of_any_cap_is_told_to_the_customer_as_you(reason: str) -> None:
    body = render(notice("breach", rule="cap", reason=reason)).body
    assert re.search(r"A call was refused\. (You|A caller ID that you) ", body)
    assert "customer" not in body


def test_warnings_that_are_left_are_counted() -> None:
    assert "warned 2 more time(s)" in render(notice("warning", warnings_left=2)).body


def test_an_expiry_names_the_numbers_and_says_how_many_more_there_are() -> None:
    blocks = [[12125550100, 12125550100], [12125550200, 12125550299]]
    text = render(
        notice("expiry", what="grants", at="2026-12-01T00:00:00+00:00", grants=5, numbers=131, blocks=blocks)
    )
    assert "2026-12-01 00:00 UTC. 131 number(s)" in text.body
    assert "    +12125550100\n    +12125550200 to +12125550299\n    and 3 more" in text.body
    assert "runs out" in text.subject
    assert "has run out" in render(notice("expiry", what="vetting", ended=True, at="2026-12-01")).subject


def test_a_breach_names_the_limit() -> None:
    text = render(
        notice("breach", rule="calls_per_day", reason="calls_per_day_exceeded", at="2026-11-21T14:29:00Z")
    )
    assert text.subject == "Calls over a limit: calls per day: Acme Ltd"
    assert "You have used up your calls for the day." in text.body


@pytest.mark.parametrize(
    ("told_by", "words"),
    [
        ("email", "A copy of what customer acme is told by e-mail."),
        ("webhook", "The webhook was asked to tell it"),
        ("", "ringfence notice delivered 17 --how"),
    ],
)
def test_an_operator_reads_who_tells_the_customer(told_by: str, words: str) -> None:
    assert words in for_operator(notice("suspension", reason="traceback 4711"), told_by).body


facts = st.dictionaries(
    st.sampled_from(
        ["caller", "reason", "happened_at", "decision", "warnings_left", "rule", "at", "what", "ended", "grants",
         "numbers", "blocks", "by"]
    ),
    st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.lists(st.integers() | st.text())),
)  # fmt: skip


@given(kind=st.sampled_from(KINDS), name=st.text(), provider=st.text(), data=facts)
def test_whatever_the_facts_are_a_message_has_its_headers_and_no_others(
    kind: str, name: str, provider: str, data: dict[str, Any]
) -> None:
    for to_customer in (True, False):
        raw = compose(delivery(notice(kind, name, provider, **data), to_customer=to_customer), "noc@a.example")
        sent = raw.as_bytes()
        read = email.message_from_bytes(sent, policy=email.policy.default)
        assert sorted(read.keys()) == sorted(
            ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Ringfence-Notice", "Content-Type",
             "Content-Transfer-Encoding", "MIME-Version"]
        )  # fmt: skip
        assert read["To"] == "kim@acme.example"
        assert read["From"].addresses[0].addr_spec == "noc@a.example"
        assert all(len(line) <= 998 and line.isascii() for line in sent.split(b"\r\n"))


def test_a_name_cannot_put_a_header_into_a_message() -> None:
    evil = "Acme\r\nBcc: victim@evil.example\r\n\r\nClick here"
    message = compose(delivery(notice("suspension", evil, evil, reason=evil)), "noc@a.example")
    read = email.message_from_bytes(message.as_bytes(), policy=email.policy.default)
    assert read["Bcc"] is None
    assert "\\r\\nBcc: victim@evil.example" in read["Subject"]
    assert "\nBcc:" not in read.get_content().replace("\r", "")


@pytest.mark.parametrize(
    "address", ["kim@acme.example\r\nBcc: x@y", "kim@acme.example, x@y.example", "nobody", ""]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(NotSentError, match="is not an e-mail address"):
        compose(delivery(notice("suspension"), address=address), "noc@a.example")


def test_a_message_has_the_same_id_however_often_it_is_sent_and_another_for_everybody() -> None:
    first, again = (compose(delivery(notice("suspension")), "noc@a.example") for _ in range(2))
    other = compose(delivery(notice("suspension"), address="ann@acme.example"), "noc@a.example")
    assert first["Message-ID"] == again["Message-ID"] != other["Message-ID"]
    assert first["Message-ID"].startswith("<notice-17.")
    assert first["Message-ID"].endswith("@a.example>")


def test_the_webhooks_document_holds_the_words_and_the_facts() -> None:
    document = json.loads(body(delivery(notice("breach", "Ācme", rule="calls_per_day"), to_customer=False)))
    assert (document["id"], document["kind"], document["customer"]) == (17, "breach", "acme")
    assert (document["customer_name"], document["created_at"]) == ("Ācme", "2026-11-21T14:30:00Z")
    assert (document["tell_customer"], document["data"]) == (False, {"rule": "calls_per_day"})
    assert document["text"] == render(notice("breach", "Ācme", rule="calls_per_day")).body


def test_the_signature_is_hmac_sha256_over_the_time_a_dot_and_the_body() -> None:
    expected = hmac.new(b"key", b"1700000000.{}", hashlib.sha256).hexdigest()
    assert signature(b"key", "1700000000", b"{}") == expected
    assert signature(b"key", "1700000001", b"{}") != expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("webhook: {url: 'http://example.com/x'}", "must begin with https://"),
        ("webhook: {url: 'ftp://localhost/x'}", "must begin with https://"),
        ("webhook: {url: 'http://localhost.evil.example/x'}", "must begin with https://"),
        ("webhook: {url: 'https://user:pw@example.com/'}", "neither a user nor a fragment"),
        ('webhook: {url: "https://example.com/\\r\\nX: y"}', "ASCII without spaces"),
        ("webhook: {url: 'https://example.com:99999/'}", "is not a URL"),
        ("smtp: {address: 'mail:25', sender: 'a@b', username: x, tls: none}", "in the clear"),
        ("smtp: {address: 'mail:25', sender: \"a@b\\r\\nBcc: c@d\"}", "should match pattern"),
        ("smtp: {address: 'mail:25', sender: 'a@b', operators: ['not one']}", "should match pattern"),
    ],
)
def test_settings_that_would_tell_the_wrong_people_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config.parse(f"notices: {{{text}}}")


@pytest.mark.parametrize(
    "url", ["https://example.com/x?y", "http://127.0.0.1:8000/", "http://[::1]/", "http://localhost/"]
)
def test_a_webhook_is_https_or_on_this_host(url: str) -> None:
    webhook = config.parse(f"notices: {{webhook: {{url: '{url}'}}}}").notices.webhook
    assert webhook is not None
    assert webhook.url == url


def test_a_webhook_needs_a_secret_that_is_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'webhook-secret'"):
        Webhook(WebhookSettings(url="https://example.com/"))
    path = tmp_path / "secret"
    path.write_text("short")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="fewer than 16"):
        Webhook(WebhookSettings(url="https://example.com/", secret_file=path))


def test_a_login_needs_a_password() -> None:
    settings = config.parse("notices: {smtp: {address: 'mail:587', sender: 'a@b', username: x}}").notices.smtp
    assert settings is not None
    with pytest.raises(ConfigError, match="'smtp-password'"):
        _ = settings.password
