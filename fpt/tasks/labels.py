"""Tasks whose answer is one of a few label words: one row of data each."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from fpt.errors import UserError
from fpt.tasks import fields, file_formats, metrics, origins
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.file_formats import Reader
from fpt.tasks.glue_tables import table
from fpt.tasks.origins import Origin, SplitNames
from fpt.tasks.task import Example, Golds, TaskRules, Template

# A metric of answers and examples, given the labels; where one of two labels counts, it is the second.
Measure = Callable[[Sequence[str], Sequence[Example], Sequence[str]], float]
MEASURES: dict[str, Measure] = {
    "accuracy": lambda answers, examples, _: metrics.accuracy(answers, _golds(examples)),
    "f1": lambda answers, examples, labels: metrics.f1(answers, _golds(examples), labels[1]),
    "macro_f1": lambda answers, examples, labels: metrics.macro_f1(answers, _golds(examples), labels),
    "matthews": lambda answers, examples, labels: metrics.matthews(answers, _golds(examples), labels),
    "grouped_exact_match": lambda answers, examples, _: metrics.grouped_exact_match(
        answers, _golds(examples), [example.group for example in examples]
    ),
}
MEASURES["f1a"] = MEASURES["f1"]  # MultiRC's: over all answers of all questions
OF_TWO = ("f1", "f1a", "matthews")


@dataclass(frozen=True)
class LabelTask:
    """One row: how a record becomes text, what its labels are called, where the records are, and how it is scored."""

    template: Template
    labels: tuple[tuple[Any, str], ...]  # (value in the record, label word)
    records: Origin
    metrics: tuple[str, ...] = ("accuracy",)  # the main one first
    group: tuple[str, ...] = ()  # keys of the record's idx that name its group


def _glue(name: str, columns: Mapping[str, str], label: str, values: Sequence[str] | None, **more: Any) -> Origin:
    """An origin of GLUE's; `values` in the column `label` are 0, 1 … on the Hub."""
    labels = {value: number for number, value in enumerate(values)} if values is not None else None
    splits = more.pop("splits", origins.two_splits("train.tsv", "dev.tsv"))
    read = partial(table, columns=dict(columns), label=label, labels=labels)
    tests = origins.held_out(more.pop("tests", {"test": ("test.tsv",)}), partial(read, test=True))
    read = partial(read, header=more.pop("header", ()))
    return Origin(("nyu-mll/glue", name), splits, read, tests=tests, **more)


def _super_glue(name: str, read: Reader = file_formats.json_lines, **more: Any) -> Origin:
    tests = origins.held_out({"test": ("test.jsonl",)})
    return Origin(("aps/super_glue", name), origins.two_splits("train.jsonl", "val.jsonl"), read, tests=tests, **more)


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


def _multirc_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """A record for each answer of each question of each passage."""
    for where, line in file_formats.json_lines(file, faults):
        with faults:
            passage, within = fields.mapping(line, "passage", where), f"{where}, passage"
            for at_question, question in fields.objects(passage, "questions", within, faults):
                for place, answer in fields.objects(question, "answers", at_question, faults):
                    index = {"paragraph": line.get("idx"), "question": question.get("idx"), "answer": answer.get("idx")}
                    values = {"question": question.get("question"), "answer": answer.get("text")}
                    yield place, {**answer, **values, "paragraph": passage.get("text"), "idx": index}


def _rte_file(file: Path, faults: Faults, *, glue: Reader) -> Iterator[PlacedRecord]:
    """GLUE's table, or SuperGLUE's lines of the same pairs under other names."""
    if file.suffix != ".jsonl":
        yield from glue(file, faults)
        return
    other = {"premise": "sentence1", "hypothesis": "sentence2"}
    for where, line in file_formats.json_lines(file, faults):
        yield where, {other.get(name, name): value for name, value in line.items()}


def _rte() -> Origin:
    glue = _glue("rte", _same("sentence1", "sentence2"), "label", ("entailment", "not_entailment"))
    test = glue.tests["test"].read
    assert test is not None
    return replace(
        glue,
        splits={
            name: replace(split, files=(*split.files, f"{'val' if name == 'validation' else name}.jsonl"))
            for name, split in glue.splits.items()
        },
        tests=origins.held_out({"test": ("test.tsv", "test.jsonl")}, partial(_rte_file, glue=test)),
        read=partial(_rte_file, glue=glue.read),
    )


