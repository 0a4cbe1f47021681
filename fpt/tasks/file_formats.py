"""Readers for text lines, JSON, JSON lines, CSV, TSV and Parquet, which give each record with its place."""

import codecs
import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from fpt.errors import UserError, reason
from fpt.runs.foreign import other_kind
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record

TO_UTF8 = "save the file as UTF-8, as iconv -f latin1 -t utf-8 writes Latin-1"
Reader = Callable[[Path, Faults], Iterator[PlacedRecord]]
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what bytes that are not UTF-8 become with "surrogateescape"


def json_lines(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record from each line of a JSONL file."""
    filled = ((number, line) for number, line in lines(file, faults) if line.strip())
    for index, (number, line) in enumerate(filled):
        if not index and line.lstrip()[0] == "[":
            raise UserError(f"{file}: is a JSON array; JSONL has an object on each line, as jq -c '.[]' writes them")
        where = f"{file}, line {number}"
        with faults:
            yield where, _parse(line, where)


def json_file(file: Path) -> Record:
    """Read the one JSON object of a file."""
    return _parse("\n".join(line for _, line in lines(file, Faults())), str(file))


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse two columns with the same name, as only one of them would be read."""
    (name, count), *_ = [*Counter(filter(None, names)).most_common(1), ("", 0)]
    if count > 1:
        raise UserError(f"{where}: {count} columns are called '{name}'; give each a name of its own")


def check_utf8(text: str, where: str) -> None:
    """Refuse a text that was read with "surrogateescape" from bytes that are not UTF-8."""
    if not text.isascii() and NOT_UTF8.search(text):
        raise UserError(f"{where}: not UTF-8; {TO_UTF8}")


def lines(file: Path, faults: Faults, *, lenient: bool = False) -> Iterator[tuple[int, str]]:
    """Read lines one by one, each with its number; bytes that are not UTF-8 are a fault, or, if lenient, escaped."""
    try:
        with _opened(file) as text:
            for number, line in enumerate(text, 1):
                with faults:
                    if not lenient:
                        check_utf8(line, f"{file}, line {number}")
                    yield number, line.removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-16, which its first bytes say it is ({error.reason})") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def _opened(file: Path) -> TextIO:
    """A file in UTF-8, or in UTF-16 if its first bytes say so; fpt's own files are gzipped."""
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", newline="\n")
    if (other := other_kind(file)) and file.stat().st_size:
        raise UserError(f"{file}: {other}")
    with file.open("rb") as stream:
        start = stream.read(4)
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise UserError(f"{file}: is UTF-32; save it as UTF-8")
    if b"\0" in start[:2]:
        raise UserError(f"{file}: begins with NUL, as UTF-16 does; save it as UTF-8")
    encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return file.open(encoding=encoding, errors="surrogateescape", newline="\n")


def _parse(content: str, where: str) -> Record:
    try:
        record = json.loads(content, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: not JSON ({error.msg} at {place})") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not usable JSON ({reason(error)})") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def unique(pairs: list[tuple[str, Any]]) -> Record:
    """A JSON object from its pairs; a key that occurs twice is refused, as only one of its values would be read."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise UserError(f"the key '{twice}' occurs twice in one object; give it once")
    return record


Row = tuple[int, int, list[str]]  # its first line, its last line, and its cells, of which an empty line has none


def _separated(file: Path, faults: Faults, *, rows: Callable[[Path], Iterator[Row]]) -> Iterator[PlacedRecord]:
    """Read a record from each row of a table whose first row has the column names."""
    names: list[str] = []
    for first, last, cells in rows(file):
        where = f"{file}, line {first}"
        with faults if names else nullcontext():  # without column names no later row can be read
            check_utf8("".join(cells), where)
            if not names:
                names = cells
                check_names(names, where)
            elif len(cells) == len(names):
                yield where, dict(zip(names, cells, strict=True))
            elif any(cells):
                number = f"{len(cells)} columns" + (f" in a row that ends on line {last}" if last > first else "")
                raise UserError(f"{where}: {number}, expected {len(names)}: {', '.join(names)[:200]}")


def csv_rows(file: Path) -> Iterator[Row]:
    """Read a CSV's rows; fields may be quoted, span several lines and have any length. Broken UTF-8 is escaped."""
    text = (f"{line}\n" for _, line in lines(file, Faults(), lenient=True))
    rows = csv.reader(text, strict=True)
    while True:
        first, limit = rows.line_num + 1, csv.field_size_limit(2**31 - 1)
        try:
            cells = next(rows, None)
        except csv.Error as error:
            # An error even with task.on_error=skip: an unclosed quote may have swallowed any number of rows.
            raise UserError(
                f"{file}, line {first}: not CSV ({error}) in the row that begins there; a quote within a quoted field"
                " is written twice"
            ) from None
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        yield first, rows.line_num, cells


def _tsv_rows(file: Path) -> Iterator[Row]:
    """Read a TSV's rows, one per line; quotes are letters like any other."""
    for number, line in lines(file, Faults(), lenient=True):
        yield number, number, line.split("\t") if line else []


def _parquet(file: Path, _: Faults) -> Iterator[PlacedRecord]:
    """Read a record from each row of a Parquet file."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        table = ParquetFile(file)
        check_names(table.schema_arrow.names, str(file))
        for batch in table.iter_batches(1000):
            for record in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", record
    except (ArrowException, OSError) as error:
        other = other_kind(file) if file.is_file() else None
        raise UserError(f"{file}: {other or f'cannot be read as Parquet ({reason(error)})'}") from None


READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".csv": partial(_separated, rows=csv_rows),
    ".tsv": partial(_separated, rows=_tsv_rows),
    ".parquet": _parquet,
}
