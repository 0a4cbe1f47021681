"""What `fpt predict` is to answer: records or lines of a file, or standard input as it comes."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path

from fpt.errors import UserError
from fpt.tasks.faults import Faults
from fpt.tasks.fields import Record, parted_otherwise, readable, text_or_number
from fpt.tasks.file_formats import READERS, lines
from fpt.tasks.task import MASK, Example, TaskRules

Reads = Callable[[Record, str], Example]  # a record and its place to an example; UserError where it is wrong

LINES = ".txt"
ENDINGS = (*READERS, LINES)
TABLES = (".csv", ".tsv")
RAW = "text"  # the field of a record that is the source as it stands


def check(file: Path) -> None:
    """Refuse what cannot be read."""
    if file.suffix.lower() not in ENDINGS:
        raise UserError(f"input={file}: the name must end in one of {', '.join(ENDINGS)}")
    if not file.is_file():
        raise UserError(f"input={file}: no such file")


def raw_example(source: str, what: str = "text") -> Example:
    """A source as it stands, but for {mask} where its answer belongs."""
    return Example("", readable(source, what), "", (), mask=source.find(MASK))


def in_groups(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    """The examples in lists of up to `size`, so that few are held at once."""
    rest = iter(examples)
    while group := list(islice(rest, size)):
        yield group


def by_template(rules: TaskRules) -> Reads:
    """A record with the template's fields, or with the whole source as `text`; one that has neither is wrong."""

    def read(record: Record, where: str) -> Example:
        names = rules.template.fields
        missing = [name for name in names if name not in record]
        if missing and RAW in record:
            return raw_example(text_or_number(record, RAW, where))
        if missing:
            raise UserError(
                f"{where}: no field '{missing[0]}'; expected {', '.join(names)} as in the template, or the whole source"
                f" as '{RAW}'. It has {', '.join(map(str, record))[:200]}.{parted_otherwise(record, missing[0])}"
            )
        return rules.template.fill({name: text_or_number(record, name, where) for name in names})

    return read


def by_prompt(rules: Mapping[str, TaskRules], field: str) -> Reads:
    """A record by the template of the prompt that its field names, which is then its `group`; it must name one."""
    of_prompt = {name: by_template(own) for name, own in rules.items()}

    def read(record: Record, where: str) -> Example:
        name = str(record.get(field))
        if name not in of_prompt:
            given = f"'{field}' is {record[field]!r:.100}" if field in record else f"no field '{field}'"
            raise UserError(f"{where}: {given}; expected the name of a prompt, one of {', '.join(of_prompt)}")
        return of_prompt[name](record, where)._replace(group=name)

    return read


def examples_in(file: Path, reads: Reads, faults: Faults) -> Iterator[Example]:
    """A text file's lines as sources as they stand; another's records as `reads` has them."""
    if file.suffix.lower() == LINES:
        return _lines(file, faults)
    return (example for _, example in _records(file, reads, faults))


def _lines(file: Path, faults: Faults) -> Iterator[Example]:
    for number, line in lines(file, faults):
        with faults:
            yield raw_example(line, f"{file}, line {number}")


def rows_of(file: Path, reads: Reads, faults: Faults) -> Iterator[Record]:
    """The rows of a table that become examples, each with the names of its columns."""
    return (record for record, _ in _records(file, reads, faults))


def _records(file: Path, reads: Reads, faults: Faults) -> Iterator[tuple[Record, Example]]:
    for where, record in READERS[file.suffix.lower()](file, faults):
        example = None
        with faults:
            example = reads(record, where)
        if example is not None:
            yield record, example


def examples_on_stream(descriptor: int, at_once: int) -> Iterator[list[Example]]:
    """Lines as they come, so that a person at the keyboard and a program at a pipe are answered at once.

    What is there to read is one list, of up to `at_once` lines.
    """
    rest, numbers = b"", count(1)
    while data := os.read(descriptor, 1 << 16):
        *whole, rest = (rest + data).split(b"\n")
        yield from in_groups((_line(line, next(numbers)) for line in whole), at_once)
    if rest:
        yield [_line(rest, next(numbers))]


def _line(line: bytes, number: int) -> Example:
    where = f"standard input, line {number}"
    try:
        return raw_example(line.decode().removesuffix("\r"), where)
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start}: {error.reason})") from None
