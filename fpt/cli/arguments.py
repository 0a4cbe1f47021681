"""Parses what is typed after a verb: its options, overrides of the configuration, and places (folders, files)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fpt.config.schema import MOST, MOST_TOKENS, place
from fpt.errors import UserError, did_you_mean

SHORT = {"-h": "help", "-m": "multirun"}


@dataclass(frozen=True)
class Option:
    """An option of a verb, written `name=value`, `--name value` or `--name=value`."""

    name: str  # with dashes between words
    takes: str = ""  # what its value is, as in DIR; empty for a flag
    help: str = ""  # empty for options that only programs give, which are not listed

    @property
    def spelling(self) -> str:
        """All ways to write the option, for its help."""
        if self.takes:
            return f"{self.name}={self.takes}  or  --{self.name} {self.takes}"
        return "  or  ".join([*(short for short, name in SHORT.items() if name == self.name), f"--{self.name}"])


JSON = Option("json", help="print the result for programs")
HELP = Option("help", help="show this help")


@dataclass(frozen=True)
class Arguments:
    """What was typed after a verb, sorted into overrides, places and options."""

    typed: Sequence[str]
    overrides: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

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


def parse(words: Sequence[str], options: Sequence[Option], *, takes_places: bool = False) -> Arguments:
    """Sort a verb's words into options, places and overrides; name=value is an override unless name is an option."""
    known = {option.name: option for option in (*options, JSON, HELP)}
    arguments, rest = Arguments(words), list(words)
    while rest:
        word = rest.pop(0)
        name, has_value, value = word.removeprefix("--").partition("=")
        name = SHORT.get(word, name)
        is_flag = word.startswith("-") and word != "-"
        if is_flag and (name not in known or not (word in SHORT or word.startswith("--"))):
            shown = [f"--{name}" for name, option in known.items() if option.help]
            raise UserError(f"{word}: unknown option; allowed are {', '.join(shown)}.{did_you_mean(word, shown)}")
        if not is_flag and (name not in known or not has_value):
            (arguments.places if takes_places and not has_value else arguments.overrides).append(word)
            continue
        takes = known[name].takes
        if takes and not has_value:
            if not rest:
                raise UserError(f"--{name}: needs a value, --{name} {takes}")
            value = rest.pop(0)
        if has_value and not takes:
            raise UserError(f"{word}: takes no value; write --{name}")
        if takes.startswith(("DIR", "FILE")):
            place(value, name)
        if name in arguments.options:
            raise UserError(f"{word}: {name} is given twice")
        arguments.options[name] = value
    return arguments
