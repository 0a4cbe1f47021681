"""Tasks whose answer is one of a few label words, as in tasks.yaml, or any number of them, as in files of one's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
OF_SETS = ("micro_f1", "macro_f1", "subset_accuracy")
COMMA = ", "  # between several labels
NONE = "none"  # what is said where there is no label, as a target cannot be empty


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


def multilabel_rules(words: Mapping[str, str], records: Origin, metric: str) -> TaskRules:
    """The rules of a task whose answers are labels in the order of `words` with commas between, or NONE."""
    if wrong := next((word for word in words.values() if "," in word or word.casefold() == NONE), None):
        why = f"with task.multilabel=true commas part labels, and {NONE} stands for no label; give another word"
        raise UserError(f"task.labels: the label word {wrong!r}: {why}")
    known = {word.casefold(): word for word in (*words.values(), NONE)}
    return replace(
        label_rules(Template(""), words, records, OF_SETS),
        multilabel=True,
        metric=metric,
        from_text=lambda text: joined(_labels_in(known, text)),
        score=partial(_set_scores, known),
        baseline=lambda train, valid: ("most common set of labels", _most_common_label(train, valid)[1]),
    )


def joined(labels: Texts) -> str:
    """The target or answer that consists of these labels."""
    return COMMA.join(labels) if labels else NONE


def _labels_in(known: Mapping[str, str], text: str) -> list[str]:
    """The labels that a text names, in their order, then its other parts; nothing only if it is NONE."""
    parts = {known.get(part.strip().casefold(), part.strip()) for part in text.split(",")}
    parts = parts - {""} or parts
    named = [label for label in known.values() if label in parts]
    return [] if parts == {NONE} else [*named, *sorted(parts.difference(named))]


def _set_scores(known: Mapping[str, str], answers: Texts, examples: Sequence[Example]) -> dict[str, float]:
    said, golds = ([set(_labels_in(known, text)) for text in texts] for texts in (answers, _golds(examples)))
    return metrics.set_scores(said, golds, [label for label in known.values() if label != NONE])


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
