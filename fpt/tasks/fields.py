"""What is in a record's fields: texts, lists and objects, or a line that says what is there instead."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from fpt.errors import UserError, did_you_mean
from fpt.tasks.faults import Faults

NUMBER = re.compile(r"-?\d+\.\d+")
ZEROS = re.compile(r"\.?0+$")
Record = dict[str, Any]
PlacedRecord = tuple[str, Record]  # where a record stands, for error messages, and the record


def texts_of(record: Record, names: Iterable[str], where: str, instead: str = "") -> dict[str, str]:
    """The texts in a record's fields; `instead` says what else would do where one is missing."""
    return {name: text(record, name, where, instead) for name in names}


def text(record: Record, name: str, where: str, instead: str = "") -> str:
    """The text in a record's field; numbers and truth values become texts as JSON writes them."""
    value = record.get(name)
    if not isinstance(value, str):
        value = as_text(_field(record, name, where, (int, float), f"a text or a number{instead}"))
    return readable(value, f"{where}: '{name}'")


def readable(value: str, what: str) -> str:
    """The text (`what` names it) unless it holds what is no character: a user's texts pass here where they enter.

    Tokenizers refuse such a text, and with it all that are tokenised together; files cannot hold it either.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        what += f", letter {error.start + 1:,}"
        raise UserError(f"{what}: half of a surrogate pair, which is no character; take it out") from None
    if "\0" in value:
        what += f", letter {value.index(chr(0)) + 1:,}"
        raise UserError(f"{what}: a NUL, which is no text; take it out, or save the file as UTF-8")
    return value


def as_text(value: Any) -> str:
    """A text as it stands, anything else as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def compared(text: str) -> str:
    """A label's value as values are compared: as texts, but that True is true, and 1.0 and 1.50 are 1 and 1.5.

    pandas writes truth values so, and whole numbers in a column of which a cell is empty.
    """
    if text.casefold() in ("true", "false"):
        return text.casefold()
    return ZEROS.sub("", text) if NUMBER.fullmatch(text) else text


def texts(record: Record, name: str, where: str) -> list[str]:
    """The texts in a record's list."""
    items = {f"{name}[{number}]": item for number, item in enumerate(_field(record, name, where, list, "a list"))}
    return [text(items, key, where) for key in items]


def objects(record: Record, name: str, where: str, faults: Faults | None = None) -> Iterator[PlacedRecord]:
    """The objects in a record's list, each with its place; without `faults` none of them may be wrong."""
    faults = faults or Faults()
    items: list[Any] = []
    with faults:
        items = _field(record, name, where, list, "a list")
    for number, item in enumerate(items):
        place = f"{where}{'.' if where.endswith(']') else ', '}{name}[{number}]"
        if isinstance(item, dict):
            yield place, item
        else:
            faults.add(UserError(f"{place}: expected an object, got {type(item).__name__}"))


def mapping(record: Record, name: str, where: str) -> Record:
    """The object in a record's field."""
    value: Record = _field(record, name, where, dict, "an object")
    return value


def _field(record: Record, name: str, where: str, kind: Any, expected: str) -> Any:
    value = record.get(name)
    if isinstance(value, kind):
        return value
    if name in record:
        raise UserError(f"{where}: '{name}' is {value!r:.100}; expected {expected}")
    others = f". It has {', '.join(map(str, record))[:200]}" if record else ""
    hint = _other_separator(record, name) or did_you_mean(name, map(str, record))
    raise UserError(f"{where}: '{name}' is missing; expected {expected}{others}{hint and '.'}{hint}")


def _other_separator(record: Record, name: str) -> str:
    """A hint where a table has the field in its only column, as another sign parts its columns; else empty."""
    only = next(iter(record), "") if len(record) == 1 else ""
    sign = next((sign for sign in ";|,\t" if name in map(str.strip, only.split(sign))), None)
    return f" The columns are parted by {sign!r}; in a .csv it must be a comma, in a .tsv a tab" if sign else ""
