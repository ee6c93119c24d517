"""The facts of a vetting as a person writes them, in a YAML file or as options, checked field by field."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ringfence.cli.times import moment
from ringfence.config import StrictLoader
from ringfence.errors import BadInputError
from ringfence.store.policy import did_you_mean

MAX_FILE = 262_144  # bytes

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{2,63}")
_PHONE = re.compile(r"\+?[0-9 ().-]{5,30}( ?(x|ext\.?) ?[0-9]{1,8})?")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    text = " ".join(value.split())
    if not text.isprintable():
        raise ValueError("holds a control character")
    return text


def _form(pattern: str | re.Pattern[str], rule: str, *, upper: bool = False) -> BeforeValidator:
    form = re.compile(pattern)

    def check(value: Any) -> str:
        text = _text(value).upper() if upper else _text(value)
        if text and form.fullmatch(text) is None:
            raise ValueError(rule)
        return text

    return BeforeValidator(check)


def _network(value: Any) -> str:
    try:
        network = ipaddress.ip_network(_text(value), strict=False)
    except ValueError:
        raise ValueError("is not an IP address or network, such as 192.0.2.10 or 192.0.2.0/24") from None
    return str(network.network_address if network.num_addresses == 1 else network)


def _time(value: Any) -> datetime:
    try:
        return moment(_text(value))
    except ValueError:
        raise ValueError("is not a date: write 2026-11-21 or 2026-11-21T14:30Z") from None


class _AsWritten(StrictLoader):
    """Values are the text that stands there: YAML would read the company number 0123 as 83."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as PyYAML has it
        first: [(tag, form) for tag, form in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in StrictLoader.yaml_implicit_resolvers.items()
    }


Line = Annotated[str, BeforeValidator(_text), Field(max_length=200)]
Story = Annotated[str, BeforeValidator(_text), Field(max_length=4000)]
Email = Annotated[str, _form(_EMAIL, "is not an e-mail address, such as noc@example.com"), Field(max_length=254)]
Phone = Annotated[str, _form(_PHONE, "is not a telephone number, such as +1 212 555 0123")]
Country = Annotated[str, _form(r"[A-Z]{2}", "is not an ISO country code, such as US", upper=True)]
Time = Annotated[datetime, BeforeValidator(_time)]
Lines = Annotated[list[Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=500)]],
                  Field(max_length=100)]  # fmt: skip


class Facts(BaseModel):
    """What a vetting found out. None is not told; an empty text takes away what was known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vetted_by: Annotated[str, BeforeValidator(_text), Field(min_length=1, max_length=200)] | None = None
    method: Literal["call", "visit", "documents"] | None = None
    valid_until: Time | None = None
    legal_name: Line | None = None
    trading_name: Line | None = None
    entity_type: Line | None = None
    incorporation_state: Line | None = None
    incorporation_country: Country | None = None
    tax_id: Line | None = None
    physical_address: Story | None = None
    address_kind: Literal["", "office", "home", "virtual", "po_box", "hotel"] | None = None
    contact_name: Line | None = None
    contact_email: Email | None = None
    contact_phone: Phone | None = None
    alternate_phone: Phone | None = None
    website: Line | None = None
    use_case: Story | None = None
    campaign_type: Line | None = None
    expected_calls_per_second: Annotated[Decimal, Field(ge=0, lt=1_000_000, decimal_places=3)] | None = None
    expected_calls_per_day: Annotated[int, Field(ge=0, le=2_000_000_000)] | None = None
    source_addresses: Annotated[list[Annotated[str, BeforeValidator(_network)]], Field(max_length=100)] | None = (
        None
    )
    questionnaire_version: Line | None = None
    questionnaire_at: Time | None = None
    aup_version: Line | None = None
    aup_accepted_at: Time | None = None
    aup_accepted_by: Line | None = None
    prior_actions: Story | None = None
    red_flags: Lines | None = None
    documents: Lines | None = None
    filer_id_499: Annotated[str, _form(r"[0-9]{6}", "a Form 499 filer id has 6 digits")] | None = None
    rmd_number: (
        Annotated[str, _form(r"RMD[0-9]{7,10}", "write it as RMD and 7 to 10 digits", upper=True)] | None
    ) = None
    rmd_status: Literal["", "listed", "not_listed"] | None = None
    rmd_checked_at: Time | None = None
    ocn: (
        Annotated[str, _form(r"[0-9A-Z]{4}", "an Operating Company Number has 4 digits or letters", upper=True)]
        | None
    ) = None
    frn: Annotated[str, _form(r"[0-9]{10}", "an FCC Registration Number has 10 digits")] | None = None
    stir_shaken: Literal["", "full", "partial", "none"] | None = None
    note: Story | None = None


def from_file(path: Path) -> dict[str, Any]:
    """The facts a YAML file tells. Raises BadInputError with one sentence for each fault, naming its field."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise BadInputError(f"{path}: longer than {MAX_FILE:,} bytes: these are not the facts of a vetting")
        data = yaml.load(text.decode("utf-8"), Loader=_AsWritten)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise BadInputError(f"{path}: {where}{getattr(error, 'problem', None) or 'not YAML'}") from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not YAML: {error}") from error
    if not isinstance(data, dict):
        raise BadInputError(f"{path}: write one 'field: value' a line, as for 'legal_name: Acme Ltd'")
    return checked(data, lambda place: f"{path}: {place}")


def checked(data: Mapping[Any, Any], named: Callable[[str], str]) -> dict[str, Any]:
    """The facts in `data`. `named` makes of a field's path what the person wrote. Raises BadInputError."""
    try:
        found = Facts.model_validate(data)
    except ValidationError as error:
        raise BadInputError("\n".join(_sentences(error, named))) from error
    return {field: value for field in Facts.model_fields if (value := getattr(found, field)) is not None}


def _sentences(error: ValidationError, named: Callable[[str], str]) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False):
        place = named(".".join(str(part) for part in fault["loc"]))
        if fault["type"] == "extra_forbidden":
            close = did_you_mean(str(fault["loc"][0]), list(Facts.model_fields)).rstrip(";")
            lines.append(f"{place}: is not a field of a vetting{close}")
            continue
        message = fault["msg"].removeprefix("Value error, ")
        # What was given for a tax id is not repeated: it would stay on the screen and in its scroll-back.
        shown = None if fault["loc"][0] == "tax_id" else fault.get("input")
        if isinstance(shown, str | int | float):
            message += f" (found {str(shown)[:60]!r})"
        lines.append(f"{place}: {message}")
    return lines
