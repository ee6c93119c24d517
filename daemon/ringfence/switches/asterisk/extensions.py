"""An Asterisk dialplan as text, read for one question: which lines dial a trunk, and does the hook come first?

Reads extensions.conf (with its #include) and what the CLI's `dialplan show` prints. AEL, Lua and realtime
dialplans are seen in the second form only.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

MAX_FILES = 500
_SECTION = re.compile(r"\[([^\]]+)\]")
_EXTEN = re.compile(r"exten\s*=>?\s*((?:[^,\[]|\[[^\]]*\])+),\s*([^,]+),\s*(.+)", re.IGNORECASE)
_SAME = re.compile(r"same\s*=>?\s*([^,]+),\s*(.+)", re.IGNORECASE)
_INCLUDE = re.compile(r'#(?:try)?include\s+["<]?([^">\s]+)', re.IGNORECASE)
_SHOWN_CONTEXT = re.compile(r"\[ Context '([^']*)' created by")
_SHOWN_EXTEN = re.compile(r"\s+'([^']*)' =>\s*(?:hint: .*|(?:\[[^\]]*\]\s+)?\w+\.\s+(.*))")
_SHOWN_STEP = re.compile(r"\s+(?:\[[^\]]*\]\s+)?\d+\.\s+(.*)")
_SHOWN_WHERE = re.compile(r"\s+\[([^\[\]]+:\d+|\w+)\]\s*$")
_DIAL = re.compile(r"\b(RetryDial|Dial|Page)\s*\(", re.IGNORECASE)
_ASKS = re.compile(r"\bGosub(?:If)?\s*\(.*\bringfence,", re.IGNORECASE)
_LEG_ASKS = re.compile(r"b\(ringfence-leg\^")


@dataclass(frozen=True, slots=True)
class Step:
    """One priority: its application as it is written, and where."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class DialLine:
    """A line that dials a trunk. `asked`: the hook comes first. `judged`: what is dialled is what was judged."""

    extension: str
    context: str
    where: str
    trunk: str
    asked: bool
    judged: bool

    @property
    def certain(self) -> bool:
        """False if the trunk is in a variable."""
        return "${" not in self.trunk


@dataclass
class Dialplan:
    """Contexts, their extensions, and the steps of each in order."""

    extensions: dict[tuple[str, str], list[Step]] = field(default_factory=dict)

    def add(self, context: str, extension: str, text: str, where: str) -> None:
        """One more priority."""
        self.extensions.setdefault((context, extension), []).append(Step(text.strip(), where))

    def dials(self, trunks: Collection[str]) -> Iterator[DialLine]:
        """The lines that dial one of these trunks (patterns), or a trunk that is in a variable.

        Without patterns every `PJSIP/NUMBER@ENDPOINT` counts as one.
        """
        for (context, extension), steps in self.extensions.items():
            asked = False
            for step in steps:
                asked = asked or _ASKS.search(step.text) is not None
                for arguments in _arguments(step.text):
                    for trunk, resource in _trunks(arguments[0], trunks):
                        yield DialLine(
                            extension,
                            context,
                            step.where,
                            trunk,
                            asked or any(_LEG_ASKS.search(each) for each in arguments[2:]),
                            "RINGFENCE_NUMBER}" in resource,
                        )


def read_files(paths: Collection[Path]) -> Dialplan:
    """Read files with everything they include. Raises OSError."""
    dialplan = Dialplan()
    seen: set[Path] = set()
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        if _SHOWN_CONTEXT.search(text):
            read_shown(text, dialplan)
        else:
            _read_file(path, dialplan, seen, [""])
    return dialplan


def read_shown(text: str, into: Dialplan | None = None) -> Dialplan:
    """Read what `dialplan show` printed."""
    dialplan = Dialplan() if into is None else into
    context = extension = ""
    for shown in text.splitlines():
        where = found[1] if (found := _SHOWN_WHERE.search(shown)) else ""
        line = _SHOWN_WHERE.sub("", shown)
        if found := _SHOWN_CONTEXT.search(line):
            context, extension = found[1], ""
        elif found := _SHOWN_EXTEN.match(line):
            extension = found[1]
            if found[2]:
                dialplan.add(context, extension, found[2], where)
        elif extension and (found := _SHOWN_STEP.match(line)):
            dialplan.add(context, extension, found[1], where)
    return dialplan


def _read_file(path: Path, dialplan: Dialplan, seen: set[Path], at: list[str]) -> None:
    """`at` holds the context and, after it, the extension: an #include goes on where it stands."""
    if path.resolve() in seen or len(seen) >= MAX_FILES:
        return
    seen.add(path.resolve())
    in_comment = False
    for number, raw in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        line = raw.strip()
        if in_comment or line.startswith(";--"):
            in_comment = "--;" not in line
            continue
        line = re.split(r"(?<!\\);", line, maxsplit=1)[0].strip()
        if found := _INCLUDE.match(line):
            for included in _included(path.parent, found[1]):
                _read_file(included, dialplan, seen, at)
        elif found := _SECTION.match(line):
            at[:] = [found[1]]
        elif found := _EXTEN.match(line):
            at[1:] = [found[1].strip()]
            dialplan.add(at[0], at[1], found[3], f"{path.name}:{number}")
        elif len(at) > 1 and (found := _SAME.match(line)):
            dialplan.add(at[0], at[1], found[2], f"{path.name}:{number}")


def _included(directory: Path, name: str) -> list[Path]:
    found = sorted(Path("/").glob(name[1:])) if name.startswith("/") else sorted(directory.glob(name))
    return [path for path in found if path.is_file()]


def _arguments(text: str) -> Iterator[list[str]]:
    """The arguments of each Dial in a step, from the destinations on."""
    for found in _DIAL.finditer(text):
        arguments = [""]
        depth = 0
        for char in text[found.end() :]:
            if char in "({[":
                depth += 1
            elif char in ")}]":
                if depth == 0:
                    break
                depth -= 1
            if char == "," and depth == 0:
                arguments.append("")
            else:
                arguments[-1] += char
        first = 3 if found[1].lower() == "retrydial" else 0
        yield arguments[first:] or [""]


def _trunks(destinations: str, patterns: Collection[str]) -> Iterator[tuple[str, str]]:
    """Trunk and resource of each destination that leads out."""
    for destination in _split(destinations, "&"):
        technology, _, resource = destination.strip().partition("/")
        if technology.upper() == "LOCAL" or not resource:
            continue
        if "/sip:" in resource:  # ENDPOINT/URI
            named, endpoint = True, resource.partition("/")[0]
        else:
            named = "@" in re.sub(r"\$\{[^}]*\}", "", resource)
            endpoint = resource.rpartition("@")[2] if named else resource.partition("/")[0]
        trunk = f"{technology}/{endpoint}"
        if "${" in endpoint:
            if named:
                yield trunk, resource
        elif any(fnmatchcase(trunk, pattern) for pattern in patterns) or (not patterns and named):
            yield trunk, resource


def _split(text: str, at: str) -> list[str]:
    parts, depth = [""], 0
    for char in text:
        depth += (char in "({[") - (char in ")}]")
        if char == at and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts
