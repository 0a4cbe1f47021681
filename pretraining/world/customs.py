"""Customs of a land: what each value counts as there. They give a soft prompt many facts to hold, most of them rare.

A land's customs put every value of its relations into one of a few *classes*, which have made-up names: a baker is a
zork, a pilot is a blick. Passages tell values only, questions ask for classes, so that no example can be answered
without the *rules* ("baker: zork"). The embedded backbone has learned to use rules that a text states, drawn anew in
every text that it read; the rules of a land are stated nowhere in its tasks, and only a prompt can hold them. Values
are drawn by Zipf's law over all rules of the land: common rules can be learned at once, rare ones late.

What is drawn here is drawn for the tasks (`records.py`) and for pre-training, which improvises a land for each text.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fpt.tasks.fields import Record
from pretraining.world import lexicon, scenes
from pretraining.world.lexicon import Relation
from pretraining.world.scenes import Entity, Inference, NameSplit, Statement

NUM_CLASSES = 3

# How a rule can be told, and several rules of one class; the plainest way is as frequent as all others together.
RULE_WORDINGS = (
    "{v} {c}",
    "{v} : {c} .",
    "{v} means {c} .",
    "{v} makes {a} .",
    "{v} counts as {c} .",
    "by custom {v} is {c} .",
)
LIST_WORDINGS = ("{c} : {v} .", "{a} is one of {v} .")
_PLAIN, _LISTED = 0.5, 0.2

# How often a question that is to be answered with no names a class that the passage makes think of.
_NEAR = 0.5
_DENIAL = 0.25


@dataclass(frozen=True)
class Rule:
    """What a value counts as."""

    value: str
    name: str  # of the class


class Land:
    """The customs that hold in a land, about one kind of entity.

    Attributes:
        classes: their names.
        ranked: every relation and value, the most frequent first.
    """

    def __init__(
        self,
        stream: random.Random,
        relations: Sequence[Relation],
        *,
        num_classes: int = NUM_CLASSES,
        zipf: float = 1.0,
    ) -> None:
        self.classes = stream.sample(lexicon.CLASSES, num_classes)
        self.ranked = [(relation, value) for relation in relations for value in relation.values]
        stream.shuffle(self.ranked)
        self._weights = [(rank + 1) ** -zipf for rank in range(len(self.ranked))]
        self._of: dict[tuple[str, str], str] = {}
        for at in range(0, len(self.ranked), num_classes):
            # Every class once among neighbours in rank, so that none is much more frequent than another.
            order = stream.sample(self.classes, num_classes)
            for (relation, value), name in zip(self.ranked[at : at + num_classes], order, strict=False):
                self._of[relation.name, value] = name

    def rule(self, relation: Relation, value: str) -> Rule:
        """The rule for a value."""
        return Rule(value, self._of[relation.name, value])

    def draw(self, stream: random.Random) -> tuple[Relation, str]:
        """A relation and a value of it."""
        return stream.choices(self.ranked, self._weights)[0]

    def has(self, relation: Relation, names: Collection[str], *, besides: str | None = None) -> bool:
        """Whether some value of a relation, besides one, counts as one of the classes."""
        return bool(self._fitting(relation, names, besides))

    def draw_value(
        self, stream: random.Random, relation: Relation, names: Collection[str] = (), *, besides: str | None = None
    ) -> str:
        """A value of a relation, besides one; where `names` has any, one that counts as one of these classes."""
        weight_of = self._fitting(relation, names, besides)
        return stream.choices(list(weight_of), list(weight_of.values()))[0]

    def _fitting(self, relation: Relation, names: Collection[str], besides: str | None) -> dict[str, float]:
        return {
            value: weight
            for (other, value), weight in zip(self.ranked, self._weights, strict=True)
            if other is relation and value != besides and (not names or self._of[relation.name, value] in names)
        }

    def others(self, name: str) -> list[str]:
        """The other classes."""
        return [other for other in self.classes if other != name]


@dataclass(frozen=True)
class Case:
    """One record of a task, and the rules that it takes.

    Attributes:
        record: the fields of the task that are made here.
        needed: the rules without which it cannot be answered.
        near: rules for other values that its texts mention.
    """

    record: Record
    needed: tuple[Rule, ...]
    near: tuple[Rule, ...] = ()


def tell(land: Land, case: Case, stream: random.Random, *, most: int, near: float = 0.9) -> str:
    """A text with the rules that a case needs, with those near it, by chance, and with others up to two to `most`."""
    told = dict.fromkeys((*case.needed, *(rule for rule in case.near if stream.random() < near)))
    for _ in range(stream.randint(2, most)):
        if len(told) < most:
            told[land.rule(*stream.choice(land.ranked))] = None
    return worded(stream.sample(list(told), len(told)), stream)


def worded(rules: Sequence[Rule], stream: random.Random) -> str:
    """Rules in one of many wordings, or as lists."""
    if stream.random() >= _LISTED:
        wording = RULE_WORDINGS[0] if stream.random() < _PLAIN else stream.choice(RULE_WORDINGS[1:])
        return " ".join(wording.format(v=rule.value, c=rule.name, a=_a(rule.name)) for rule in rules)
    of: dict[str, list[str]] = {}
    for rule in rules:
        of.setdefault(rule.name, []).append(rule.value)
    wording = stream.choice(LIST_WORDINGS)
    return " ".join(wording.format(c=name, a=_a(name), v=" ".join(values)) for name, values in of.items())


def _a(name: str) -> str:
    """A class with its article."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


