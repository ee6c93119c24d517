"""The block of `agi_*` lines with which Asterisk opens an AGI session, read strictly.

A caller can put line breaks into a caller ID, and Asterisk writes them out as they are: whatever follows looks
like further headers, or like the empty line that ends them. So nothing is searched for here. Asterisk writes
the same lines in the same order every time (res_agi.c, `launch_netscript` and `setup_env`, the same in 16 and
22); anything else is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FIRST_LINE = b"agi_network: yes"
MAX_ARGUMENTS = 3

ORDER = (
    "agi_network",
    "agi_network_script",
    "agi_request",
    "agi_channel",
    "agi_language",
    "agi_type",
    "agi_uniqueid",
    "agi_version",
    "agi_callerid",
    "agi_calleridname",
    "agi_callingpres",
    "agi_callingani2",
    "agi_callington",
    "agi_callingtns",
    "agi_dnid",
    "agi_rdnis",
    "agi_context",
    "agi_extension",
    "agi_priority",
    "agi_enhanced",
    "agi_accountcode",
    "agi_threadid",
)


class MalformedError(Exception):
    """What the switch sent cannot be read safely. The text says why and holds nothing the caller chose."""


def parse(lines: Iterable[bytes]) -> Mapping[str, str]:
    """The headers by name, from the lines before the empty one, without their line breaks.

    Every header must be there, once, in Asterisk's order, followed by at most `MAX_ARGUMENTS` arguments
    (`agi_arg_1`, `agi_arg_2`, …). Bytes that are not UTF-8 become `\\xNN`. Raises MalformedError otherwise.
    """
    headers: dict[str, str] = {}
    for position, line in enumerate(lines):
        name = _expected(position)
        if name is None:
            raise MalformedError(f"more than {MAX_ARGUMENTS} arguments")
        prefix = f"{name}: ".encode()
        # Asterisk writes an empty value as "name: "; nothing on its way strips the blank.
        if not line.startswith(prefix):
            raise MalformedError(f"line {position + 1} is not {name}")
        value = line[len(prefix) :]
        if b"\0" in value or b"\n" in value:
            raise MalformedError(f"{name} holds a NUL or a line break")
        headers[name] = value.decode("utf-8", "backslashreplace")
    if len(headers) < len(ORDER):
        raise MalformedError(f"the header ends before {_expected(len(headers))}")
    if headers["agi_network"] != "yes":
        raise MalformedError("agi_network is not yes")
    return headers


def undoubted(lines: Iterable[bytes]) -> Mapping[str, str]:
    """The headers of a malformed question that come before anything a caller chooses, and the caller ID itself
    up to its first line break: enough to say in a record which channel asked."""
    headers: dict[str, str] = {}
    for name, line in zip(ORDER[: ORDER.index("agi_callerid") + 1], lines, strict=False):
        if not line.startswith(f"{name}: ".encode()):
            break
        headers[name] = line.partition(b": ")[2].replace(b"\0", b"\\0").decode("utf-8", "backslashreplace")
    return headers


def known(value: str) -> str:
    """The value of a header for which Asterisk writes `unknown` when it has none."""
    return "" if value == "unknown" else value


def _expected(position: int) -> str | None:
    if position < len(ORDER):
        return ORDER[position]
    number = position - len(ORDER) + 1
    return f"agi_arg_{number}" if number <= MAX_ARGUMENTS else None
