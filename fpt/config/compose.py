"""Composes the typed configuration from conf/, which Hydra reads, and the command line's overrides."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fpt.config import literal
from fpt.config.keys import GROUPS, YAML, Override, conf_dir, group_options, group_types, parse, settings
from fpt.config.mixture import MIXTURE, tasks_of, with_limits
from fpt.config.run_config import RunConfig
from fpt.config.schema import ScheduleConfig, place
from fpt.errors import UserError, check_among, did_you_mean, reason

LEARNING = ("prompt", "schedule", "optim", "recycle")
ONLY_LEARNING = ("train.updates", "train.epochs", "task.class_weights", "task.weights")


def load(words: Sequence[str], base: RunConfig | None = None) -> RunConfig:
    """Compose conf/ with overrides, and check everything that needs no weights.

    With a `base`, groups and keys that no override names keep the values that they have in it; if it is of a mixture,
    task= may name one of the mixture's tasks.
    """
    typed = {override.key: override for override in map(parse, words)}
    if "task.of" in typed:
        typed.setdefault("task", parse(f"task={MIXTURE}"))
    options: list[str] = []  # of groups, for Hydra
    values: dict[str, Any] = {}  # put in after composition
    if base is not None:
        _check_use(typed.values())
        if base.task.of and "task" in typed and (part := tasks_of(base).get(typed["task"].value)):
            base = part
            del typed["task"]
        values = {key: attrgetter(key)(base) for key in settings() if key.partition(".")[0] not in typed}
    for override in typed.values():
        if override.key in GROUPS:
            option, own = _option(override.key, override.value)
            options.append(option)
            values |= own
    if "schedule.stages" in typed:
        values.setdefault("schedule.name", "custom")
    values |= {key: override.value for key, override in typed.items() if key in settings()}
    tree = _compose(options)
    for key, value in values.items():
        group, _, name = key.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[name] = value
    config = from_values(tree)
    return with_limits(config, typed) if "task.of" in typed else config


def _check_use(typed: Iterable[Override]) -> None:
    """Refuse settings that say how a prompt is learned: a prompt that is already learned would ignore them."""
    for override in typed:
        if override.key == "experiment":
            raise UserError("experiment=…: sets keys of several groups, and is for a new run; give the keys themselves")
        if override.key.partition(".")[0] in LEARNING or override.key in ONLY_LEARNING:
            raise UserError(f"{override.word}: says how a prompt is learned, and the run's prompt is; leave it out")


def _option(group: str, value: str) -> tuple[str, dict[str, Any]]:
    """A group's option for Hydra, and the values of a model or a schedule that has no file in conf/."""
    options = group_options(group)
    if group == "schedule" and value.endswith(YAML):
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


def _compose(options: list[str]) -> dict[str, Any]:
    """The values in conf/ under these options of groups, by group and key."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
        return cast(dict[str, Any], OmegaConf.to_container(compose("config", overrides=options), resolve=True))


def from_values(values: Mapping[str, Any]) -> RunConfig:
    """Make a configuration from plain values by group and key; what is left out has its default."""
    groups = {name: kind(**values.get(name, {})) for name, kind in group_types().items()}
    return RunConfig(**{**values, **groups})
