"""Notices by e-mail: one message a recipient, handed to the configured server."""

from __future__ import annotations

import hashlib
import re
import smtplib
import socket
import ssl
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime

from ringfence.config import MAIL_ADDRESS, SmtpSettings
from ringfence.escape import visible
from ringfence.notices.line import NotSentError, dialled, told
from ringfence.notices.text import for_operator, render
from ringfence.store.notices import Delivery


class Mail:
    """The configured mail server. Raises ConfigError if it wants a password and there is none.

    `host` is the name this host greets the server with.
    """

    name = "email"

    def __init__(self, settings: SmtpSettings, host: str) -> None:
        self._settings = settings
        self._host = host
        self._password = settings.password if settings.username else ""
        self._tls = ssl.create_default_context()

    def send(self, delivery: Delivery, until: float) -> None:
        """Hand one message to the server; blocks, at most until `until` (time.monotonic()).

        Raises NotSentError unless the server took it for the recipient.
        """
        address = self._settings.address
        message = compose(delivery, self._settings.sender)
        with dialled(address.host, address.port, until) as sock:
            client: _Client | None = None
            try:
                client = _Client(sock, self._settings, self._tls, self._host)
                if self._settings.tls == "starttls":
                    client.starttls(context=self._tls)  # raises if the server does not offer it
                if self._settings.username:
                    client.login(self._settings.username, self._password)
                client.sendmail(self._settings.sender, [delivery.address], message.as_bytes())
            except smtplib.SMTPException as error:
                raise NotSentError(f"{address}: {_said(error)}") from error
            finally:
                # The message was taken or it was not: a server that is slow to say goodbye changes neither.
                if client is not None:
                    with suppress(smtplib.SMTPException, OSError):
                        client.putcmd("quit")
                    with suppress(OSError):
                        client.close()


class _Client(smtplib.SMTP):
    """smtplib on a connection that is there already: its own would have no end to the whole of a try.

    Raises SMTPException unless the server greets.
    """

    def __init__(self, sock: socket.socket, settings: SmtpSettings, tls: ssl.SSLContext, host: str) -> None:
        self._ready, self._settings, self._context = sock, settings, tls
        super().__init__(settings.address.host, settings.address.port, local_hostname=host)

    def _get_socket(self, host: str, _port: int, _timeout: float) -> socket.socket:
        # Where SMTP_SSL too gives another kind of connection.
        if self._settings.tls == "tls":
            return self._context.wrap_socket(self._ready, server_hostname=host)
        return self._ready


def compose(delivery: Delivery, sender: str) -> EmailMessage:
    """The message: to the customer in its own words, to an operator with a word ahead.

    Its Message-ID is that of the notice and the recipient, however often it is sent. Raises NotSentError if the
    address is none.
    """
    if not re.fullmatch(MAIL_ADDRESS, delivery.address):
        raise NotSentError(f"{visible(delivery.address)!r} is not an e-mail address")
    notice = delivery.notice
    text = render(notice) if delivery.to_customer else for_operator(notice, delivery.told_by)
    key = f"{notice.notice_id} {notice.created_at.timestamp()} {delivery.address}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit"))
    message["From"] = Address(visible(notice.provider, 100), addr_spec=sender)
    message["To"] = Address(addr_spec=delivery.address)
    message["Subject"] = visible(text.subject, 200)
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = f"<notice-{notice.notice_id}.{digest}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    message["X-Ringfence-Notice"] = str(notice.notice_id)
    message.set_content(text.body)
    return message


def _said(error: smtplib.SMTPException) -> str:
    """What the server said."""
    said: bytes | str
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        [(code, said)] = error.recipients.values()
    elif isinstance(error, smtplib.SMTPResponseException):
        code, said = error.smtp_code, error.smtp_error
    else:
        return visible(told(error), 200)
    text = said if isinstance(said, str) else said.decode("utf-8", "replace")
    return f"the server answered {code} {visible(text, 200)}"
