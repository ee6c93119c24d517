"""CSV files of grants: which customer may show which number, on what terms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import BinaryIO

from ringfence.cli.csv_file import CsvFile
from ringfence.cli.times import moment
from ringfence.config import NumberingPlan
from ringfence.errors import BadInputError
from ringfence.store.faults import Faults
from ringfence.store.grants import Terms, block_fault, source_fault
from ringfence.store.number_import import ImportRow

_TERMS = ("source", "evidence", "attestation", "valid_from", "valid_until", "shared")
_YES = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


class NumberFile(CsvFile[ImportRow]):
    """One file. Iterate over `rows` once; lines that cannot be a row are added to `faults`.

    `customer` stands for the column `customer`; `terms` for columns and cells that are missing or empty.
    """

    columns = ("customer", "number", "first", "last", *_TERMS)

    def __init__(
        self, stream: BinaryIO, plan: NumberingPlan, faults: Faults, *, customer: str | None, terms: Terms
    ) -> None:
        super().__init__(stream, plan, faults)
        self._customer = customer
        self._terms = terms
        self._known_terms: dict[tuple[str, ...], Terms | str] = {}
        self._has_terms = False

    def check_header(self, names: Sequence[str]) -> None:
        """Raises BadInputError if these columns cannot be used together."""
        check_number_columns(names)
        if self._customer is None and "customer" not in names:
            raise BadInputError("line 1: there is no column 'customer': add it or give --customer")
        if self._customer is not None and "customer" in names:
            raise BadInputError("line 1: there is a column 'customer': leave out --customer")
        self._has_terms = any(name in _TERMS for name in names)

    def read(self, line: int, record: list[str], places: dict[str, int]) -> Sequence[ImportRow] | str:
        """The row on this line, or what is wrong with it as `column: sentence`."""
        customer = self._customer
        if customer is None:
            customer = record[places["customer"]].strip()
            if not customer or "\0" in customer:
                return "customer: is empty" if not customer else "customer: holds a control character"
        column = "number" if "number" in places else "first"
        first = self.number(column, record[places[column]])
        two = "last" in places and record[places["last"]].strip()
        last = self.number("last", record[places["last"]]) if two else first
        terms = self._terms_of(record, places) if self._has_terms else self._terms
        if isinstance(first, str) or isinstance(last, str) or isinstance(terms, str):
            return next(found for found in (first, last, terms) if isinstance(found, str))
        if last != first or first < 10_000_000:
            fault = block_fault(first, last)
            if fault:
                return f"{column}: {fault}"
        if terms.source != "assigned" and (fault := source_fault(first, last, terms.source)):
            return fault
        row = (
            line,
            customer,
            first,
            last,
            terms.source,
            terms.evidence,
            terms.attestation,
            terms.valid_from,
            terms.valid_until,
            terms.shared,
        )
        return (row,)

    def _terms_of(self, record: list[str], places: dict[str, int]) -> Terms | str:
        cells = tuple(record[places[name]].strip() if name in places else "" for name in _TERMS)
        terms = self._known_terms.get(cells)
        if terms is None:
            if len(self._known_terms) >= 10_000:
                self._known_terms.clear()
            terms = self._known_terms[cells] = self._read_terms(cells)
        return terms

    def _read_terms(self, cells: tuple[str, ...]) -> Terms | str:
        source, evidence, attestation, valid_from, valid_until, shared = cells
        bounds: list[datetime | None] = []
        given = (valid_from, self._terms.valid_from), (valid_until, self._terms.valid_until)
        for name, (text, default) in zip(("valid_from", "valid_until"), given, strict=True):
            try:
                bounds.append(moment(text) if text else default)
            except ValueError:
                return f"{name}: {text[:64]!r} is not a time: write 2026-11-21 or 2026-11-21T14:30Z"
        if shared and shared.lower() not in _YES:
            return f"shared: {shared[:64]!r} is neither yes nor no"
        terms = Terms(
            source.lower() or self._terms.source,
            evidence or self._terms.evidence,
            attestation.upper() or self._terms.attestation,
            bounds[0],
            bounds[1],
            _YES[shared.lower()] if shared else self._terms.shared,
        )
        return terms.fault() or terms


def check_number_columns(names: Sequence[str]) -> None:
    """Raises BadInputError unless a line says its number in exactly one way."""
    if ("number" in names) == ("first" in names) or ("last" in names and "first" not in names):
        raise BadInputError("line 1: there must be either a column 'number' or the columns 'first' and 'last'")
