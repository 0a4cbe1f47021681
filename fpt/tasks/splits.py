"""Works out where a task's data are, which of its splits the settings ask for, and how many examples these have."""

from dataclasses import replace

from fpt.config.run_config import RunConfig
from fpt.errors import check_among
from fpt.tasks.catalogue import is_own, rules_of
from fpt.tasks.task import TaskRules

GENERATED = (4000, 500)  # training and validation examples of every generated task


def data_of(config: RunConfig, rules: TaskRules) -> str:
    """Where the data are: 'world', 'hub' or a folder."""
    task = config.task
    is_generated = config.model.weights == "embedded" and rules.records.generated
    auto = "." if is_own(task) else "world" if is_generated else "hub"
    data = auto if task.data == "auto" else task.data
    if data == "world":
        return data
    for key in ("world", "land"):
        if getattr(task, key) is not None:
            given = "files of your own" if is_own(task) else rules.records.describe(data)
            raise task.error(
                key, f"is for generated data, and these are {given}; leave it out, or give task.data=world"
            )
    return data


def most_examples(config: RunConfig) -> tuple[int | None, int | None]:
    """How many training and validation examples there are at most; None where that is not known."""
    task, limits = config.task, (config.task.train_examples, config.task.valid_examples)
    if is_own(task):
        return limits
    rules = rules_of(task)
    sizes = {"world": GENERATED, "hub": rules.records.sizes}.get(data_of(config, rules), (None, None))
    train, valid = (min(filter(None, pair), default=None) for pair in zip(limits, sizes, strict=True))
    if rules.each_gold:  # a record makes several examples
        train = task.train_examples
    elif task.shots is not None:
        train = task.shots * max(1, len(rules.labels))
    return train, valid


def asked_test_split(config: RunConfig, rules: TaskRules) -> str | None:
    """The test split that the settings ask for; None: none."""
    task, tests, own = config.task, rules.records.tests, is_own(config.task)
    check_among(task.valid_split, rules.records.validations, f"task.valid_split={task.valid_split}: {task.name} has")
    split = "test" if own and task.test and task.test_split is None else task.test_split
    if split is None:
        return None
    if own and not tests:
        raise task.error("test_split", "for task=files give task.test=FILE, or leave it out")
    check_among(split, tests, f"task.test_split={split}: {task.name} has")
    if not rules.records.splits[split].hub and data_of(config, rules) == "hub":
        raise task.error("test_split", f"{task.name} has no public test split; leave it out, or give a folder with it")
    return split


def with_split(config: RunConfig, split: str | None) -> RunConfig:
    """The configuration changed so that `split` is read: train, a validation split or a test split."""
    records, task = rules_of(config.task).records, config.task
    if split in records.tests:
        return replace(config, task=replace(task, test_split=split))
    if split not in (None, "validation"):
        check_among(split, records.splits, f"split={split}: {task.name} has")
    valid_split = split if split in records.validations else task.valid_split
    return replace(config, task=replace(task, test_split=None, test=None, valid_split=valid_split))
