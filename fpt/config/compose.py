"""From conf/ and the command line's overrides, in Hydra's grammar, to the typed configuration.

DictConfig stops here: below this file every function receives the frozen group it needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from operator import attrgetter
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from fpt.config import label_words, literal, meant, overrides
from fpt.config.file_names import place
from fpt.config.keys import GROUPS, conf_dir, group_options, settings, type_in_words
from fpt.config.label_words import LABELS_FILE
from fpt.config.overrides import LABELS, Override
from fpt.config.run_config import RunConfig
from fpt.config.schema import Group, ScheduleConfig
from fpt.errors import UserError, did_you_mean, reason

LEARNING = ("prompt", "schedule", "optim", "recycle")


def load(words: Sequence[str], base: RunConfig | None = None) -> RunConfig:
    """Compose conf/ with overrides in Hydra's grammar, and check everything that needs no weights.

    With a `base`, groups and keys that no word names are as they are there.
    """
    typed = [overrides.parse(word) for word in words]
    keys = {override.key for override in typed}
    if base is not None:
        _check_use(typed)
    composed: list[str] = []  # what Hydra is told
    fill: dict[str, Any] = {}  # what is put in after composition, as it stands
    if base is not None:
        fill = {key: attrgetter(key)(base) for key in settings() if key.partition(".")[0] not in keys}
    for override in typed:
        key, value = override.key, override.value
        if key == "model" and (weights := _foreign_weights(override)) is not None:
            fill |= {"model.weights": weights, "model.name": place(weights, "model").resolve().name}
            composed.append("model=custom")
        elif key == "schedule" and str(value).endswith((".yaml", ".yml")):
            fill |= _schedule_file(override)
            composed.append("schedule=pt")
        elif key in GROUPS:
            _check_option(override)
            composed.append(f"{key}={value}")
        elif not override.is_literal:
            _check_key(override)
            composed.append(override.word)
    if "schedule.stages" in keys:
        fill.setdefault("schedule.name", "custom")
    tree = _compose(composed)
    labels = _labels(typed, fill.get(LABELS) or _labels_in_conf(tree, composed))
    fill = {key: value for key, value in fill.items() if key not in keys}
    fill |= {override.key: override.value for override in typed if override.is_literal and override.key in settings()}
    return _typed(tree, {**fill, LABELS: labels, LABELS_FILE: None}, words)


def _check_use(typed: Sequence[Override]) -> None:
    """Refuse what a prompt that is learned can no longer be: it would be ignored."""
    for override in typed:
        if override.key == "experiment":
            raise UserError("experiment=…: sets keys of several groups, and is for a new run; give the keys themselves")
        if override.key.partition(".")[0] in LEARNING or override.key in ("train.updates", "train.epochs"):
            raise UserError(f"{override.word}: says how a prompt is learned, and the run's prompt is; leave it out")


def _labels(typed: Sequence[Override], before: Mapping[str, str] | None) -> dict[str, str] | None:
    """The label words that are typed, in one of three ways, or those before; one alone changes these."""
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


def _labels_in_conf(tree: DictConfig, words: Sequence[str]) -> dict[str, str] | None:
    """The label words of the files in conf/ that were composed, read anew as texts."""
    if tree.task.get("labels") is None:
        return None
    labels = None
    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        choices = compose("config", overrides=list(words), return_hydra_config=True).hydra.runtime.choices
    for group, option in choices.items():
        file = conf_dir() / group / f"{option}.yaml"
        if group in GROUPS and file.is_file():
            values = literal.texts_in(file)
            own = (values if group == "task" else values.get("task", {})).get("labels")
            labels = labels if own is None else label_words.of_tree(own, f"{file}: task.labels")
    return labels


def _foreign_weights(override: Override) -> str | None:
    """The folder or Hub id in `model=…`, or None where it names a file in conf/model."""
    value, options = str(override.value), group_options("model")
    if value in options:
        return None
    if "/" in value or value.startswith((".", "~")) or (value and place(value, "model").is_dir()):
        return value
    raise UserError(
        f"model={value}: neither one of {', '.join(options)}, nor a local folder, nor a Hub id"
        f" (owner/name).{did_you_mean(value, options)}"
    )


def _schedule_file(override: Override) -> dict[str, Any]:
    """Name and stages from a YAML file of the user's: a list of stages, or a mapping as in conf/schedule."""
    file = place(str(override.value), "schedule")
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


def _check_option(override: Override) -> None:
    group, value = override.key, override.value
    options = group_options(group)
    if value not in options:
        raise UserError(f"{group}={value}: allowed are {', '.join(options)}.{did_you_mean(value, options)}")


def _check_key(override: Override) -> None:
    key, known = override.key, settings()
    if key == "prompt.kind":
        way = f"write prompt={override.value}, which brings its length and its optimizer too"
        raise UserError(f"{override.word}: {way}")
    if key in known:
        return
    by_last = {name.rpartition(".")[2]: name for name in reversed(known)}
    other = by_last.get(key.rpartition(".")[2])
    close = f" Did you mean '{other}'?" if other else did_you_mean(key, [*known, *GROUPS])
    hint = meant.hint(key) or close
    raise UserError(f"{override.word}: unknown key '{key}'.{hint or ' See fpt train --help.'}")


def _compose(words: list[str]) -> DictConfig:
    _schema()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return compose("config", overrides=words)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, words)) from None


def _typed(tree: DictConfig, fill: Mapping[str, Any], words: Sequence[str]) -> RunConfig:
    """The tree, and values that hold nothing to resolve, as a configuration."""
    try:
        for key, value in fill.items():
            OmegaConf.update(tree, key, literal.escaped(value), merge=False)
        return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(_schema(), tree)))
    except OmegaConfBaseException as error:
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


def _explain(error: Exception, words: Sequence[str]) -> str:
    """One line for a failed merge: the typed override, and what its key takes."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", "") or "")
    typed = next((word for word in words if word.split("=", 1)[0] == key), key)
    if isinstance(cause, ValidationError) and key in settings():
        return f"{typed}: expected {type_in_words(key)}"
    return f"{typed}: {str(cause).splitlines()[0]}" if typed else str(cause).splitlines()[0]


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML, keys in the schema's order."""
    return literal.dump(asdict(config))


def read(text: str) -> RunConfig:
    """A resolved configuration, from the YAML of `to_yaml`."""
    return of_values(literal.parse(text))


def of_values(values: dict[str, Any]) -> RunConfig:
    """A resolved configuration, from its groups and keys as plain values."""
    return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(_schema(), literal.escaped(values))))
