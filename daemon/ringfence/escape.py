"""Making text from strangers safe to keep, to log and to show."""

from __future__ import annotations


def visible(text: str, limit: int = 255) -> str:
    """`text` with every character that is not printable written as a Python escape, at most `limit` long.

    A backslash in text that has such characters is doubled, so the original can be told. Longer text ends
    in `…`. Printable text, backslashes included, comes back as it is.
    """
    if not text.isprintable():
        text = "".join(
            char if char.isprintable() and char != "\\" else char.encode("unicode_escape").decode("ascii")
            for char in text[: limit + 1]
        )
    return text if len(text) <= limit else text[: limit - 1] + "…"
