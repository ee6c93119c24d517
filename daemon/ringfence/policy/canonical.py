"""The canonical form as YAML: every text on one line, always in the same order and quoted in the same way, so that
the same policy is the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from ringfence.policy import tree

HEADER = """\
# Ringfence policy, written by 'ringfence policy export'; 'ringfence policy apply' makes what it says true.
# Do-not-originate lists, do-not-call lists, consents, counters and records are not in it.
format: 1
"""
WHOLE = "scope: policy\n"
SOME = "# Only the customers that are named here are touched.\nscope: customers\n"
COMMENTS = {
    "provider": "# Who runs Ringfence, and what holds for all customers.",
    "profiles": "# Caps by name. Rules that modes does not name are enforced.",
    "destinations": "# Where calls of all customers may go; a customer's own rule wins.",
    "calling_hours": "# When telemarketing may call, in the called party's time; US-TX adds to US.",
    "reasons": "# What reasons answer otherwise than as shipped.",
    "customers": "# Lists and the vetting that a customer does not name are left as they are.",
}

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./@-]*(?: [A-Za-z0-9_./@-]+)*|[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
# Words that some YAML reader or other takes for something else.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def heading(section: str) -> str:
    """What stands before the first entry of a section."""
    return f"\n{COMMENTS[section]}\n"


def section(name: str, value: Any) -> Iterator[str]:
    """The lines of a section but `customers`; of none if it is not there."""
    if name == "destinations":
        yield from _items(name, value, "")
    elif name == "profiles" and value:
        yield f"{name}:"
        for profile, caps in value.items():
            yield from _block(profile, caps, "  ")
    else:
        yield from _block(name, value, "")


def customer(name: str, held: tree.Tree) -> Iterator[str]:
    """The lines of a customer."""
    yield f"  {_text(name)}:"
    for key, value in held.items():
        if key in ("endpoints", "destinations", "grants"):
            yield from _items(key, value, "    ")
        else:
            yield from _block(key, value, "    ")


def profile(name: str, caps: tree.Tree) -> Iterator[str]:
    """The lines of a limit profile."""
    return _block(name, caps, "  ")


def _items(name: str, value: Any, margin: str) -> Iterator[str]:
    if not value:
        yield f"{margin}{name}: []"
        return
    yield f"{margin}{name}:"
    for item in value.values() if isinstance(value, dict) else value:
        yield f"{margin}  - {flow(item)}"


def _block(name: str, value: Any, margin: str) -> Iterator[str]:
    if not isinstance(value, dict) or not value:
        yield f"{margin}{_text(name)}: {flow(value)}"
        return
    yield f"{margin}{_text(name)}:"
    for key, each in value.items():
        yield f"{margin}  {_text(key)}: {flow(each)}"


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, tree.Grant):
        numbers = "number" if value.first == value.last else "first"
        last = "" if value.first == value.last else f', last: "+{value.last}"'
        return f'{{{numbers}: "+{value.first}"{last}{_terms(value._replace(first=0, last=0))}}}'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(key)}: {flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value) if isinstance(value, str) else str(value)


@lru_cache(maxsize=4096)
def _terms(grant: tree.Grant) -> str:
    """What follows the numbers of a grant: the same for many."""
    return "".join(f", {key}: {flow(value)}" for key, value in grant.terms().items())


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    if character == "\n":
        return "\\n"
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
