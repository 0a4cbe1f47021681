"""Readers for files of records, CSV, TSV, JSON and Parquet, chosen by the file's ending."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from fpt.errors import UserError, reason
from fpt.runs.foreign import other_kind
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord
from fpt.tasks.json_files import json_lines, json_records
from fpt.tasks.text_lines import check_utf8, lines

Reader = Callable[[Path, Faults], Iterator[PlacedRecord]]


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse two columns with the same name, as only one of them would be read."""
    (name, count), *_ = [*Counter(filter(None, names)).most_common(1), ("", 0)]
    if count > 1:
        raise UserError(f"{where}: {count} columns are called '{name}'; give each a name of its own")


Row = tuple[int, int, list[str]]  # its first line, its last line, and its cells, of which an empty line has none


def _separated(
    file: Path, faults: Faults, rows: Callable[[Path], Iterator[Row]], columns: Sequence[str] | None
) -> Iterator[PlacedRecord]:
    """Read a record from each row of a table, whose first row has the column names unless these are given."""
    names = list(columns or ())
    for first, last, cells in rows(file):
        where = f"{file}, line {first}"
        with faults if names else nullcontext():  # without column names no later row can be read
            check_utf8("".join(cells), where)
            if not names:
                names = cells
                check_names(names, where)
                continue
            if columns and first == 1:
                _check_no_header(cells, columns, where)
            if len(cells) == len(names):
                yield where, dict(zip(names, cells, strict=True))
            elif any(cells):
                number = f"{len(cells)} columns" + (f" in a row that ends on line {last}" if last > first else "")
                expected = "task.columns has" if columns else "expected"
                raise UserError(f"{where}: {number}, {expected} {len(names)}: {', '.join(names)[:200]}")


def _check_no_header(cells: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Refuse a first row that names one of the given columns, so that a header is not taken for a record."""
    pairs = zip(cells, columns, strict=False)
    if name := next((name for cell, name in pairs if cell.strip().casefold() == name.casefold()), None):
        raise UserError(
            f"{where}: is a header, as task.columns has '{name}' there too; leave out task.columns, or give the column"
            " another name"
        )


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


ROWS = {".csv": csv_rows, ".tsv": _tsv_rows, ".txt": _tsv_rows}
READERS: dict[str, Reader] = {".jsonl": json_lines, ".json": json_records, ".parquet": _parquet}
ENDINGS = (*READERS, *ROWS)
ALLOWED = f"{', '.join(ENDINGS)}, texts also with .gz behind"


def ending(file: str | Path) -> str:
    """A file's ending, which says its format, in lower case and without the .gz of a compressed one."""
    return Path(Path(file).name.lower().removesuffix(".gz")).suffix


def read(file: Path, faults: Faults, columns: Sequence[str] | None = None) -> Iterator[PlacedRecord]:
    """Read a file's records; `columns` names those of a table without a header."""
    kind = ending(file)
    return _separated(file, faults, ROWS[kind], columns) if kind in ROWS else READERS[kind](file, faults)
