"""What is typed after a verb: options of the verb, overrides of the configuration, and places (folders, files)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fpt.config.file_names import place
from fpt.config.schema import MOST
from fpt.errors import UserError, did_you_mean

MOST_BEAMS = 1000
SHORT = {"-h": "help", "-m": "multirun"}


@dataclass(frozen=True)
class Option:
    """What a verb takes besides overrides, written `name=value`, `--name value` or `--name=value`.

    Attributes:
        name: with dashes where it has several words.
        takes: what the value is, as in DIR; empty: the option is there or not.
        help: what people are told; empty: nothing, as programs alone give it.
    """

    name: str
    takes: str = ""
    help: str = ""

    @property
    def spelling(self) -> str:
        """All ways to write it, for people."""
        if self.takes:
            return f"{self.name}={self.takes}  or  --{self.name} {self.takes}"
        return "  or  ".join([*(short for short, name in SHORT.items() if name == self.name), f"--{self.name}"])


JSON = Option("json", help="print the result for programs")
HELP = Option("help", help="show this help")


@dataclass(frozen=True)
class Arguments:
    """What was typed after a verb, taken apart."""

    overrides: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    def number(self, name: str, default: int, *, least: int = 1, most: int = MOST) -> int:
        """An option's whole number."""
        text = self.options.get(name, str(default))
        if not text.isdecimal() or len(text) > len(str(most)) or not least <= int(text) <= most:
            raise UserError(f"{name}={text[:40]}: expected a whole number, at least {least} and at most {most}")
        return int(text)

    def listed(self, name: str, default: str) -> list[str]:
        """An option's values, parted by commas."""
        text = self.options.get(name, default)
        values = [value.strip() for value in text.split(",")]
        if not all(values) or len(set(values)) < len(values):
            raise UserError(f"{name}={text}: expected values parted by commas, each once, as in {name}={default}")
        return values


def parse(words: Sequence[str], options: Sequence[Option], *, takes_places: bool = False) -> Arguments:
    """Take a verb's words apart; a word with = whose name is no option is an override."""
    known = {option.name: option for option in (*options, JSON, HELP)}
    arguments, rest = Arguments(), list(words)
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
