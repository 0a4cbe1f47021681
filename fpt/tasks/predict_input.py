"""Input of `fpt predict`: records or lines of a file, or lines of standard input as they arrive."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from fpt.errors import UserError
from fpt.tasks import fields, file_formats
from fpt.tasks.fields import Faults, Record, readable
from fpt.tasks.file_formats import check_utf8, ending, lines
from fpt.tasks.task import MASK, Example, TaskRules

ToExample = Callable[[Record, str], Example]  # of a record and its place; a wrong record is a UserError

LINES = ".txt"
RAW = ("text", "source", "whole source")  # fields that may hold a whole source, which needs no template


def check_input(file: Path) -> None:
    """Refuse an input file that does not exist, or whose ending is not known."""
    file_formats.check_ending(file, f"input={file}")
    if not file.is_file():
        raise UserError(f"input={file}: no such file")


def raw_example(source: str, what: str = "text") -> Example:
    """An example whose source is this text, without a template; {mask} in it is where the answer belongs."""
    if not isinstance(source, str):
        raise UserError(f"{what}: expected a text, not {source!r}")
    if source.count(MASK) > 1:
        raise UserError(f"{what}: has {MASK} {source.count(MASK)} times, and there is one answer")
    return Example("", readable(source, what), "", (), mask=source.find(MASK))


def raw_field(rules: TaskRules) -> str:
    """The field of a record that may hold a whole source: `text`, or `source` where the template has {text}."""
    taken = {name.partition(".")[0] for name in rules.template.fields}
    return next(name for name in RAW if name not in taken)


def by_template(rules: TaskRules) -> ToExample:
    """A function that makes an example of a record with the template's fields, or with the whole source in its field.

    A record that has some of the template's fields is not taken for a whole source.
    """
    names, raw = rules.template.fields, raw_field(rules)

    def read(record: Record, where: str) -> Example:
        if raw in record and not any(name in record or fields.at(record, name) is not None for name in names):
            return raw_example(fields.text(record, raw, where))
        return rules.template.fill(fields.texts_of(record, names, where, f", or the whole source as '{raw}'"))

    return read


def by_prompt(rules: Mapping[str, TaskRules], field: str) -> ToExample:
    """A function that fills the template of the prompt that a record's `field` names; that name becomes the `group`.

    If there is only one prompt, records need not name it.
    """
    of_prompt = {name: by_template(own) for name, own in rules.items()}
    unnamed = next(iter(rules)) if len(rules) == 1 else None

    def read(record: Record, where: str) -> Example:
        name = str(record.get(field, unnamed))
        if name not in of_prompt:
            given = f"'{field}' is {record[field]!r:.100}" if field in record else f"no field '{field}'"
            raise UserError(f"{where}: {given}; expected the name of a prompt, one of {', '.join(of_prompt)}")
        return of_prompt[name](record, where)._replace(group=name)

    return read


def rows_and_examples(
    file: Path, to_example: ToExample, faults: Faults, columns: Sequence[str] | None = None
) -> Iterator[tuple[Record, Example]]:
    """Read a file's records, each with its example; in a .txt file each line is a whole source."""
    if ending(file) == LINES:
        for number, line in lines(file):
            with faults:
                where = f"{file}, line {number}"
                check_utf8(line, where)
                yield {RAW[0]: line}, raw_example(line, where)
        return
    for where, record in file_formats.read(file, faults, columns):
        with faults:
            yield record, to_example(record, where)


def examples_on_stream(stream: BinaryIO) -> Iterator[Example]:
    """Read lines one by one, so that a person at the keyboard or a program at a pipe is answered at once."""
    for number, line in enumerate(stream, 1):
        where = f"standard input, line {number}"
        try:
            yield raw_example(line.decode().removesuffix("\n").removesuffix("\r"), where)
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 (byte {error.start}: {error.reason})") from None
