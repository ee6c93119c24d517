"""The facts of a vetting as people write them, in a file or as options: the form that each must have."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ringfence.config import MAIL_ADDRESS
from ringfence.errors import BadInputError
from ringfence.policy.fields import read_moment
from ringfence.store.policy import did_you_mean

# What mail is sent to, on a host with a dot.
_EMAIL = re.compile(rf"(?={MAIL_ADDRESS})[^@]{{1,64}}@([A-Za-z0-9-]{{1,63}}\.)+[A-Za-z0-9-]{{2,63}}")
_PHONE = re.compile(r"\+?[0-9 ().-]{5,30}( ?(x|ext\.?) ?[0-9]{1,8})?")

Fault = tuple[tuple[str | int, ...], str]
"""Where in the facts, and what is wrong there."""


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
        return read_moment(_text(value))
    except (ValueError, OverflowError):
        raise ValueError("is not a date: write 2026-11-21 or 2026-11-21T14:30Z") from None


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


def checked(data: Mapping[Any, Any], named: Callable[[str], str]) -> dict[str, Any]:
    """The facts in `data`. `named` makes of a field's path what the person wrote. Raises BadInputError."""
    try:
        found = Facts.model_validate(data)
    except ValidationError as error:
        sentences = [f"{named('.'.join(map(str, place)))}: {said}" for place, said in _sentences(error)]
        raise BadInputError("\n".join(sentences)) from error
    return {field: value for field in Facts.model_fields if (value := getattr(found, field)) is not None}


def faults(data: Mapping[str, Any]) -> list[Fault]:
    """What is wrong with the form of facts that are kept as they are written: they must be in the one form that
    `checked` gives them. None if nothing is."""
    try:
        found = Facts.model_validate(data)
    except ValidationError as error:
        return list(_sentences(error))
    return [
        ((field,), f"write it as {_shown(form)}")
        for field, value in data.items()
        if isinstance(value, str | list) and not isinstance(form := getattr(found, field), datetime)
        if form != value
    ]


def _shown(form: str | list[str]) -> str:
    return repr(form[:60]) if isinstance(form, str) else f"[{', '.join(form)[:200]}]"


def _sentences(error: ValidationError) -> Iterator[Fault]:
    for fault in error.errors(include_url=False):
        if fault["type"] == "extra_forbidden":
            close = did_you_mean(str(fault["loc"][0]), list(Facts.model_fields)).rstrip(";")
            yield fault["loc"], f"is not a field of a vetting{close}"
            continue
        message = fault["msg"].removeprefix("Value error, ")
        # What was given for a tax id is not repeated: it would stay on the screen and in its scroll-back.
        shown = None if fault["loc"][0] == "tax_id" else fault.get("input")
        if isinstance(shown, str | int | float):
            message += f" (found {str(shown)[:60]!r})"
        yield fault["loc"], message
