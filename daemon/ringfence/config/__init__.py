"""The YAML configuration as typed, frozen settings. Every error names the path of the field in the file."""

from __future__ import annotations

import difflib
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ringfence.config.fields import MAIL_ADDRESS, Address, Section, TcpAddress, Text, read_secret
from ringfence.config.notices import NoticeSettings, SmtpSettings, WebhookSettings
from ringfence.config.numbering import US_PLAN, EndpointPlan, NumberingPlan, NumberingSettings
from ringfence.config.switches import (
    AmiSettings,
    AsteriskSettings,
    EventSocketSettings,
    FastAgiSettings,
    FreeSwitchHookSettings,
    FreeSwitchSettings,
    LegRule,
    LegsSettings,
    SwitchSettings,
    WatchSettings,
)
from ringfence.errors import ConfigError

__all__ = [
    "DEFAULT_PATH",
    "MAIL_ADDRESS",
    "US_PLAN",
    "Address",
    "AmiSettings",
    "AsteriskSettings",
    "DatabaseSettings",
    "EndpointPlan",
    "EventSocketSettings",
    "FastAgiSettings",
    "FreeSwitchHookSettings",
    "FreeSwitchSettings",
    "GateSettings",
    "JournalSettings",
    "LegRule",
    "LegsSettings",
    "LoggingSettings",
    "NoticeSettings",
    "NumberingPlan",
    "NumberingSettings",
    "Settings",
    "SmtpSettings",
    "StrictLoader",
    "SwitchSettings",
    "TcpAddress",
    "VettingSettings",
    "WatchSettings",
    "WebhookSettings",
    "load",
    "parse",
    "read_secret",
]

DEFAULT_PATH = Path("/etc/ringfence/ringfence.yaml")


class DatabaseSettings(Section):
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


class GateSettings(Section):
    """Bounds of a decision. `deadline_ms` covers the whole of it, from question to answer."""

    deadline_ms: int = Field(1000, ge=50, le=10_000)
    max_waiting: int = Field(1000, ge=1, le=100_000)
    max_batch: int = Field(32, ge=1, le=512)
    lease_s: int = Field(300, ge=30, le=86_400)
    on_database_down: Literal["reject", "allow"] = "reject"


class JournalSettings(Section):
    """Records on their way to Postgres: how many wait in memory, and where they are kept while it is down."""

    spool_directory: Path = Path("/var/lib/ringfence/spool")
    max_waiting: int = Field(10_000, ge=100, le=1_000_000)
    max_batch: int = Field(500, ge=1, le=10_000)


class VettingSettings(Section):
    """The key that seals customers' tax ids, read from the systemd credential `vetting-key` or from `key_file`.
    The daemon needs none. `ringfence customer vetting-key` makes one.
    """

    key_file: Path | None = None

    @property
    def key(self) -> str | None:
        """The text of the key file, or None if none is named. Raises ConfigError."""
        return read_secret("vetting-key", self.key_file, "vetting.key_file")


class LoggingSettings(Section):
    """`auto` writes JSON unless standard error is a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(Section):
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
    known = {name for model in Section.__subclasses__() for name in model.model_fields}
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
