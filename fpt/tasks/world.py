"""The data that are there without a network: a generated world, written in the original tasks' file formats.

The world holds people, places and things. Each is called by a name of two words ("Mira Tanaka", "Port Linden", "the
royal lamp"), and a stable hash of that name decides which split it belongs to. Every fact is about such entities, and
a split tells facts about its own entities only: no name and no fact of the validation split is ever seen in training,
nor in the text that the embedded backbone is pre-trained on.

A *scene* is a handful of statements, drawn without regard to any question. A label is drawn first and a question is
then made to fit it, so neither the passage alone nor the question alone says anything about the label.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fpt.tasks.lexicon import CALLED, NAME_PARTS, RELATIONS, SCALES, Kind, Relation, Scale

Split = Literal["pretraining", "train", "validation"]

# Tenths of all names: pre-training wants the widest variety, a validation split only enough to be fair.
_SPLIT_OF_TENTH: tuple[Split, ...] = ("validation",) + ("train",) * 2 + ("pretraining",) * 7


SIZES = {"train": 4000, "validation": 500}  # rows of each split where nothing else is asked for


@dataclass(frozen=True, order=True)
class Entity:
    """A person, place or thing; `name` as it stands in a text, article included."""

    kind: Kind
    name: str


@dataclass(frozen=True, order=True)
class Fact:
    """That `subject` has `value` under `relation`, true or only claimed; comparisons have an entity's name as value."""

    subject: str
    relation: str
    value: str


@dataclass(frozen=True)
class Statement:
    """One sentence of a scene: the facts it asserts or denies, and what it is made from."""

    text: str
    subject: Entity
    relation: Relation | Scale
    value: str  # of a comparison: the name of the lesser entity
    denied: str | None  # a value that the sentence says does not hold
    askable: bool  # a bare denial can only be answered with no, so nothing is asked about it

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts it speaks of: the one that holds, the one that it denies."""
        values = (self.value if self.askable else None, self.denied)
        return tuple(Fact(self.subject.name, _key(self.relation), value) for value in values if value is not None)


@dataclass(frozen=True)
class Scene:
    """Statements that do not contradict each other, in the order of the passage."""

    statements: tuple[Statement, ...]

    @property
    def passage(self) -> str:
        """The statements as one text."""
        return " ".join(statement.text for statement in self.statements)


@dataclass(frozen=True)
class Question:
    """A yes/no question about one statement of a scene, the fact it claims, and its answer."""

    text: str
    claim: Fact
    label: bool


@dataclass(frozen=True)
class Example:
    """One row as it is written to a file, and every fact that its passage or question mentions."""

    row: dict[str, Any]
    facts: frozenset[Fact]


def _key(relation: Relation | Scale) -> str:
    return relation.name if isinstance(relation, Relation) else relation.more


def split_of(name: str) -> Split:
    """The one split that an entity's name belongs to, by a hash that is the same on every machine."""
    return _SPLIT_OF_TENTH[zlib.crc32(name.lower().encode()) % len(_SPLIT_OF_TENTH)]


def _all_entities() -> tuple[Entity, ...]:
    return tuple(
        Entity(kind, CALLED[kind].format(f"{first} {last}"))
        for kind, (firsts, lasts) in NAME_PARTS.items()
        for first in firsts
        for last in lasts
    )


def _entities_by_split() -> dict[Split, dict[Kind, tuple[Entity, ...]]]:
    splits: dict[Split, dict[Kind, list[Entity]]] = {
        split: {kind: [] for kind in NAME_PARTS} for split in _SPLIT_OF_TENTH
    }
    for entity in _all_entities():
        splits[split_of(entity.name)][entity.kind].append(entity)
    return {split: {kind: tuple(found) for kind, found in kinds.items()} for split, kinds in splits.items()}


ENTITIES = _entities_by_split()
KINDS: tuple[Kind, ...] = tuple(NAME_PARTS)
RELATIONS_OF = {kind: tuple(relation for relation in RELATIONS if relation.kind == kind) for kind in KINDS}
SCALES_OF = {kind: tuple(scale for scale in SCALES if scale.kind == kind) for kind in KINDS}


def _pattern(kind: Kind) -> str:
    first, last = (f"(?:{'|'.join(parts)})" for parts in NAME_PARTS[kind])
    return CALLED[kind].format(f"{first} {last}")


_NAME_PATTERN = re.compile(rf"\b(?:{'|'.join(map(_pattern, KINDS))})\b", re.IGNORECASE)


def names_in(text: str) -> frozenset[str]:
    """Every entity's name in a text, in lower case."""
    return frozenset(match.lower() for match in _NAME_PATTERN.findall(text))


def sentence(template: str, entity: Entity, value: str = "", denied: str = "") -> str:
    """A template filled in; `{E}` is the entity at a sentence's beginning."""
    name = entity.name
    return template.format(e=name, E=name[0].upper() + name[1:], v=value, w=denied)


def _state(stream: random.Random, entity: Entity, relation: Relation, value: str) -> Statement:
    """One statement that `entity` has `value`; every third also names a value that does not hold."""
    if stream.random() < 1 / 3:
        denied = _other(stream, relation.values, value)
        text = sentence(stream.choice(relation.contrasts), entity, value, denied)
        return Statement(text, entity, relation, value, denied, askable=True)
    return Statement(
        sentence(stream.choice(relation.states), entity, value),
        entity,
        relation,
        value,
        None,
        askable=True,
    )


def _deny(stream: random.Random, entity: Entity, relation: Relation) -> Statement:
    denied = stream.choice(relation.values)
    return Statement(
        sentence(relation.denial, entity, denied=denied),
        entity,
        relation,
        denied,
        denied,
        askable=False,
    )


