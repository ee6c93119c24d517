"""The regular expressions of libphonenumber's metadata as automata that walk up a number digit by digit.

Asked of a prefix, such an automaton tells what the numbers that begin with it can be, which the expressions
themselves cannot: they only know whole numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

_ANY_DIGIT = 0b11_1111_1111
_SYMBOL = re.compile(r"\(\?:|\\d|\[[0-9-]+\]|\{\d+(?:,\d+)?\}|[0-9()|?]", re.ASCII)

# Its alternatives, each a sequence of atoms and how often these may stand. Digits are an atom: a mask of ten bits.
_Pattern: TypeAlias = "list[list[tuple[int | _Pattern, int, int]]]"


class Automaton:
    """Several patterns side by side. A state is an int: a bit for each place the digits so far may have led to."""

    def __init__(self) -> None:
        self._wanting = [0] * 10  # by digit: the places it may stand in
        self._follow: dict[int, int] = {}
        self._ahead: dict[
            int, int
        ] = {}  # by place: how many digits there may be from here on, a bit for each count
        self._bits = 0

    def add(self, text: str) -> tuple[int, int, int]:
        """Add the pattern `text`: the state in which it begins, the bit that says 'matched', all bits it uses.

        Takes the part of the syntax that libphonenumber's metadata uses: digits, classes of them, `\\d`, groups,
        `|`, `?`, `{n}` and `{n,m}`. Raises ValueError for any other.
        """
        bits_before = self._bits
        matched = self._new_bit()
        self._ahead[matched] = 1
        start = self._enter(_parse(text), matched)
        return start, matched, (1 << self._bits) - (1 << bits_before)

    def step(self, state: int, digit: int) -> int:
        """The state after `digit`."""
        after = 0
        left = state & self._wanting[digit]
        while left:
            place = left & -left
            after |= self._follow[place]
            left ^= place
        return after

    def ahead(self, state: int) -> int:
        """How many more digits a number may have: bit n is set if n digits more can complete a pattern."""
        counts = 0
        while state:
            place = state & -state
            counts |= self._ahead[place]
            state ^= place
        return counts

    def _enter(self, pattern: _Pattern, after: int) -> int:
        """The places in which `pattern` may begin, if what follows it begins in `after`."""
        entry = 0
        for sequence in pattern:
            here = after
            for atom, at_least, at_most in reversed(sequence):
                end = here
                for _ in range(at_most - at_least):
                    here = self._enter_atom(atom, here) | end
                for _ in range(at_least):
                    here = self._enter_atom(atom, here)
            entry |= here
        return entry

    def _enter_atom(self, atom: int | _Pattern, after: int) -> int:
        if not isinstance(atom, int):
            return self._enter(atom, after)
        place = self._new_bit()
        self._follow[place] = after
        self._ahead[place] = self.ahead(after) << 1
        for digit in range(10):
            if atom >> digit & 1:
                self._wanting[digit] |= place
        return place

    def _new_bit(self) -> int:
        self._bits += 1
        return 1 << self._bits - 1


def _parse(text: str) -> _Pattern:
    symbols = _SYMBOL.findall(text)
    if "".join(symbols) != text:
        raise ValueError(f"not a pattern of digits: {text}")
    return _alternatives(iter(symbols), closed_by="")


def _alternatives(symbols: Iterator[str], closed_by: str) -> _Pattern:
    pattern: _Pattern = [[]]
    for symbol in symbols:
        sequence = pattern[-1]
        if symbol == "|":
            pattern.append([])
        elif symbol == ")":
            if closed_by != ")":
                raise ValueError("a group closes that was not opened")
            return pattern
        elif symbol in ("(", "(?:"):
            sequence.append((_alternatives(symbols, closed_by=")"), 1, 1))
        elif symbol == "?" or symbol[0] == "{":
            at_least, _, at_most = symbol.strip("{}").partition(",") if symbol != "?" else ("0", ",", "1")
            if not sequence:
                raise ValueError("nothing to repeat")
            sequence[-1] = (sequence[-1][0], int(at_least), int(at_most or at_least))
        else:
            sequence.append((_digits(symbol), 1, 1))
    if closed_by:
        raise ValueError("a group is not closed")
    return pattern


def _digits(symbol: str) -> int:
    if symbol == r"\d":
        return _ANY_DIGIT
    mask = 0
    for first, last in re.findall(r"(\d)(?:-(\d))?", symbol):
        for digit in range(int(first), int(last or first) + 1):
            mask |= 1 << digit
    return mask
