"""Reads files of records: JSON, CSV, TSV and Parquet, chosen by the file's ending.

Texts are in UTF-8, plain or compressed with gzip.
"""

import codecs
import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from fpt.errors import UserError, reason
from fpt.runs.files import other_kind
from fpt.tasks import fields
from fpt.tasks.fields import Faults, PlacedRecord, Record

Reader = Callable[[Path, Faults], Iterator[PlacedRecord]]
Row = tuple[int, int, list[str]]  # its first line, its last line, and its cells, of which an empty line has none
GZIP = b"\x1f\x8b"  # the first bytes of what is compressed with gzip
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what bytes that are not UTF-8 become with "surrogateescape"


def ending(file: str | Path) -> str:
    """A file's ending, which says its format, in lower case and without the .gz of a compressed one."""
    return Path(Path(file).name.lower().removesuffix(".gz")).suffix


def check_ending(name: str | Path, given: str) -> None:
    """Refuse a file, `given` so, whose ending is not known."""
    if ending(name) not in ENDINGS:
        raise UserError(f"{given}: the name must end in one of {ALLOWED}")


def read(file: Path, faults: Faults, columns: Sequence[str] | None = None) -> Iterator[PlacedRecord]:
    """Read a file's records; `columns` names those of a table without a header."""
    kind = ending(file)
    return table(file, faults, ROWS[kind], columns) if kind in ROWS else READERS[kind](file, faults)


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Read lines one by one, each with its number; bytes that are not UTF-8 are escaped, for `check_utf8` to refuse."""
    try:
        with _opened(file) as text:
            for number, line in enumerate(text, 1):
                yield number, line.removesuffix("\n").removesuffix("\r")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{file}: is a damaged gzip file ({reason(error)}); fetch or pack it anew") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def _opened(file: Path) -> TextIO:
    """A file as text; its first bytes say whether it is compressed with gzip."""
    with file.open("rb") as stream:
        opened: Callable[..., Any] = gzip.open if stream.read(len(GZIP)) == GZIP else open
    if opened is open and (other := other_kind(file)) and file.stat().st_size:
        raise UserError(f"{file}: {other}")
    with opened(file, "rb") as stream:
        start = stream.read(2)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or b"\0" in start:
        raise UserError(f"{file}: is UTF-16 or UTF-32; save it as UTF-8")
    text: TextIO = opened(file, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    return text


def check_utf8(text: str, where: str) -> None:
    """Refuse a text that was read from bytes that are not UTF-8."""
    if not text.isascii() and NOT_UTF8.search(text):
        raise UserError(f"{where}: not UTF-8; save the file as UTF-8, as iconv -f latin1 -t utf-8 writes Latin-1")


def table(
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
            alike = (cell.strip().casefold() == name.casefold() for cell, name in zip(cells, names, strict=False))
            if columns and first == 1 and any(alike):
                raise UserError(f"{where}: is a header, as it has a name of task.columns; give task.columns=null")
            if len(cells) == len(names):
                yield where, dict(zip(names, cells, strict=True))
            elif any(cells):
                number = f"{len(cells)} columns" + (f" in a row that ends on line {last}" if last > first else "")
                raise UserError(f"{where}: {number}, expected {len(names)}: {', '.join(names)[:200]}")


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse two columns with the same name, as only one of them would be read."""
    (name, count), *_ = [*Counter(filter(None, names)).most_common(1), ("", 0)]
    if count > 1:
        raise UserError(f"{where}: {count} columns are called '{name}'; give each a name of its own")


def csv_rows(file: Path) -> Iterator[Row]:
    """Read a CSV's rows; fields may be quoted, span several lines and have any length."""
    csv.field_size_limit(2**31 - 1)
    rows, first = csv.reader((f"{line}\n" for _, line in lines(file)), strict=True), 1
    try:
        for cells in rows:
            yield first, rows.line_num, cells
            first = rows.line_num + 1
    except csv.Error as error:
        # An error even with task.on_error=skip: an unclosed quote may have swallowed any number of rows.
        raise UserError(
            f"{file}, line {first}: not CSV ({error}) in the row that begins there; a quote within a quoted field"
            " is written twice"
        ) from None


