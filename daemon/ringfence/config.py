"""The YAML configuration as typed, frozen settings. Every error names the path of the field in the file."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import phonenumbers
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ringfence.errors import ConfigError

DEFAULT_PATH = Path("/etc/ringfence/ringfence.yaml")

Text = Annotated[str, Field(min_length=1, max_length=255)]
Digits = Annotated[str, Field(pattern=r"^[0-9*#]{1,15}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
# As in sql/functions/deliveries.sql.
MAIL_ADDRESS = r"^[!#-'*+./0-9=?A-Z^_a-z~-]+@[0-9A-Za-z]+([.-]+[0-9A-Za-z]+)*$"
MailAddress = Annotated[str, Field(max_length=254, pattern=MAIL_ADDRESS)]


def _split_address(value: Any) -> Any:
    """`HOST:PORT` or `[V6]:PORT` to its parts; anything else is left for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<host>[A-Za-z0-9_.-]+)):(?P<port>\d{1,5})", value)
    if match is None:
        raise ValueError(f"{value!r} is not HOST:PORT")
    return {"host": match["v6"] or match["host"], "port": int(match["port"])}


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Address(_Settings):
    """A TCP address, written `HOST:PORT` in the file."""

    host: Text
    port: Port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


TcpAddress = Annotated[Address, BeforeValidator(_split_address)]


class DatabaseSettings(_Settings):
    """Where Postgres is. The password never stands here: see `password`."""

    dsn: Text = "postgresql:///ringfence"
    password_file: Path | None = None
    connections: int = Field(2, ge=1, le=32)
    connect_timeout_s: float = Field(5.0, gt=0, le=60)

    @field_validator("dsn")
    @classmethod
    def _no_password(cls, dsn: str) -> str:
        parts = urlsplit(dsn)
        if parts.scheme not in ("postgresql", "postgres"):
            raise ValueError("must begin with postgresql://")
        if parts.password or "password=" in parts.query:
            raise ValueError(
                "must not hold a password: use password_file or the systemd credential 'database-password'"
            )
        return dsn

    @property
    def password(self) -> str | None:
        """From the systemd credential `database-password`, else from `password_file`, else None."""
        return read_secret("database-password", self.password_file, "database.password_file")


class GateSettings(_Settings):
    """Bounds of a decision. `deadline_ms` covers the whole of it, from question to answer."""

    deadline_ms: int = Field(1000, ge=50, le=10_000)
    max_waiting: int = Field(1000, ge=1, le=100_000)
    max_batch: int = Field(32, ge=1, le=512)
    lease_s: int = Field(300, ge=30, le=86_400)
    on_database_down: Literal["reject", "allow"] = "reject"


class NumberingPlan(_Settings):
    """How numbers are dialled at an endpoint: its country and its prefixes.

    `outside_line` is dropped from called numbers; `international` stands for `+`; `short_codes` are service
    numbers that may be called as they are (411, 711); `bare_e164` reads digits that fit no national form as
    an E.164 number without its `+`.
    """

    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    international: tuple[Digits, ...] = ()
    outside_line: tuple[Digits, ...] = ()
    short_codes: tuple[Annotated[str, Field(pattern=r"^[1-9][0-9]{1,5}$")], ...] = ()
    bare_e164: bool = True

    @field_validator("country")
    @classmethod
    def _known_country(cls, country: str) -> str:
        if country not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"{country!r} is not a country with a numbering plan")
        return country


class EndpointPlan(_Settings):
    """Which plan an endpoint dials under. Exactly one pattern; `*` and `?` are wildcards."""

    plan: Text
    account: Text | None = None
    sip_user: Text | None = None
    trunk: Text | None = None
    source_address: Text | None = None

    @model_validator(mode="after")
    def _one_pattern(self) -> EndpointPlan:
        if sum(value is not None for value in (self.account, self.sip_user, self.trunk, self.source_address)) != 1:
            raise ValueError("needs exactly one of account, sip_user, trunk, source_address")
        return self


US_PLAN = NumberingPlan(
    country="US", international=("011",), short_codes=("211", "311", "411", "511", "611", "711", "811")
)


