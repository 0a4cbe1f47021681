"""Works out which of a task's splits the settings ask for."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from fpt.config.run_config import RunConfig
from fpt.config.schema import HUB, TaskConfig
from fpt.errors import UserError, check_among
from fpt.runs.run import Run
from fpt.tasks.catalogue import data_of, is_own, rules_of
from fpt.tasks.task import TaskRules
from fpt.tasks.variants import BOTH


def validation_splits(rules: TaskRules) -> list[str]:
    """The names of a task's validation splits, followed by BOTH where there are several."""
    names = [name for name in rules.records.splits if name != "train"]
    return [*names, BOTH] if len(names) > 1 else names


def parts_of(split: str, rules: TaskRules) -> list[str]:
    """The splits that a split combines: for BOTH all validation splits, otherwise the split itself."""
    return validation_splits(rules)[:-1] if split == BOTH else [split]


def is_drawn(task: TaskConfig) -> bool:
    """Whether validation examples are drawn from training, and the validation split serves as the test split."""
    return task.protocol == "lpt"


def name_of_validation(task: TaskConfig) -> str:
    """The validation examples' name, as shown to the user."""
    return "validation, drawn from training" if is_drawn(task) else task.valid_split


def check_validation_split(config: RunConfig, rules: TaskRules) -> None:
    """Refuse a validation split that the task does not have."""
    _check_split(config, rules, "valid_split", config.task.valid_split, validation_splits(rules))


def _check_split(config: RunConfig, rules: TaskRules, key: str, split: str, known: Collection[str]) -> None:
    """Refuse an unknown split, and in the customs world one about things, as customs are about people alone."""
    check_among(split, known, f"task.{key}={split}: {config.task.name} has")
    is_about_things = split.endswith("mismatched") or split == BOTH
    if is_about_things and rules.records.land is not None and data_of(config, rules) == "world":
        other = "matched" if split == BOTH else split.replace("mismatched", "matched")
        raise config.task.error(key, f"a land's customs are about people alone; give {other}, or task.world=plain")


def asked_test_split(config: RunConfig, rules: TaskRules) -> str | None:
    """The test split that the settings ask for; None: none."""
    task, tests, own = config.task, rules.records.tests, is_own(config.task)
    if is_drawn(task):
        if own and (task.valid is None or task.test is not None):
            raise task.error("protocol", "the validation file is the test; give task.valid=FILE, and no task.test")
        return task.valid_split
    split = "test" if own and task.test and task.test_split is None else task.test_split
    if split is None:
        return None
    if own and not tests:
        raise task.error("test_split", "for task=files give task.test=FILE, or leave it out")
    _check_split(config, rules, "test_split", split, tests)
    if not tests[split].hub and data_of(config, rules) == "hub":
        raise task.error("test_split", f"{task.name} has no public test split; leave it out, or give a folder with it")
    return split


def with_split(config: RunConfig, split: str | None) -> RunConfig:
    """The configuration changed so that `split` is read: train, a validation split or a test split."""
    rules, task = rules_of(config.task), config.task
    if is_drawn(task):
        if split in (None, "train", "validation", "test"):
            return config
        of = f"train, validation (drawn from it) and test (the split {task.valid_split})"
        raise UserError(f"split={split}: with task.protocol=lpt there are {of}")
    valid, tests = validation_splits(rules), rules.records.tests
    if split in tests:
        return replace(config, task=replace(task, test_split=split))
    if split not in (None, "validation"):
        check_among(split, ["train", *valid, *tests], f"split={split}: {task.name} has")
    valid_split = split if split in valid else task.valid_split
    return replace(config, task=replace(task, test_split=None, test=None, valid_split=valid_split))


def without_training_file(config: RunConfig, split: str | None, run: Run | None) -> RunConfig:
    """Replace a run's training file that no longer exists by the validation file, where only scores are wanted.

    All that scoring takes from training targets is the longest output, and the run has recorded that.
    """
    task = config.task
    if run is None or split == "train" or not is_own(task) or is_drawn(task) or None in (task.train, task.valid):
        return config
    longest = task.max_new_tokens or run.result.get("max_new_tokens")
    is_there = str(task.train).startswith(HUB) or Path(str(task.train)).expanduser().exists()
    if task.train != run.config.task.train or is_there or longest is None:
        return config
    return replace(config, task=replace(task, train=task.valid, shots=None, max_new_tokens=longest))
