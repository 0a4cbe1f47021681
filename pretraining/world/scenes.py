"""A generated world: who and what is in it, what can be told of them, and what can be asked about what was scene.

The world holds people, places and things. Each is called by a name of two words ("Mira Tanaka", "Port Linden", "the
royal lamp"), and a stable hash of that name decides which split it belongs to. Every fact is about such entities, and
a split tells facts about its own entities only: no name and no fact of the validation split is ever seen in training,
nor in the text that the embedded backbone is pre-trained on.

A *scene* is a handful of statements, drawn without regard to any question. A label is drawn first and a question is
then made to fit it, so that the question alone or the passage alone says next to nothing about the label;
`python -m bench.backbone` measures how much the question does.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal

from pretraining.world import lexicon
from pretraining.world.lexicon import Kind, Relation, Scale

NameSplit = Literal["pretraining", "train", "validation", "test"]
Inference = Literal["entailment", "neutral", "contradiction"]

# Tenths of all names: pre-training wants the widest variety, a validation split only enough to be fair.
_SPLIT_OF_TENTH: tuple[NameSplit, ...] = ("validation",) + ("train",) * 2 + ("pretraining",) * 7

# How often a statement is of each form, and a question asks for more than what was said.
_CONTRAST, _DENIAL, _COMPARISON = 1 / 3, 0.15, 0.2
_GROUP, _ORDER, _NAMESAKES = 0.3, 0.5, 0.5


@dataclass(frozen=True, order=True)
class Entity:
    """A person, place or thing; `name` as it stands in a text, article included."""

    kind: Kind
    name: str


@dataclass(frozen=True)
class Statement:
    """One sentence of a scene and what it is made from."""

    text: str
    subject: Entity
    relation: Relation | Scale
    value: str  # of a comparison: the name of the lesser entity
    denied: str | None = None  # a value that the sentence says does not hold
    askable: bool = True  # a bare denial leaves open what holds, so nothing is asked about it


@dataclass(frozen=True)
class Scene:
    """Statements that do not contradict each other, in the order of the passage, and all they could be about."""

    statements: tuple[Statement, ...]
    entities: tuple[Entity, ...]

    @property
    def passage(self) -> str:
        """The statements as one text."""
        return " ".join(statement.text for statement in self.statements)

    @property
    def askable(self) -> list[Statement]:
        """The statements that say what holds."""
        return [statement for statement in self.statements if statement.askable]


def split_of(name: str) -> NameSplit:
    """The one split that an entity's name belongs to, by a hash that is the same on every machine."""
    return _SPLIT_OF_TENTH[zlib.crc32(name.lower().encode()) % len(_SPLIT_OF_TENTH)]


def _entities_by_split() -> dict[NameSplit, dict[Kind, list[Entity]]]:
    splits: dict[NameSplit, dict[Kind, list[Entity]]] = {
        split: {kind: [] for kind in KINDS} for split in _SPLIT_OF_TENTH
    }
    for kind, (firsts, lasts) in lexicon.NAME_PARTS.items():
        for first, last in product(firsts, lasts):
            name = lexicon.CALLED[kind].format(f"{first} {last}")
            splits[split_of(name)][kind].append(Entity(kind, name))
    return splits


KINDS: tuple[Kind, ...] = tuple(lexicon.NAME_PARTS)
GENRES: dict[Kind, str] = {"person": "people", "place": "places", "thing": "things"}  # as MNLI would say
ENTITIES = _entities_by_split()
ENTITIES["test"] = ENTITIES["validation"]  # other facts about the same names, of which training says nothing
RELATIONS_OF = {kind: tuple(relation for relation in lexicon.RELATIONS if relation.kind == kind) for kind in KINDS}
SCALES_OF = {kind: tuple(scale for scale in lexicon.SCALES if scale.kind == kind) for kind in KINDS}
SUMMARY_OF = {summary.kind: summary for summary in lexicon.SUMMARIES}


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def sentence(template: str, name: str, value: str = "", other: str = "") -> str:
    """A template filled in; `{E}` is the name at a sentence's beginning."""
    return template.format(e=name, E=capital(name), v=value, w=other)


def compare(template: str, scale: Scale, greater: str, lesser: str, *, reverse: bool) -> str:
    """A comparison, told or asked, from either side."""
    first, word, second = (lesser, scale.less, greater) if reverse else (greater, scale.more, lesser)
    text = sentence(template, first, word, second)
    return capital(text) if template is scale.state else text


