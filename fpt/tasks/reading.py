"""Reading comprehension tasks, whose answer is a span of a passage: SQuAD 2.0 and ReCoRD."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fpt.errors import UserError
from fpt.tasks import fields, metrics
from fpt.tasks.fields import Faults, PlacedRecord, Record
from fpt.tasks.file_formats import answer_texts, json_lines, squad_records
from fpt.tasks.table import TABLE, origin_of, template_of
from fpt.tasks.task import Example, Golds, TaskRules

NO_ANSWER = "no answer"
NOTHING = "∅"  # the answer read from an output without words, which is always wrong
CLOSED = """.?!"'"""
HIGHLIGHT = re.compile(rf"([{CLOSED}]?)\n@highlight\n")  # before each of a news article's key points
UNANSWERABLE = ("",)  # the golds of a question without an answer, as the official evaluation has it


def _squad_answer(record: Record, where: str) -> tuple[str, Golds]:
    answers = fields.texts(record, "answers.text", where)
    golds = tuple(dict.fromkeys(answer for answer in answers if metrics.normalise(answer))) or UNANSWERABLE
    return golds[0] or NO_ANSWER, golds


def _squad_from_text(text: str) -> str:
    """The answer in an output: empty if it says that there is no answer, NOTHING if it has no words."""
    words = metrics.normalise(text)
    return "" if words == NO_ANSWER else text.strip() if words else NOTHING


def _squad_score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    scores, right = score(answers, examples), list(map(correct, answers, examples))
    has_none = [example.golds == UNANSWERABLE for example in examples]
    for name, wanted in (("has_answer", False), ("no_answer", True)):
        if wanted in has_none:
            part = (is_right for is_right, none in zip(right, has_none, strict=True) if none == wanted)
            scores[f"{name}_exact_match"] = 100 * fmean(part)
    return scores


def _in_one_text_each(record: Record, where: str) -> Record:
    """ReCoRD's record with its entities as one text, and the passage's highlights as sentences, as T5's authors do.

    The last highlight gets a full stop too, as in the data readers of the published FPT code.
    """
    entities, passage = fields.texts(record, "entities", where), fields.text(record, "passage", where)
    text = HIGHLIGHT.sub(lambda line: f"{line[1]} " if line[1] else ". ", passage)
    end = "." if text and text[-1] not in CLOSED else ""
    return {**record, "entities": ", ".join(entities), "passage": text + end}


def _record_answer(record: Record, where: str) -> tuple[str, Golds]:
    answers = fields.texts(record, "answers", where)
    if not answers:
        raise UserError(f"{where}: 'answers' is empty; expected at least one")
    return answers[0], tuple(dict.fromkeys(answers))


def _record_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record for each query of each passage; those of a test file have no answers."""
    for where, line in json_lines(file, faults):
        with faults:
            passage, within = fields.mapping(line, "passage", where), f"{where}, passage"
            text = fields.text(passage, "text", within)
            spans = fields.objects(passage, "entities", within)
            entities = list(dict.fromkeys(_span(text, entity, place) for place, entity in spans))
            for place, query in fields.objects(line, "qas", where, faults):
                with faults:
                    answers = answer_texts(query, place) if "answers" in query else []
                    index = {"passage": line.get("idx"), "query": query.get("idx")}
                    yield place, {**query, "passage": text, "entities": entities, "answers": answers, "idx": index}


def _span(text: str, entity: dict[str, Any], place: str) -> str:
    """The text that an entity's start and end mark; the end is the index of its last letter."""
    start, end = entity.get("start"), entity.get("end")
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end < len(text)):
        raise UserError(f"{place}: start {start!r} and end {end!r} mark nothing in a text of {len(text)} letters")
    return text[start : end + 1]


def score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Exact match and F1 of words, both in SQuAD's normal form."""
    return metrics.text_scores(answers, [example.golds for example in examples])


def correct(answer: str, example: Example) -> bool:
    """Whether the answer equals one of the golds in SQuAD's normal form."""
    return metrics.exact_match(answer, example.golds)


def most_common_answer(train: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    """The answer given most often in training, which may be that there is none."""
    common = metrics.most_common([example.golds[0] for example in train])
    return "most common answer" if common else "always no answer", [common] * len(valid)


RULES = {
    "squad_v2": TaskRules(
        records=origin_of(TABLE["squad_v2"], squad_records),
        template=template_of(TABLE["squad_v2"]),
        answer=_squad_answer,
        answer_fields=("answers",),
        metric="exact_match",
        from_text=_squad_from_text,
        score=_squad_score,
        correct=correct,
        baseline=most_common_answer,
    ),
    "record": TaskRules(
        records=origin_of(TABLE["record"], _record_file, prepare=_in_one_text_each),
        template=template_of(TABLE["record"]),
        answer=_record_answer,
        answer_fields=("answers",),
        each_gold=True,
        metric="exact_match",
        score=score,
        correct=correct,
        baseline=most_common_answer,
    ),
}
