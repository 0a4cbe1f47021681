"""Formats the answers of `fpt predict`: as JSON, as texts alone, or as a table with the columns of the input."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from fpt.errors import UserError
from fpt.tasks.fields import Record
from fpt.tasks.predict_input import TABLES

if TYPE_CHECKING:
    from fpt.training.prediction import Prediction

JSON, TEXT = ".jsonl", ".txt"
ENDINGS = (JSON, TEXT, *TABLES)
ADDED = ("prediction", "score")  # the columns that a table of answers has besides the input's


def check_new(file: Path, columns: Sequence[str]) -> None:
    """Refuse a file of answers that exists, has no known ending, or needs names that the input's columns have."""
    if file.suffix not in ENDINGS:
        raise UserError(f"output={file}: the name must end in {' or '.join(ENDINGS)}")
    if file.exists():
        raise UserError(f"output={file}: exists already; give another output=FILE, or remove it")
    if file.suffix in TABLES and (taken := [name for name in ADDED if name in columns]):
        raise UserError(f"output={file}: the input has a column '{taken[0]}' already; give output=FILE.jsonl")


def in_lines(
    ending: str, answers: Iterable["Prediction"], columns: Sequence[str] = (), rows: Iterable[Record] = ()
) -> Iterator[str]:
    """Format each answer in the format with this ending; a table begins with the `columns` of the input's `rows`."""
    if ending == JSON:
        yield from (json.dumps(answer.to_json(), ensure_ascii=False) for answer in answers)
    elif ending == TEXT:
        yield from (answer.answer.replace("\n", " ") for answer in answers)  # one line for each answer
    else:
        names = columns or ["input"]
        yield _row(ending, [*names, *ADDED])
        for answer, row in zip(answers, chain(rows, repeat({})), strict=False):  # there may be no rows
            values = row if columns else {"input": answer.input}
            yield _row(ending, [*(values[name] for name in names), answer.answer, f"{answer.score:.6g}"])


def _row(ending: str, cells: Sequence[str]) -> str:
    """Format a row of a table; in a TSV, tabs and line ends within cells become spaces."""
    if ending == ".tsv":
        return "\t".join(re.sub(r"[\t\r\n]", " ", cell) for cell in cells)
    csv.writer(text := io.StringIO(), lineterminator="").writerow(cells)
    return text.getvalue()
