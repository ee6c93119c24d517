"""The .sql files: inside the package when installed, in the source tree's sql/ otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

_INSTALLED = Path(__file__).resolve().parents[1] / "sql"
_SOURCE_TREE = Path(__file__).resolve().parents[3] / "sql"


@dataclass(frozen=True, slots=True)
class SqlFile:
    """One file: its name without suffix, its text, and the SHA-256 of the text in hex."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the text."""
        return sha256(self.text.encode()).hexdigest()


def migrations() -> tuple[SqlFile, ...]:
    """Every migration, in the order in which they run."""
    return _read("migrations")


def functions() -> tuple[SqlFile, ...]:
    """Every function file, in the order in which they are applied."""
    return _read("functions")


def _read(folder: str) -> tuple[SqlFile, ...]:
    root = _INSTALLED if _INSTALLED.is_dir() else _SOURCE_TREE
    return tuple(SqlFile(path.stem, path.read_text("utf-8")) for path in sorted((root / folder).glob("*.sql")))
