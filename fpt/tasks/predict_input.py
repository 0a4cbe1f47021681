"""What `fpt predict` is to answer: records or lines of a file, or standard input as it comes."""

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path

from fpt.errors import UserError
from fpt.tasks.faults import Faults
from fpt.tasks.fields import Record, text_or_number
from fpt.tasks.file_formats import READERS, lines
from fpt.tasks.task import Example, TaskRules

ENDINGS = (*READERS, ".txt")
RAW = "text"  # the field of a record that is the source as it stands


def check(file: Path) -> None:
    """Refuse what cannot be read.

    Raises:
        UserError: another ending than those known, or no such file.
    """
    if file.suffix.lower() not in ENDINGS:
        raise UserError(f"input={file}: the name must end in one of {', '.join(ENDINGS)}")
    if not file.is_file():
        raise UserError(f"input={file}: no such file")


def raw_example(source: str) -> Example:
    """A source as it stands."""
    return Example("", source, "", ())


def in_groups(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """The examples in lists of up to `size`, so that few are held at once."""
    rest = iter(examples)
    while group := list(islice(rest, size)):
        yield group


def asking(file: Path, rules: Mapping[str, TaskRules], field: str) -> Iterator[Example]:
    """A file's records, each by the template of the prompt that its field names, which is then its `group`.

    Raises:
        UserError: as `examples_in`; or the field is missing or names no prompt, or the file has lines, not records.
    """
    if file.suffix.lower() == ".txt":
        raise UserError(f"input={file}: lines cannot name one of several prompts; give records with a field '{field}'")
    for where, record in READERS[file.suffix.lower()](file, Faults()):
        name = str(record.get(field))
        if name not in rules:
            given = f"'{field}' is {record[field]!r:.100}" if field in record else f"no field '{field}'"
            raise UserError(f"{where}: {given}; expected the name of a prompt, one of {', '.join(rules)}")
        yield example_of(record, rules[name], where)._replace(group=name)


def examples_in(file: Path, rules: TaskRules) -> Iterator[Example]:
    """A text file's lines as sources as they stand; another's records by the task's template.

    Raises:
        UserError: a line that cannot be read, or a record without the template's fields.
    """
    if file.suffix.lower() == ".txt":
        for _, line in lines(file, Faults()):
            yield raw_example(line)
    else:
        for where, record in READERS[file.suffix.lower()](file, Faults()):
            yield example_of(record, rules, where)


def example_of(record: Record, rules: TaskRules, where: str) -> Example:
    """A record with the template's fields, or with the whole source as `text`.

    Raises:
        UserError: it has neither.
    """
    names = rules.template.fields
    missing = [name for name in names if name not in record]
    if missing and RAW in record:
        return raw_example(text_or_number(record, RAW, where))
    if missing:
        raise UserError(
            f"{where}: no field '{missing[0]}'; expected {', '.join(names)} as in the template, or the whole source as"
            f" '{RAW}'. It has {', '.join(map(str, record))[:200]}"
        )
    source, spare = rules.template.fill({name: text_or_number(record, name, where) for name in names})
    return raw_example(source)._replace(spare=spare)


def examples_on_stream(descriptor: int, at_once: int) -> Iterator[list[Example]]:
    """Lines as they come, so that a person at the keyboard and a program at a pipe are answered at once.

    What is there to read is one list, of up to `at_once` lines.

    Raises:
        UserError: a line is not UTF-8.
    """
    rest, numbers = b"", count(1)
    while data := os.read(descriptor, 1 << 16):
        *whole, rest = (rest + data).split(b"\n")
        yield from in_groups((_line(line, next(numbers)) for line in whole), at_once)
    if rest:
        yield [_line(rest, next(numbers))]


def _line(line: bytes, number: int) -> Example:
    try:
        return raw_example(line.decode().removesuffix("\r"))
    except UnicodeDecodeError as error:
        raise UserError(f"standard input, line {number}: not UTF-8 (byte {error.start}: {error.reason})") from None
