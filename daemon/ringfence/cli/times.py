"""Points in time as an operator writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from ringfence.errors import BadInputError

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def point(text: str, option: str, *, now: datetime | None = None) -> datetime:
    """`2026-11-21`, `2026-11-21T14:30`, with or without a UTC offset (UTC is assumed), or `90m`: that long ago.

    Raises BadInputError naming `option`.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return (now or datetime.now(UTC)) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return moment(text)
    except (ValueError, OverflowError):
        raise BadInputError(
            f"{option}: {text!r} is not a time: write 2026-11-21, 2026-11-21T14:30Z, or 90m, 12h, 7d "
            "for that long ago"
        ) from None


def moment(text: str) -> datetime:
    """An ISO 8601 date (its first moment) or time; UTC if it names no offset. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
