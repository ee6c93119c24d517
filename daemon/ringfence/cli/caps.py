"""Caps and repeated rules as options: a number, or `none` to lift the cap."""

from __future__ import annotations

from collections.abc import Mapping

from ringfence.errors import BadInputError

MAX_CAP = 2_000_000_000
METAVAR = "N|none"


def given(options: Mapping[str, str | None]) -> dict[str, int | None]:
    """The caps among `options` (option to its text) that were given, None for `none`. Raises BadInputError."""
    return {option: _cap(option, text) for option, text in options.items() if text is not None}


def _cap(option: str, text: str) -> int | None:
    if text.strip().lower() == "none":
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > MAX_CAP:
        raise BadInputError(f"{option}: {text!r} is no cap: give a whole number from 0 to {MAX_CAP:,}, or 'none'")
    return int(text)


def named(caps: Mapping[str, int | None], columns: Mapping[str, str]) -> dict[str, int | None]:
    """Caps under the names of their columns, by a table of option to column."""
    return {columns[option]: value for option, value in caps.items()}


def sentence(shown: Mapping[str, object], columns: Mapping[str, str]) -> str:
    """The caps that are set, e.g. `200 calls per day`; empty if none is. `columns` are column to words."""
    return ", ".join(f"{shown[column]} {words}" for column, words in columns.items() if shown[column] is not None)
