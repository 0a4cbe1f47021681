"""The forms of answers: one of a few label words or several of them, free text, a number; and what labels weigh."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean, mode

from fpt.config import literal
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, check_among
from fpt.tasks import metrics
from fpt.tasks.fields import Record, compared
from fpt.tasks.metrics import SQUAD, WRITTEN, Form
from fpt.tasks.origins import Origin
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
OF_SETS = ("micro_f1", "macro_f1", "subset_accuracy")
COMMA = ", "  # between several labels
NONE = "none"  # what is said where there is no label, as a target cannot be empty
LABEL = Template("{label}")  # the target of every built-in label task
WEIGHTS = "task.class_weights"
FORMS = f"expected balanced, or weights of labels, as in '{WEIGHTS}={{no: 1, yes: 2.5}}'"
LEAST, MOST = 1e-6, 1_000_000  # float32 holds these, and sums of their products with losses
Limits = tuple[float, float] | None  # the least and the greatest number; None: any
Score = Callable[[Sequence[str], Sequence[Example]], dict[str, float]]
OF_NUMBERS = ("pearson", "spearman")


def _check_spelling(words: Iterable[str]) -> None:
    """Refuse words that no answer could match: answers are compared without case and outer white space."""
    spelt: dict[str, str] = {}
    for word in words:
        if not word or word != word.strip():
            raise UserError(f"task.labels: the label word {word!r} is empty, or has white space around it")
        if (other := spelt.setdefault(word.casefold(), word)) != word:
            why = "differ only in case, in which answers are not compared; spell them alike, or give two words"
            raise UserError(f"task.labels: {other!r} and {word!r} {why}")


def label_rules(
    template: Template, words: Mapping[str, str], records: Origin, metric_names: Texts, target: Template = LABEL
) -> TaskRules:
    """The rules of a label task. The main metric is first.

    `words` has the label word of each value, in its `compared` form, that the target may have.
    """
    labels = tuple(dict.fromkeys(words.values()))
    _check_spelling(labels)
    spelt = {label.casefold(): label for label in labels}
    return TaskRules(
        records=records,
        template=template,
        answer=partial(_answer, words, target),
        answer_fields=target.fields,
        words=words,
        metrics=tuple(metric_names),
        metric=metric_names[0],
        from_text=lambda text: spelt.get(text.strip().casefold(), text.strip()),
        score=partial(_score, metric_names, labels),
        correct=lambda answer, example: answer in example.golds,
        baseline=partial(most_common, "label"),
    )


def multilabel_rules(
    template: Template, words: Mapping[str, str], records: Origin, metric: str, target: Template
) -> TaskRules:
    """The rules of a task whose answers are labels in the order of `words` with commas between, or NONE."""
    if wrong := next((word for word in words.values() if "," in word or word.casefold() == NONE), None):
        why = f"with task.multilabel=true commas part labels, and {NONE} stands for no label; give another word"
        raise UserError(f"task.labels: the label word {wrong!r}: {why}")
    known = {word.casefold(): word for word in (*words.values(), NONE)}
    return replace(
        label_rules(template, words, records, OF_SETS, target),
        answer=partial(_labels, words, target),
        multilabel=True,
        metric=metric,
        from_text=lambda text: _joined(_labels_in(known, text)),
        score=partial(_set_scores, known),
        baseline=partial(most_common, "set of labels"),
    )


def _answer(words: Mapping[str, str], target: Template, record: Record, where: str) -> tuple[str, Golds]:
    word = _word(words, target, target.text_of(record, where), where)
    return word, (word,)


def _word(words: Mapping[str, str], target: Template, text: str, where: str) -> str:
    value = compared(text)
    if value not in words:
        of = ", as in task.labels" if target.key else ""
        raise UserError(f"{where}: the label {target.text} is {text!r:.100}; expected {' or '.join(words)}{of}")
    return words[value]


def _labels(words: Mapping[str, str], target: Template, record: Record, where: str) -> tuple[str, Golds]:
    """The labels in the target's texts: each is a label's value, or has several with commas between."""
    texts = target.texts_of(record, where)
    parts = (part for text in texts for part in ([text] if compared(text) in words else text.split(",")))
    values = set(map(str.strip, parts))
    said = {_word(words, target, value, where) for value in values - {"", NONE}.difference(words)}
    answer = _joined([word for word in dict.fromkeys(words.values()) if word in said])
    return answer, (answer,)


def _joined(labels: Texts) -> str:
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


def _golds(examples: Sequence[Example]) -> list[str]:
    return [example.golds[0] for example in examples]


def class_weights(task: TaskConfig, rules: TaskRules, train: Sequence[Example] = ()) -> dict[str, float]:
    """What the labels weigh in the loss, as given, or balanced over these examples; none if all weigh the same.

    Balanced, a label weighs the number of examples over that of labels and its own, as in scikit-learn; a label
    without examples has no weight.
    """
    if task.class_weights is None:
        return {}
    if task.class_weights == "balanced":
        counts = Counter(_golds(train))
        return {label: len(train) / (len(counts) * counts[label]) for label in rules.labels if label in counts}
    if not task.class_weights.startswith("{"):
        raise task.error("class_weights", FORMS)
    typed = literal.texts(task.class_weights, WEIGHTS, FORMS)
    return dict.fromkeys(rules.labels, 1.0) | _given_weights(task, typed, rules)


def _given_weights(task: TaskConfig, typed: dict[str, str], rules: TaskRules) -> dict[str, float]:
    """The typed weights by label word; a label is named by its word or by a value of the data."""
    word_of = {**rules.words, **{compared(word): word for word in rules.labels}}
    weights = dict[str, float]()
    for key, text in typed.items():
        name, weight = compared(key), number(text, (LEAST, MOST))
        check_among(name, word_of, f"{WEIGHTS}: there is no label {key!r}; there are")
        if word_of[name] in weights:
            raise task.error("class_weights", f"two keys are the label '{word_of[name]}'; give one")
        if weight is None:
            raise task.error("class_weights", f"expected a number from {LEAST} to {MOST:,} for {key}, not {text!r}")
        weights[word_of[name]] = weight
    return weights


def text_rules(template: Template, target: Template, records: Origin, metric: str) -> TaskRules:
    """The rules of a task whose answers are texts; where the target names a list, each item is a right answer."""
    score, correct = SCORES[metric]
    return TaskRules(
        records=records,
        template=template,
        answer=partial(_text, target),
        answer_fields=target.fields,
        metric=metric,
        score=score,
        correct=correct,
        baseline=partial(most_common, "answer"),
    )


def number_rules(
    template: Template, target: Template, records: Origin, metric: str, limits: Limits = None
) -> TaskRules:
    """The rules of a task whose answers are numbers, within limits or not."""
    return TaskRules(
        records=records,
        template=template,
        answer=partial(number_answer, target, limits),
        answer_fields=target.fields,
        metric=metric,
        score=partial(_correlations, limits),
        baseline=lambda _, valid: ("any constant", ["0"] * len(valid)),
    )


def _text(target: Template, record: Record, where: str) -> tuple[str, Golds]:
    golds = target.texts_of(record, where)
    if not golds or not all(map(str.strip, golds)):
        raise UserError(f"{where}: the target {target.text} is empty; expected a text")
    return golds[0], golds


def number_answer(target: Template, limits: Limits, record: Record, where: str) -> tuple[str, Golds]:
    """The number that a record's target spells."""
    text = target.text_of(record, where)
    if number(text, limits) is None:
        within = f" from {limits[0]:g} to {limits[1]:g}" if limits else ""
        raise UserError(f"{where}: the target {target.text} is {text[:100]!r}; expected a number{within}")
    return text, (text,)


def number(text: str, limits: Limits = None) -> float | None:
    """The number that a text spells; None if it spells none, or one that is not finite or not within the limits."""
    try:
        value = float(text)
    except ValueError:
        return None
    least, most = limits or (-math.inf, math.inf)
    return value if math.isfinite(value) and least <= value <= most else None


def text_scores(
    form: Form, names: tuple[str, str], answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, float]:
    """Percentage of answers that equal one of their golds, and the mean F1 of their words, under these names."""
    pairs = [(answer, example.golds) for answer, example in zip(answers, examples, strict=True)]
    measures = zip(names, (metrics.exact_match, metrics.word_f1), strict=True)
    return {name: 100 * fmean(measure(*pair, form) for pair in pairs) for name, measure in measures}


def correct(form: Form, answer: str, example: Example) -> bool:
    """Whether the answer equals one of the golds in that form."""
    return metrics.exact_match(answer, example.golds, form)


def _rouge(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    return metrics.rouge(answers, [example.golds for example in examples])


def _correlations(limits: Limits, answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Pearson's and Spearman's correlation; an answer that is no number within the limits is as wrong as can be.

    It counts as the limit that is farther from its gold; without limits, the smallest and the largest gold are taken.
    """
    golds = [float(example.golds[0]) for example in examples]
    least, most = limits or (min(golds), max(golds))
    read = []
    for answer, gold in zip(answers, golds, strict=True):
        value = number(answer, limits)
        farther = least if gold - least > most - gold else most
        read.append(farther if value is None else value)
    return metrics.correlations(read, golds)


def most_common(what: str, train: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    """The baseline of the answer given most often in training, the alphabetically first among equals."""
    answer = mode(sorted(example.golds[0] for example in train))
    return f"most common {what}" if answer else "always no answer", [answer] * len(valid)


# How texts are scored, and whether one is right, by the main metric; ROUGE tells no right from wrong.
AS_WRITTEN, AS_SQUAD = ("exact_match", "f1"), ("squad_em", "squad_f1")
SCORES: dict[str, tuple[Score, Callable[[str, Example], bool] | None]] = {
    **dict.fromkeys(AS_WRITTEN, (partial(text_scores, WRITTEN, AS_WRITTEN), partial(correct, WRITTEN))),
    **dict.fromkeys(AS_SQUAD, (partial(text_scores, SQUAD, AS_SQUAD), partial(correct, SQUAD))),
    **dict.fromkeys(metrics.ROUGES, (_rouge, None)),
}
