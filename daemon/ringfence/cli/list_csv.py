"""CSV files of the lists an operator keeps: do-not-originate, do-not-call and consents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import BinaryIO

from ringfence.cli.csv_file import CsvFile, national_nanp
from ringfence.cli.times import moment
from ringfence.config import NumberingPlan
from ringfence.errors import BadInputError
from ringfence.model import Number
from ringfence.numbering import canonical
from ringfence.store.consents import ConsentRow, consent_fault
from ringfence.store.faults import Faults
from ringfence.store.grants import MIN_NUMBER
from ringfence.store.list_import import ListRow
from ringfence.store.number_lists import MAX_DIGITS, prefix_fault, prefixes

_SEPARATORS = str.maketrans("", "", " -.()")
_PLUS_DIGITS = re.compile(r"\+[1-9][0-9]*", re.ASCII)
_NANP_DIGITS = re.compile(r"1?([2-9][0-9]{2,9})", re.ASCII)
_AREA_CODE = re.compile(r"[2-9][0-9]{2}", re.ASCII)
_LOCAL = re.compile(r"[0-9]{7}", re.ASCII)

ListedOn = date | None


class _DatedFile(CsvFile[ListRow]):
    def without_header(self, first: Sequence[str]) -> Sequence[str] | None:
        """A file of bare numbers needs no header."""
        if len(first) == 1 and any(character.isdigit() for character in first[0]):
            return ("number",)
        return None

    def listed_on(self, record: list[str], places: dict[str, int]) -> ListedOn | str:
        """The date on this line, or what is wrong with it."""
        return _day(record[places["listed_on"]].strip()) if "listed_on" in places else None


class DoNotOriginateFile(_DatedFile):
    """Numbers, ranges or leading digits that no call may show. A range becomes the fewest leading digits."""

    columns = ("number", "first", "last", "prefix", "listed_on")

    def check_header(self, names: Sequence[str]) -> None:
        """Raises BadInputError if these columns cannot be used together."""
        ways = [name for name in ("number", "first", "prefix") if name in names]
        if len(ways) != 1 or ("first" in names) != ("last" in names):
            raise BadInputError(
                "line 1: there must be a column 'number', or 'prefix', or the columns 'first' and 'last'"
            )

    def read(self, line: int, record: list[str], places: dict[str, int]) -> Sequence[ListRow] | str:
        """What this line holds, or what is wrong with it as `column: sentence`."""
        on = self.listed_on(record, places)
        if isinstance(on, str):
            return on
        if "first" in places:
            return self._range(record, places, on)
        column = "number" if "number" in places else "prefix"
        text = record[places[column]]
        plain = self._plain.fullmatch(text)
        if plain is not None:
            return ((int(plain[1]) + 10_000_000_000, on),)
        found = read_digits(text, self.plan, whole=column == "number")
        return f"{column}: {found}" if isinstance(found, str) else ((found, on),)

    def _range(self, record: list[str], places: dict[str, int], on: ListedOn) -> Sequence[ListRow] | str:
        ends: list[int] = []
        for column in ("first", "last"):
            found = read_digits(record[places[column]], self.plan, whole=True)
            if isinstance(found, str):
                return f"{column}: {found}"
            ends.append(found)
        first, last = ends
        if last < first or len(str(first)) != len(str(last)):
            return f"last: +{last} does not follow +{first}, or has not as many digits"
        held = tuple(prefixes(first, last))
        for prefix in held:
            if fault := prefix_fault(prefix):
                return f"first: {fault}"
        return tuple((prefix, on) for prefix in held)


class DoNotCallFile(_DatedFile):
    """Numbers that telemarketing may not call. With two columns and no header, as in the flat files of the US
    registry, they are area code and number."""

    columns = ("number", "area_code", "listed_on")

    def without_header(self, first: Sequence[str]) -> Sequence[str] | None:
        """A file of bare numbers, or of area codes and numbers, needs no header."""
        if len(first) == 2 and _AREA_CODE.fullmatch(first[0].strip()) and _LOCAL.fullmatch(first[1].strip()):
            return ("area_code", "number")
        return super().without_header(first)

    def check_header(self, names: Sequence[str]) -> None:
        """Raises BadInputError if these columns cannot be used together."""
        if "number" not in names:
            raise BadInputError("line 1: there is no column 'number'")

    def read(self, line: int, record: list[str], places: dict[str, int]) -> Sequence[ListRow] | str:
        """The number on this line, or what is wrong with it as `column: sentence`."""
        text = record[places["number"]]
        if "area_code" in places:
            text = record[places["area_code"]].strip() + text.strip()
        number = self.number("number", text)
        on = self.listed_on(record, places)
        if isinstance(number, str):
            return number
        if number < MIN_NUMBER:
            return f"number: +{number} is too short"
        return on if isinstance(on, str) else ((number, on),)


class ConsentFile(CsvFile[ConsentRow]):
    """Who agreed to be called, with where the proof is filed."""

    columns = ("number", "evidence", "given_at", "valid_until")

    def __init__(self, stream: BinaryIO, plan: NumberingPlan, faults: Faults, *, evidence: str) -> None:
        super().__init__(stream, plan, faults)
        self._evidence = evidence

    def check_header(self, names: Sequence[str]) -> None:
        """Raises BadInputError if these columns cannot be used together."""
        if "number" not in names:
            raise BadInputError("line 1: there is no column 'number'")
        if "evidence" not in names and not self._evidence:
            raise BadInputError("line 1: there is no column 'evidence': add it or give --evidence")

    def read(self, line: int, record: list[str], places: dict[str, int]) -> Sequence[ConsentRow] | str:
        """The consent on this line, or what is wrong with it as `column: sentence`."""
        number = self.number("number", record[places["number"]])
        if isinstance(number, str) or number < MIN_NUMBER:
            return number if isinstance(number, str) else f"number: +{number} is too short"
        cells = {name: record[place].strip() for name, place in places.items()}
        bounds = []
        for name in ("given_at", "valid_until"):
            text = cells.get(name, "")
            try:
                bounds.append(moment(text) if text else None)
            except ValueError:
                return f"{name}: {text[:64]!r} is not a time: write 2026-11-21 or 2026-11-21T14:30Z"
        evidence = cells.get("evidence") or self._evidence
        return consent_fault(evidence, bounds[0], bounds[1]) or ((line, number, evidence, bounds[0], bounds[1]),)


def read_digits(text: str, plan: NumberingPlan, *, whole: bool) -> int | str:
    """A number, or leading digits unless it must be `whole`, in E.164; or what is wrong with it.

    What the numbering plan calls invalid is taken too, for such numbers are on these lists: `+` and digits stand
    for themselves. Under a plan of country code 1, three to ten digits are taken to lack that code.
    """
    digits = text.strip().translate(_SEPARATORS)
    if not digits:
        return "is empty"
    nanp = _NANP_DIGITS.fullmatch(digits) if national_nanp(plan) else None
    if _PLUS_DIGITS.fullmatch(digits) and len(digits) <= MAX_DIGITS + 1:
        found = int(digits)
    elif nanp is not None and not (whole and len(nanp[1]) < 10):
        found = int("1" + nanp[1])
    else:
        number = canonical(text, plan, called=False) if whole else Number(None)
        if number.e164 is None:
            what = "a telephone number" if whole else "leading digits"
            return f"{text[:64]!r} is not {what}: write + and digits"
        found = number.e164
    length = len(str(found))
    if whole and (length != 11 if str(found)[0] == "1" else length < 7):
        return f"{text[:64]!r} is not a whole telephone number: leading digits go under 'prefix'"
    return prefix_fault(found) or found


@lru_cache(maxsize=4096)
def _day(text: str) -> ListedOn | str:
    if not text:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return f"listed_on: {text[:64]!r} is not a date: write 2026-11-21"
