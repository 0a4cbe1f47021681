"""A file of answers that grows beside its place, and is put there when it is whole; one that was left half goes on."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from fpt.errors import UserError
from fpt.runs.atomic import replaced_file
from fpt.tasks.task import Example

ENDINGS = (".jsonl", ".txt")


class Growing:
    """The answers so far, in FILE.part: a line of what they depend on, then one for each, flushed as they come."""

    def __init__(self, file: Path, basis: dict[str, Any]) -> None:
        """Begin anew, or go on with what is there; `basis` is what the answers depend on besides the questions.

        Raises:
            UserError: the file is there already, or what is beside it was begun with something else.
        """
        if file.suffix not in ENDINGS:
            raise UserError(f"output={file}: the name must end in {' or '.join(ENDINGS)}")
        if file.exists():
            raise UserError(f"output={file}: exists already; give another output=FILE, or remove it")
        self._file, self._part = file, file.with_name(f"{file.name}.part")
        lines = list(_whole_lines(self._part)) if self._part.exists() else []
        try:
            begun, *answers = map(json.loads, lines or [_line(basis)])
            self._answered = [answer["input"] for answer in answers]
        except (ValueError, KeyError, TypeError):
            raise self._foreign("is not a file of answers") from None
        if begun != basis:
            raise self._foreign("was begun with another prompt, model or option")
        self._stream = self._part.open("ab")
        self._stream.truncate(sum(map(len, lines)))  # a last line that was cut off goes
        if not lines:
            self._stream.write(_line(basis))

    def unanswered(self, questions: Iterable[list[Example]]) -> Iterator[list[Example]]:
        """The questions without those that were answered, which are held against them.

        Raises:
            UserError: the input is another.
        """
        number = 0
        for window in questions:
            known = self._answered[number : number + len(window)]
            if known != [example.source for example in window[: len(known)]]:
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
        for answer in answers:
            self._stream.write(_line(answer))
        self._stream.flush()

    def finish(self) -> None:
        """Put the file in its place: the answers as they are, or of each its text alone."""
        self._stream.close()
        with replaced_file(self._file) as stream:
            for line in islice(_whole_lines(self._part), 1, None):
                text = json.loads(line)["answer"].replace("\n", " ")  # or answers and lines would part
                stream.write(line if self._file.suffix == ".jsonl" else f"{text}\n".encode())
        self._part.unlink()


def _line(value: dict[str, Any]) -> bytes:
    return f"{json.dumps(value, ensure_ascii=False)}\n".encode()


def _whole_lines(file: Path) -> Iterator[bytes]:
    """The lines that were written to their end; a last one that was cut off is none."""
    with file.open("rb") as stream:
        yield from (line for line in stream if line.endswith(b"\n"))
