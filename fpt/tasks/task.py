"""What every task gives the trainer: examples as text, how an output is read, and how outputs are scored."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from fpt.errors import UserError, did_you_mean
from fpt.tasks.fields import Record, texts_of
from fpt.tasks.origins import Origin

SENTINEL = "<extra_id_0> "  # the paper's targets: the answer after T5's first; other families have the answer alone
ANSWER = SENTINEL + "{answer}"
MASK = "{mask}"  # where the answer belongs in a source, for which every way to read has a mark of its own
Golds = tuple[str, ...]
# Plain text, braces that stand for themselves, or a field, which may be called as any column is: `a: b!`, `x[0]`.
PIECES = re.compile(r"[^{}]+|\{\{|\}\}|\{(?P<name>[^{}]+)\}|[{}]")


class Example(NamedTuple):
    """One example as the model sees it."""

    id: str  # unique in its split
    source: str  # the text before the model
    target: str  # what it is to say; empty where that is not known, as in a test split
    golds: Golds  # the answers that metrics accept; none where they are not known
    spare: tuple[int, int] = (0, 0)  # start and end of the part of `source` that is cut first where it is too long
    group: str = ""  # what examples belong to, for metrics of such groups; or which of several prompts is asked
    mask: int = -1  # where `{mask}` stands in `source`; -1: nowhere

    def marked(self, mark: str) -> "Example":
        """The example with a model's own mark in the place of `{mask}`."""
        if self.mask < 0:
            return self
        source = f"{self.source[: self.mask]}{mark}{self.source[self.mask + len(MASK) :]}"
        moved = len(mark) - len(MASK) if self.spare[0] > self.mask else 0
        return self._replace(source=source, spare=(self.spare[0] + moved, self.spare[1] + moved), mask=-1)


@dataclass(frozen=True)
class Template:
    """A text with {fields}, which makes sources of records."""

    text: str
    spare: tuple[str, ...] = ()  # the fields of which an example's longest is cut where the whole is too long
    key: str = ""  # the setting that a user gave it by

    @cached_property
    def parts(self) -> list[tuple[str, str | None]]:
        """Pairs of plain text and the field after it."""
        parts, text = list[tuple[str, str | None]](), ""
        for piece in PIECES.finditer(self.text):
            if piece[0] in ("{", "}"):
                raise UserError(
                    f"{self.key}={self.text}: not a template (expected a name between two braces; {{{{ and }}}} stand"
                    " for braces)"
                )
            if piece["name"] is None:
                text += piece[0][0] if piece[0] in ("{{", "}}") else piece[0]
            else:
                parts.append((text, piece["name"]))
                text = ""
        return [*parts, (text, None)] if text else parts

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields' names; {mask} is no field, but the answer's place."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None and f"{{{name}}}" != MASK))

    @cached_property
    def masks(self) -> list[int]:
        """At which of its parts {mask} stands."""
        return [number for number, (_, name) in enumerate(self.parts) if f"{{{name}}}" == MASK]

    def check_fields(self, known: Sequence[str], what: str) -> None:
        """Refuse a template that names no field, or another than the known ones, which `what` has."""
        if not self.fields:
            raise UserError(
                f"{self.key}={self.text}: names no field; {what} has {', '.join(known)}, written {{{known[0]}}}"
            )
        if unknown := next((name for name in self.fields if name not in known), None):
            raise UserError(
                f"{self.key}={self.text}: {what} has no '{unknown}'; it has {', '.join(known)}."
                f"{did_you_mean(unknown, known)}"
            )

    def fill(self, values: Mapping[str, str], name: str = "", group: str = "") -> Example:
        """An example of that id and group without its answer, whose source is the text with its fields' values."""
        spared = (name for name in self.spare if name in self.fields)
        longest = max(spared, key=lambda name: len(values[name]), default=None)
        text, spare, mask = "", (0, 0), -1
        for number, (plain, field) in enumerate(self.parts):
            text += plain
            if number in self.masks:
                mask, text = len(text), text + MASK
            elif field is not None:
                text += values[field]
                if field == longest:
                    spare = (len(text) - len(values[field]), len(text))
        return Example(name, text, "", (), spare, group, mask)


@dataclass(frozen=True, kw_only=True)
class TaskRules:
    """The rules that turn records into text and text into scores (between 0 and 100; correlations from -100)."""

    records: Origin  # where the records are
    template: Template  # how a record's fields become a source
    answer: Callable[[Record, str], tuple[str, Golds]]  # a record and its place to what is to be said, and to its golds
    answer_fields: tuple[str, ...] = ("label",)  # the fields that hold the answer
    unknown: Sequence[object] = (-1, [])  # what stands there for none: the Hub's label of a test split, no answers
    id_fields: tuple[str, ...] = ("id", "idx")  # of which the first that a record has is its id; else its place is
    each_gold: bool = False  # training takes every gold in turn, an example each, not the first alone
    labels: tuple[str, ...] = ()  # the label words; empty where the answer is free text
    relabelled: "Callable[[Mapping[str, str]], TaskRules] | None" = None  # the rules with other words in place of some
    metrics: tuple[str, ...] = ()  # those of which any may be the main one; empty where that is fixed
    metric: str  # the main metric's name, a key of what `score` returns
    from_text: Callable[[str], str] = str.strip  # a decoded output to an answer
    score: Callable[[Sequence[str], Sequence[Example]], dict[str, float]]  # answers and examples to metrics
    correct: Callable[[str, Example], bool] | None = None  # None: answers are not simply right or wrong
    # Training and validation examples to what to call answers that need no model, and to those answers.
    baseline: Callable[[Sequence[Example], Sequence[Example]], tuple[str, list[str]]]

    def has_answer(self, record: Record) -> bool:
        """Whether a test split's record has its answer."""
        values = [record.get(name) for name in self.answer_fields]
        return None not in values and any(value not in self.unknown for value in values)

    def question(self, record: Record, where: str) -> Example:
        """A record without its answer. Of an id with several parts, all but the last name the example's group."""
        index = next((record[name] for name in self.id_fields if name in record), where.rpartition(", ")[2])
        parts = list(map(str, index.values() if isinstance(index, dict) else [index]))
        values = texts_of(record, self.template.fields, where)
        return self.template.fill(values, "-".join(parts), "-".join(parts[:-1]))

    def example(self, record: Record, where: str) -> Example:
        """A record with its answer."""
        question = self.question(record, where)
        answer, golds = self.answer(record, where)
        return question._replace(target=ANSWER.format(answer=answer), golds=golds)


@dataclass(frozen=True, kw_only=True)
class Task(TaskRules):
    """The rules with the task's data, each split in its own order."""

    name: str  # as in `task=`
    train: Sequence[Example]
    valid: Sequence[Example]
    test: Sequence[Example] = ()
    test_split: str | None = None  # the test split that was asked for
    origin: str  # where the examples come from, for people
    notes: tuple[str, ...]  # what was left out of the data, for people
    skipped: tuple[str, ...] = ()  # every record that was, with its fault
    baseline_name: str  # what the baseline answers
    majority: float  # what it scores, on the main metric

    @property
    def parts(self) -> dict[str, Sequence[Example]]:
        """The splits that there are, as people call them."""
        return {"train": self.train, "validation": self.valid, **({"test": self.test} if self.test else {})}

    def score_test(self, answers: Sequence[str]) -> dict[str, float] | None:
        """What answers to the test split score; None where it has no golds."""
        return self.score(answers, self.test) if self.test[0].golds else None
