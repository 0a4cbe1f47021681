"""The task's interface to training: examples as text, how an output is read, and how answers are scored."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import NamedTuple

from fpt.errors import UserError, check_among
from fpt.tasks import fields
from fpt.tasks.fields import Record, at
from fpt.tasks.origins import Origin

SENTINEL = "<extra_id_0> "  # stands before the answer in the paper's targets; other families' targets have none
ANSWER = SENTINEL + "{answer}"
MASK = "{mask}"  # marks where the answer belongs in a source; each way to read puts a mark of its own there
Golds = tuple[str, ...]
# Plain text, a doubled brace, or a field, whose name may be any column's, even `a: b!` or `x[0]`.
PIECES = re.compile(r"[^{}]+|\{\{|\}\}|\{(?P<name>[^{}]+)\}|[{}]")


class Example(NamedTuple):
    """One example as the model sees it."""

    id: str  # unique in its split
    source: str  # the model's input text
    target: str  # the text to generate; empty where that is not known, as in a test split
    golds: Golds  # the answers that metrics accept; none where they are not known
    spare: tuple[int, int] = (0, 0)  # start and end of the part of `source` that is cut first if it is too long
    group: str = ""  # the group of examples that a metric scores together; or the name of the prompt that answers
    mask: int = -1  # where `{mask}` stands in `source`; -1: nowhere
    task: str = ""  # the name of the example's task in a mixture

    def marked(self, mark: str) -> "Example":
        """The example with a model's own mark in place of `{mask}`."""
        if self.mask < 0:
            return self
        source = f"{self.source[: self.mask]}{mark}{self.source[self.mask + len(MASK) :]}"
        moved = len(mark) - len(MASK) if self.spare[0] > self.mask else 0
        return self._replace(source=source, spare=(self.spare[0] + moved, self.spare[1] + moved), mask=-1)


@dataclass(frozen=True)
class Template:
    """A text with {fields}, which a record's values fill to give a source."""

    text: str
    spare: tuple[str, ...] = ()  # in a source that is too long, the longest of these fields is cut
    key: str = ""  # the setting that the user gave it in

    @cached_property
    def parts(self) -> list[tuple[str, str | None]]:
        """Pairs of plain text and the name of the field that follows it, None at the end."""
        parts, text = list[tuple[str, str | None]](), ""
        for piece in PIECES.finditer(self.text):
            if piece[0] in ("{", "}"):
                form = "expected a name between two braces; {{ and }} stand for braces"
                raise UserError(f"{self.key}={self.text}: not a template ({form})")
            if piece["name"] is None:
                text += piece[0][0] if piece[0] in ("{{", "}}") else piece[0]
            else:
                parts.append((text, piece["name"]))
                text = ""
        return [*parts, (text, None)] if text else parts

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields' names, without {mask}, which is not a field but the answer's place."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None and f"{{{name}}}" != MASK))

    @cached_property
    def masks(self) -> list[int]:
        """The indices of the parts that {mask} follows."""
        return [number for number, (_, name) in enumerate(self.parts) if f"{{{name}}}" == MASK]

    def check_fields(self, known: Sequence[str], what: str) -> None:
        """Refuse a template that names no field, or one that `what` (a task or setting) does not have."""
        if not self.fields:
            has = f"{what} has {', '.join(known)}, written {{{known[0]}}}"
            raise UserError(f"{self.key}={self.text}: names no field; {has}")
        for name in self.fields:
            check_among(name, known, f"{self.key}={self.text}: {what} has no '{name}'; it has")

    def fill(self, values: Mapping[str, str], name: str = "", group: str = "") -> Example:
        """An example without its answer, whose source is the template filled with the fields' values."""
        spared = (name for name in self.spare if name in self.fields)
        longest = max(spared, key=lambda name: len(values[name]), default=None)
        text, spare, mask = "", (0, 0), -1
        for number, (plain, name_of_field) in enumerate(self.parts):
            text += plain
            if number in self.masks:
                mask, text = len(text), text + MASK
            elif name_of_field is not None:
                text += values[name_of_field]
                if name_of_field == longest:
                    spare = (len(text) - len(values[name_of_field]), len(text))
        return Example(name, text, "", (), spare, group, mask)

    def text_of(self, record: Record, where: str) -> str:
        """The template filled with a record's fields."""
        return self.fill(fields.texts_of(record, self.fields, where)).source

    def texts_of(self, record: Record, where: str) -> Golds:
        """The template filled with a record's fields; where a field holds a list, a text for each of its items."""
        choices = [
            fields.texts(record, name, where)
            if isinstance(at(record, name), list)
            else [fields.text(record, name, where)]
            for name in self.fields
        ]
        filled = (self.fill(dict(zip(self.fields, each, strict=True))).source for each in product(*choices))
        return tuple(dict.fromkeys(filled))


