"""What every part of the configuration is made of: field types, and how a secret is read."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ringfence.errors import ConfigError

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


class Section(BaseModel):
    """A part of the file: no key but its own, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Address(Section):
    """A TCP address, written `HOST:PORT` in the file."""

    host: Text
    port: Port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


TcpAddress = Annotated[Address, BeforeValidator(_split_address)]


def is_loopback(host: str) -> bool:
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
