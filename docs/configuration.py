"""Every setting on one page: `python docs/configuration.py > docs/configuration.md`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import NoneType
from typing import Any

from fpt.config import compose, keys, literal
from fpt.config.run_config import RunConfig
from fpt.config.schema import Group, kinds_of

INTRODUCTION = """\
# Configuration

Printed by `python docs/configuration.py` from `fpt/config/` and `conf/`. `fpt train --help` has the same keys
with the values that a command would use. Set a key by `train.updates=500`, a group by the name of an option, as in
`model=t5-large`. The command line overrides an experiment, that a group's option, and that the defaults here.
"""
OF_GROUPS = """\
## Groups

`fpt train` alone is {defaults}.

- `task=`: {task} ([tasks](tasks.md))
- `model=`: {model}, a local folder, or a Hub id, owner/name ([models](models.md))
"""
TYPES = {str: "text", int: "integer", float: "number", bool: "true, false", list: "list", dict: "mapping"}
LISTED = ("task", "model")  # groups that have a page of their own


def page() -> str:
    """docs/configuration.md."""
    config = compose.load([])
    defaults = [f"{key}={getattr(config, key).name}" for key in ("task", "model", "schedule", "engine")]
    listed = {group: ", ".join(f"`{name}`" for name in keys.group_options(group)) for group in LISTED}
    parts = [INTRODUCTION, OF_GROUPS.format(defaults=" ".join(f"`{word}`" for word in defaults), **listed)]
    parts += [_options(group) for group in keys.GROUPS if group not in LISTED]
    parts += ["## Keys\n"]
    sections = {item.name: item.type for item in fields(RunConfig)}
    alone = [name for name, kind in sections.items() if not _is_group(kind)]
    for name, kind in sections.items():
        if _is_group(kind):
            own = [key for key in keys.settings() if key.startswith(f"{name}.")]
            parts += [f"### {name}\n", f"{kind.__doc__}\n", _keys(own)]
    return "\n".join([*parts, "### Of the run as a whole\n", _keys(alone)])


def _is_group(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Group)


def _options(group: str) -> str:
    lines = [f"### {group}=\n"]
    for name in keys.group_options(group):
        about, values = _read(keys.conf_dir() / group / f"{name}.yaml", group)
        sets = " ".join(f"`{key}={_shown(value)}`" for key, value in values.items())
        lines.append(f"- `{name}`: {about}{' Sets ' if sets else ''}{sets}")
    also = ["- a YAML file with a list of stages"] if group == "schedule" else []
    return "\n".join([*lines, *also]) + "\n"


def _read(file: Path, group: str) -> tuple[str, dict[str, Any]]:
    """An option's comment and the keys it sets, its name and a model's whole shape left out."""
    text = file.read_text(encoding="utf-8")
    comments = [line for line in text.splitlines() if line.startswith("#")]
    about = " ".join(line.lstrip("# ") for line in comments if "@package" not in line)
    tree = literal.parse(text)
    is_global = "@package _global_" in text
    chosen = {key.removeprefix("override /"): value for row in tree.pop("defaults", []) for key, value in row.items()}
    values = literal.leaves(tree if is_global else {group: tree})
    left_out = (f"{group}.name", "model.config.")
    return about, chosen | {key: value for key, value in values.items() if not key.startswith(left_out)}


def _keys(names: Iterable[str]) -> str:
    rows = []
    for key in names:
        setting = keys.settings()[key]
        said = keys.helps()[key].replace("<", "&lt;")  # or Markdown takes </s> for a tag
        default = _default(setting, key.rpartition(".")[0])
        rows.append((f"`{key}`", _allowed(setting), default, said))
    return _table(("key", "value", "default", "what it is"), rows) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown, the bars in cells escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _default(setting: Field[Any], group: str) -> str:
    """What the schema says; nothing or an empty list is filled in by the option of the key's group."""
    value = [] if setting.default_factory is MISSING else setting.default_factory()
    if setting.default is not MISSING:
        value = setting.default
    elif not value and group in keys.GROUPS:
        return "an option's"
    return f"`{_shown(value)}`"


def _allowed(setting: Field[Any]) -> str:
    """The choices, or the types and the range."""
    about = setting.metadata
    if "choices" in about:
        return ", ".join(f"`{choice}`" for choice in about["choices"])
    names = " or ".join(TYPES[kind] for kind in kinds_of(setting) if kind is not NoneType)
    if "least" in about and "most" in about:
        return f"{names}, {about['least']:,} to {about['most']:,}"
    signs = {"above": ">", "least": "≥", "most": "≤"}
    return " ".join([names, *(f"{sign} {about[limit]:,}" for limit, sign in signs.items() if limit in about)])


def _shown(value: Any) -> str:
    """As one would type it."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        said = {key: inner for key, inner in value.items() if inner != "full"}  # as is what is not said
        return "{" + ", ".join(f"{key}: {_shown(inner)}" for key, inner in said.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return json.dumps(value)


if __name__ == "__main__":
    print(page(), end="")
