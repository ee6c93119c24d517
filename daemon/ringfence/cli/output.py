"""What reaches the terminal: JSON documents or tables, with everything that came from outside made harmless."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ringfence.escape import visible

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]

_PIPE_WIDTH = 200  # columns of a table that does not go to a terminal


def safe(text: str) -> str:
    """`text` with everything a terminal may act on or hide (controls, bidi marks, line breaks) escaped."""
    return visible(text, sys.maxsize)


def e164(number: int | None) -> str | None:
    """A stored number as people write it; short codes (no E.164 number is that short) without `+`."""
    return None if number is None else str(number) if number < 1_000_000 else f"+{number}"


def complain(text: str) -> None:
    """Write an error to standard error, each of its lines marked as ours."""
    for line in text.split("\n"):
        print(f"ringfence: {safe(line)}", file=sys.stderr)


def plain(value: Any) -> str:
    """A value as people read it: nothing for None, times in UTC to the second, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items() if item not in (None, ""))
    return str(value)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """`value` as ASCII JSON; times are ISO 8601 in UTC, and identifiers and numbers Python does not know text."""
    return json.dumps(value, default=_jsonable, indent=indent).replace("\x7f", "\\u007f")


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


class Output:
    """The answer of one command: a JSON document, or lines and tables for people."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, value: Any) -> None:
        """Write the JSON document, if JSON was asked for."""
        if self.as_json:
            print(to_json(value, indent=2))

    def line(self, text: str, *, at_once: bool = False) -> None:
        """Write one line for people; `at_once` even into a pipe."""
        if not self.as_json:
            print(safe(text), flush=at_once)

    def json_line(self, value: Any) -> None:
        """Write one JSON value on a line of its own at once, for output that never ends."""
        print(to_json(value), flush=True)

    def table(self, rows: Iterable[Row], columns: Sequence[str], *, title: str = "", empty: str = "none") -> None:
        """Write a table for people; long texts fold. `columns` are keys of the rows, shown with spaces for `_`."""
        if self.as_json:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        rows = list(rows)
        if not rows:
            self.line(f"{title}: {empty}" if title else empty)
            return
        table = Table(
            box=box.SIMPLE_HEAD,
            title=Text(title) if title else None,
            title_justify="left",
            pad_edge=False,
            show_edge=False,
        )
        for column in columns:
            table.add_column(Text(column.replace("_", " ")), overflow="fold")
        for row in rows:
            table.add_row(*(Text(safe(plain(row[column]))) for column in columns))
        _console().print(table)

    def facts(self, row: Row, *, title: str = "") -> None:
        """Write the fields of one row as a table of two columns, leaving out what is not there."""
        shown = [
            {"field": key.replace("_", " "), "value": value}
            for key, value in row.items()
            if value not in (None, "")
        ]
        self.table(shown, ("field", "value"), title=title)


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(markup=False, highlight=False, emoji=False, width=width)
