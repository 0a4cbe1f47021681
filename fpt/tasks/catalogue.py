"""Finds a task's rules by its name, and where its data are and how many examples they have, without reading them."""

from dataclasses import replace

from fpt.config.run_config import RunConfig
from fpt.config.schema import TaskConfig
from fpt.errors import check_among
from fpt.tasks import own_task, variants
from fpt.tasks.benchmarks import RULES
from fpt.tasks.fields import readable
from fpt.tasks.labels import class_weights
from fpt.tasks.task import TaskRules

VALID_SHOTS = 1000  # drawn for validation from the training split, as in Liu et al. 2022
GENERATED = (4000, 500)  # training and validation examples of every generated task


def rules_of(task: TaskConfig) -> TaskRules:
    """The task's rules, changed as the user's settings ask."""
    rules = own_task.rules(task) if is_own(task) else _named_rules(task)
    for text in (rules.template.text, *rules.labels):
        readable(text, f"task={task.name}: {text!r}")
    for key in ("answer", "class_weights"):
        if getattr(task, key) not in ("generate", None) and not rules.classes:
            way_out = ", or give task.labels" if is_own(task) and not rules.multilabel else ""
            raise task.error(
                key, f"is for examples with one label each, unlike those of {task.name}; leave it out{way_out}"
            )
    class_weights(task, rules)
    return rules


def _named_rules(task: TaskConfig) -> TaskRules:
    check_among(task.name, RULES, f"task.name={task.name}: allowed are")
    own_task.check_unused(task)
    rules = RULES[task.name]
    if task.world != "plain" and rules.records.generated:
        rules = replace(rules, records=replace(rules.records, land=task.land or 0))
    elif task.land is not None:
        raise task.error("land", "only customs have lands; leave it out, or give task.world=customs")
    return variants.wanted(rules, task)


def is_own(task: TaskConfig) -> bool:
    """Whether the data are the user's own files: task=files, or another name that is not a built-in task's."""
    return task.name == "files" or (task.train is not None and task.name not in RULES)


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


def most_train_examples(config: RunConfig) -> int | None:
    """How many training examples there are at most; None where that is not known."""
    task = config.task
    if is_own(task):
        return task.train_examples
    rules = rules_of(task)
    if rules.each_gold:  # a record makes several examples
        return task.train_examples
    if task.shots is not None:
        return task.shots if task.protocol == "lpt" else task.shots * max(1, len(rules.labels))
    return _at_most(config, rules, "train", task.train_examples)


def most_valid_examples(config: RunConfig) -> int | None:
    """How many validation examples there are at most; None where that is not known."""
    task = config.task
    if task.protocol == "lpt":
        return task.valid_shots or VALID_SHOTS
    if is_own(task) or task.valid_split == variants.BOTH:
        return task.valid_examples if is_own(task) else None
    return _at_most(config, rules_of(task), "validation", task.valid_examples)


def _at_most(config: RunConfig, rules: TaskRules, split: str, limit: int | None) -> int | None:
    """The number of examples in a split, or `limit` if that is smaller; None where neither is known."""
    sizes = {"world": GENERATED, "hub": rules.records.sizes}.get(data_of(config, rules), (None, None))
    return min(filter(None, (limit, sizes[split == "validation"])), default=None)
