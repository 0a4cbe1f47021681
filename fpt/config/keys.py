"""Lists the keys that a user may set, what each takes, and the options that each group has in conf/."""

from dataclasses import Field, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from fpt.config.literal import leaves, own_table
from fpt.config.run_config import RunConfig
from fpt.config.schema import Group, kinds_of
from fpt.errors import did_you_mean

GROUPS = ("task", "model", "schedule", "prompt", "engine", "experiment")


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def group_options(group: str) -> list[str]:
    """The names that `group=` may take, from the files in conf/; custom.yaml stands for a model that has no file."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem != "custom")


def stages_of(schedule: str) -> list[Any]:
    """The stages of a schedule in conf/."""
    return list(own_table(conf_dir() / "schedule" / f"{schedule}.yaml")["stages"])


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
    return leaves(own_table(Path(__file__).with_name("help.yaml")))


def is_text(key: str) -> bool:
    """Whether a key takes free text, such as a name, a path or a template, and not one of a few choices."""
    known = settings()
    return key in known and set(kinds_of(known[key])) <= {str, NoneType} and "choices" not in known[key].metadata


@cache
def other_names() -> dict[str, list[str]]:
    """What other trainers call each key or group."""
    return own_table(Path(__file__).with_name("other_names.yaml"))


def hint(key: str) -> str:
    """The end of an error message that says what to write for an unknown key; empty if nothing is known."""
    last = key.rpartition(".")[2]
    meant = next((own for own, names in other_names().items() if last.lower().replace("-", "_") in names), None)
    by_last = {name.rpartition(".")[2]: name for name in reversed(settings())}
    if meant := meant or by_last.get(last):
        return f" Did you mean '{meant}'?"
    return did_you_mean(key, [*settings(), *GROUPS])
