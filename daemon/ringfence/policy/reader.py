"""YAML as the policy file uses it: mappings, lists and texts, read event by event, so that a file of a million
grants does not become millions of nodes first."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import yaml

from ringfence.errors import BadInputError

Path = tuple[str | int, ...]
Convert = Callable[[str, Any], Any]

MAX_DEPTH = 12
_NOTHING = frozenset({"", "~", "null"})
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Reader:
    """One document. What is not a mapping or a list comes back as text, exactly as it is written, or as None where
    nothing stands: `NO` stays Norway and `21:00` a time of day.

    A key that is written twice is refused, as in the configuration (YAML would keep the last one), and so are
    anchors, aliases and tags: a file says what it says in one place.
    """

    def __init__(self, text: str, origin: str, *, convert: Convert | None = None, wanted: Collection[Path] = ()):
        """`convert` is given each entry of `customers` as it is read, and what it returns is kept instead. The
        lines of the fields `wanted`, and of those above them, are found in `lines`."""
        self._text = text
        self._origin = origin
        self._convert = convert
        self._wanted = {path[:length] for path in wanted for length in range(len(path) + 1)}
        self.lines: dict[Path, int] = {}

    def read(self) -> Any:
        """The document. Raises BadInputError with the line."""
        self._loader = _Loader(self._text)
        try:
            self._next()
            if isinstance(self._next(), yaml.StreamEndEvent):
                return None
            value = self._value(self._next(), ())
            self._next()
            if not isinstance(end := self._next(), yaml.StreamEndEvent):
                raise self._fault(end, "a second document begins here")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
            problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
            raise BadInputError(f"{self._origin}: {where}{problem}") from error
        finally:
            self._loader.dispose()
        return value

    def _next(self) -> Any:
        return self._loader.get_event()

    def _value(self, event: Any, path: Path) -> Any:
        if path in self._wanted:
            self.lines.setdefault(path, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise self._fault(event, "anchors and aliases are not read: write it out")
        if event.tag is not None:
            raise self._fault(event, f"the tag {event.tag!r} is not read")
        if isinstance(event, yaml.ScalarEvent):
            return None if event.value in _NOTHING and event.implicit[0] else event.value
        if len(path) >= MAX_DEPTH:
            raise self._fault(event, "too many levels")
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := self._next(), yaml.SequenceEndEvent):
                items.append(self._value(event, (*path, len(items))))
            return items
        return self._mapping(path)

    def _mapping(self, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._value(event, ()) if isinstance(event, yaml.ScalarEvent) else None
            if key is None:
                raise self._fault(event, "a key must be a word")
            if key in found:
                raise self._fault(event, f"key {key!r} is written twice")
            if (*path, key) in self._wanted:
                self.lines[*path, key] = event.start_mark.line + 1
            value = self._value(self._next(), (*path, key))
            found[key] = self._convert(key, value) if self._convert and path == ("customers",) else value
        return found

    def _fault(self, event: Any, problem: str) -> BadInputError:
        mark = event.start_mark
        return BadInputError(f"{self._origin}: line {mark.line + 1}, column {mark.column + 1}: {problem}")


def line_of(path: Path, lines: dict[Path, int]) -> int:
    """The line of the field, or of the nearest above it that is known."""
    return next((lines[path[:length]] for length in range(len(path), -1, -1) if path[:length] in lines), 1)
