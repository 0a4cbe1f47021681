"""From conf/ and the command line's overrides, in Hydra's grammar, to the typed configuration.

DictConfig stops here: below this file every function receives the frozen group it needs.
"""

import re
from collections.abc import Sequence
from dataclasses import Field, asdict, fields
from functools import cache
from operator import attrgetter
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from fpt.config import literal, meant
from fpt.config.run_config import RunConfig
from fpt.config.schema import Group, ScheduleConfig
from fpt.errors import UserError, did_you_mean, reason

LABELS = "task.labels."
GROUPS = ("task", "model", "schedule", "prompt", "engine", "experiment")


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def group_options(group: str) -> list[str]:
    """The names that `group=` may take, from the files in conf/; custom.yaml stands for a model that has no file."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml") if path.stem != "custom")


def settings() -> dict[str, Field[Any]]:
    """Every key a user may set, with its field, in the schema's order."""
    known: dict[str, Field[Any]] = {}
    for item in fields(RunConfig):
        if isinstance(item.type, type) and issubclass(item.type, Group):
            known |= {f"{item.name}.{inner.name}": inner for inner in fields(item.type)}
        else:
            known[item.name] = item
    return known


def load(words: Sequence[str], base: RunConfig | None = None) -> RunConfig:
    """Compose conf/ with overrides in Hydra's grammar, and check everything that needs no weights.

    With a `base`, groups and keys that no word names are as they are there.

    Raises:
        UserError: one line that names the key as typed, what was given and what is allowed.
    """
    overrides = [_parse(word) for word in words]
    composed: list[str] = []
    labels: dict[str, Any] = {}  # of a mapping that is empty before, whose keys Hydra would refuse
    fill: dict[str, Any] = {}  # what is put in after composition, for values that are not in conf/
    texts: dict[str, str] = {}  # likewise, typed to be taken as they stand
    for override in overrides:
        word, key = str(override.input_line).lstrip("+"), override.key_or_group
        texts.pop(key, None)  # the last word counts
        if key == "model" and (weights := _foreign_weights(override)) is not None:
            fill |= {"model.weights": weights, "model.name": Path(weights).expanduser().resolve().name}
            word = "model=custom"
        elif key == "schedule" and str(override.value()).endswith((".yaml", ".yml")):
            fill |= _schedule_file(override)
            word = "schedule=pt"
        elif key.startswith(LABELS):
            labels[key.removeprefix(LABELS)] = literal.escaped(override.value())
            continue
        elif _is_verbatim(key) and isinstance(text := override.value(), str):
            texts[key] = literal.escaped(literal.typed(text))
            continue
        elif key in GROUPS:
            _check_option(override)
        else:
            _check_key(override)
        composed.append(word)
    typed = {override.key_or_group for override in overrides}
    if "schedule.stages" in typed:
        fill.setdefault("schedule.name", "custom")
    if base is not None:
        if "experiment" in typed:
            raise UserError("experiment=…: sets keys of several groups, and is for a new run; give the keys themselves")
        kept = (key for key in settings() if key.partition(".")[0] not in typed)
        fill = {**{key: literal.escaped(attrgetter(key)(base)) for key in kept}, **fill}
    if labels:
        if "task.labels" in typed:
            raise UserError("task.labels=… and task.labels.LABEL=… both name label words; give one of them")
        fill["task.labels"] = {**(fill.get("task.labels") or {}), **labels}
    return _compose(composed, {key: value for key, value in fill.items() if key not in typed} | texts)


def each(word: str) -> list[str]:
    """The values that a word with several stands for, in Hydra's grammar; none where it has but one.

    Raises:
        UserError: it is no override, or its values cannot be counted.
    """
    override = _override(word)
    if not override.is_sweep_override():
        return []
    if not override.is_discrete_sweep():
        raise UserError(f"{word}: has no end of values; write them with commas, or range(start,stop,step)")
    if isinstance(glob := override.value(), Glob):
        group = override.key_or_group
        names = glob.filter(group_options(group)) if group in GROUPS else []
        if not names:
            raise UserError(f"{word}: glob() is for the files of a group, and fits none of these")
        return list(names)
    return list(override.sweep_string_iterator())


def _parse(word: str) -> Override:
    override = _override(word)
    if override.is_sweep_override():
        raise UserError(f"{word}: has several values at once; fpt train -m runs all combinations, one after the other")
    return override