def _plain(record: Record, where: str) -> Record:
    """MultiRC's paragraph without its markup, as T5 has it."""
    paragraph = fields.text(record, "paragraph", where)
    return {**record, "paragraph": re.sub("</?b>", "", paragraph.replace("<br>", " "))}


def _marked(record: Record, where: str) -> Record:
    """WSC's text with its two spans marked, # the pronoun # and * the noun *, as T5 has it."""
    text = fields.text(record, "text", where)
    spans = fields.mapping(record, "target", where) if "target" in record else record
    places = [
        (*_span(text, spans.get(f"span{number}_index"), fields.text(spans, f"span{number}_text", where), where), mark)
        for number, mark in ((1, "*"), (2, "#"))
    ]
    for start, end, mark in sorted(places, reverse=True):
        text = f"{text[:start]}{mark} {text[start:end]} {mark}{text[end:]}"
    return {**record, "text": text}


def _span(text: str, index: Any, span: str, where: str) -> tuple[int, int]:
    """Start and end of a span at word number `index`; by its number of words where the text spells it otherwise."""
    words = list(re.finditer(r"\S+", text))
    if not (isinstance(index, int) and 0 <= index < len(words)):
        raise UserError(f"{where}: span index {index!r} marks no word in a text of {len(words)} words")
    start = words[index].start()
    if text.startswith(span, start):
        return start, start + len(span)
    return start, words[min(index + len(span.split()), len(words)) - 1].end()


ENTAILED = ((0, "entailment"), (1, "not_entailment"))
TRUTH = ((0, "False"), (1, "True"))
SENTENCES = Template("sentence1: {sentence1} sentence2: {sentence2}", ("sentence1", "sentence2"))
NLI = Template("hypothesis: {hypothesis} premise: {premise}", ("premise",))
TASKS = {
    "boolq": LabelTask(
        Template("question: {question} passage: {passage}", ("passage",)),
        ((False, "no"), (True, "yes")),
        _super_glue("boolq", generated="boolq"),
    ),
    "mnli": LabelTask(
        NLI,
        ((0, "entailment"), (1, "neutral"), (2, "contradiction")),
        _glue(
            "mnli",
            {"premise": "sentence1", "hypothesis": "sentence2"},
            "gold_label",
            ("entailment", "neutral", "contradiction"),
            generated="mnli",
            splits={
                "train": SplitNames(("train.tsv",), "train", "train"),
                "matched": SplitNames(("dev_matched.tsv",), "validation_matched", "validation"),
                "mismatched": SplitNames(("dev_mismatched.tsv",), "validation_mismatched", "validation_mismatched"),
            },
            tests={name: (f"{name}.tsv",) for name in ("test_matched", "test_mismatched")},
        ),
    ),
    "qqp": LabelTask(
        Template("question1: {question1} question2: {question2}", ("question1", "question2")),
        ((0, "not_duplicate"), (1, "is_duplicate")),
        _glue("qqp", _same("question1", "question2"), "is_duplicate", ("0", "1"), generated="qqp"),
        ("accuracy", "f1"),
    ),
    "cola": LabelTask(
        Template("sentence: {sentence}", ("sentence",)),
        ((0, "unacceptable"), (1, "acceptable")),
        _glue("cola", _same("sentence"), "label", ("0", "1"), header=("source", "label", "star", "sentence")),
        ("matthews", "accuracy"),
    ),
    "sst2": LabelTask(
        Template("sentence: {sentence}", ("sentence",)),
        ((0, "negative"), (1, "positive")),
        _glue("sst2", _same("sentence"), "label", ("0", "1")),
    ),
    "mrpc": LabelTask(
        SENTENCES,
        ((0, "not_equivalent"), (1, "equivalent")),
        _glue("mrpc", {"sentence1": "#1 String", "sentence2": "#2 String"}, "Quality", ("0", "1")),
        ("accuracy", "f1"),
    ),
    "qnli": LabelTask(
        Template("question: {question} sentence: {sentence}", ("sentence",)),
        ENTAILED,
        _glue("qnli", _same("question", "sentence"), "label", ("entailment", "not_entailment")),
    ),
    "rte": LabelTask(
        SENTENCES,
        (*ENTAILED, *((word, word) for _, word in ENTAILED)),
        _rte(),
    ),
    "wnli": LabelTask(
        SENTENCES,
        ((0, "not_entailment"), (1, "entailment")),
        _glue("wnli", _same("sentence1", "sentence2"), "label", ("0", "1")),
    ),
    "cb": LabelTask(
        NLI,
        (
            *enumerate(("entailment", "contradiction", "neutral")),
            *((word, word) for word in ("entailment", "contradiction", "neutral")),
        ),
        _super_glue("cb"),
        ("accuracy", "macro_f1"),
    ),
    "copa": LabelTask(
        Template("choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}", ("premise",)),
        ((0, "choice1"), (1, "choice2")),
        _super_glue("copa"),
    ),
    "multirc": LabelTask(
        Template("question: {question} answer: {answer} paragraph: {paragraph}", ("paragraph",)),
        TRUTH,
        _super_glue("multirc", _multirc_file, prepare=_plain),
        ("f1a", "grouped_exact_match", "accuracy"),
        group=("paragraph", "question"),
    ),
    "wic": LabelTask(
        Template("sentence1: {sentence1} sentence2: {sentence2} word: {word}", ("sentence1", "sentence2")),
        TRUTH,
        _super_glue("wic"),
    ),
    "wsc": LabelTask(
        Template("text: {text}", ("text",)),
        TRUTH,
        _super_glue("wsc", prepare=_marked),
    ),
}


