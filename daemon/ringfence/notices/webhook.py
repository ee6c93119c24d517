"""Notices to a webhook: JSON, signed, posted once a try; only an answer 2xx counts as taken."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
import time
from datetime import UTC
from urllib.parse import urlsplit

from ringfence import __version__
from ringfence.config import WebhookSettings
from ringfence.escape import visible
from ringfence.notices.line import NotSentError, dialled, told
from ringfence.notices.text import render
from ringfence.store.notices import Delivery

_SHOWN_OF_ANSWER = 200


class Webhook:
    """The configured webhook. Raises ConfigError if it has no secret."""

    name = "webhook"

    def __init__(self, settings: WebhookSettings) -> None:
        self.url = settings.url
        self._secret = settings.secret.encode()
        parts = urlsplit(settings.url)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._netloc = parts.netloc
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def send(self, delivery: Delivery, until: float) -> None:
        """Post a notice; blocks, at most until `until` (time.monotonic()). Redirects are not followed.

        Raises NotSentError unless the answer is 2xx.
        """
        content = body(delivery)
        with dialled(self._host, self._port, until) as line:
            sock = self._tls.wrap_socket(line, server_hostname=self._host) if self._tls else line
            connection = http.client.HTTPConnection(self._host, self._port)
            connection.sock = sock
            try:
                connection.request(
                    "POST", self._target, content, {"Host": self._netloc, **self._headers(delivery, content)}
                )
                with connection.getresponse() as answer:
                    if 200 <= answer.status < 300:
                        return
                    said = answer.read(_SHOWN_OF_ANSWER).decode("utf-8", "replace")
            except http.client.HTTPException as error:
                raise NotSentError(f"{self._host}: not HTTP: {visible(told(error), 100)}") from error
            finally:
                sock.close()
        raise NotSentError(f"{self._host} answered {answer.status} {visible(said.strip(), _SHOWN_OF_ANSWER)}")

    def _headers(self, delivery: Delivery, content: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        return {
            "Content-Type": "application/json",
            "User-Agent": f"ringfence/{__version__}",
            "Connection": "close",
            "Idempotency-Key": str(delivery.notice.notice_id),
            "Ringfence-Timestamp": timestamp,
            "Ringfence-Signature": "sha256=" + signature(self._secret, timestamp, content),
        }


def signature(secret: bytes, timestamp: str, content: bytes) -> str:
    """HMAC-SHA256 (RFC 2104) over the timestamp, a dot and the body, as lower-case hexadecimal digits."""
    return hmac.new(secret, timestamp.encode() + b"." + content, hashlib.sha256).hexdigest()


def body(delivery: Delivery) -> bytes:
    """The JSON document of docs/notices.md."""
    notice = delivery.notice
    text = render(notice)
    document = {
        "id": notice.notice_id,
        "kind": notice.kind,
        "customer": notice.customer,
        "customer_name": notice.customer_name,
        "created_at": notice.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "tell_customer": delivery.to_customer,
        "subject": text.subject,
        "text": text.body,
        "data": notice.data,
    }
    return json.dumps(document).encode("ascii")
