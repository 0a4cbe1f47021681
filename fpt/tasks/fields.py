"""Reads texts, lists and objects from a record's fields, and says what is wrong with a record that cannot be used."""

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from fpt.errors import UserError, did_you_mean

NUMBER = re.compile(r"-?\d+\.\d+")
ZEROS = re.compile(r"\.?0+$")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
SHOWN = 3  # messages that a note quotes in full
HINT = "; task.on_error=skip leaves such out"
Record = dict[str, Any]
PlacedRecord = tuple[str, Record]  # where a record stands, for error messages, and the record


@dataclass
class Faults(AbstractContextManager["Faults"]):
    """Records that cannot be used: each is an error or, with `skip`, left out and reported to the user.

    As a context manager (`with faults:`) it treats a UserError raised inside as a faulty record.
    """

    skip: bool = False
    messages: list[str] = field(default_factory=list)

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        if not isinstance(error, UserError):
            return False
        message = str(error).removesuffix(HINT).removesuffix(".")  # an inner context may have added the hint already
        if not self.skip:
            raise UserError(f"{message}{HINT}") from None
        self.messages.append(message)
        return True

    @property
    def notes(self) -> list[str]:
        """A sentence that says how many records were left out, and why; none if there are none."""
        if not self.messages:
            return []
        more = f"; and {len(self.messages) - SHOWN:,} more" if len(self.messages) > SHOWN else ""
        shown = "; ".join(self.messages[:SHOWN])
        return [f"task.on_error=skip: {len(self.messages):,} skipped: {shown}{more}"]


def at(record: Record, name: str) -> Any:
    """What a record has in a field, or at the end of a path as `answers.text.0`; None if there is nothing.

    In a list, a number is an item's place, and any other name is a field of every item. A name with `*` is a list of
    what is in all columns that it matches and are not empty.
    """
    if name in record:
        return record[name]
    if "*" in name:
        return [record[key] for key in fnmatch.filter(record, name) if record[key] not in ("", None)] or None
    value: Any = record
    for part in name.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal():
            value = next(iter(value[int(part) :]), None)
        elif isinstance(value, list):
            value = [item.get(part) if isinstance(item, dict) else None for item in value]
        else:
            return None
    return value


def texts_of(record: Record, names: Iterable[str], where: str, instead: str = "") -> dict[str, str]:
    """The texts in a record's fields; `instead` ends the error where one is missing."""
    return {name: text(record, name, where, instead) for name in names}


def text(record: Record, name: str, where: str, instead: str = "") -> str:
    """The text in a record's field; numbers and truth values become texts as JSON writes them."""
    value = at(record, name)
    if not isinstance(value, str):
        value = as_text(_field(record, name, where, (int, float), f"a text or a number{instead}"))
    return readable(value, f"{where}: '{name}'")


def readable(value: str, what: str) -> str:
    """The text itself; one with half a surrogate pair or a NUL is an error, in which `what` names the text.

    Every text of a user's is checked here: tokenizers fail on a whole batch with such a text, and files cannot hold it.
    """
    if found := NO_TEXT.search(value):
        kind = "a NUL" if found[0] == "\0" else "half of a surrogate pair"
        raise UserError(f"{what}, letter {found.start() + 1:,}: {kind}, which is no text; take it out")
    return value


def as_text(value: Any) -> str:
    """A text as it stands, anything else as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def compared(text: str) -> str:
    """A label's value in the form in which values are compared: True becomes true, 1.0 becomes 1, 1.50 becomes 1.5.

    pandas writes truth values as True, and whole numbers as 1.0 in a column that has an empty cell.
    """
    if text.casefold() in ("true", "false"):
        return text.casefold()
    return ZEROS.sub("", text) if NUMBER.fullmatch(text) else text


def texts(record: Record, name: str, where: str) -> list[str]:
    """The texts in the list in a record's field."""
    items = {f"{name}[{number}]": item for number, item in enumerate(_field(record, name, where, list, "a list"))}
    return [text(items, key, where) for key in items]


def objects(record: Record, name: str, where: str, faults: Faults | None = None) -> Iterator[PlacedRecord]:
    """The objects in the list in a record's field, each with its place; without `faults`, a wrong one is an error."""
    faults = faults or Faults()
    with faults:
        for number, item in enumerate(_field(record, name, where, list, "a list")):
            place = f"{where}{'.' if where.endswith(']') else ', '}{name}[{number}]"
            with faults:
                if not isinstance(item, dict):
                    raise UserError(f"{place}: expected an object, got {type(item).__name__}")
                yield place, item


def _field(record: Record, name: str, where: str, kind: Any, expected: str) -> Any:
    value = at(record, name)
    if isinstance(value, kind):
        return value
    if name in record or value is not None:
        of_list = f"; '{name}.0' is its first; if they are labels, task.multilabel=true takes all"
        way_out = of_list if isinstance(value, list) and "*" not in name else ""
        raise UserError(f"{where}: '{name}' is {value!r:.100}; expected {expected}{way_out}")
    others = f". It has {', '.join(map(str, record))[:200]}" if record else ""
    hint = did_you_mean(name, map(str, record))
    raise UserError(f"{where}: '{name}' is missing; expected {expected}{others}{hint and '.'}{hint}")
