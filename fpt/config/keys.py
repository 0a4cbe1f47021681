"""The keys that a user may set, what each takes, the options of groups in conf/, and overrides, `key=value`."""

from dataclasses import Field, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

import yaml

from fpt.config import literal
from fpt.config.run_config import RunConfig
from fpt.config.schema import Group, kinds_of
from fpt.errors import UserError, did_you_mean, reason

OTHER_NAMES = Path(__file__).with_name("other_names.yaml")  # what other trainers call each key or group
YAML = (".yaml", ".yml")
GROUPS = ("task", "model", "schedule", "prompt", "engine", "experiment")
LABELS = "task.labels"
LABEL_FORMS = "write 'task.labels={0: no, 1: yes}', or 'task.labels=[no, yes]' where the words are the target's values"


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def group_options(group: str) -> list[str]:
    """The names that `group=` may take, from the files in conf/; custom.yaml stands for a model that has no file."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem != "custom")


def stages_of(schedule: str) -> list[Any]:
    """The stages of a schedule in conf/."""
    return list(literal.own_table(conf_dir() / "schedule" / f"{schedule}.yaml")["stages"])


@cache
def group_types() -> dict[str, type[Group]]:
    """The groups of settings by name."""
    types = {item.name: item.type for item in fields(RunConfig)}
    return {name: kind for name, kind in types.items() if isinstance(kind, type) and issubclass(kind, Group)}


@cache
def settings() -> dict[str, Field[Any]]:
    """Every key a user may set, with its field, in the schema's order."""
    known: dict[str, Field[Any]] = {}
    for item in fields(RunConfig):
        if group := group_types().get(item.name):
            known |= {f"{item.name}.{inner.name}": inner for inner in fields(group)}
        else:
            known[item.name] = item
    return known


@cache
def helps() -> dict[str, str]:
    """What every key is, in one sentence for the user."""
    return literal.leaves(literal.own_table(Path(__file__).with_name("help.yaml")))


def is_text(key: str) -> bool:
    """Whether a key takes free text, such as a name, a path or a template, and not one of a few choices."""
    known = settings()
    return key in known and set(kinds_of(known[key])) <= {str, NoneType} and "choices" not in known[key].metadata


def hint(key: str) -> str:
    """The end of an error message that says what to write for an unknown key; empty if nothing is known."""
    last, others = key.rpartition(".")[2], literal.own_table(OTHER_NAMES)
    meant = next((own for own, names in others.items() if last.lower().replace("-", "_") in names), None)
    by_last = {name.rpartition(".")[2]: name for name in reversed(settings())}
    if meant := meant or by_last.get(last):
        return f" Did you mean '{meant}'?"
    return did_you_mean(key, [*settings(), *GROUPS])


@dataclass(frozen=True)
class Override:
    """A setting that was typed."""

    word: str  # what was typed
    key: str  # a key of the schema, or a group
    value: Any


def parse(word: str) -> Override:
    """Read an override; one of an unknown key, or with several values, is refused."""
    word = word.removeprefix("+")  # with which Hydra adds a key; here every key is there
    key, is_given, text = word.partition("=")
    if not is_given:
        raise UserError(f"{word}: not an override; write key=value, for example task=boolq")
    if key == "prompt.kind":
        raise UserError(f"{word}: write prompt={text}, which brings its length and optimizer too")
    if not (key in settings() or key in GROUPS):
        raise UserError(f"{word}: unknown key '{key}'.{hint(key) or ' See fpt train --help.'}")
    if not is_text(key) and each(word):
        raise UserError(f"{word}: has several values at once; fpt train -m runs all combinations; a list is [a,b]")
    if text == "???" or ("???" in text and not is_text(key)):  # Hydra's mark of a value that must be given
        raise UserError(f"{word}: ??? stands for a value that is not given yet; give one")
    return Override(word, key, _value(word, key, text))


def each(word: str) -> list[str]:
    """The values of an override with several, as typed between commas; empty if it has only one."""
    key, _, text = word.partition("=")
    try:
        nodes = yaml.compose(f"[{text}]", Loader=yaml.BaseLoader).value
    except (yaml.YAMLError, RecursionError):
        return []
    values = [text[node.start_mark.index - 1 : node.end_mark.index - 1] for node in nodes]
    is_verbatim = key in settings() and settings()[key].metadata.get("verbatim")
    if len(values) < 2 or (is_verbatim and not all(value[:1] in ("'", '"') for value in values)):
        return []
    return values


def _value(word: str, key: str, text: str) -> Any:
    if text.strip() == "null" and key in settings():
        return None
    if key == LABELS:
        return literal.texts(text, LABELS, f"are no label words; {LABEL_FORMS}")
    if is_text(key) or key not in settings() or "choices" in settings()[key].metadata:
        return _unquoted(text)  # of a choice too: YAML reads off as false
    try:
        value = literal.parse(literal.spaced(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{word[:40]}: cannot be read as YAML ({reason(error)})") from None
    return "" if value is None else value  # only `null` is null, and not a shell's empty variable


def _unquoted(text: str) -> str:
    """A typed text without the quotes around it; a text with more of these quotes is left as it is."""
    inner = text[1:-1]
    return inner if text[:1] in ("'", '"') and text == f"{text[0]}{inner}{text[0]}" and text[0] not in inner else text
