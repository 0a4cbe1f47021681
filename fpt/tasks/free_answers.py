"""Tasks whose answer is neither a label nor a span of the text: XSum's summaries and STS-B's numbers."""

import math
import re
from collections.abc import Sequence
from functools import partial

from fpt.errors import UserError
from fpt.tasks import benchmarks, fields, metrics
from fpt.tasks.fields import Record
from fpt.tasks.file_formats import json_lines
from fpt.tasks.table import TABLE, origin_of, template_of
from fpt.tasks.task import Example, Golds, TaskRules

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
LEAST, MOST = 0.0, 5.0  # STS-B's scale; T5 is trained to write its numbers in steps of 0.2


def _summary(record: Record, where: str) -> tuple[str, Golds]:
    summary = fields.text(record, "summary", where)
    return summary, (summary,)


def rouge(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """ROUGE of the answers against each example's golds."""
    return metrics.rouge(answers, [example.golds for example in examples])


def _first_sentence(_: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    documents = (example.source[slice(*example.spare)].strip() for example in valid)
    return "first sentence", [SENTENCE_END.split(document, maxsplit=1)[0] for document in documents]


def _rating(record: Record, where: str) -> tuple[str, Golds]:
    value = number(str(record.get("label")))
    if value is None or not LEAST <= value <= MOST:
        raise UserError(f"{where}: the score is {record.get('label')!r}; expected a number from 0 to 5")
    # The files have three decimals, and the Hub's float32 values are rounded back to them.
    return f"{round(value * 5) / 5:.1f}", (str(round(value, 3)),)


def number(text: str) -> float | None:
    """The number that a text spells; None if it spells none, or one that is not finite."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def correlations(
    answers: Sequence[str], examples: Sequence[Example], *, limits: tuple[float, float] | None
) -> dict[str, float]:
    """Pearson's and Spearman's correlation; an answer that is no number within the limits is as wrong as can be.

    It counts as the limit that is farther from its gold; without limits, the smallest and the largest gold are taken.
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
    "xsum": TaskRules(
        records=origin_of(TABLE["xsum"], json_lines),
        template=template_of(TABLE["xsum"]),
        answer=_summary,
        answer_fields=("summary",),
        metric="rougeL",
        score=rouge,
        baseline=_first_sentence,
    ),
    "stsb": TaskRules(
        records=origin_of(TABLE["stsb"], benchmarks.reader("stsb", TABLE["stsb"]["records"])),
        template=template_of(TABLE["stsb"]),
        answer=_rating,
        metrics=("pearson", "spearman"),
        metric="pearson",
        score=partial(correlations, limits=(LEAST, MOST)),
        baseline=lambda _, valid: ("any constant", ["0"] * len(valid)),
    ),
}
