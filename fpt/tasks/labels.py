"""Tasks whose answer is one of a few label words: one row of data each."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from fpt.errors import UserError
from fpt.tasks import benchmark_origins, metrics, origins
from fpt.tasks.benchmark_origins import glue, same, super_glue
from fpt.tasks.fields import Record
from fpt.tasks.origins import Origin, SplitNames
from fpt.tasks.sentence_origins import coarse, sentences
from fpt.tasks.task import Example, Golds, TaskRules, Template, question

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


def label_rules(
    template: Template,
    values: Collection[tuple[Any, str]],
    records: Origin,
    metric_names: Sequence[str] = ("accuracy",),
    *,
    group: tuple[str, ...] = (),
) -> TaskRules:
    """The rules of a label task: `values` of a record's label, each with its word, and the main metric first.

    `group` has those keys of a record's idx that name its group.
    """
    words = tuple(dict.fromkeys(word for _, word in values))

    def relabelled(other: Mapping[str, str]) -> TaskRules:
        renamed = tuple((value, other.get(word, word)) for value, word in values)
        return label_rules(template, renamed, records, metric_names, group=group)

    return TaskRules(
        records=records,
        template=template,
        question=partial(_question, group),
        answer=partial(_answer, dict(values)),
        answered=has_label,
        labels=words,
        relabelled=relabelled,
        metrics=tuple(metric_names),
        metric=metric_names[0],
        from_text=partial(_from_text, {folded(word): word for word in words}),
        score=lambda answers, examples: {name: MEASURES[name](answers, examples, words) for name in metric_names},
        correct=lambda answer, example: answer in example.golds,
        baseline=_most_common_label,
    )


def _question(group: Sequence[str], template: Template, record: Record, where: str) -> Example:
    """A record without its answer; the keys in `group`, of an `idx` that has several, name what it belongs to."""
    example, index = question(template, record, where), record.get("idx")
    if isinstance(index, dict):
        return example._replace(id=_joined(index, index), group=_joined(index, group))
    return example


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


ENTAILED = ((0, "entailment"), (1, "not_entailment"))
TRUTH = ((0, "False"), (1, "True"))
SENTENCES = Template("sentence1: {sentence1} sentence2: {sentence2}", ("sentence1", "sentence2"))
TEXT = Template("sentence: {text}", ("text",))
JUDGED = (("0", "negative"), ("1", "positive"))
QUESTIONS = {  # TREC's names and words of what is asked for, in the order of their numbers
    "DESC": "description",
    "ENTY": "entity",
    "ABBR": "abbreviation",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}
NLI = Template("hypothesis: {hypothesis} premise: {premise}", ("premise",))
RULES = {
    "boolq": label_rules(
        Template("question: {question} passage: {passage}", ("passage",)),
        ((False, "no"), (True, "yes")),
        super_glue("boolq", (9_427, 3_270), generated="boolq"),
    ),
    "mnli": label_rules(
        NLI,
        ((0, "entailment"), (1, "neutral"), (2, "contradiction")),
        glue(
            "mnli",
            (392_702, 9_815),
            {"premise": "sentence1", "hypothesis": "sentence2"},
            "gold_label",
            ("entailment", "neutral", "contradiction"),
            generated="mnli",
            splits={
                "train": SplitNames(("train.tsv",), "train"),
                "matched": SplitNames(("dev_matched.tsv",), "validation_matched"),
                "mismatched": SplitNames(("dev_mismatched.tsv",), "validation_mismatched"),
            },
            tests={name: (f"{name}.tsv",) for name in ("test_matched", "test_mismatched")},
        ),
    ),
    "qqp": label_rules(
        Template("question1: {question1} question2: {question2}", ("question1", "question2")),
        ((0, "not_duplicate"), (1, "is_duplicate")),
        glue("qqp", (363_846, 40_430), same("question1", "question2"), "is_duplicate", ("0", "1"), generated="qqp"),
        ("accuracy", "f1"),
    ),
    "cola": label_rules(
        Template("sentence: {sentence}", ("sentence",)),
        ((0, "unacceptable"), (1, "acceptable")),
        glue(
            "cola",
            (8_551, 1_043),
            same("sentence"),
            "label",
            ("0", "1"),
            header=("source", "label", "star", "sentence"),
        ),
        ("matthews", "accuracy"),
    ),
    "sst2": label_rules(
        Template("sentence: {sentence}", ("sentence",)),
        ((0, "negative"), (1, "positive")),
        glue("sst2", (67_349, 872), same("sentence"), "label", ("0", "1")),
    ),
    "mrpc": label_rules(
        SENTENCES,
        ((0, "not_equivalent"), (1, "equivalent")),
        glue("mrpc", (3_668, 408), {"sentence1": "#1 String", "sentence2": "#2 String"}, "Quality", ("0", "1")),
        ("accuracy", "f1"),
    ),
    "qnli": label_rules(
        Template("question: {question} sentence: {sentence}", ("sentence",)),
        ENTAILED,
        glue("qnli", (104_743, 5_463), same("question", "sentence"), "label", ("entailment", "not_entailment")),
    ),
    "rte": label_rules(
        SENTENCES,
        (*ENTAILED, *((word, word) for _, word in ENTAILED)),
        glue(
            "rte",
            (2_490, 277),
            same("sentence1", "sentence2"),
            "label",
            ("entailment", "not_entailment"),
            splits=origins.named(train=("train.tsv", "train.jsonl"), validation=("dev.tsv", "val.jsonl")),
            tests={"test": ("test.tsv", "test.jsonl")},
            prepare=benchmark_origins.with_glues_names,
        ),
    ),
    "wnli": label_rules(
        SENTENCES,
        ((0, "not_entailment"), (1, "entailment")),
        glue("wnli", (635, 71), same("sentence1", "sentence2"), "label", ("0", "1")),
    ),
    "cb": label_rules(
        NLI,
        (
            *enumerate(("entailment", "contradiction", "neutral")),
            *((word, word) for word in ("entailment", "contradiction", "neutral")),
        ),
        super_glue("cb", (250, 56)),
        ("accuracy", "macro_f1"),
    ),
    "copa": label_rules(
        Template("choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}", ("premise",)),
        ((0, "choice1"), (1, "choice2")),
        super_glue("copa", (400, 100)),
    ),
    "multirc": label_rules(
        Template("question: {question} answer: {answer} paragraph: {paragraph}", ("paragraph",)),
        TRUTH,
        super_glue(
            "multirc", (27_243, 4_848), benchmark_origins.multirc_file, prepare=benchmark_origins.without_markup
        ),
        ("f1a", "grouped_exact_match", "accuracy"),
        group=("paragraph", "question"),
    ),
    "mpqa": label_rules(TEXT, JUDGED, sentences("mpqa", whole=("mpqa.all",))),
    "mr": label_rules(TEXT, JUDGED, sentences("mr", whole=("rt-polarity.all",))),
    "subj": label_rules(TEXT, (("0", "subjective"), ("1", "objective")), sentences("subj", whole=("subj.all",))),
    "trec": label_rules(
        TEXT,
        tuple((value, word) for number, (name, word) in enumerate(QUESTIONS.items()) for value in (str(number), name)),
        sentences(
            "trec",
            train=("train_5500.label", "TREC.train.all"),
            test=("TREC_10.label", "TREC.test.all"),
            prepare=coarse,
        ),
    ),
    "wic": label_rules(
        Template("sentence1: {sentence1} sentence2: {sentence2} word: {word}", ("sentence1", "sentence2")),
        TRUTH,
        super_glue("wic", (5_428, 638)),
    ),
    "wsc": label_rules(
        Template("text: {text}", ("text",)),
        TRUTH,
        super_glue("wsc", (554, 104), prepare=benchmark_origins.with_marked_spans),
    ),
}
