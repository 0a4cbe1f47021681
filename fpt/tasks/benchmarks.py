"""The built-in tasks: the rows of tasks.yaml, and what sets SQuAD 2.0, ReCoRD, XSum and STS-B apart."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from fpt.config import literal
from fpt.tasks import fields, free_answers, metrics, origins
from fpt.tasks.benchmark_files import FORMATS, PREPARED
from fpt.tasks.free_answers import correct_as_squad, number_rules, score_as_squad, text_rules
from fpt.tasks.labels import label_rules
from fpt.tasks.origins import Origin
from fpt.tasks.task import Example, Golds, TaskRules, Template

TABLE: dict[str, dict[str, Any]] = literal.own_table(Path(__file__).with_name("tasks.yaml"))["tasks"]
RATINGS = (0.0, 5.0)  # STS-B's scale; T5 is trained to write its numbers in steps of 0.2
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
NO_ANSWER = "no answer"
NOTHING = "∅"  # the answer read from an output without words, which is always wrong
UNANSWERABLE = ("",)  # the golds of a question without an answer, as the official evaluation has it


def _rules(name: str, row: dict[str, Any]) -> TaskRules:
    """The rules of a task in the table."""
    template, records = _template(row), _origin(name, row["records"])
    if "words" in row:
        return label_rules(template, words_of(row), records, row.get("metrics", ["accuracy"]))
    target = Template(row["target"])
    if name == "stsb":
        answer = partial(_rating, target)
        return replace(
            number_rules(template, target, records, "pearson", RATINGS), answer=answer, metrics=free_answers.OF_NUMBERS
        )
    if name == "xsum":
        return replace(text_rules(template, target, records, "rougeL"), baseline=_first_sentence)
    rules = replace(
        text_rules(template, target, records, "exact_match"), score=score_as_squad, correct=correct_as_squad
    )
    if name == "record":
        return replace(rules, each_gold=True)
    return replace(
        rules, answer=partial(_squad_answer, target), unknown=(), from_text=_squad_from_text, score=_squad_score
    )


def _template(row: dict[str, Any]) -> Template:
    """The template of a task's row, or of one of its wordings."""
    template = Template(row["template"])
    return replace(template, spare=tuple(row.get("spare", template.fields)))


def words_of(row: dict[str, Any]) -> dict[str, str]:
    """Label words by the values that the data may have: those in files, and the Hub's numbers."""
    words = row["words"] if isinstance(row["words"], dict) else {word: word for word in row["words"]}
    of_files = {fields.as_text(value): word for value, word in words.items()}
    return of_files | {str(number): word for number, word in enumerate(words.values())}


def wordings_of(task: str) -> dict[str, tuple[Template, tuple[str, ...]]]:
    """The templates and label words that papers use for a task, by the paper's name in task.template."""
    wordings: dict[str, dict[str, Any]] = TABLE.get(task, {}).get("wordings", {})
    return {name: (_template(wording), tuple(wording["words"])) for name, wording in wordings.items()}


def _origin(name: str, row: dict[str, Any]) -> Origin:
    """Where a task's records are, and how they are read."""
    splits = origins.named(row["files"], row.get("on_hub"))
    read = FORMATS[row.get("format", "json")]
    if row.get("format") == "glue":
        read = partial(read, renamed=row.get("renamed", {}), header=row.get("header", []))
    more: dict[str, Any] = {key: row[key] for key in ("generated", "revision", "sizes", "whole") if key in row}
    if name in PREPARED:
        more["prepare"] = PREPARED[name]
    return Origin(tuple(row["hub"]), splits, read, **more)


def _rating(target: Template, record: fields.Record, where: str) -> tuple[str, Golds]:
    value = float(free_answers.number_answer(target, RATINGS, record, where)[0])
    # The files have three decimals, and the Hub's float32 values are rounded back to them.
    return f"{round(value * 5) / 5:.1f}", (str(round(value, 3)),)


def _first_sentence(_: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    documents = (example.source[slice(*example.spare)].strip() for example in valid)
    return "first sentence", [SENTENCE_END.split(document, maxsplit=1)[0] for document in documents]


def _squad_answer(target: Template, record: fields.Record, where: str) -> tuple[str, Golds]:
    golds = tuple(filter(metrics.normalise, target.texts_of(record, where))) or UNANSWERABLE
    return golds[0] or NO_ANSWER, golds


def _squad_from_text(text: str) -> str:
    """The answer in an output: empty if it says that there is no answer, NOTHING if it has no words."""
    words = metrics.normalise(text)
    return "" if words == NO_ANSWER else text.strip() if words else NOTHING


def _squad_score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    scores, right = score_as_squad(answers, examples), list(map(correct_as_squad, answers, examples))
    has_none = [example.golds == UNANSWERABLE for example in examples]
    for name, wanted in (("has_answer", False), ("no_answer", True)):
        if wanted in has_none:
            part = (is_right for is_right, none in zip(right, has_none, strict=True) if none == wanted)
            scores[f"{name}_exact_match"] = 100 * fmean(part)
    return scores


RULES = {name: _rules(name, row) for name, row in TABLE.items()}
