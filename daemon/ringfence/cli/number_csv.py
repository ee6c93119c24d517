"""CSV files of numbers, read line by line: each line becomes a row to import, or a fault that names it."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import BinaryIO

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

from ringfence.cli.times import moment
from ringfence.config import NumberingPlan
from ringfence.errors import BadInputError
from ringfence.numbering import NANP_NATIONAL, NOT_DIALLABLE, canonical
from ringfence.store.grants import Terms, block_fault
from ringfence.store.number_import import Faults, ImportRow
from ringfence.store.policy import did_you_mean

MAX_FIELD = 8192  # characters
MAX_LINE = 65_536  # bytes

_TERMS = ("source", "evidence", "attestation", "valid_from", "valid_until")
COLUMNS = ("customer", "number", "first", "last", *_TERMS)



class NumberFile:
    """One file. Iterate over `rows` once; lines that cannot be a row are added to `faults`.

    `customer` stands for the column `customer`; `terms` for columns and cells that are missing or empty.
    """

    def __init__(
        self, stream: BinaryIO, plan: NumberingPlan, faults: Faults, *, customer: str | None, terms: Terms
    ) -> None:
        self._stream = stream
        self._plan = plan
        self._faults = faults
        self._customer = customer
        self._terms = terms
        self._plain = re.compile(_plain_pattern(plan), re.ASCII)
        self._known_terms: dict[tuple[str, ...], Terms | str] = {}
        self._has_terms = False
        self._line = 0
        self._undecodable = 0  # the last line that was not UTF-8
        self.bytes_read = 0

    def rows(self) -> Iterator[ImportRow]:
        """Every good line. Raises BadInputError, naming the line, where the file stops being CSV."""
        before = csv.field_size_limit(MAX_FIELD)
        start = 1
        try:
            reader = csv.reader(self._lines(), strict=True, skipinitialspace=True)
            header = next(reader, None)
            places = self._places(header)
            start = self._line + 1
            for record in reader:
                line, start = start, self._line + 1
                if not record:
                    continue
                if self._undecodable >= line:
                    self._faults.add(line, "is not valid UTF-8")
                elif len(record) != len(header or ()):
                    self._faults.add(line, f"has {len(record)} columns, and the header {len(header or ())}")
                else:
                    row = self._row(line, record, places)
                    if isinstance(row, str):
                        self._faults.add(line, row)
                    else:
                        yield row
        except csv.Error as error:
            raise BadInputError(f"line {start}: {self._sentence(error)}; nothing was imported") from error
        finally:
            csv.field_size_limit(before)

    def _lines(self) -> Iterator[str]:
        while raw := self._stream.readline(MAX_LINE + 1):
            self._line += 1
            self.bytes_read += len(raw)
            if len(raw) > MAX_LINE:
                raise BadInputError(f"line {self._line}: longer than {MAX_LINE:,} bytes; nothing was imported")
            if self._line == 1:
                raw = _without_bom(raw)
            try:
                text = raw.decode("utf-8")
            except UnicodeDecodeError:
                self._undecodable = self._line
                text = raw.decode("utf-8", "replace")
            yield text

    def _sentence(self, error: csv.Error) -> str:
        text = str(error)
        if "field limit" in text:
            return f"a field is longer than {MAX_FIELD:,} characters, or a quote that begins it is never closed"
        if "unexpected end of data" in text:
            return "a quote is opened and never closed"
        if "new-line character" in text:
            return "a carriage return stands alone: save the file with LF or CR LF line ends"
        return f"not CSV: {text}"

    def _places(self, header: Sequence[str] | None) -> dict[str, int]:
        """Where each column stands. Raises BadInputError about a header that cannot be used."""
        if header is None:
            raise BadInputError(f"the file is empty: its first line names the columns, from {', '.join(COLUMNS)}")
        if self._undecodable:
            raise BadInputError("line 1: is not valid UTF-8: save the file as UTF-8")
        names = [name.strip().lower().replace(" ", "_") for name in header]
        for name in names:
            if name not in COLUMNS:
                hint = " (columns are separated by commas)" if re.search(r"[;\t|]", name) else ""
                raise BadInputError(
                    f"line 1: {name[:64]!r} is not a column{did_you_mean(name, COLUMNS)} "
                    f"columns are {', '.join(COLUMNS)}{hint}"
                )
        if len(set(names)) != len(names):
            raise BadInputError("line 1: a column is named twice")
        if ("number" in names) == ("first" in names) or ("last" in names and "first" not in names):
            raise BadInputError("line 1: there must be either a column 'number' or the columns 'first' and 'last'")
        if self._customer is None and "customer" not in names:
            raise BadInputError("line 1: there is no column 'customer': add it or give --customer")
        if self._customer is not None and "customer" in names:
            raise BadInputError("line 1: there is a column 'customer': leave out --customer")
        self._has_terms = any(name in _TERMS for name in names)
        return {name: place for place, name in enumerate(names)}

    def _row(self, line: int, record: list[str], places: dict[str, int]) -> ImportRow | str:
        """The row on this line, or what is wrong with it as `column: sentence`."""
        customer = self._customer
        if customer is None:
            customer = record[places["customer"]].strip()
            if not customer or "\0" in customer:
                return "customer: is empty" if not customer else "customer: holds a control character"
        column = "number" if "number" in places else "first"
        first = self._number(column, record[places[column]])
        if isinstance(first, str):
            return first
        two = "last" in places and record[places["last"]].strip()
        last = self._number("last", record[places["last"]]) if two else first
        if isinstance(last, str):
            return last
        if last != first or first < 10_000_000:
            fault = block_fault(first, last)
            if fault:
                return f"{column}: {fault}"
        terms = self._terms_of(record, places) if self._has_terms else self._terms
        if isinstance(terms, str):
            return terms
        return (
            line,
            customer,
            first,
            last,
            terms.source,
            terms.evidence,
            terms.attestation,
            terms.valid_from,
            terms.valid_until,
        )

    def _number(self, column: str, text: str) -> int | str:
        plain = self._plain.fullmatch(text)
        if plain is not None:
            return int(plain[1]) + 10_000_000_000
        number = canonical(text, self._plan, called=False)
        if number.e164 is not None:
            return number.e164
        if not text.strip():
            return f"{column}: is empty"
        where = f" under the plan of {self._plan.country}" if number.defect == NOT_DIALLABLE else ""
        return f"{column}: {text[:64]!r} is not a telephone number{where}"

    def _terms_of(self, record: list[str], places: dict[str, int]) -> Terms | str:
        cells = tuple(record[places[name]].strip() if name in places else "" for name in _TERMS)
        terms = self._known_terms.get(cells)
        if terms is None:
            if len(self._known_terms) >= 10_000:
                self._known_terms.clear()
            terms = self._known_terms[cells] = self._read_terms(*cells)
        return terms

    def _read_terms(
        self, source: str, evidence: str, attestation: str, valid_from: str, valid_until: str
    ) -> Terms | str:
        bounds: list[datetime | None] = []
        given = (valid_from, self._terms.valid_from), (valid_until, self._terms.valid_until)
        for name, (text, default) in zip(("valid_from", "valid_until"), given, strict=True):
            try:
                bounds.append(moment(text) if text else default)
            except ValueError:
                return f"{name}: {text[:64]!r} is not a time: write 2026-11-21 or 2026-11-21T14:30Z"
        terms = Terms(
            source.lower() or self._terms.source,
            evidence or self._terms.evidence,
            attestation.upper() or self._terms.attestation,
            *bounds,
        )
        return terms.fault() or terms


def _without_bom(raw: bytes) -> bytes:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInputError("the file is UTF-16: save it as UTF-8")
    return raw.removeprefix(codecs.BOM_UTF8)


def _plain_pattern(plan: NumberingPlan) -> str:
    """What `canonical` reads as an E.164 number of country code 1 whose ten digits are group 1. Looking numbers
    up one by one in phonenumbers takes fifty times as long."""
    national = plan.country in COUNTRY_CODE_TO_REGION_CODE[1] and all(p[0] in "0*#" for p in plan.international)
    return rf"(?:\+?1)?({NANP_NATIONAL})" if national else rf"\+1({NANP_NATIONAL})"
