"""Tasks whose answer is free text or a number, not one of a few labels."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean, mode

from fpt.errors import UserError
from fpt.tasks import metrics
from fpt.tasks.fields import Record
from fpt.tasks.metrics import SQUAD, WRITTEN, Form
from fpt.tasks.origins import Origin
from fpt.tasks.task import Example, Golds, TaskRules, Template

Limits = tuple[float, float] | None  # the least and the greatest number; None: any
Score = Callable[[Sequence[str], Sequence[Example]], dict[str, float]]
OF_NUMBERS = ("pearson", "spearman")


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