def _override(word: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(_verbatim(word))
    except HydraException as error:
        said = str(error).splitlines()[0]
        way_out = (
            " Write key=value, for example task=boolq."
            if "=" not in word
            else " Quote a value with brackets, commas, colons or letters beyond ASCII: 'key=\"…\"'."
        )
        raise UserError(f"{word}: not an override ({said}).{way_out}") from None
    if override.package is not None:
        raise UserError(f"{word}: packages (@) are not used here. Write {override.key_or_group}=…")
    if override.is_delete():
        raise UserError(f"{word}: settings cannot be deleted. Set {word.lstrip('~')}=null if it may be empty.")
    return override


def _verbatim(word: str) -> str:
    """The override, quoted for Hydra where its value is a text that is taken as it stands, braces and all."""
    key, _, value = word.partition("=")
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in ("'", '"')
    if not _is_verbatim(key) or value == "null" or quoted:
        return word
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"{key}='{escaped}'"


def _is_verbatim(key: str) -> bool:
    known = settings()
    return key in known and bool(known[key].metadata.get("verbatim"))


def _foreign_weights(override: Override) -> str | None:
    """The folder or Hub id in `model=…`, or None where it names a file in conf/model."""
    value, options = str(override.value()), group_options("model")
    if value in options:
        return None
    if "/" in value or value.startswith((".", "~")) or (value and Path(value).is_dir()):
        return value
    raise UserError(
        f"model={value}: neither one of {', '.join(options)}, nor a local folder, nor a Hub id"
        f" (owner/name).{did_you_mean(value, options)}"
    )


def _schedule_file(override: Override) -> dict[str, Any]:
    """Name and stages from a YAML file of the user's: a list of stages, or a mapping as in conf/schedule."""
    file = Path(str(override.value())).expanduser()
    try:
        tree = literal.parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"schedule={file}: no such file; allowed are {', '.join(group_options('schedule'))}") from None
    except Exception as error:  # the YAML parser has types of its own
        raise UserError(f"schedule={file}: cannot be read as YAML ({reason(error)})") from None
    values: Any = {"stages": tree} if isinstance(tree, list) else tree
    keys = [item.name for item in fields(ScheduleConfig)]
    if not isinstance(values, dict) or set(values) - set(keys) or not isinstance(values.get("stages"), list):
        raise UserError(f"schedule={file}: expected a list of stages, or a mapping with stages and {', '.join(keys)}")
    return literal.escaped({"schedule.name": file.stem} | {f"schedule.{key}": value for key, value in values.items()})


def _check_option(override: Override) -> None:
    group, value = override.key_or_group, override.value()
    options = group_options(group)
    if value not in options:
        raise UserError(f"{group}={value}: allowed are {', '.join(options)}.{did_you_mean(value, options)}")


def _check_key(override: Override) -> None:
    key, known = override.key_or_group, settings()
    if key == "prompt.kind":
        value = override.value()
        raise UserError(f"{override.input_line}: write prompt={value}, which brings its length and its optimizer too")
    if key in known:
        return
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    other = by_last.get(key.rpartition(".")[2])
    close = f" Did you mean '{other}'?" if other else did_you_mean(key, [*known, *GROUPS])
    hint = meant.hint(key) or close
    raise UserError(f"{override.input_line}: unknown key '{key}'.{hint or ' See fpt train --help.'}")


def _compose(words: list[str], fill: dict[str, Any]) -> RunConfig:
    schema = _schema()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            tree = compose("config", overrides=words)
        for key, value in fill.items():
            OmegaConf.update(tree, key, value, merge=False)
        return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(schema, tree)))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, words)) from None


@cache  # merging copies it
def _schema() -> DictConfig:
    """RunConfig with every group's defaults filled in, writable (OmegaConf locks frozen dataclasses).

    Hydra merges into plain defaults, the result into the typed schema: so every type error has one place.
    """
    schema = OmegaConf.structured(RunConfig)
    OmegaConf.set_readonly(schema, False)
    for item in fields(RunConfig):
        if isinstance(item.type, type) and issubclass(item.type, Group):
            schema[item.name] = OmegaConf.structured(item.type)
            OmegaConf.set_readonly(schema[item.name], False)
    ConfigStore.instance().store(name="schema", node=OmegaConf.to_container(schema))
    return cast(DictConfig, schema)


def _explain(error: Exception, words: list[str]) -> str:
    """One line for a failed merge: the typed override, and what its key takes."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", "") or "")
    typed = next((word for word in words if word.split("=", 1)[0] == key), key)
    if isinstance(cause, ValidationError) and key in settings():
        return f"{typed}: expected {type_in_words(key)}"
    return f"{typed}: {str(cause).splitlines()[0]}" if typed else str(cause).splitlines()[0]


def type_in_words(key: str) -> str:
    """What a key takes, in words."""
    kind = settings()[key].type
    names: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    names |= {list: "a list", dict: "a mapping", NoneType: "null"}
    parts = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return " or ".join(names[get_origin(part) or part] for part in parts)


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML, keys in the schema's order."""
    return literal.dump(asdict(config))


def read(text: str) -> RunConfig:
    """A resolved configuration, from the YAML of `to_yaml`."""
    return of_values(literal.parse(text))


def of_values(values: dict[str, Any]) -> RunConfig:
    """A resolved configuration, from its groups and keys as plain values."""
    return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(_schema(), literal.escaped(values))))