class NumberingSettings(_Settings):
    """Numbering plans, and which endpoint dials under which. The first matching endpoint rule wins."""

    default_plan: Text = "us"
    plans: dict[Text, NumberingPlan] = {"us": US_PLAN}
    endpoints: tuple[EndpointPlan, ...] = ()
    emergency: tuple[Digits, ...] = ("911", "933", "112", "988")

    @model_validator(mode="after")
    def _plans_exist(self) -> NumberingSettings:
        for name in (self.default_plan, *(endpoint.plan for endpoint in self.endpoints)):
            if name not in self.plans:
                raise ValueError(f"plan {name!r} is not in 'plans'")
        return self


class FastAgiSettings(_Settings):
    """The FastAGI gate's socket and the bound of everything a peer can make grow or wait."""

    listen: TcpAddress = Address(host="127.0.0.1", port=4573)
    max_sessions: int = Field(2000, ge=1, le=100_000)
    max_line_bytes: int = Field(2048, ge=256, le=65_536)
    max_header_bytes: int = Field(16_384, ge=1024, le=262_144)
    max_header_lines: int = Field(128, ge=32, le=1024)
    first_line_timeout_ms: int = Field(500, ge=10, le=10_000)
    command_timeout_ms: int = Field(500, ge=10, le=10_000)


class AmiSettings(_Settings):
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


class WatchSettings(_Settings):
    """What becomes of an outbound leg on a trunk that nobody asked about.

    It is judged when it is seen. `kill` hangs it up if it may not be, `report` only records it, `off` does not
    look. `trunks` are the channels that lead to a carrier, as TECHNOLOGY/ENDPOINT (`PJSIP/carrier`); `*` and `?`
    are wildcards. Without trunks nothing is watched.
    """

    mode: Literal["kill", "report", "off"] = "kill"
    trunks: tuple[Text, ...] = ()


