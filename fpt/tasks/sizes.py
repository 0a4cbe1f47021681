"""How many training examples a task has, without reading them."""

from fpt.config.schema import RunConfig
from fpt.tasks.catalogue import data_of, is_own, rules_of


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
