"""Types of the fields of a policy file: each takes the text of the file, or refuses it with a sentence."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

import phonenumbers
from pydantic import AfterValidator, BeforeValidator, Field

from ringfence.config import US_PLAN
from ringfence.errors import BadInputError
from ringfence.numbering import NANP_NATIONAL, canonical
from ringfence.store import policy

MAX_CAP = 2_000_000_000
CLASSES = ("premium", "satellite", "toll_free", "international", "domestic", "service")

_WHOLE = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_RATE = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?", re.ASCII)
_NANP = re.compile(rf"\+1{NANP_NATIONAL}", re.ASCII)
_TIME_OF_DAY = r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]{1,6})?)?|24:00"
_HOURS = re.compile(rf"({_TIME_OF_DAY})-({_TIME_OF_DAY})", re.ASCII)
_PLACE = re.compile(r"[A-Z]{2}(-[A-Z]{2})?")
_PREFIX = re.compile(r"\+[1-9][0-9]{0,14}", re.ASCII)


def _whole(value: Any) -> Any:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError("must be a whole number")


def _rate(value: Any) -> Any:
    if isinstance(value, str) and _RATE.fullmatch(value):
        return float(value)
    raise ValueError("must be a number with at most three decimals, such as 2.5")


def _flag(value: Any) -> Any:
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a text")
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds a character that cannot be stored")
    return value


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("holds a control character")
    return value


def _name(value: str) -> str:
    try:
        policy.check_name("file", value)
    except BadInputError as error:
        raise ValueError(str(error).replace(" the name of a file", " a name")) from None
    return value


def _number(value: Any) -> int:
    if isinstance(value, str):
        if _NANP.fullmatch(value):
            return int(value)
        if value.startswith("+") and (read := canonical(value, US_PLAN, called=False)).e164 is not None:
            return read.e164
    raise ValueError("must be an E.164 number, + and its digits")


def _prefix(value: Any) -> str:
    if isinstance(value, str) and _PREFIX.fullmatch(value):
        return value
    raise ValueError("must be + and the leading digits of E.164 numbers, such as +4487")


def _country(value: str) -> str:
    if value not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(f"{value!r} is no country with telephone numbers: write its ISO code, such as US")
    return value


def _area(value: str) -> str:
    if value not in CLASSES and value not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError(f"{value!r} is neither the ISO code of a country nor one of {', '.join(CLASSES)}")
    return value


def _place(value: str) -> str:
    if _PLACE.fullmatch(value) is None:
        raise ValueError("must be a country, such as US, or a country and a state, such as US-TX")
    _country(value[:2])
    return value


def _moment(value: Any) -> str:
    try:
        return written(read_moment(value))
    except (ValueError, OverflowError, TypeError):
        raise ValueError("must be a time such as 2026-11-21 or 2026-11-21T14:30Z") from None


def _hours(value: Any) -> str:
    if value == "closed":
        return "closed"
    match = _HOURS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be times of the day such as 08:00-21:00, or closed")
    opens, closes = (time_of_day(part) for part in match.groups())
    if closes < opens:
        raise ValueError("ends before it begins")
    return hours_written(opens, closes)


@lru_cache(maxsize=4096)
def read_moment(text: str) -> datetime:
    """An ISO 8601 date (its first moment) or time, UTC if it names no offset. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


@lru_cache(maxsize=4096)
def written(at: datetime) -> str:
    """A moment as the canonical document has it: in UTC, and only the date if it is the first moment of a day."""
    at = at.astimezone(UTC)
    text = at.isoformat().replace("+00:00", "Z")
    return text[:10] if text[10:] == "T00:00:00Z" else text


def time_of_day(text: str) -> str:
    """A time of day without the seconds if there are none."""
    return text[:5] if text[5:] in ("", ":00") else text


def hours_written(opens: str, closes: str) -> str:
    """A day's calling hours as the canonical document has them."""
    return "closed" if opens == closes else f"{opens}-{closes}"


Whole = Annotated[int, BeforeValidator(_whole)]
Cap = Annotated[Whole, Field(ge=0, le=MAX_CAP)]
Rate = Annotated[float, BeforeValidator(_rate)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Text = Annotated[str, BeforeValidator(_text)]
Line = Annotated[Text, AfterValidator(_printable)]
Name = Annotated[Text, AfterValidator(_name)]
Number = Annotated[int, BeforeValidator(_number)]
Prefix = Annotated[str, BeforeValidator(_prefix)]
Country = Annotated[Text, AfterValidator(_country)]
Area = Annotated[Text, AfterValidator(_area)]
Place = Annotated[Text, AfterValidator(_place)]
Moment = Annotated[str, BeforeValidator(_moment)]
Hours = Annotated[str, BeforeValidator(_hours)]
