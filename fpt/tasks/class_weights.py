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


def of(task: TaskConfig, rules: TaskRules, train: Sequence[Example] = ()) -> dict[str, float]:
    """The classes' weights by label word, as given, or balanced over these examples; none if all weigh the same.

    Balanced, a class weighs the number of examples over that of classes and its own, as in scikit-learn; a class
    without examples has no weight.
    """
    if task.class_weights is None:
        return {}
    if task.class_weights == "balanced":
        counts = Counter(example.golds[0] for example in train)
        return {label: len(train) / (len(counts) * counts[label]) for label in rules.labels if label in counts}
    if not task.class_weights.startswith("{"):
        raise task.error("class_weights", FORMS)
    given = _given(task, label_words.typed(task.class_weights, KEY, FORMS), rules)
    return {label: given.get(label, 1.0) for label in rules.labels}


def _given(task: TaskConfig, typed: dict[str, str], rules: TaskRules) -> dict[str, float]:
    """The typed weights by label word; a label is named by its word or by a value of the data."""
    word_of = {fields.compared(fields.as_text(value)): word for value, word in rules.words.items()}
    word_of |= {fields.compared(word): word for word in rules.labels}
    weights = dict[str, float]()
    for key, text in typed.items():
        name, weight = fields.compared(key), free_answers.number(text)
        check_among(name, word_of, f"{KEY}: there is no label {key!r}; there are")
        if word_of[name] in weights:
            raise task.error("class_weights", f"two keys are the label '{word_of[name]}'; give one")
        if weight is None or not LEAST <= weight <= MOST:
            raise task.error("class_weights", f"expected a number from {LEAST} to {MOST:,} for {key}, not {text!r}")
        weights[word_of[name]] = weight
    return weights
