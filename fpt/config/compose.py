"""Composes the typed configuration from conf/ and the command line's overrides, in Hydra's grammar.

No DictConfig leaves this file: all other functions receive the frozen group of settings that they need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from fpt.config import label_words, literal, overrides
from fpt.config.keys import GROUPS, conf_dir, group_options, hint, settings, type_in_words
from fpt.config.label_words import LABELS, LABELS_FILE
from fpt.config.overrides import Override
from fpt.config.run_config import RunConfig
from fpt.config.schema import Group, ScheduleConfig, place
from fpt.errors import UserError, check_among, did_you_mean, reason

LEARNING = ("prompt", "schedule", "optim", "recycle")
ONLY_LEARNING = ("train.updates", "train.epochs", "task.class_weights")


def load(words: Sequence[str], base: RunConfig | None = None) -> RunConfig:
    """Compose conf/ with overrides in Hydra's grammar, and check everything that needs no weights.

    With a `base`, groups and keys that no override names keep the values that they have in it.
    """
    typed = [overrides.parse(word) for word in words]
    keys = {override.key for override in typed}
    values: dict[str, Any] = {}  # put in after composition, unresolved
    if base is not None:
        _check_use(typed)
        values = {key: attrgetter(key)(base) for key in settings() if key.partition(".")[0] not in keys}
    composed: list[str] = []  # the overrides for Hydra
    for override in typed:
        if override.key in GROUPS:
            option, own = _option(override)
            composed.append(option)
            values |= own
        elif not override.is_literal:
            _check_key(override)
            composed.append(override.word)
    if "schedule.stages" in keys:
        values.setdefault("schedule.name", "custom")
    tree = _compose(composed)
    labels = _labels(typed, values.get(LABELS) or _labels_in_conf(tree))
    values = {key: value for key, value in values.items() if key not in keys}
    values |= {override.key: override.value for override in typed if override.is_literal and override.key in settings()}
    return _typed(tree, {**values, LABELS: labels, LABELS_FILE: None}, words)


def _check_use(typed: Sequence[Override]) -> None:
    """Refuse settings that say how a prompt is learned: a prompt that is already learned would ignore them."""
    for override in typed:
        if override.key == "experiment":
            raise UserError("experiment=…: sets keys of several groups, and is for a new run; give the keys themselves")
        if override.key.partition(".")[0] in LEARNING or override.key in ONLY_LEARNING:
            raise UserError(f"{override.word}: says how a prompt is learned, and the run's prompt is; leave it out")


def _labels(typed: Sequence[Override], before: Mapping[str, str] | None) -> dict[str, str] | None:
    """The label words as typed, in one of three ways, or those `before`; task.labels.LABEL=word changes one."""
    prefix = f"{LABELS}."
    ways = {override.key: override.value for override in typed if override.key in (LABELS, LABELS_FILE)}
    alone = {override.key.removeprefix(prefix): override for override in typed if override.key.startswith(prefix)}
    named = [*ways, *[f"{prefix}LABEL"][: len(alone)]]
    if len(named) > 1:
        raise UserError(f"{'=… and '.join(named)}=… both name label words; give one of them")
    if alone:
        return {**(before or {}), **{label: str(override.value) for label, override in alone.items()}}
    if file := ways.get(LABELS_FILE):
        return label_words.of_file(file)
    labels = ways.get(LABELS, before)
    return None if labels is None else dict(labels)


def _labels_in_conf(tree: DictConfig) -> dict[str, str] | None:
    """The label words in files of conf/; words that YAML does not read as texts are refused and must be quoted."""
    task: Any = OmegaConf.to_container(tree.task)
    labels = task.get("labels")
    return labels and label_words.of_tree(labels, "task.labels in conf/, to be quoted")


def _option(override: Override) -> tuple[str, dict[str, Any]]:
    """A group's option for Hydra, and the values of a model or a schedule that has no file in conf/."""
    group, value = override.key, str(override.value)
    options = group_options(group)
    if group == "schedule" and value.endswith((".yaml", ".yml")):
        return "schedule=pt", _schedule_file(place(value, group))
    if value in options:
        return f"{group}={value}", {}
    if group != "model":
        check_among(value, options, f"{group}={value}: allowed are")
    if "/" in value or value.startswith((".", "~")) or (value and place(value, group).is_dir()):
        return "model=custom", {"model.weights": value, "model.name": place(value, group).resolve().name}
    allowed = f"{', '.join(options)}, nor a local folder, nor a Hub id (owner/name)"
    raise UserError(f"model={value}: neither one of {allowed}.{did_you_mean(value, options)}")


def _schedule_file(file: Path) -> dict[str, Any]:
    """Name and stages from a YAML file of the user's: a list of stages, or a mapping as in conf/schedule."""
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
    return {"schedule.name": file.stem} | {f"schedule.{key}": value for key, value in values.items()}


def _check_key(override: Override) -> None:
    key = override.key
    if key == "prompt.kind":
        raise UserError(f"{override.word}: write prompt={override.value}, which brings its length and optimizer too")
    if key not in settings():
        raise UserError(f"{override.word}: unknown key '{key}'.{hint(key) or ' See fpt train --help.'}")


def _compose(words: list[str]) -> DictConfig:
    _schema()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return compose("config", overrides=words)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, words)) from None
    except RecursionError as error:
        raise overrides.unreadable(max(words, key=len), error) from None


def _typed(tree: DictConfig, fill: Mapping[str, Any], words: Sequence[str]) -> RunConfig:
    """Merge a composed tree and further values, which are not resolved, into the typed configuration."""
    try:
        for key, value in fill.items():
            OmegaConf.update(tree, key, literal.escaped(value), merge=False)
        return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(_schema(), tree)))
    except OmegaConfBaseException as error:
        raise UserError(_explain(error, words)) from None


@cache  # merging copies it
def _schema() -> DictConfig:
    """RunConfig with every group's defaults filled in, writable (OmegaConf locks frozen dataclasses).

    Hydra merges into plain defaults, and the result is merged into the typed schema: all type errors arise there.
    """
    schema = OmegaConf.structured(RunConfig)
    OmegaConf.set_readonly(schema, False)
    for item in fields(RunConfig):
        if isinstance(item.type, type) and issubclass(item.type, Group):
            schema[item.name] = OmegaConf.structured(item.type)
            OmegaConf.set_readonly(schema[item.name], False)
    ConfigStore.instance().store(name="schema", node=OmegaConf.to_container(schema))
    return cast(DictConfig, schema)


def _explain(error: Exception, words: Sequence[str]) -> str:
    """The error message for a failed merge: the override as typed, and what its key takes."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", "") or "")
    typed = next((word for word in words if word.split("=", 1)[0] == key), key)
    if isinstance(cause, ValidationError) and key in settings():
        return f"{typed}: expected {type_in_words(key)}"
    return f"{typed}: {str(cause).splitlines()[0]}" if typed else str(cause).splitlines()[0]


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML, keys in the schema's order."""
    return literal.dump(asdict(config))


def from_yaml(text: str) -> RunConfig:
    """Read a resolved configuration from the YAML that `to_yaml` wrote."""
    return from_values(literal.parse(text))


def from_values(values: dict[str, Any]) -> RunConfig:
    """Make a resolved configuration from its groups and keys as plain values."""
    return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(_schema(), literal.escaped(values))))