def tsv_rows(file: Path) -> Iterator[Row]:
    """Read a TSV's rows, one per line; quotes are letters like any other."""
    for number, line in lines(file):
        yield number, number, line.split("\t") if line else []


def json_lines(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record from each line of a JSONL file, or from each item of a JSON array."""
    filled = ((number, line) for number, line in lines(file) if line.strip())
    for index, (number, line) in enumerate(filled):
        if not index and line.lstrip()[0] == "[":
            for place, item in enumerate(_whole(file), 1):
                where = f"{file}, record {place}"
                with faults:
                    yield where, _object(item, where)
            return
        where = f"{file}, line {number}"
        with faults:
            check_utf8(line, where)
            yield where, _object(_parse(line, where), where)


def json_records(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read the records of a .json file: an array, SQuAD's format, or what others call .jsonl."""
    filled = (line.strip() for _, line in lines(file) if line.strip())
    first, second = next(filled, ""), next(filled, "")
    is_squad = first[:1] == "{" and first[-1] + second[:1] != "}{"
    return (squad_records if is_squad else json_lines)(file, faults)


def squad_records(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record for each question of each paragraph of each article, or for each item of a `data` without these.

    A file without `data` is one record.
    """
    whole = _object(_whole(file), str(file))
    if "data" not in whole:
        yield str(file), whole
        return
    for at_article, article in fields.objects(whole, "data", str(file), faults):
        if "paragraphs" not in article:
            yield at_article, article
            continue
        for at_paragraph, paragraph in fields.objects(article, "paragraphs", at_article, faults):
            for place, asked in fields.objects(paragraph, "qas", at_paragraph, faults):
                with faults:
                    answers = {"answers": {"text": answer_texts(asked, place)}} if "answers" in asked else {}
                    record = {"title": article.get("title"), **asked, "context": paragraph.get("context"), **answers}
                    yield place, record


def answer_texts(asked: Record, where: str) -> list[str]:
    """The texts of a question's answers, which are objects that also say where in the passage they stand."""
    return [fields.text(answer, "text", place) for place, answer in fields.objects(asked, "answers", where)]


def _whole(file: Path) -> Any:
    numbered = list(lines(file))
    for number, line in numbered:
        check_utf8(line, f"{file}, line {number}")
    return _parse("\n".join(line for _, line in numbered), str(file))


def _parse(content: str, where: str) -> Any:
    try:
        return json.loads(content, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: not JSON ({error.msg} at {place})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not usable JSON ({error})") from None


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def unique(pairs: list[tuple[str, Any]]) -> Record:
    """A JSON object from its pairs; a key that occurs twice is refused, as only one of its values would be read."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise UserError(f"the key '{twice}' occurs twice in one object; give it once")
    return record


def _parquet(file: Path, _: Faults) -> Iterator[PlacedRecord]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        content = ParquetFile(file)
        check_names(content.schema_arrow.names, str(file))
        batches = (batch.to_pylist() for batch in content.iter_batches(1000))
        for number, record in enumerate(chain.from_iterable(batches), 1):
            yield f"{file}, row {number}", record
    except (ArrowException, OSError) as error:
        other = other_kind(file) if file.is_file() else None
        raise UserError(f"{file}: {other or f'cannot be read as Parquet ({reason(error)})'}") from None


ROWS = {".csv": csv_rows, ".tsv": tsv_rows, ".txt": tsv_rows}
READERS: dict[str, Reader] = {".jsonl": json_lines, ".json": json_records, ".parquet": _parquet}
ENDINGS = (*READERS, *ROWS)
ALLOWED = f"{', '.join(ENDINGS)}, texts also with .gz behind"