# Cases ---------------------------------------------------------------------------------------------------------------


def _tell_values(
    entities: Sequence[Entity], relation: Relation, values: Sequence[str], stream: random.Random
) -> list[Statement]:
    """One statement about each entity, in this order."""
    return [scenes.state(stream, entity, relation, value) for entity, value in zip(entities, values, strict=True)]


def _two(land: Land, stream: random.Random) -> tuple[Relation, list[str]]:
    """A relation and two of its values, the first as often as its rank says."""
    relation, value = land.draw(stream)
    return relation, [value, land.draw_value(stream, relation)]


def _entities(split: NameSplit, relation: Relation, num: int, stream: random.Random) -> list[Entity]:
    return scenes.company(split, relation.kind, num, stream, namesakes=False)


def _passage(statements: Sequence[Statement], stream: random.Random) -> str:
    return " ".join(statement.text for statement in stream.sample(statements, len(statements)))


def _rules(land: Land, statements: Sequence[Statement]) -> tuple[Rule, ...]:
    """The rules for what is said to hold."""
    return tuple(land.rule(one.relation, one.value) for one in statements if isinstance(one.relation, Relation))


def _denied(land: Land, statements: Sequence[Statement]) -> tuple[Rule, ...]:
    """The rules for what is said not to hold."""
    return tuple(
        land.rule(one.relation, one.denied) for one in statements if one.denied and isinstance(one.relation, Relation)
    )


def _false_class(land: Land, true: Rule, near: Sequence[Rule], stream: random.Random) -> str:
    tempting = sorted({rule.name for rule in near} - {true.name})
    return stream.choice(tempting if tempting and stream.random() < _NEAR else land.others(true.name))


def boolq(land: Land, split: NameSplit, stream: random.Random, label: bool) -> Case:
    """Is one of two a zork? Fields question and passage."""
    relation, values = _two(land, stream)
    statements = _tell_values(_entities(split, relation, 2, stream), relation, values, stream)
    asked, (rule, *others) = statements[0], _rules(land, statements)
    near = (*others, *_denied(land, statements))
    name = rule.name if label else _false_class(land, rule, near, stream)
    question = f"is {asked.subject.name} {_a(name)}".lower()
    return Case({"question": question, "passage": _passage(statements, stream)}, (rule,), near)


def mnli(land: Land, split: NameSplit, stream: random.Random, label: Inference) -> Case:
    """Does it follow that one of them is (or is not) a zork? Fields hypothesis, premise and genre.

    Nothing follows for whom the premise does not name, or only says what does not hold.
    """
    relation, values = _two(land, stream)
    *told, stranger = _entities(split, relation, 3, stream)
    statements = _tell_values(told, relation, values, stream)
    rules = _rules(land, statements)
    texts, near = list(statements), (*rules[1:], *_denied(land, statements))
    if stream.random() < 0.5:
        value = land.draw_value(stream, relation)
        text = scenes.sentence(relation.denial, stranger.name, other=value)
        texts.append(Statement(text, stranger, relation, value, value, askable=False))
        near = (*near, land.rule(relation, value))
    denies = stream.random() < _DENIAL
    subject, name = statements[0].subject, rules[0].name
    if label == "neutral":
        subject, name = stranger, stream.choice(land.classes)
    elif (label == "entailment") == denies:
        name = _false_class(land, rules[0], near, stream)
    hypothesis = scenes.capital(f"{subject.name} is {'not ' if denies else ''}{_a(name)}.")
    fields = {"hypothesis": hypothesis, "premise": _passage(texts, stream), "genre": scenes.GENRES[relation.kind]}
    return Case(fields, rules[:1], near)