def other_than(stream: random.Random, values: Sequence[str], avoided: Collection[str]) -> str:
    """One of the values that are not to be avoided."""
    return stream.choice([value for value in values if value not in avoided])


def scene(
    split: NameSplit,
    stream: random.Random,
    *,
    num_statements: int,
    num_entities: int = 2,
    kinds: Sequence[Kind] = KINDS,
    namesakes: bool = False,
) -> Scene:
    """A scene of entities of one kind of the split, with the same properties, so that values must be told apart.

    Where there may be `namesakes`, every second time all share a word of the first one's name.
    """
    entities = company(split, stream.choice(kinds), num_entities, stream, namesakes=namesakes)
    kind = entities[0].kind
    relations = stream.sample(RELATIONS_OF[kind], num_statements // num_entities + 1)
    slots = [(entity, relation) for relation in relations for entity in entities]
    # One statement at least must be askable: the first is never a bare denial.
    statements: list[Statement] = []
    for entity, relation in slots[:num_statements]:
        if statements and stream.random() < _DENIAL:
            denied = stream.choice(relation.values)
            text = sentence(relation.denial, entity.name, other=denied)
            statements.append(Statement(text, entity, relation, denied, denied, askable=False))
        elif stream.random() < _COMPARISON and not any(isinstance(earlier.relation, Scale) for earlier in statements):
            statements.append(_comparison(stream, entities))
        else:
            statements.append(state(stream, entity, relation, stream.choice(relation.values)))
    stream.shuffle(statements)
    return Scene(tuple(statements), tuple(entities))


def company(split: NameSplit, kind: Kind, num: int, stream: random.Random, *, namesakes: bool) -> list[Entity]:
    """Different entities of one kind of the split; `namesakes` as in `scene`."""
    drawn = stream.sample(ENTITIES[split][kind], num)
    if namesakes and stream.random() < _NAMESAKES:
        alike = _namesakes(split, drawn[0])
        drawn[1:] = [*stream.sample(alike, min(num - 1, len(alike))), *(one for one in drawn[1:] if one not in alike)]
    return drawn[:num]


def state(stream: random.Random, entity: Entity, relation: Relation, value: str) -> Statement:
    """One statement that `entity` has `value`; every third also names a value that does not hold."""
    if stream.random() >= _CONTRAST:
        return Statement(sentence(stream.choice(relation.states), entity.name, value), entity, relation, value)
    denied = other_than(stream, relation.values, {value})
    text = sentence(stream.choice(relation.contrasts), entity.name, value, denied)
    return Statement(text, entity, relation, value, denied)


def _comparison(stream: random.Random, entities: Sequence[Entity]) -> Statement:
    greater, lesser = stream.sample(entities, 2)
    scale = stream.choice(SCALES_OF[greater.kind])
    text = compare(scale.state, scale, greater.name, lesser.name, reverse=stream.random() < 0.5)
    return Statement(text, greater, scale, lesser.name)


def retold(statement: Statement, stream: random.Random) -> str:
    """The same fact in other words; a bare denial has only its own."""
    relation = statement.relation
    if isinstance(relation, Scale):
        texts = [
            compare(relation.state, relation, statement.subject.name, statement.value, reverse=reverse)
            for reverse in (False, True)
        ]
    elif statement.askable:
        texts = [sentence(template, statement.subject.name, statement.value) for template in relation.states]
    else:
        return statement.text
    return other_than(stream, texts, {statement.text})


def ask(scene: Scene, statement: Statement, label: bool, stream: random.Random) -> str:
    """A yes/no question about an askable statement, made to have the answer `label`; lower case, no question mark."""
    assert statement.askable
    relation, subject = statement.relation, statement.subject
    if isinstance(relation, Scale):
        greater, lesser = (subject.name, statement.value) if label else (statement.value, subject.name)
        return compare(stream.choice(relation.asks), relation, greater, lesser, reverse=stream.random() < 0.5).lower()
    if relation.order and stream.random() < _ORDER and (question := _ask_order(scene, relation, label, stream)):
        return question
    value = claimed(scene, statement, relation, label, stream)
    return sentence(stream.choice(relation.asks), subject.name, value).lower()


def _ask_order(scene: Scene, relation: Relation, label: bool, stream: random.Random) -> str | None:
    """Which of two came first, if the scene tells when each of two did."""
    moments = {one.value: one.subject for one in scene.askable if one.relation is relation}
    if len(moments) < 2 or relation.order is None:
        return None
    first, last = sorted(stream.sample(sorted(moments), 2), key=relation.values.index)
    early, late = (moments[first].name, moments[last].name) if label else (moments[last].name, moments[first].name)
    if stream.random() < 0.5:
        return sentence(relation.order, early, lexicon.BEFORE, late).lower()
    return sentence(relation.order, late, lexicon.AFTER, early).lower()


def claimed(scene: Scene, statement: Statement, relation: Relation, holds: bool, stream: random.Random) -> str:
    """A value, or now and then a group of values, that holds or does not.

    Of the values that do not hold every second is one that the passage mentions, where it does.
    """
    if group := _claimed_group(statement.value, relation, holds, stream):
        return group
    if holds:
        return statement.value
    mentioned = _mentioned(scene, relation) - {statement.value}
    if mentioned and stream.random() < 0.5:
        return stream.choice(sorted(mentioned))
    return other_than(stream, relation.values, mentioned | {statement.value})


def _claimed_group(value: str, relation: Relation, holds: bool, stream: random.Random) -> str | None:
    """Now and then a group that the value is in, or is not in; each group as often truly as falsely.

    Of groups with shares p of the values, g is claimed truly with a chance in proportion to p_g (1 - p_g), and falsely
    of a value in h with one in proportion to p_h p_g, which over all h is the same.
    """
    shares = {group: len(members) / len(relation.values) for group, members in relation.groups.items()}
    own = next((group for group, members in relation.groups.items() if value in members), None)
    if holds:
        return own if own and stream.random() < _GROUP * (1 - shares[own]) else None
    chance = stream.random()
    for group, share in shares.items():
        if group != own and (chance := chance - _GROUP * share) < 0:
            return group
    return None


def _mentioned(scene: Scene, relation: Relation) -> set[str]:
    values = [value for one in scene.statements if one.relation is relation for value in (one.value, one.denied)]
    return {value for value in values if value is not None}


def seek(statement: Statement, stream: random.Random) -> str:
    """A question for the value of a statement; capital letter and question mark."""
    assert isinstance(statement.relation, Relation)
    return sought(statement.subject, statement.relation, stream)


def sought(entity: Entity, relation: Relation, stream: random.Random) -> str:
    """A question for an entity's value under a relation."""
    return capital(sentence(stream.choice(relation.seeks), entity.name)) + "?"


def untold(scene: Scene, stream: random.Random) -> tuple[Entity, Relation]:
    """A relation that nothing is said about for an entity; every second time one that is told of another entity."""
    free = [
        (one, relation)
        for one in scene.entities
        for relation in RELATIONS_OF[one.kind]
        if not any(said.subject == one and said.relation is relation for said in scene.statements)
    ]
    near = [(one, relation) for one, relation in free if _mentioned(scene, relation)]
    return stream.choice(near if near and stream.random() < 0.5 else free)


def place_of_value(statement: Statement) -> int:
    """Where a statement's value begins in its text."""
    assert isinstance(statement.relation, Relation)
    for template in (*statement.relation.states, *statement.relation.contrasts):
        other = statement.denied or ""
        if sentence(template, statement.subject.name, statement.value, other) == statement.text:
            before = template[: template.index("{v}")]
            return len(sentence(before, statement.subject.name, other=other))
    raise ValueError(f"not a statement of {statement.relation.name}: {statement.text}")


def bare(entity: Entity) -> str:
    """An entity's name without its article."""
    return entity.name.removeprefix("the ")


def with_gap(statement: Statement, stream: random.Random) -> str:
    """The statement in other words, with @placeholder for its subject."""
    return re.sub(bare(statement.subject), "@placeholder", retold(statement, stream))


def hypothesis(scene: Scene, label: Inference, stream: random.Random) -> str:
    """A sentence that follows from the scene, contradicts it, or is left open by it; a quarter are denials."""
    statement = stream.choice(scene.askable)
    if isinstance(statement.relation, Scale):
        return _compared(statement, statement.relation, label, stream)
    relation, subject = statement.relation, statement.subject
    denies = stream.random() < 0.25
    if label == "neutral":
        subject, relation = untold(scene, stream)
        mentioned = sorted(_mentioned(scene, relation))
        value = stream.choice(mentioned if mentioned and stream.random() < 0.5 else relation.values)
        value = _claimed_group(value, relation, stream.random() < 0.5, stream) or value
    else:
        value = claimed(scene, statement, relation, (label == "entailment") != denies, stream)
    if denies:
        return sentence(relation.denial, subject.name, other=value)
    return _unlike(scene, [sentence(template, subject.name, value) for template in relation.states], stream)


def _compared(statement: Statement, scale: Scale, label: Inference, stream: random.Random) -> str:
    greater, lesser = statement.subject.name, statement.value
    if label == "contradiction" or (label == "neutral" and stream.random() < 0.5):
        greater, lesser = lesser, greater
    if label == "neutral":
        scale = stream.choice([other for other in SCALES_OF[statement.subject.kind] if other is not scale])
    return compare(scale.state, scale, greater, lesser, reverse=stream.random() < 0.5)


def _unlike(scene: Scene, texts: Sequence[str], stream: random.Random) -> str:
    """One of the texts, if possible not one that stands in the passage word for word."""
    said = {statement.text for statement in scene.statements}
    return stream.choice([text for text in texts if text not in said] or list(texts))


def question_pair(split: NameSplit, duplicate: bool, stream: random.Random) -> tuple[str, str]:
    """Two questions in different words that ask the same, or differ in whom, what or which value they ask about."""
    kind = stream.choice(KINDS)
    first, second = stream.sample(ENTITIES[split][kind], 2)
    if stream.random() < 0.25:
        scale = stream.choice(SCALES_OF[kind])
        forms, sides = stream.sample(scale.asks, 2), (stream.random() < 0.5, stream.random() < 0.5)
        pair = (first.name, second.name) if duplicate else (second.name, first.name)
        return _as_questions(
            compare(forms[0], scale, first.name, second.name, reverse=sides[0]),
            compare(forms[1], scale, *pair, reverse=sides[1]),
        )
    relation, changed = stream.sample(RELATIONS_OF[kind], 2)
    yes_no = stream.random() < 0.5
    value = stream.choice(relation.values)
    forms = stream.sample(relation.asks if yes_no else relation.seeks, 2)
    one = sentence(forms[0], first.name, value)
    if duplicate:
        return _as_questions(one, sentence(forms[1], first.name, value))
    difference = stream.choice(("entity", "relation", "value") if yes_no else ("entity", "entity", "relation"))
    if difference == "entity":
        namesake = stream.choice(_namesakes(split, first) or [second]) if stream.random() < 0.5 else second
        return _as_questions(one, sentence(forms[1], namesake.name, value))
    if difference == "value":
        return _as_questions(one, sentence(forms[1], first.name, other_than(stream, relation.values, {value})))
    asked = stream.choice(changed.asks if yes_no else changed.seeks)
    return _as_questions(one, sentence(asked, first.name, stream.choice(changed.values)))


def _as_questions(first: str, second: str) -> tuple[str, str]:
    return f"{capital(first)}?", f"{capital(second)}?"


@cache
def _namesakes(split: NameSplit, entity: Entity) -> list[Entity]:
    """The other entities of a kind that share a word of the name."""
    words = set(entity.name.split()[-2:])
    return [one for one in ENTITIES[split][entity.kind] if one != entity and words & set(one.name.split()[-2:])]


@dataclass(frozen=True)
class Document:
    """A text about one entity in the company of others, and the two values that sum it up."""

    text: str
    subject: Entity
    values: tuple[str, str]

    def summary(self, template: str) -> str:
        """The two values in one sentence."""
        return capital(sentence(template, self.subject.name, *self.values))


def document(split: NameSplit, stream: random.Random) -> Document:
    """Five statements: two sum up one entity, one each half of two others, and one is beside the point."""
    kind = stream.choice(KINDS)
    subject, *others = company(split, kind, 3, stream, namesakes=True)
    main = [relation for name in SUMMARY_OF[kind].relations for relation in RELATIONS_OF[kind] if relation.name == name]
    aside = stream.choice([relation for relation in RELATIONS_OF[kind] if relation not in main])
    values = [stream.choice(relation.values) for relation in main]
    statements = [
        *(state(stream, subject, relation, value) for relation, value in zip(main, values, strict=True)),
        *(state(stream, other, half, stream.choice(half.values)) for other, half in zip(others, main, strict=True)),
        state(stream, stream.choice((subject, *others)), aside, stream.choice(aside.values)),
    ]
    stream.shuffle(statements)
    return Document(" ".join(statement.text for statement in statements), subject, (values[0], values[1]))
