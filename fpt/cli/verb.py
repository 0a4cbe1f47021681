"""A verb of the command line: what it does, what it takes, and how its result is shown."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fpt.cli.arguments import Arguments, Option
from fpt.errors import UserError


@dataclass(frozen=True)
class Verb:
    """A verb.

    Attributes:
        call: does it.
        summary: one line.
        example: its words in the list of all verbs.
        usage: its words in its own help; empty: the verb alone.
        options: what it takes besides overrides.
        takes_places: whether words without = are folders or files of its.
        takes_overrides: whether it has a configuration.
    """

    call: Callable[[Arguments], None]
    summary: str = ""
    example: str = ""
    usage: str = ""
    options: tuple[Option, ...] = ()
    takes_places: bool = False
    takes_overrides: bool = True


def present(arguments: Arguments, value: Any, for_people: Callable[[Any], None]) -> None:
    """Print a result for programs or for people, as the arguments say."""
    if arguments.as_json:
        print(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        for_people(value)


def refuse_overrides(arguments: Arguments) -> None:
    """For a verb without a configuration of its own.

    Raises:
        UserError: there are overrides.
    """
    if arguments.overrides:
        raise UserError(f"{arguments.overrides[0]}: unknown option; --help lists what there is")