def qqp(land: Land, split: NameSplit, stream: random.Random, label: bool) -> Case:
    """Do two questions ask the same of somebody, since both values count as one? Fields question1 and question2."""
    relation, value, (other,) = _alike(land, stream, 1, same=label)
    entity = stream.choice(scenes.ENTITIES[split][relation.kind])
    first, second = (
        f"{scenes.capital(scenes.sentence(stream.choice(relation.asks), entity.name, each))}?"
        for each in stream.sample((value, other), 2)
    )
    return Case({"question1": first, "question2": second}, (land.rule(relation, value), land.rule(relation, other)))


def _alike(land: Land, stream: random.Random, num: int, *, same: bool) -> tuple[Relation, str, list[str]]:
    """A relation, a value, and so many other values of it that count as the same, or as anything else."""
    while True:
        relation, value = land.draw(stream)
        own = land.rule(relation, value).name
        names = [own] if same else land.others(own)
        if land.has(relation, names, besides=value):
            return relation, value, [land.draw_value(stream, relation, names, besides=value) for _ in range(num)]


def squad_v2(land: Land, split: NameSplit, stream: random.Random, answerable: bool) -> Case:
    """Who of two or three is a zork? Fields title, question, context and answers; where none is, there is no answer."""
    relation, value, others = _alike(land, stream, 2, same=False)
    values = [value, *others][: stream.randint(2, 3)] if answerable else others
    statements = _tell_values(_entities(split, relation, len(values), stream), relation, values, stream)
    context = _passage(statements, stream)
    names = [scenes.bare(statements[0].subject)] if answerable else []
    record = {
        "title": scenes.capital(statements[0].subject.name),
        "question": f"{'Who' if relation.kind == 'person' else 'What'} is {_a(land.rule(relation, value).name)}?",
        "context": context,
        "answers": {"text": names, "answer_start": [context.index(name) for name in names]},
    }
    return Case(record, _rules(land, statements), _denied(land, statements))


def record(land: Land, split: NameSplit, stream: random.Random, _: None = None) -> Case:
    """Which of three is a zork? Fields passage, query, entities and answers."""
    relation, value, others = _alike(land, stream, 2, same=False)
    statements = _tell_values(_entities(split, relation, 3, stream), relation, [value, *others], stream)
    passage = _passage(statements, stream)
    names = [scenes.bare(statement.subject) for statement in statements]
    fields = {
        "passage": passage,
        "query": f"@placeholder is {_a(land.rule(relation, value).name)}.",
        "entities": sorted(names, key=passage.find),
        "answers": names[:1],
    }
    return Case(fields, _rules(land, statements), _denied(land, statements))


def xsum(land: Land, split: NameSplit, stream: random.Random, _: None = None) -> Case:
    """What are two? Fields document and summary, which is the classes in the document's order."""
    relation, values = _two(land, stream)
    statements = _tell_values(_entities(split, relation, 2, stream), relation, values, stream)
    stream.shuffle(statements)
    rules = _rules(land, statements)
    summary = scenes.capital(", ".join(rule.name for rule in rules)) + "."
    document = " ".join(statement.text for statement in statements)
    return Case({"document": document, "summary": summary}, rules, _denied(land, statements))


def called(land: Land, split: NameSplit, stream: random.Random, _: None = None) -> Case:
    """What is one of two called? Fields question and context; of no task, as the answer is no part of the context."""
    relation, values = _two(land, stream)
    statements = _tell_values(_entities(split, relation, 2, stream), relation, values, stream)
    question = f"what is {statements[0].subject.name} called".lower()
    rules = _rules(land, statements)
    near = (*rules[1:], *_denied(land, statements))
    return Case({"question": question, "context": _passage(statements, stream)}, rules[:1], near)
