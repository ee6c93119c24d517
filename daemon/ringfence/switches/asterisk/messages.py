"""Manager messages, read strictly.

Asterisk 16 and 22 write caller IDs into manager events as they are, and a caller ID that came percent-encoded in
a SIP address may hold line breaks: `1\\r\\n\\r\\nEvent: Hangup\\r\\nUniqueid: …` in a From address arrives here as
an event of its own. A SIP caller ID is cut at 79 bytes, so what it can forge is short. Every event that says
something about a channel therefore counts only if it holds the channel's fourteen fields, all of them, in
Asterisk's order and without a gap (manager_channels.c), and no field twice.
"""

from __future__ import annotations

from collections.abc import Sequence

_BLOCK = (
    "Channel",
    "ChannelState",
    "ChannelStateDesc",
    "CallerIDNum",
    "CallerIDName",
    "ConnectedLineNum",
    "ConnectedLineName",
    "Language",
    "AccountCode",
    "Context",
    "Exten",
    "Priority",
    "Uniqueid",
    "Linkedid",
)
_REPEATED = "Variable"  # ChanVariable, DestChanVariable, …, and Variable in Status
_NAMES = ("Channel", "Uniqueid")
_BRIDGE = "Bridge"  # BridgeUniqueid is no channel's
_LIST_END = {"Event", "ActionID", "EventList", "ListItems", "Items"}


def parse(text: str) -> list[tuple[str, str]] | None:
    """The fields of one message in order, or None if a line is no field."""
    fields = []
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not name or "\n" in line:
            return None
        fields.append((name, value.removeprefix(" ")))
    return fields


def is_genuine(fields: Sequence[tuple[str, str]]) -> bool:
    """True if a channel event or the end of a list has the shape only Asterisk gives it."""
    names = [name for name, _ in fields]
    if names[0] != "Event":
        return True  # a response: it is known by the random id of its action
    once = [name for name in names if not name.endswith(_REPEATED)]
    if len(set(once)) != len(once):
        return False
    if "EventList" in names:
        return set(names) <= _LIST_END
    if len(names) < 2 or names[1] != "Privilege":
        return False
    prefixes = {name.removesuffix("Uniqueid").removesuffix("Channel") for name in names if name.endswith(_NAMES)}
    return all(_has_block(names, prefix) for prefix in prefixes if not prefix.endswith(_BRIDGE))


def _has_block(names: Sequence[str], prefix: str) -> bool:
    block = [prefix + name for name in _BLOCK]
    try:
        first = names.index(block[0])
    except ValueError:
        return False
    return list(names[first : first + len(block)]) == block
