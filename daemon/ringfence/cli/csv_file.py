"""CSV files read line by line, in bounded memory: each line becomes a row, or a fault that names it."""

from __future__ import annotations

import abc
import codecs
import csv
import os
import re
import signal
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import BinaryIO, Generic, TypeVar

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE

from ringfence.config import NumberingPlan
from ringfence.errors import BadInputError
from ringfence.numbering import NANP_NATIONAL, NOT_DIALLABLE, canonical
from ringfence.store.faults import Faults
from ringfence.store.policy import did_you_mean

MAX_FIELD = 8192  # characters
MAX_LINE = 65_536  # bytes

Row = TypeVar("Row")


class CsvFile(abc.ABC, Generic[Row]):
    """One file. Iterate over `rows` once; lines that cannot be a row are added to `faults`.

    A kind of file names its columns, and gives `check_header` and `read`, which makes rows of a line.
    """

    columns: tuple[str, ...]

    def __init__(self, stream: BinaryIO, plan: NumberingPlan, faults: Faults) -> None:
        self.plan = plan
        self._stream = stream
        self._faults = faults
        self._plain = re.compile(_plain_pattern(plan), re.ASCII)
        self._line = 0
        self._undecodable = 0  # the last line that was not UTF-8
        self._digest = sha256()
        self.bytes_read = 0

    @property
    def digest(self) -> str:
        """Hex SHA-256 of what was read so far."""
        return self._digest.hexdigest()

    @abc.abstractmethod
    def check_header(self, names: Sequence[str]) -> None:
        """Raises BadInputError if these columns cannot be used together; each is known, none twice."""

    def without_header(self, first: Sequence[str]) -> Sequence[str] | None:
        """The columns of a file that begins with this record, if it may do without a header and does."""
        return None

    @abc.abstractmethod
    def read(self, line: int, record: list[str], places: dict[str, int]) -> Sequence[Row] | str:
        """The rows on this line, or what is wrong with it as `column: sentence`."""

    def rows(self) -> Iterator[Row]:
        """Every good line. Raises BadInputError, naming the line, where the file stops being CSV."""
        before = csv.field_size_limit(MAX_FIELD)
        start = 1
        try:
            reader = csv.reader(self._lines(), strict=True, skipinitialspace=True)
            header = next(reader, None)
            implied = None if header is None else self.without_header(header)
            places = self._places(header, implied)
            if implied is not None and header is not None:
                yield from self._taken(1, header, places)
            start = self._line + 1
            for record in reader:
                line, start = start, self._line + 1
                if record:
                    yield from self._taken(line, record, places)
        except csv.Error as error:
            raise BadInputError(f"line {start}: {self._sentence(error)}; nothing was imported") from error
        finally:
            csv.field_size_limit(before)

    def number(self, column: str, text: str) -> int | str:
        """The E.164 digits in a cell, or what is wrong with it."""
        plain = self._plain.fullmatch(text)
        if plain is not None:
            return int(plain[1]) + 10_000_000_000
        number = canonical(text, self.plan, called=False)
        if number.e164 is not None:
            return number.e164
        if not text.strip():
            return f"{column}: is empty"
        where = f" under the plan of {self.plan.country}" if number.defect == NOT_DIALLABLE else ""
        return f"{column}: {text[:64]!r} is not a telephone number{where}"

    def _taken(self, line: int, record: list[str], places: dict[str, int]) -> Sequence[Row]:
        found: Sequence[Row] | str
        if self._undecodable >= line:
            found = "is not valid UTF-8"
        elif len(record) != len(places):
            found = f"has {len(record)} columns, and the header {len(places)}"
        else:
            found = self.read(line, record, places)
        if isinstance(found, str):
            self._faults.add(line, found)
            return ()
        return found

    def _lines(self) -> Iterator[str]:
        while raw := self._stream.readline(MAX_LINE + 1):
            self._line += 1
            self.bytes_read += len(raw)
            self._digest.update(raw)
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

    def _places(self, header: Sequence[str] | None, implied: Sequence[str] | None) -> dict[str, int]:
        """Where each column stands. Raises BadInputError about a header that cannot be used."""
        if header is None:
            raise BadInputError(
                f"the file is empty: its first line names the columns, from {', '.join(self.columns)}"
            )
        if self._undecodable:
            raise BadInputError("line 1: is not valid UTF-8: save the file as UTF-8")
        names = implied or [name.strip().lower().replace(" ", "_") for name in header]
        for name in names:
            if name not in self.columns:
                hint = " (columns are separated by commas)" if re.search(r"[;\t|]", name) else ""
                raise BadInputError(
                    f"line 1: {name[:64]!r} is not a column{did_you_mean(name, self.columns)} "
                    f"columns are {', '.join(self.columns)}{hint}"
                )
        if len(set(names)) != len(names):
            raise BadInputError("line 1: a column is named twice")
        self.check_header(names)
        return {name: place for place, name in enumerate(names)}


@contextmanager
def opened(file: str) -> Iterator[BinaryIO]:
    """The file, or standard input for `-`, open for reading; Ctrl-C ends even a read from a silent pipe.

    Raises BadInputError if it cannot be opened.
    """
    # asyncio would only note the interrupt, and the read go on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(file, "rb")  # noqa: SIM115 - closed below; errors while it is read are not errors of opening
    except OSError as error:
        raise BadInputError(f"{file}: cannot be read: {error.strerror}") from error
    with stream:
        yield stream


@contextmanager
def followed(content: CsvFile[Row], stream: BinaryIO, then: str) -> Iterator[Iterator[Row]]:
    """The rows, with a bar on standard error that follows them, if that is a terminal; `then` is what comes
    after the reading."""
    if not sys.stderr.isatty():
        yield content.rows()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    status = os.fstat(stream.fileno())
    total = status.st_size if stat.S_ISREG(status.st_mode) else None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=total)

        def watched() -> Iterator[Row]:
            for place, row in enumerate(content.rows()):
                if place % 10_000 == 0:
                    bar.update(task, completed=content.bytes_read, description=f"reading, {place:,} lines")
                yield row
            bar.update(task, total=None, description=then)

        yield watched()


def _without_bom(raw: bytes) -> bytes:
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadInputError("the file is UTF-16: save it as UTF-8")
    return raw.removeprefix(codecs.BOM_UTF8)


def national_nanp(plan: NumberingPlan) -> bool:
    """Whether ten digits without a prefix are a number of country code 1 under this plan."""
    return plan.country in COUNTRY_CODE_TO_REGION_CODE[1] and all(p[0] in "0*#" for p in plan.international)


def _plain_pattern(plan: NumberingPlan) -> str:
    """What `canonical` reads as an E.164 number of country code 1 whose ten digits are group 1. Looking numbers
    up one by one in phonenumbers takes fifty times as long."""
    return rf"(?:\+?1)?({NANP_NATIONAL})" if national_nanp(plan) else rf"\+1({NANP_NATIONAL})"