@dataclass(frozen=True, kw_only=True)
class TaskRules:
    """The rules that turn records into text and text into scores (between 0 and 100; correlations from -100)."""

    records: Origin  # where the records are
    template: Template  # how a record's fields become a source
    answer: Callable[[Record, str], tuple[str, Golds]]  # the text to train on, and the golds, of a placed record
    answer_fields: tuple[str, ...] = ("label",)  # the fields that hold the answer
    unknown: Sequence[object] = (-1, [])  # values that mean no answer: the Hub's label in test splits, an empty list
    id_fields: tuple[str, ...] = ("id", "idx")  # the first that a record has is its id; without one, its place is
    each_gold: bool = False  # whether training makes an example of every gold, not of the first alone
    words: Mapping[str, str] = field(default_factory=dict)  # label words by the data's values; none for free text
    multilabel: bool = False  # whether an answer is any number of labels, not one
    metrics: tuple[str, ...] = ()  # the metrics that may be chosen as the main one; empty where it is fixed
    metric: str  # the main metric's name, a key of what `score` returns
    from_text: Callable[[str], str] = str.strip  # reads an answer from a decoded output
    score: Callable[[Sequence[str], Sequence[Example]], dict[str, float]]  # metrics of answers to examples
    correct: Callable[[str, Example], bool] | None = None  # None: answers are not simply right or wrong
    # Of training and validation examples: the name of a baseline without a model, and its answers.
    baseline: Callable[[Sequence[Example], Sequence[Example]], tuple[str, list[str]]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The label words; none where the answer is free text."""
        return tuple(dict.fromkeys(self.words.values()))

    @property
    def classes(self) -> tuple[str, ...]:
        """The label words of which every example has one; none where the answer is free text or several labels."""
        return () if self.multilabel else self.labels

    def example(self, record: Record, where: str, *, is_test: bool = False) -> Example:
        """The example that a record describes; only in a test split may its answer be missing.

        All parts but the last of an id that has several name the example's group.
        """
        named = (value for name in self.id_fields if (value := at(record, name)) is not None)
        index = next(named, where.rpartition(", ")[2])
        parts = list(map(str, index.values() if isinstance(index, dict) else [index]))
        values = fields.texts_of(record, self.template.fields, where)
        question = self.template.fill(values, "-".join(parts), "-".join(parts[:-1]))
        held = [at(record, name) for name in self.answer_fields]
        if is_test and (None in held or all(value in self.unknown for value in held)):
            return question
        answer, golds = self.answer(record, where)
        return question._replace(target=ANSWER.format(answer=answer), golds=golds)


@dataclass(frozen=True, kw_only=True)
class Task(TaskRules):
    """A task's rules together with its examples, each split in the data's order."""

    name: str  # as in `task=`
    train: Sequence[Example]
    valid: Sequence[Example]
    test: Sequence[Example] = ()
    test_split: str | None = None  # the test split that was asked for
    origin: str  # where the examples come from, as text for the user
    notes: tuple[str, ...]  # what was left out of the data, as text for the user
    skipped: tuple[str, ...] = ()  # the error message of every record that was skipped
    baseline_name: str  # the baseline's name, such as the most common label
    majority: float  # the baseline's score on the main metric
    class_weights: Mapping[str, float] = field(default_factory=dict)  # by label word; none: all examples weigh the same
    tasks: Mapping[str, "Task"] = field(default_factory=dict)  # by name, if this is a mixture of several
    counts: Sequence[int] = ()  # in a mixture, how many examples of each of its tasks an epoch takes

    @property
    def parts(self) -> dict[str, Sequence[Example]]:
        """The splits that there are, by the names shown to the user."""
        return {"train": self.train, "validation": self.valid, **({"test": self.test} if self.test else {})}

    def score_test(self, answers: Sequence[str]) -> dict[str, float] | None:
        """The scores of answers to the test split; None where it has no golds."""
        return self.score(answers, self.test) if self.test[0].golds else None
