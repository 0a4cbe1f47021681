"""Weights of a label task's classes in the training loss (task.class_weights)."""

from collections import Counter
from collections.abc import Sequence

from fpt.config import label_words
from fpt.config.schema import TaskConfig
from fpt.errors import check_among
from fpt.tasks import fields, free_answers
from fpt.tasks.task import Example, TaskRules

KEY = "task.class_weights"
FORMS = f"expected balanced, or weights of labels, as in '{KEY}={{no: 1, yes: 2.5}}'"
LEAST, MOST = 1e-6, 1_000_000  # float32 holds these, and sums of their products with losses


def of(task: TaskConfig, rules: TaskRules, train: Sequence[Example]) -> dict[str, float]:
    """The classes' weights by label word; none if all examples weigh the same.

    Balanced, a class weighs the number of examples over that of classes and its own, as in scikit-learn; a class
    without examples has no weight.
    """
    if task.class_weights != "balanced":
        return given(task, rules)
    counts = Counter(example.golds[0] for example in train)
    return {label: len(train) / (len(counts) * counts[label]) for label in rules.labels if label in counts}


def given(task: TaskConfig, rules: TaskRules) -> dict[str, float]:
    """The weights that the user gives, checked, 1 for labels left out; none if they are balanced or not given."""
    typed = task.class_weights
    if typed and not rules.labels:
        raise task.error("class_weights", f"is for tasks with labels, and {task.name} has none; leave it out")
    if typed is None or typed == "balanced":
        return {}
    if not typed.startswith("{"):
        raise task.error("class_weights", FORMS)
    weights = dict[str, float]()
    for key, text in label_words.typed(typed, KEY, FORMS).items():
        label, weight = _label(key, rules), free_answers.number(text)
        if label in weights:
            raise task.error("class_weights", f"two keys are the label '{label}'; give one")
        if weight is None or not LEAST <= weight <= MOST:
            raise task.error("class_weights", f"expected a number from {LEAST} to {MOST:,} for {key}, not {text!r}")
        weights[label] = weight
    return {label: weights.get(label, 1.0) for label in rules.labels}


def _label(key: str, rules: TaskRules) -> str:
    """The label word that the key is, or whose value it is."""
    words = {fields.compared(fields.as_text(value)): word for value, word in rules.words.items()}
    words |= {word: word for word in rules.labels}
    found = [words[name] for name in (key, fields.compared(key)) if name in words]
    if not found:
        check_among(key, rules.labels, f"{KEY}: there is no label {key!r}; the task has")
    return found[0]
