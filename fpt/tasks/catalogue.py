"""Which tasks there are, which of them is meant, where its data are, and how many, without reading them."""

from dataclasses import replace

from fpt.config.run_config import RunConfig
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, did_you_mean
from fpt.tasks import labels, own_task, ratings, reading, summary
from fpt.tasks.task import TaskRules

RULES: dict[str, TaskRules] = {**labels.RULES, **ratings.RULES, **reading.RULES, **summary.RULES}


def rules_of(task: TaskConfig) -> TaskRules:
    """The task's rules, with the user's template where there is one.

    Raises:
        UserError: no such task, or a setting that it does not have.
    """
    if is_own(task):
        if task.template is not None:
            raise UserError("task.template is for tasks that have one of their own; for task=files give task.source")
        return own_task.rules(task)
    if task.name not in RULES:
        raise UserError(f"task.name={task.name}: allowed are {', '.join(RULES)}.{did_you_mean(task.name, RULES)}")
    own_task.check_unused(task)
    rules = RULES[task.name]
    if task.template is None:
        return rules
    template = replace(rules.template, text=task.template)
    template.check("task.template", rules.template.fields, task.name)
    return replace(rules, template=template)


def is_own(task: TaskConfig) -> bool:
    """Whether the data are the user's: task=files, under whatever name."""
    return task.name == "files" or (task.train is not None and task.name not in RULES)


def data_of(config: RunConfig, rules: TaskRules) -> str:
    """Where the data are: 'world', 'hub' or a folder."""
    if is_own(config.task):
        return "."
    is_generated = config.model.weights == "embedded" and rules.records.generated
    return ("world" if is_generated else "hub") if config.task.data == "auto" else config.task.data


def most_train_examples(config: RunConfig) -> int | None:
    """How many training examples there are at most; None where that is not known."""
    task = config.task
    if is_own(task):
        return task.train_examples
    rules = rules_of(task)
    data = data_of(config, rules)
    if task.shots is not None and not rules.each_gold:
        return task.shots * max(1, len(rules.labels))
    if rules.each_gold or data not in ("world", "hub"):
        return task.train_examples
    if data == "world":  # which makes as many as are asked for
        from fpt.tasks.world.records import SIZES

        return task.train_examples or SIZES["train"]
    return min(filter(None, (task.train_examples, rules.records.num_train)), default=None)
