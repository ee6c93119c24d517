"""The switches, and what is watched on each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ringfence.config.fields import Address, Section, TcpAddress, Text, read_secret
from ringfence.errors import ConfigError


class FastAgiSettings(Section):
    """The FastAGI gate's socket and the bound of everything a peer can make grow or wait."""

    listen: TcpAddress = Address(host="127.0.0.1", port=4573)
    max_sessions: int = Field(2000, ge=1, le=100_000)
    max_line_bytes: int = Field(2048, ge=256, le=65_536)
    max_header_bytes: int = Field(16_384, ge=1024, le=262_144)
    max_header_lines: int = Field(128, ge=32, le=1024)
    first_line_timeout_ms: int = Field(500, ge=10, le=10_000)
    command_timeout_ms: int = Field(500, ge=10, le=10_000)


class AmiSettings(Section):
    """The manager connection. The secret is read from the credential `ami-secret` or from `secret_file`."""

    address: TcpAddress = Address(host="127.0.0.1", port=5038)
    username: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "ringfence"
    secret_file: Path | None = None
    connect_timeout_s: float = Field(5.0, gt=0, le=60)
    action_timeout_s: float = Field(5.0, gt=0, le=60)
    ping_interval_s: float = Field(10.0, gt=0, le=300)
    reconnect_min_s: float = Field(0.5, gt=0, le=60)
    reconnect_max_s: float = Field(30.0, gt=0, le=600)
    max_message_bytes: int = Field(65_536, ge=4096, le=1_048_576)

    @property
    def secret(self) -> str:
        """The AMI secret. Raises ConfigError if there is none, or if it could break out of its AMI header."""
        secret = read_secret("ami-secret", self.secret_file, "switches.ami.secret_file")
        if secret is None:
            raise ConfigError(
                "switches.ami.secret_file: no secret: name a file here or give the systemd credential 'ami-secret'"
            )
        if re.search(r"[\x00-\x1f\x7f]", secret):
            raise ConfigError("switches.ami.secret_file: the secret holds a control character")
        return secret


class WatchSettings(Section):
    """What becomes of an outbound leg on a trunk that nobody asked about.

    It is judged when it is seen. `kill` hangs it up if it may not be, `report` only records it, `off` does not
    look. `trunks` are the channels that lead to a carrier, as TECHNOLOGY/ENDPOINT (`PJSIP/carrier`); `*` and `?`
    are wildcards. Without trunks nothing is watched.
    """

    mode: Literal["kill", "report", "off"] = "kill"
    trunks: tuple[Text, ...] = ()


class AsteriskSettings(Section):
    """One Asterisk: its gate, its manager connection, and what is done about calls that go around the gate."""

    kind: Literal["asterisk"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "asterisk"
    fastagi: FastAgiSettings = FastAgiSettings()
    ami: AmiSettings | None = AmiSettings()
    watch: WatchSettings = WatchSettings()


class FreeSwitchHookSettings(Section):
    """The gate's outbound event socket and the bound of everything a peer can make grow or wait.

    `first_bytes_timeout_ms` bounds the wait for the channel's data, `command_timeout_ms` the answer's delivery.
    """

    listen: TcpAddress = Address(host="127.0.0.1", port=8084)
    max_sessions: int = Field(2000, ge=1, le=100_000)
    max_header_bytes: int = Field(262_144, ge=4096, le=4_194_304)
    max_header_lines: int = Field(4096, ge=128, le=65_536)
    first_bytes_timeout_ms: int = Field(1000, ge=10, le=10_000)
    command_timeout_ms: int = Field(1000, ge=10, le=10_000)


class EventSocketSettings(Section):
    """The inbound event socket. The password is read from the credential `event-socket-password` or from
    `password_file`.

    Every `check_interval_s` the switch is asked whether each live leg is still there. `max_message_bytes` must
    hold the list of all channels: about 1.5 kB for each.
    """

    address: TcpAddress = Address(host="127.0.0.1", port=8021)
    password_file: Path | None = None
    connect_timeout_s: float = Field(5.0, gt=0, le=60)
    command_timeout_s: float = Field(5.0, gt=0, le=60)
    ping_interval_s: float = Field(10.0, gt=0, le=300)
    reconnect_min_s: float = Field(0.5, gt=0, le=60)
    reconnect_max_s: float = Field(30.0, gt=0, le=600)
    check_interval_s: float = Field(30.0, gt=0, le=600)
    max_message_bytes: int = Field(16_777_216, ge=65_536, le=268_435_456)
    max_waiting: int = Field(10_000, ge=100, le=1_000_000)

    @property
    def password(self) -> str:
        """The password. Raises ConfigError if there is none, or if it could break out of its command."""
        password = read_secret("event-socket-password", self.password_file, "switches.event_socket.password_file")
        if not password:
            raise ConfigError(
                "switches.event_socket.password_file: no password: name a file here or give the systemd "
                "credential 'event-socket-password'"
            )
        if re.search(r"[\x00-\x1f\x7f]", password):
            raise ConfigError("switches.event_socket.password_file: the password holds a control character")
        return password


class LegRule(Section):
    """Outbound legs by where they go: everything that is given must match; `*` and `?` are wildcards.

    `gateway` is the gateway's name, `profile` the sofia profile, `domain` the host of the Request-URI (and of
    every proxy the leg is routed by), `endpoint` the kind of channel (`sofia`, `loopback`, `user` …).
    """

    gateway: Text | None = None
    profile: Text | None = None
    domain: Text | None = None
    endpoint: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> LegRule:
        if not any((self.gateway, self.profile, self.domain, self.endpoint)):
            raise ValueError("needs at least one of gateway, profile, domain, endpoint")
        return self


class LegsSettings(Section):
    """Which outbound legs stay inside: those are let out unjudged. Every other leg is a trunk's and is judged."""

    internal: tuple[LegRule, ...] = ()


class FreeSwitchWatchSettings(Section):
    """What becomes of an outbound leg that leaves without having asked, or goes on to another number.

    It is judged when it is seen. `kill` hangs it up if it may not be, `report` only records it, `off` does not
    look. Every leg that `legs.internal` does not name is a trunk's.
    """

    mode: Literal["kill", "report", "off"] = "kill"


class FreeSwitchSettings(Section):
    """One FreeSWITCH: its gate, its event socket, which legs stay inside, and what is done about legs that go
    around the gate."""

    kind: Literal["freeswitch"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "freeswitch"
    hook: FreeSwitchHookSettings = FreeSwitchHookSettings()
    event_socket: EventSocketSettings | None = EventSocketSettings()
    legs: LegsSettings = LegsSettings()
    watch: FreeSwitchWatchSettings = FreeSwitchWatchSettings()


SwitchSettings = Annotated[AsteriskSettings | FreeSwitchSettings, Field(discriminator="kind")]
