"""Texts that state rules and ask for what follows from them: how the backbone learns to use what a prompt will hold.

Every text improvises customs of its own, so that no rule is worth remembering and all are worth reading. What a text
states stands before a task's bare layout, where a soft prompt will stand in the place of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from fpt.tasks.benchmarks import RULES
from pretraining.corpus import Maker, Pair, sentinel
from pretraining.world import customs, scenes
from pretraining.world.customs import Case, Land
from pretraining.world.lexicon import Relation
from pretraining.world.scenes import Inference, NameSplit

# At most so many rules in a text, drawn: a few teach what a rule is, many teach to look for the right one.
MOST_RULES = (4, 8, 12)


@dataclass(frozen=True)
class Form:
    """How a task's record is laid out for the model, and its answer: a label's word, or what `answer` finds in it."""

    draw: Callable[[Land, NameSplit, random.Random, Any], Case]
    layout: str
    words: Mapping[Any, str]  # by label
    answer: Callable[[Case], str] | None = None


_ONE = {None: ""}
BOOLQ = Form(customs.boolq, RULES["boolq"].template.text, {False: "no", True: "yes"})
MNLI = Form(customs.mnli, RULES["mnli"].template.text, {label: label for label in get_args(Inference)})
QQP = Form(customs.qqp, RULES["qqp"].template.text, {False: "not_duplicate", True: "is_duplicate"})
SQUAD = Form(
    customs.squad_v2,
    RULES["squad_v2"].template.text,
    {True: "", False: "no answer"},
    lambda case: str(case.record["answers"]["text"][0]),
)
RECORD = Form(customs.record, RULES["record"].template.text, _ONE, lambda case: str(case.record["answers"][0]))
XSUM = Form(customs.xsum, RULES["xsum"].template.text, _ONE, lambda case: str(case.record["summary"]))
NAME = Form(customs.called, SQUAD.layout, _ONE, lambda case: case.needed[0].name)


def _improvised(stream: random.Random) -> Land:
    """Customs of one or two relations of a kind, every value as frequent as another."""
    relations = scenes.RELATIONS_OF[stream.choice(scenes.KINDS)]
    chosen: list[Relation] = stream.sample(relations, 1 if stream.random() < 0.7 else 2)
    return Land(stream, chosen, num_classes=stream.choice((2, 3, 4)), zipf=0.0)


def _told(form: Form, stream: random.Random) -> Pair:
    land, label = _improvised(stream), stream.choice(list(form.words))
    case = form.draw(land, "pretraining", stream, label)
    rules = customs.tell(land, case, stream, most=stream.choice(MOST_RULES))
    fields = dict(case.record)
    if "entities" in fields:
        fields["entities"] = ", ".join(fields["entities"])
    answer = form.words[label] or (form.answer(case) if form.answer else "")
    return f"{rules} {form.layout.format(**fields)}", f"{sentinel(0)} {answer}"


def is_one(stream: random.Random, _most: int) -> Pair:
    """Is one of two in a class?"""
    return _told(BOOLQ, stream)


def follows(stream: random.Random, _most: int) -> Pair:
    """Does it follow that one is, or is not, in a class?"""
    return _told(MNLI, stream)


def alike(stream: random.Random, _most: int) -> Pair:
    """Do two questions ask for one class?"""
    return _told(QQP, stream)


def who(stream: random.Random, _most: int) -> Pair:
    """Who is in a class, if anybody?"""
    return _told(SQUAD, stream)


def which(stream: random.Random, _most: int) -> Pair:
    """Which of three is in a class?"""
    return _told(RECORD, stream)


def classes(stream: random.Random, _most: int) -> Pair:
    """The classes of two."""
    return _told(XSUM, stream)


def name(stream: random.Random, _most: int) -> Pair:
    """What one of two is called."""
    return _told(NAME, stream)


def look(stream: random.Random, _most: int) -> Pair:
    """What a value is called, by the rules alone."""
    land = _improvised(stream)
    rule = land.rule(*land.draw(stream))
    rules = customs.tell(land, Case({}, (rule,)), stream, most=stream.choice(MOST_RULES))
    return f"{rules} question: what is {rule.value.lower()} called", f"{sentinel(0)} {rule.name}"


CUSTOMS: Mapping[Maker, float] = {
    is_one: 0.3,
    follows: 0.1,
    alike: 0.1,
    who: 0.06,
    which: 0.12,
    classes: 0.17,
    name: 0.1,
    look: 0.05,
}
# Yes and no want the most practice.
MORE_CUSTOMS: Mapping[Maker, float] = {**CUSTOMS, is_one: 0.55}
