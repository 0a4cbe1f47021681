"""Tasks whose answer is one of a few label words, each described by one entry of a table."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fpt.errors import UserError
from fpt.tasks import benchmarks, metrics, origins
from fpt.tasks.benchmarks import glue, sentences, super_glue
from fpt.tasks.fields import Record, as_text
from fpt.tasks.origins import Origin, Split
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


def label_rules(
    template: Template, words: Mapping[Any, str], records: Origin, metric_names: Texts = ("accuracy",)
) -> TaskRules:
    """The rules of a label task; `words` maps each value of a record's label to its word. The main metric is first."""
    labels = tuple(dict.fromkeys(words.values()))

    def relabelled(other: Mapping[str, str]) -> TaskRules:
        renamed = {value: other.get(word, word) for value, word in words.items()}
        return label_rules(template, renamed, records, metric_names)

    return TaskRules(
        records=records,
        template=template,
        answer=partial(_answer, words),
        labels=labels,
        relabelled=relabelled,
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


def _numbered(*words: str) -> dict[Any, str]:
    """Label words by number, which the Hub has, and by the same number as text, which files have."""
    return {value: word for number, word in enumerate(words) for value in (number, str(number))}


def _named(*words: str) -> dict[Any, str]:
    """Label words by number, which the Hub has, and by the words themselves, which files have."""
    return {**dict(enumerate(words)), **{word: word for word in words}}


PAIR = ("sentence1", "sentence2")
SENTENCE = Template("sentence: {sentence}", ("sentence",))
SENTENCES = Template("sentence1: {sentence1} sentence2: {sentence2}", PAIR)
NLI = Template("hypothesis: {hypothesis} premise: {premise}", ("premise",))
TEXT = Template("sentence: {text}", ("text",))
ENTAILED = _named("entailment", "not_entailment")
JUDGED = _numbered("negative", "positive")
TRUTH = {False: "False", True: "True"}
QUESTIONS = {  # TREC's question types and their label words, in the order of the Hub's label numbers
    "DESC": "description",
    "ENTY": "entity",
    "ABBR": "abbreviation",
    "HUM": "human",
    "LOC": "location",
    "NUM": "number",
}
RULES = {
    "boolq": label_rules(
        Template("question: {question} passage: {passage}", ("passage",)),
        {False: "no", True: "yes"},
        super_glue("boolq", (9_427, 3_270), generated="boolq"),
    ),
    "mnli": label_rules(
        NLI,
        _named("entailment", "neutral", "contradiction"),
        glue(
            "mnli",
            (392_702, 9_815),
            {"sentence1": "premise", "sentence2": "hypothesis", "gold_label": "label"},
            splits={
                "train": Split(("train.tsv",), "train"),
                "matched": Split(("dev_matched.tsv",), "validation_matched"),
                "mismatched": Split(("dev_mismatched.tsv",), "validation_mismatched"),
            },
            tests=origins.named(test_matched=("test_matched.tsv",), test_mismatched=("test_mismatched.tsv",)),
            generated="mnli",
        ),
    ),
    "qqp": label_rules(
        Template("question1: {question1} question2: {question2}", ("question1", "question2")),
        _numbered("not_duplicate", "is_duplicate"),
        glue("qqp", (363_846, 40_430), {"is_duplicate": "label"}, generated="qqp"),
        ("accuracy", "f1"),
    ),
    "cola": label_rules(
        SENTENCE,
        _numbered("unacceptable", "acceptable"),
        glue("cola", (8_551, 1_043), header=("source", "label", "star", "sentence")),
        ("matthews", "accuracy"),
    ),
    "sst2": label_rules(SENTENCE, JUDGED, glue("sst2", (67_349, 872))),
    "mrpc": label_rules(
        SENTENCES,
        _numbered("not_equivalent", "equivalent"),
        glue("mrpc", (3_668, 408), {"#1 String": "sentence1", "#2 String": "sentence2", "Quality": "label"}),
        ("accuracy", "f1"),
    ),
    "qnli": label_rules(
        Template("question: {question} sentence: {sentence}", ("sentence",)),
        ENTAILED,
        glue("qnli", (104_743, 5_463)),
    ),
    "rte": label_rules(
        SENTENCES,
        ENTAILED,
        glue(
            "rte",
            (2_490, 277),
            {"premise": "sentence1", "hypothesis": "sentence2"},  # in SuperGLUE's form
            splits=origins.named(train=("train.tsv", "train.jsonl"), validation=("dev.tsv", "val.jsonl")),
            tests=origins.named(test=("test.tsv", "test.jsonl")),
        ),
    ),
    "wnli": label_rules(SENTENCES, _numbered("not_entailment", "entailment"), glue("wnli", (635, 71))),
    "cb": label_rules(
        NLI,
        _named("entailment", "contradiction", "neutral"),
        super_glue("cb", (250, 56)),
        ("accuracy", "macro_f1"),
    ),
    "copa": label_rules(
        Template("choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}", ("premise",)),
        {0: "choice1", 1: "choice2"},
        super_glue("copa", (400, 100)),
    ),
    "multirc": label_rules(
        Template("question: {question} answer: {answer} paragraph: {paragraph}", ("paragraph",)),
        TRUTH,
        super_glue("multirc", (27_243, 4_848), benchmarks.multirc_file, prepare=benchmarks.without_markup),
        ("f1a", "grouped_exact_match", "accuracy"),
    ),
    "mpqa": label_rules(TEXT, JUDGED, sentences("mpqa", whole=("mpqa.all",))),
    "mr": label_rules(TEXT, JUDGED, sentences("mr", whole=("rt-polarity.all",))),
    "subj": label_rules(TEXT, _numbered("subjective", "objective"), sentences("subj", whole=("subj.all",))),
    "trec": label_rules(
        TEXT,
        {**_numbered(*QUESTIONS.values()), **QUESTIONS},
        sentences("trec", train=("train_5500.label", "TREC.train.all"), test=("TREC_10.label", "TREC.test.all")),
    ),
    "wic": label_rules(
        Template("sentence1: {sentence1} sentence2: {sentence2} word: {word}", PAIR),
        TRUTH,
        super_glue("wic", (5_428, 638)),
    ),
    "wsc": label_rules(
        Template("text: {text}", ("text",)),
        TRUTH,
        super_glue("wsc", (554, 104), prepare=benchmarks.with_marked_spans),
    ),
}
