"""Tasks whose answer is one of a few label words: all rows of tasks.yaml that have words."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fpt.errors import UserError
from fpt.tasks import benchmarks, metrics, table
from fpt.tasks.fields import Record, as_text
from fpt.tasks.origins import Origin
from fpt.tasks.table import TABLE
from fpt.tasks.task import Example, Golds, TaskRules, Template

Texts = Sequence[str]
# Metrics of answers and golds, given the labels and each answer's group; F1 is that of the second label.
MEASURES: dict[str, Callable[[Texts, Texts, Texts, Texts], float]] = {
    "accuracy": lambda answers, golds, *_: metrics.accuracy(answers, golds),
    "f1": lambda answers, golds, labels, _: metrics.f1(answers, golds, labels[1]),
    "macro_f1": lambda answers, golds, labels, _: metrics.macro_f1(answers, golds, labels),
    "matthews": lambda answers, golds, labels, _: metrics.matthews(answers, golds, labels),
    "grouped_exact_match": lambda answers, golds, _, groups: metrics.grouped_exact_match(answers, golds, groups),
}
MEASURES["f1a"] = MEASURES["f1"]  # MultiRC's: over all answers of all questions
OF_TWO_LABELS = ("f1", "f1a", "matthews")


def label_rules(template: Template, words: Mapping[Any, str], records: Origin, metric_names: Texts) -> TaskRules:
    """The rules of a label task; `words` maps each value of a record's label to its word. The main metric is first."""
    labels = tuple(dict.fromkeys(words.values()))
    return TaskRules(
        records=records,
        template=template,
        answer=partial(_answer, words),
        words=words,
        metrics=tuple(metric_names),
        metric=metric_names[0],
        from_text=partial(_from_text, {label.casefold(): label for label in labels}),
        score=partial(_score, metric_names, labels),
        correct=lambda answer, example: answer in example.golds,
        baseline=_most_common_label,
    )


def _score(metric_names: Texts, labels: Texts, answers: Texts, examples: Sequence[Example]) -> dict[str, float]:
    golds, groups = _golds(examples), [example.group for example in examples]
    return {name: MEASURES[name](answers, golds, labels, groups) for name in metric_names}


def _answer(words: Mapping[Any, str], record: Record, where: str) -> tuple[str, Golds]:
    label = record.get("label")
    # JSON's true equals Python's 1, which is how the Hub writes it.
    word = words.get(label) if isinstance(label, str | int) else None
    if word is None:
        allowed = [value for value in words if isinstance(value, str) == isinstance(label, str)] or words
        fault = "is missing" if "label" not in record else f"is {label!r:.100}"
        raise UserError(f"{where}: 'label' {fault}; expected {' or '.join(map(as_text, allowed))}")
    return word, (word,)


def _from_text(words: Mapping[str, str], text: str) -> str:
    """The label word that equals the answer without regard to case and surrounding space; else the answer, stripped."""
    return words.get(text.strip().casefold(), text.strip())


def _golds(examples: Sequence[Example]) -> list[str]:
    return [example.golds[0] for example in examples]


def _most_common_label(train: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    return "most common label", [metrics.most_common(_golds(train))] * len(valid)


def _rules(name: str, row: dict[str, Any]) -> TaskRules:
    """The rules of a task in the table."""
    prepare = {"prepare": PREPARED[name]} if name in PREPARED else {}
    records = table.origin_of(row, benchmarks.reader(name, row["records"]), **prepare)
    return label_rules(table.template_of(row), table.words_of(row), records, tuple(row.get("metrics", ["accuracy"])))


PREPARED = {"multirc": benchmarks.without_markup, "wsc": benchmarks.with_marked_spans}
RULES = {name: _rules(name, row) for name, row in TABLE.items() if table.words_of(row)}
