"""A mixture (task=mixture): several tasks that one prompt learns, each with settings of its own, and their weights."""

from collections.abc import Container, Sequence
from dataclasses import fields, replace
from typing import Any

from fpt.config import literal
from fpt.config.keys import YAML, conf_dir, group_options
from fpt.config.run_config import RunConfig
from fpt.config.schema import OF_ONE, TaskConfig, place
from fpt.config.stored import with_paths
from fpt.errors import UserError, check_among, reason

MIXTURE, OWN = "mixture", "files"  # options of conf/task that are not tasks by themselves
LIMITS = ("source_length", "target_length")  # those of the mixture, whose batches have examples of all tasks
LEAST, MOST = 1e-6, 1e6  # the limits of weights
TEMPLATES = ("source", "target", "template")


def tasks_of(config: RunConfig) -> dict[str, RunConfig]:
    """The configuration of each task of a mixture by the task's name; of any other task it is `config` itself.

    What a task sets goes before what the mixture sets for all. In a folder of data each task has one of its own.
    """
    task, typed = config.task, f"task.of={config.task.of}".replace("'", "")
    if task.of is None:
        return {task.name: config}
    if task.name in group_options("task") and task.name != MIXTURE:
        raise UserError(f"{typed}: is for task=mixture, and this is task={task.name}; leave one of them out")
    shared = {item.name: getattr(task, item.name) for item in fields(task) if item.metadata.get("shared")}
    limits = {key: shared[key] for key in LIMITS}
    tasks: dict[str, RunConfig] = {}
    for given in task.of:
        values = _values(str(given), typed)
        if "data" not in values and shared["data"] not in ("auto", "world", "hub"):
            values["data"] = "auto" if "train" in values else f"{shared['data']}/{values['name']}"
        try:
            own = replace(config, task=TaskConfig(**{**shared, **values, **limits}))
        except UserError as error:
            quotes = any(isinstance(values.get(key), dict) for key in TEMPLATES)
            hint = "; a text that begins with { stands in quotes there" if quotes else ""
            raise UserError(f"{typed}: {given}: {error}{hint}") from None
        if (name := own.task.name) in tasks:
            raise UserError(f"{typed}: two tasks are called {name}; leave one out, or give it another name")
        tasks[name] = own
    if len(tasks) < 2:
        raise UserError(f"{typed}: expected two tasks or more, as in task.of=[boolq,mnli]; for one there is task=NAME")
    weights_of(task, list(tasks))
    return tasks


def with_limits(config: RunConfig, typed: Container[str]) -> RunConfig:
    """The configuration of a mixture with the longest limits of its tasks, but where limits were typed."""
    tasks = [_values(str(given), f"task.of={config.task.of}".replace("'", "")) for given in config.task.of or ()]
    for key in LIMITS:
        own = [values.get(key, getattr(config.task, key)) for values in tasks]
        if own and f"task.{key}" not in typed and all(isinstance(limit, int) for limit in own):
            config = replace(config, task=replace(config.task, **{key: max(own)}))
    return config


def _values(given: str, typed: str) -> dict[str, Any]:
    """The settings of a task in conf/task, or in a YAML file of the user's, whose paths start in the file's folder."""
    known = [name for name in group_options("task") if name not in (MIXTURE, OWN)]
    values, option = dict[str, Any](), given
    if given.endswith(YAML):
        file = place(given, "task.of")
        try:
            values = {"name": file.stem, **(literal.parse(file.read_text(encoding="utf-8")) or {})}
            values = with_paths({"task": values}, lambda path: str(file.parent / path))["task"]
        except FileNotFoundError:
            raise UserError(f"{typed}: {given}: no such file") from None
        except Exception as error:  # the YAML parser has types of its own
            why = f"cannot be read as settings, such as 'train: faq.jsonl' ({reason(error)})"
            raise UserError(f"{typed}: {given} {why}") from None
        if isinstance(labels := values.get("labels"), list):
            values["labels"] = {str(label) if isinstance(label, list | dict) else label: label for label in labels}
        option = values["name"] if values["name"] in known else OWN
    else:
        check_among(given, [*known, "FILE.yaml with settings of your own task"], f"{typed}: allowed are")
    values = {**literal.own_table(conf_dir() / "task" / f"{option}.yaml"), **values}
    allowed = [item.name for item in fields(TaskConfig) if item.name not in OF_ONE]
    for key in values:
        check_among(key, allowed, f"{typed}: {given} sets {key}; what a task of a mixture can set is")
    return values


def weights_of(task: TaskConfig, names: Sequence[str]) -> list[float] | None:
    """What each task of a mixture weighs; None: as much as it has training examples."""
    given, typed = task.weights, f"task.weights={task.weights}".replace("'", "")
    if given is None:
        return None
    if isinstance(given, list) and len(given) == len(names):
        given = dict(zip(names, given, strict=True))
    if not isinstance(given, dict) or set(given) != set(names):
        forms = f"as in [1,2] or {{{names[0]}: 1, …}}"
        raise UserError(f"{typed}: expected a number for each of {', '.join(names)}, {forms}")
    for name, weight in given.items():
        if type(weight) not in (int, float) or not LEAST <= weight <= MOST:
            raise UserError(f"{typed}: expected a number from {LEAST:f} to {MOST:,.0f} for {name}, not {weight}")
    return [float(given[name]) for name in names]
