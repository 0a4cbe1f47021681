"""The file of answers that `fpt predict` writes: first as FILE.part, from which a stopped command resumes."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from fpt.errors import UserError
from fpt.runs.atomic import naming, replaced_file
from fpt.tasks.fields import Record
from fpt.tasks.predict_input import TABLES
from fpt.tasks.task import Example

ENDINGS = (".jsonl", ".txt", *TABLES)
ADDED = ("prediction", "score")  # the columns that a table of answers has besides the input's


class AnswerFile:
    """Collects answers in FILE.part: a first line with what they depend on, then a line for each answer."""

    def __init__(
        self, file: Path, basis: dict[str, Any], rows: Callable[[], Iterator[Record]] = lambda: iter(())
    ) -> None:
        """Begin FILE.part, or resume the one that is there if it has the same `basis`.

        The basis is all that answers depend on besides the questions. `rows` yields the rows of the input table, if it
        is one; their columns go into a table of answers.
        """
        if file.suffix not in ENDINGS:
            raise UserError(f"output={file}: the name must end in {' or '.join(ENDINGS)}")
        if file.exists():
            raise UserError(f"output={file}: exists already; give another output=FILE, or remove it")
        self._file, self._part, self._rows = file, file.with_name(f"{file.name}.part"), rows
        self._names = list(next(rows(), {})) or ["input"]
        if file.suffix in TABLES and (taken := [name for name in ADDED if name in self._names]):
            raise UserError(f"output={file}: the input has a column '{taken[0]}' already; give output=FILE.jsonl")
        lines = list(_whole_lines(self._part)) if self._part.exists() else []
        try:
            begun, *answers = map(json.loads, lines or [_line(basis)])
            self._answered = [(answer["input"], answer.get("prompt", "")) for answer in answers]
        except (ValueError, KeyError, TypeError):
            raise self._foreign("is not a file of answers") from None
        if begun != basis:
            raise self._foreign("was begun with another prompt, model or option")
        self._stream = self._part.open("ab")
        self._stream.truncate(sum(map(len, lines)))  # drops an incomplete last line
        if not lines:
            self._stream.write(_line(basis))

    def unanswered(self, questions: Iterable[list[Example]]) -> Iterator[list[Example]]:
        """The questions that have no answer yet; refuse a file whose answers are to other questions."""
        number = 0
        for window in questions:
            known = self._answered[number : number + len(window)]
            if known != [(example.source, example.group) for example in window[: len(known)]]:
                raise self._foreign(f"answers {number + 1} to {number + len(known)} are not all to the input's texts")
            number += len(known)
            if len(known) < len(window):
                yield window[len(known) :]
        if number < len(self._answered):
            raise self._foreign(f"has {len(self._answered)} answers, but the input only {number} texts")

    def _foreign(self, why: str) -> UserError:
        return UserError(f"{self._part}: {why}; remove it to start over")

    def add(self, answers: Iterable[dict[str, Any]]) -> None:
        """Add answers at the end."""
        with naming(self._part):
            for answer in answers:
                self._stream.write(_line(answer))
            self._stream.flush()

    def finish(self) -> None:
        """Write the final file and remove FILE.part: all of each answer, its text alone, or a table with the input."""
        self._stream.close()
        with replaced_file(self._file) as stream:
            if self._file.suffix in TABLES:
                stream.write(self._row([*self._names, *ADDED]))
            for line, row in zip_longest(islice(_whole_lines(self._part), 1, None), self._rows()):
                stream.write(line if self._file.suffix == ".jsonl" else self._text(json.loads(line), row))
        self._part.unlink()

    def _text(self, answer: dict[str, Any], row: Record | None) -> bytes:
        """An answer's line: its text or, in a table, the input's row followed by the answer."""
        if self._file.suffix not in TABLES:
            return answer["answer"].replace("\n", " ").encode() + b"\n"  # one line for each answer
        values = answer if row is None else row
        return self._row([*(values[name] for name in self._names), answer["answer"], f"{answer['score']:.6g}"])

    def _row(self, cells: Sequence[str]) -> bytes:
        """A row of a table; in a TSV, tabs and line ends within cells become spaces."""
        if self._file.suffix == ".tsv":
            return "\t".join(re.sub(r"[\t\r\n]", " ", cell) for cell in cells).encode() + b"\n"
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        return text.getvalue().encode()


def _line(value: dict[str, Any]) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False)}\n".encode()


def _whole_lines(file: Path) -> Iterator[bytes]:
    """The complete lines of a file; an incomplete last line is left out."""
    with file.open("rb") as stream:
        yield from (line for line in stream if line.endswith(b"\n"))