class AsteriskSettings(_Settings):
    """One Asterisk: its gate, its manager connection, and what is done about calls that go around the gate."""

    kind: Literal["asterisk"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "asterisk"
    fastagi: FastAgiSettings = FastAgiSettings()
    ami: AmiSettings | None = AmiSettings()
    watch: WatchSettings = WatchSettings()


class FreeSwitchHookSettings(_Settings):
    """The gate's outbound event socket and the bound of everything a peer can make grow or wait.

    `first_bytes_timeout_ms` bounds the wait for the channel's data, `command_timeout_ms` the answer's delivery.
    """

    listen: TcpAddress = Address(host="127.0.0.1", port=8084)
    max_sessions: int = Field(2000, ge=1, le=100_000)
    max_header_bytes: int = Field(262_144, ge=4096, le=4_194_304)
    max_header_lines: int = Field(4096, ge=128, le=65_536)
    first_bytes_timeout_ms: int = Field(1000, ge=10, le=10_000)
    command_timeout_ms: int = Field(1000, ge=10, le=10_000)


class EventSocketSettings(_Settings):
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


class LegRule(_Settings):
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


class LegsSettings(_Settings):
    """Which outbound legs stay inside: those are let out unjudged. Every other leg is a trunk's and is judged."""

    internal: tuple[LegRule, ...] = ()


class FreeSwitchWatchSettings(_Settings):
    """What becomes of an outbound leg that leaves without having asked, or goes on to another number.

    It is judged when it is seen. `kill` hangs it up if it may not be, `report` only records it, `off` does not
    look. Every leg that `legs.internal` does not name is a trunk's.
    """

    mode: Literal["kill", "report", "off"] = "kill"


class FreeSwitchSettings(_Settings):
    """One FreeSWITCH: its gate, its event socket, which legs stay inside, and what is done about legs that go
    around the gate."""

    kind: Literal["freeswitch"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = "freeswitch"
    hook: FreeSwitchHookSettings = FreeSwitchHookSettings()
    event_socket: EventSocketSettings | None = EventSocketSettings()
    legs: LegsSettings = LegsSettings()
    watch: FreeSwitchWatchSettings = FreeSwitchWatchSettings()


SwitchSettings = Annotated[AsteriskSettings | FreeSwitchSettings, Field(discriminator="kind")]


class JournalSettings(_Settings):
    """Records on their way to Postgres: how many wait in memory, and where they are kept while it is down."""

    spool_directory: Path = Path("/var/lib/ringfence/spool")
    max_waiting: int = Field(10_000, ge=100, le=1_000_000)
    max_batch: int = Field(500, ge=1, le=10_000)


class SmtpSettings(_Settings):
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
        if self.username and self.tls == "none" and not _is_loopback(self.address.host):
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


class WebhookSettings(_Settings):
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
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
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


class NoticeSettings(_Settings):
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


class VettingSettings(_Settings):
    """The key that seals customers' tax ids, read from the systemd credential `vetting-key` or from `key_file`.
    The daemon needs none. `ringfence customer vetting-key` makes one.
    """

    key_file: Path | None = None

    @property
    def key(self) -> str | None:
        """The text of the key file, or None if none is named. Raises ConfigError."""
        return read_secret("vetting-key", self.key_file, "vetting.key_file")


class LoggingSettings(_Settings):
    """`auto` writes JSON unless standard error is a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(_Settings):
    """The whole configuration file."""

    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] = Field(
        default_factory=lambda: re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:64] or "localhost"
    )
    database: DatabaseSettings = DatabaseSettings()
    gate: GateSettings = GateSettings()
    numbering: NumberingSettings = NumberingSettings()
    switches: tuple[SwitchSettings, ...] = ()
    journal: JournalSettings = JournalSettings()
    notices: NoticeSettings = NoticeSettings()
    vetting: VettingSettings = VettingSettings()
    logging: LoggingSettings = LoggingSettings()

    @model_validator(mode="after")
    def _distinct_switches(self) -> Settings:
        names = [switch.name for switch in self.switches]
        if len(set(names)) != len(names):
            raise ValueError("two switches have the same name")
        return self


def _is_loopback(host: str) -> bool:
    """Whether a host name or address is this host itself, without asking a name server."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_secret(credential: str, path: Path | None, field_name: str) -> str | None:
    """A secret from systemd's credential directory (systemd.exec(5), LoadCredential=), else from `path`.

    Raises ConfigError naming `field_name` if the file cannot be read or others may read it.
    """
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    try:
        if path is None and directory is not None and (candidate := Path(directory, credential)).exists():
            path = candidate
        elif path is None:
            return None
        elif path.exists() and path.stat().st_mode & 0o007:
            raise ConfigError(f"{field_name}: {path} may be read by everybody: chmod 0640 or 0600 it")
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{field_name}: cannot read {path or credential}: {error}") from error


class StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice: YAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else repr(key))
        return super().construct_mapping(node, deep)


def load(path: Path) -> Settings:
    """Read and check a configuration file.

    Raises ConfigError with one sentence for each fault, each naming the field by its path in the file.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse(text, str(path))


def parse(text: str, origin: str = "configuration") -> Settings:
    """Check configuration text; `origin` is named in errors. Raises ConfigError as `load` does."""
    try:
        data = yaml.load(text, Loader=StrictLoader)  # noqa: S506 - a SafeLoader
    except (ValueError, RecursionError) as error:  # a date that is none, lists in lists in lists
        raise ConfigError(f"{origin}: not YAML: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{origin}: {where}{getattr(error, 'problem', None) or 'not YAML'}") from error
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{origin}: must be a mapping of settings at the top")
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{origin}: {line}" for line in _sentences(error))) from error


def _sentences(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False):
        path = ".".join(str(part) for part in fault["loc"]) or "(top)"
        if fault["type"] == "extra_forbidden":
            message = "is not a setting" + _did_you_mean(fault["loc"])
        else:
            message = fault["msg"].removeprefix("Value error, ")
            shown = fault.get("input")
            if isinstance(shown, str | int | float) and fault["type"] != "value_error":
                message += f" (found {str(shown)[:60]!r})"
        lines.append(f"{path}: {message}")
    return lines


def _did_you_mean(location: tuple[int | str, ...]) -> str:
    known = {name for model in _Settings.__subclasses__() for name in model.model_fields}
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