def compare(scale: Scale, greater: str, lesser: str, *, reverse: bool) -> str:
    """A comparison as a sentence, from either side."""
    first, adjective, second = (lesser, scale.less, greater) if reverse else (greater, scale.more, lesser)
    return f"{first[0].upper()}{first[1:]} is {adjective} than {second}."


def _other(stream: random.Random, values: Sequence[str], *avoided: str) -> str:
    while (value := stream.choice(values)) in avoided:
        pass
    return value


def scene(split: Split, stream: random.Random, *, num_statements: int) -> Scene:
    """A scene of the split's entities: two of one kind with the same properties, so that values must be told apart.

    Raises ValueError for less than one statement.
    """
    if num_statements < 1:
        raise ValueError(f"num_statements must be at least 1, not {num_statements}")
    kind = stream.choice(KINDS)
    pair = stream.sample(ENTITIES[split][kind], 2)
    # Twice the relations for two entities: the same one is often told of both.
    relations = stream.sample(RELATIONS_OF[kind], min(len(RELATIONS_OF[kind]), (num_statements + 2) // 2))
    slots = [(entity, relation) for relation in relations for entity in pair]
    # One statement at least must be askable: the first is never a bare denial.
    statements: list[Statement] = []
    for entity, relation in slots[:num_statements]:
        if statements and stream.random() < 0.15:
            statements.append(_deny(stream, entity, relation))
        elif stream.random() < 0.2 and not any(isinstance(told.relation, Scale) for told in statements):
            statements.append(_comparison(stream, pair))
        else:
            statements.append(_state(stream, entity, relation, stream.choice(relation.values)))
    stream.shuffle(statements)
    return Scene(tuple(statements))


def _comparison(stream: random.Random, pair: Sequence[Entity]) -> Statement:
    greater, lesser = stream.sample(pair, 2)
    scale = stream.choice(SCALES_OF[greater.kind])
    text = compare(scale, greater.name, lesser.name, reverse=stream.random() < 0.5)
    return Statement(text, greater, scale, lesser.name, None, askable=True)


def ask(told: Scene, statement: Statement, label: bool, stream: random.Random) -> Question:
    """A yes/no question about one askable statement, made to have the answer `label`."""
    assert statement.askable
    if isinstance(statement.relation, Scale):
        return _ask_comparison(statement, statement.relation, label, stream)
    relation = statement.relation
    value = statement.value if label else _wrong_value(told, statement, relation, stream)
    text = sentence(stream.choice(relation.asks), statement.subject, value).lower()
    return Question(text, Fact(statement.subject.name, relation.name, value), label)


def _ask_comparison(statement: Statement, scale: Scale, label: bool, stream: random.Random) -> Question:
    greater, lesser = statement.subject.name, statement.value
    if not label:
        greater, lesser = lesser, greater
    first, adjective, second = (lesser, scale.less, greater) if stream.random() < 0.5 else (greater, scale.more, lesser)
    return Question(f"is {first} {adjective} than {second}".lower(), Fact(greater, scale.more, lesser), label)


def _wrong_value(told: Scene, statement: Statement, relation: Relation, stream: random.Random) -> str:
    """A value that does not hold; every second time one that the passage mentions, where it does."""
    mentioned = [
        value
        for other in told.statements
        if other.relation is relation
        for value in (other.value, other.denied)
        if value is not None and value != statement.value
    ]
    if mentioned and stream.random() < 0.5:
        return stream.choice(mentioned)
    return _other(stream, relation.values, statement.value, *mentioned)


def boolq_examples(split: Literal["train", "validation"], *, num: int, seed: int) -> Iterator[Example]:
    """`num` balanced BoolQ examples of a split, with the facts they mention.

    Raises ValueError if `num` is negative.
    """
    if num < 0:
        raise ValueError(f"num must not be negative, but is {num}")
    stream = random.Random(f"boolq {split} {seed}")
    labels = [index % 2 == 0 for index in range(num)]
    stream.shuffle(labels)
    for index, label in enumerate(labels):
        told = scene(split, stream, num_statements=stream.randint(2, 4))
        subject = stream.choice([statement for statement in told.statements if statement.askable])
        question = ask(told, subject, label, stream)
        facts = {fact for statement in told.statements for fact in statement.facts} | {question.claim}
        row = {"question": question.text, "passage": told.passage, "idx": index, "label": label}
        yield Example(row, frozenset(facts))


def boolq(split: Literal["train", "validation"], *, num: int, seed: int) -> Iterator[dict[str, Any]]:
    """`num` rows in SuperGLUE BoolQ's JSONL format: question (lower case, no question mark), passage, idx, label."""
    return (example.row for example in boolq_examples(split, num=num, seed=seed))


def write_jsonl(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Rows as JSON lines, complete under their name or not there at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    aside.replace(path)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fpt.tasks.world", description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["boolq"])
    parser.add_argument("folder", type=Path, help="where train.jsonl and val.jsonl go")
    parser.add_argument("--train", type=int, default=SIZES["train"], help="training rows (default %(default)s)")
    parser.add_argument("--val", type=int, default=SIZES["validation"], help="validation rows (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if min(options.train, options.val) < 0:
        parser.error("a number of rows cannot be negative")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parse_arguments(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(boolq("train", num=options.train, seed=options.seed), options.folder / "train.jsonl")
    write_jsonl(boolq("validation", num=options.val, seed=options.seed), options.folder / "val.jsonl")
    print(f"{options.train} training and {options.val} validation rows in {options.folder}")


if __name__ == "__main__":
    main()
