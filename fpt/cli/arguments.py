"""What is typed after a verb: options of the verb, overrides of the configuration, and places (folders, files)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fpt.config.file_names import place
from fpt.config.schema import MOST
from fpt.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Option:
    """What a verb takes besides overrides, written `name=value`, `--name value` or `--name=value`.

    Attributes:
        name: with dashes where it has several words.
        help: what people are told; empty: nothing, as programs alone give it.
        takes: what the value is, as in DIR; empty: the option is there or not.
        default: for help.
        short: one letter that stands for it after a single dash.
    """

    name: str
    help: str
    takes: str = ""
    default: str = ""
    short: str = ""

    @property
    def spelling(self) -> str:
        """As people may write it."""
        flag = f"--{self.name}"
        if self.takes:
            return f"{self.name}={self.takes}  or  {flag} {self.takes}"
        return f"-{self.short}  or  {flag}" if self.short else flag


MOST_BEAMS = 1000
JSON = Option("json", "print the result for programs")
HELP = Option("help", "show this help", short="h")


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
    short = {f"-{option.short}": name for name, option in known.items() if option.short}
    arguments, rest = Arguments(), list(words)
    while rest:
        word = rest.pop(0)
        name, has_value, value = word.removeprefix("--").partition("=")
        if word in short:
            name = short[word]
        elif word.startswith("-") and word != "-":
            if name not in known or not word.startswith("--"):
                shown = [f"--{name}" for name, option in known.items() if option.help]
                allowed, hint = ", ".join(shown), did_you_mean(word, shown)
                raise UserError(f"{word}: unknown option; allowed are {allowed}.{hint}")
        elif name not in known or not has_value:
            (arguments.places if takes_places and not has_value else arguments.overrides).append(word)
            continue
        if known[name].takes and not has_value:
            if not rest:
                raise UserError(f"--{name}: needs a value, --{name} {known[name].takes}")
            value = rest.pop(0)
        if not known[name].takes and has_value:
            raise UserError(f"{word}: takes no value; write --{name}")
        if known[name].takes.startswith(("DIR", "FILE")):
            place(value, name)
        if name in arguments.options:
            raise UserError(f"{word}: {name} is given twice")
        arguments.options[name] = value
    return arguments
