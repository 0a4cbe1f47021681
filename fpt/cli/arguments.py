"""Parses what is typed after a verb: its options, and overrides of the configuration or folders."""

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from fpt.config.schema import MOST, MOST_TOKENS, place
from fpt.errors import UserError, did_you_mean

SHORT = {"help": ["-h"], "multirun": ["-m"]}
OF_EVERY_VERB = {"json": "print the result for programs", "help": "show this help"}


@dataclass(frozen=True)
class Arguments:
    """What was typed after a verb, sorted into options and overrides."""

    typed: Sequence[str]
    overrides: list[str]  # of a configuration; for fpt report, folders
    options: dict[str, str]

    def number(self, name: str, default: int, *, least: int = 1, most: int = MOST) -> int:
        """The whole number that an option gives, or the default; refuse one out of bounds."""
        text = self.options.get(name, str(default))
        if not text.isdecimal() or len(text) > len(str(most)) or not least <= int(text) <= most:
            raise UserError(f"{name}={text[:40]}: expected a whole number, at least {least} and at most {most}")
        return int(text)

    def output_limit(self) -> int | None:
        """How many tokens an output may have; None: as many as in training."""
        return self.number("max-new-tokens", 0, least=0, most=MOST_TOKENS) or None

    def listed(self, name: str, default: str) -> list[str]:
        """The values of an option, separated by commas."""
        text = self.options.get(name, default)
        values = [value.strip() for value in text.split(",")]
        if not all(values) or len(set(values)) < len(values):
            raise UserError(f"{name}={text}: expected values parted by commas, each once, as in {name}={default}")
        return values


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix("argument "))


def parser_of(options: Mapping[str, str], *, usage: str = "", summary: str = "") -> ArgumentParser:
    """A parser of options with their help: `run=DIR` takes a value, `json` is a flag; one without help is not shown."""
    parser = _Parser(usage=usage, description=summary, add_help=False, allow_abbrev=False)
    for key, help in (dict(options) | OF_EVERY_VERB).items():
        name, _, takes = key.partition("=")
        spellings = [*SHORT.get(name, ()), f"--{name}"]
        if takes:
            parser.add_argument(*spellings, dest=name, metavar=takes, action="append", help=help)
        else:
            parser.add_argument(*spellings, dest=name, action="append_const", const="", help=help or SUPPRESS)
    return parser


def parse(words: Sequence[str], options: Mapping[str, str]) -> Arguments:
    """Sort a verb's words into options, which may be written `name=value` too, and the rest."""
    known = {key.partition("=")[0]: key.partition("=")[2] for key in (*options, *OF_EVERY_VERB)}
    dashed = [f"--{word}" if "=" in word and word.partition("=")[0] in known else word for word in words]
    found, rest = parser_of(options).parse_known_args(dashed)
    given = {name: values for name, values in vars(found).items() if values}
    for name, values in given.items():
        if len(values) > 1:
            raise UserError(f"{name}: is given twice")
        if known[name].startswith(("DIR", "FILE")):
            place(values[0], name)
    for word in rest:
        if word.startswith("-") and word != "-":
            shown = [f"--{name}" for name in known if name != "quiet"]
            raise UserError(f"{word}: unknown option; allowed are {', '.join(shown)}.{did_you_mean(word, shown)}")
    return Arguments(words, rest, {name: values[0] for name, values in given.items()})
