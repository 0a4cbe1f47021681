"""Tasks whose answer is a number: STS-B, whose numbers T5 says in steps of 0.2."""

import math
from collections.abc import Sequence
from functools import partial

from fpt.errors import UserError
from fpt.tasks import metrics
from fpt.tasks.benchmarks import glue
from fpt.tasks.fields import Record
from fpt.tasks.labels import SENTENCES
from fpt.tasks.task import Example, Golds, TaskRules

LEAST, MOST = 0.0, 5.0  # of STS-B


def _answer(record: Record, where: str) -> tuple[str, Golds]:
    value = number(str(record.get("label")))
    if value is None or not LEAST <= value <= MOST:
        raise UserError(f"{where}: the score is {record.get('label')!r}; expected a number from 0 to 5")
    # The Hub has the files' three decimals in float32.
    return f"{round(value * 5) / 5:.1f}", (str(round(value, 3)),)


def number(text: str) -> float | None:
    """The finite number that a text is, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def score(
    answers: Sequence[str], examples: Sequence[Example], *, limits: tuple[float, float] | None
) -> dict[str, float]:
    """Correlations; an answer that is no number, or none within the limits, is as wrong as can be.

    It counts as the limit that is farther from its gold: as the golds' own least or greatest where none are given.
    """
    golds = [float(example.golds[0]) for example in examples]
    least, most = limits or (min(golds), max(golds))
    read = []
    for answer, gold in zip(answers, golds, strict=True):
        value = number(answer)
        if value is None or (limits and not least <= value <= most):
            value = least if gold - least > most - gold else most
        read.append(value)
    return metrics.correlations(read, golds)


RULES = {
    "stsb": TaskRules(
        records=glue("stsb", (5_749, 1_500), {"score": "label"}),
        template=SENTENCES,
        answer=_answer,
        metrics=("pearson", "spearman"),
        metric="pearson",
        score=partial(score, limits=(LEAST, MOST)),
        baseline=lambda _, valid: ("any constant", ["0"] * len(valid)),
    ),
}
