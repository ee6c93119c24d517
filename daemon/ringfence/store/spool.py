"""Records on disk while Postgres is down: append-only files of JSON lines, fsynced, oldest first."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ringfence.ids import new_decision_id

_SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Record:
    """One record: a decision made without the database, or the end of a call, as JSON fields."""

    kind: Literal["decision", "end"]
    fields: dict[str, Any]

    def as_json(self) -> str:
        """One line of JSON without its line end."""
        return json.dumps({"kind": self.kind, "fields": self.fields}, separators=(",", ":"))


class Spool:
    """A directory of spool files. Not for use by two threads at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names: list[str] = []

    @property
    def empty(self) -> bool:
        """True if nothing waits on disk."""
        return not self._names

    def open(self) -> None:
        """Make the directory if it is missing and find the files of earlier runs. Raises OSError."""
        self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._names = sorted(path.name for path in self._directory.glob(f"*{_SUFFIX}"))

    def append(self, records: Sequence[Record]) -> None:
        """Write records to a new file; they survive a power cut once this returns. Raises OSError."""
        name = f"{new_decision_id()}{_SUFFIX}"
        partial = self._directory / f"{name}.partial"
        try:
            with partial.open("x", encoding="utf-8") as file:
                file.writelines(record.as_json() + "\n" for record in records)
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self._directory / name)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        self._names.append(name)

    def oldest(self) -> tuple[str, list[Record], list[str]]:
        """The oldest file: its name, its records, and the lines that are none. Raises OSError, IndexError."""
        name = self._names[0]
        records, damaged = [], []
        for line in (self._directory / name).read_text("utf-8", errors="replace").splitlines():
            try:
                data = json.loads(line)
                records.append(Record(data["kind"], data["fields"]))
            except (ValueError, TypeError, KeyError):
                damaged.append(line)
        return name, records, damaged

    def remove(self, name: str) -> None:
        """Forget a file whose records are in Postgres."""
        (self._directory / name).unlink(missing_ok=True)
        self._names.remove(name)

    def pass_over(self) -> str:
        """Leave the oldest file where it is until the next start; returns its name."""
        return self._names.pop(0)
