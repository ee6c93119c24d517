"""SIP addresses (RFC 3261 section 25.1) as both switches show them: whose they are, and what is a number."""

from __future__ import annotations

import re
from urllib.parse import unquote

_ADDRESS = re.compile(r'(?:\s*"(?:[^"\\]|\\.)*"|[^<>"]*)\s*<([^<>]*)>(?:\s*;[^<>,]*)?')
_NUMBER = re.compile(r"\+?[0-9]{3,}", re.ASCII)
_SEPARATORS = str.maketrans("", "", " -.()")


def user_of(text: str) -> str:
    """The user part of a SIP address in any of its forms, without password and parameters.

    Text that can be read in two ways comes back as it is, and is then no number.
    """
    uri = text
    if "<" in text:
        match = _ADDRESS.fullmatch(text)
        if match is None:
            return text
        uri = match[1]
    uri = uri.strip()
    if re.search(r"[\s,]", uri) and not is_number(uri):
        return text  # more than one address
    scheme, colon, rest = uri.partition(":")
    if colon and scheme.lower() in ("sip", "sips", "tel"):
        uri = rest
    user, at, host = uri.partition("@")
    if "@" in host:
        return text
    if not at and "<" in text and scheme.lower() != "tel":
        return ""  # a host alone
    return unquote(user.partition(";")[0].partition(":")[0], errors="replace")


def is_number(text: str) -> bool:
    """True for what a telephone could call back: digits, with or without `+` and visual separators."""
    return _NUMBER.fullmatch(text.translate(_SEPARATORS)) is not None


def same_number(one: str, other: str) -> bool:
    """True if two shown numbers are the same under every numbering plan.

    That is so if they are equal, or if they differ by the `+` alone and are too long to be read as a national
    number of another country.
    """
    one, other = one.translate(_SEPARATORS), other.translate(_SEPARATORS)
    if one == other:
        return True
    return one.lstrip("+") == other.lstrip("+") and len(one.lstrip("+")) >= 11
