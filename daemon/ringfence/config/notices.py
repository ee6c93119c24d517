"""How people are told: the mail server and the webhook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from ringfence.config.fields import MailAddress, Section, TcpAddress, Text, is_loopback, read_secret
from ringfence.errors import ConfigError


class SmtpSettings(Section):
    """The mail server that notices are handed to, and who they come from.

    `operators` get a copy of every notice. `tls` is `starttls`, `tls` from the first byte on, or `none`. With
    `username` it logs in; the password is read from the credential `smtp-password` or from `password_file`.
    """

    address: TcpAddress
    sender: MailAddress
    operators: tuple[MailAddress, ...] = ()
    tls: Literal["none", "starttls", "tls"] = "starttls"
    username: Text | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _no_password_in_the_clear(self) -> SmtpSettings:
        if self.username and self.tls == "none" and not is_loopback(self.address.host):
            raise ValueError("with a username tls must be starttls or tls: the password would go in the clear")
        return self

    @property
    def password(self) -> str:
        """The password for `username`. Raises ConfigError if there is none."""
        password = read_secret("smtp-password", self.password_file, "notices.smtp.password_file")
        if not password:
            raise ConfigError(
                "notices.smtp.password_file: no password: name a file here or give the systemd credential "
                "'smtp-password'"
            )
        return password


class WebhookSettings(Section):
    """Where notices are posted as JSON: `https`, or `http` to this host only.

    Each is signed with the secret from the credential `webhook-secret` or from `secret_file`.
    """

    url: Annotated[str, Field(min_length=1, max_length=2000)]
    secret_file: Path | None = None

    @field_validator("url")
    @classmethod
    def _safe_url(cls, url: str) -> str:
        if not re.fullmatch(r"[!-~]+", url):
            raise ValueError("must be ASCII without spaces")
        try:
            parts, _port = urlsplit(url), urlsplit(url).port
        except ValueError as error:
            raise ValueError("is not a URL") from error
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("must begin with https://")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("must begin with https://: only this host itself may be told over http://")
        if "@" in parts.netloc or parts.fragment:
            raise ValueError("must hold neither a user nor a fragment")
        return url

    @property
    def secret(self) -> str:
        """The secret that signs. Raises ConfigError if there is none, or if it is too short to be one."""
        secret = read_secret("webhook-secret", self.secret_file, "notices.webhook.secret_file")
        if not secret:
            raise ConfigError(
                "notices.webhook.secret_file: no secret: name a file here or give the systemd credential "
                "'webhook-secret'"
            )
        if len(secret) < 16:
            raise ConfigError("notices.webhook.secret_file: the secret has fewer than 16 characters")
        return secret


class NoticeSettings(Section):
    """How warnings, suspensions, expiries and breaches are told to people. With neither `smtp` nor `webhook` they
    are only kept.

    A try may take `timeout_s`. One that fails is made again after `retry_min_s`, then after twice as long each
    time up to `retry_max_s`, and no more once `give_up_after_h` have passed.
    """

    smtp: SmtpSettings | None = None
    webhook: WebhookSettings | None = None
    timeout_s: float = Field(10.0, ge=0.1, le=120)
    retry_min_s: float = Field(30.0, ge=0.01, le=3600)
    retry_max_s: float = Field(3600.0, ge=0.01, le=86_400)
    give_up_after_h: float = Field(72.0, ge=0, le=8760)