def rules(row: LabelTask) -> TaskRules:
    """The rules of a label task."""
    words = tuple(dict.fromkeys(word for _, word in row.labels))
    return TaskRules(
        records=row.records,
        template=row.template,
        question=partial(_question, row.group),
        answer=partial(_answer, dict(row.labels)),
        answered=has_label,
        labels=words,
        metric=row.metrics[0],
        from_text=partial(_from_text, {folded(word): word for word in words}),
        score=lambda answers, examples: {name: MEASURES[name](answers, examples, words) for name in row.metrics},
        correct=lambda answer, example: answer in example.golds,
        baseline=_most_common_label,
    )


def _question(group: Sequence[str], template: Template, record: Record, where: str) -> Example:
    source, spare = template.fill(fields.texts_of(record, template.fields, where))
    index = record.get("idx", where)
    if isinstance(index, dict):
        return Example(_joined(index, index), source, "", (), spare, _joined(index, group))
    return Example(str(index), source, "", (), spare)


def _answer(words: Mapping[Any, str], record: Record, where: str) -> tuple[str, Golds]:
    label = record.get("label")
    # JSON's true equals Python's 1, which is how the Hub writes it.
    word = words.get(label) if isinstance(label, str | int) else None
    if word is None:
        allowed = " or ".join(map(json.dumps, words))
        fault = "is missing" if "label" not in record else f"is {record['label']!r}"
        raise UserError(f"{where}: 'label' {fault}; expected {allowed}")
    return word, (word,)


def has_label(record: Record) -> bool:
    """Whether a test record has its label: the Hub's -1 is none."""
    return record.get("label") not in (None, -1)


def _joined(index: Record, keys: Sequence[str] | Record) -> str:
    return "-".join(str(index.get(key)) for key in keys)


def folded(text: str) -> str:
    """What is compared of a label word: neither its case nor white space around it."""
    return text.strip().casefold()


def _from_text(words: Mapping[str, str], text: str) -> str:
    """The label word that the answer is, else the answer as it stands."""
    return words.get(folded(text), text.strip())


def _golds(examples: Sequence[Example]) -> list[str]:
    return [example.golds[0] for example in examples]


def _most_common_label(train: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    return "most common label", [metrics.most_common(_golds(train))] * len(valid)


RULES = {name: rules(row) for name, row in TASKS.items()}
