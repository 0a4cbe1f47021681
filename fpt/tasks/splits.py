"""Which of a task's splits is asked for."""

from dataclasses import replace
from pathlib import Path

from fpt.config.run_config import RunConfig
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, did_you_mean
from fpt.runs.run import Run
from fpt.tasks.catalogue import data_of, is_own, rules_of
from fpt.tasks.task import TaskRules
from fpt.tasks.variants import BOTH


def validation_splits(rules: TaskRules) -> list[str]:
    """The names of a task's validation splits."""
    return [name for name in rules.records.splits if name != "train"]


def parts_of(split: str, rules: TaskRules) -> list[str]:
    """The splits that a validation split is made of: itself, or all of them."""
    return validation_splits(rules) if split == BOTH else [split]


def is_drawn(task: TaskConfig) -> bool:
    """Whether the examples to validate on are drawn from the training split, and the validation split is the test."""
    return task.protocol == "lpt"


def name_of_validation(task: TaskConfig) -> str:
    """What people call the examples that are validated on."""
    return "validation, drawn from training" if is_drawn(task) else task.valid_split


def check_validation_split(config: RunConfig, rules: TaskRules) -> None:
    """Refuse a validation split that the task does not have."""
    task, allowed = config.task, validation_splits(rules)
    if task.valid_split not in allowed and (task.valid_split != BOTH or len(allowed) < 2):
        raise UserError(f"task.valid_split={task.valid_split}: {task.name} has {' and '.join(allowed)}")
    _check_people(config, rules, "valid_split")


def _check_people(config: RunConfig, rules: TaskRules, key: str) -> None:
    """Refuse the split about things where customs hold, which are about people."""
    split = getattr(config.task, key)
    if (
        (split.endswith("mismatched") or split == BOTH)
        and data_of(config, rules) == "world"
        and rules.records.land is not None
    ):
        other = split.removesuffix("mismatched") + "matched"
        raise UserError(
            f"task.{key}={split}: a land's customs are about people alone; give {other}, or task.world=plain"
        )


def asked_test_split(config: RunConfig, rules: TaskRules) -> str | None:
    """The test split that is asked for, if one is."""
    task, tests = config.task, rules.records.tests
    own = is_own(task)
    if is_drawn(task):
        if own and (task.valid is None or task.test is not None):
            raise UserError(
                "task.protocol=lpt: the validation file is the test; give task.valid=FILE, and leave out task.test"
            )
        return task.valid_split
    name = "test" if own and task.test and task.test_split is None else task.test_split
    if name is None:
        return None
    key = f"task.test_split={name}"
    if own and not tests:
        raise UserError(f"{key}: for task=files give task.test=FILE, or leave it out")
    if name not in tests:
        raise UserError(f"{key}: {task.name} has {' and '.join(tests)}.{did_you_mean(name, tests)}")
    if name == task.test_split:
        _check_people(config, rules, "test_split")
    if not tests[name].hub and data_of(config, rules) == "hub":
        raise UserError(
            f"{key}: {task.name} has no public test split; leave it out, or give questions of yours as task=files"
            " with task.test=FILE"
        )
    return name


def with_split(config: RunConfig, split: str | None) -> RunConfig:
    """The configuration under which a split is read: a validation split's name, a test split's, or train."""
    rules = rules_of(config.task)
    if is_drawn(config.task):
        if split in (None, "train", "validation", "test"):
            return config
        raise UserError(
            f"split={split}: with task.protocol=lpt there are train, validation, which is drawn from the training"
            f" split, and test, which is {config.task.valid_split}"
        )
    only_valid = replace(config.task, test_split=None, test=None)
    valid = validation_splits(rules)
    if split is None or split == "train" or (split == "validation" and split not in valid):
        return replace(config, task=only_valid)
    if split in valid or (split == BOTH and len(valid) > 1):
        return replace(config, task=replace(only_valid, valid_split=split))
    if split in rules.records.tests:
        return replace(config, task=replace(config.task, test_split=split))
    allowed = ["train", *valid, *rules.records.tests]
    raise UserError(f"split={split}: {config.task.name} has {', '.join(allowed)}.{did_you_mean(split, allowed)}")


def without_training_file(config: RunConfig, split: str | None, run: Run | None) -> RunConfig:
    """The same, or with the validation file in the training file's place where a run's is gone and only scores count.

    What the training targets decided, the longest output, is in the run.
    """
    task = config.task
    if run is None or split == "train" or not is_own(task) or is_drawn(task) or None in (task.train, task.valid):
        return config
    longest = task.max_new_tokens or run.result.get("max_new_tokens")
    if task.train != run.config.task.train or Path(str(task.train)).expanduser().exists() or longest is None:
        return config
    return replace(config, task=replace(task, train=task.valid, shots=None, max_new_tokens=longest))
