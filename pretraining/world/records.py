"""The data that are there without a network: six tasks about a generated world (`pretraining/world/scenes.py`).

Each is there twice: as plain reading, and under the customs of a land (`customs.py`). Its records are as the task's
data set on the Hub has them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar, get_args

from fpt.tasks.fields import Record
from pretraining.world import customs, scenes
from pretraining.world.customs import Case, Land
from pretraining.world.lexicon import Kind, Relation
from pretraining.world.scenes import Inference, NameSplit, Scene, Statement

Label = TypeVar("Label")
SIZES = {"train": 4000, "validation": 500}  # rows where nothing else is asked for
INFERENCES: tuple[Inference, ...] = get_args(Inference)


def boolq(split: NameSplit, *, num: int, seed: int) -> Iterator[Record]:
    """`num` balanced records: question (lower case, no question mark), passage, idx, label."""
    stream = _stream("boolq", split, seed)
    for index, label in enumerate(_labels((False, True), num, stream)):
        scene = scenes.scene(split, stream, num_statements=stream.randint(2, 4))
        question = scenes.ask(scene, stream.choice(scene.askable), label, stream)
        yield {"question": question, "passage": scene.passage, "idx": index, "label": label}


def mnli(split: str, *, num: int, seed: int) -> Iterator[Record]:
    """`num` balanced records: premise, hypothesis, genre, idx, label (0 entailment, 1 neutral, 2 contradiction).

    Splits "validation_mismatched" and "test_mismatched" are about things, all others about people and places.
    """
    stream = _stream("mnli", split, seed)
    kinds: Sequence[Kind] = ("thing",) if split.endswith("_mismatched") else ("person", "place")
    names = _names(split)
    for index, label in enumerate(_labels(INFERENCES, num, stream)):
        scene = scenes.scene(names, stream, num_statements=stream.randint(1, 3), kinds=kinds)
        yield {
            "premise": scene.passage,
            "hypothesis": scenes.hypothesis(scene, label, stream),
            "genre": scenes.GENRES[scene.entities[0].kind],
            "idx": index,
            "label": INFERENCES.index(label),
        }


def qqp(split: NameSplit, *, num: int, seed: int) -> Iterator[Record]:
    """`num` balanced records: question1, question2, idx, label (1 if they ask the same)."""
    stream = _stream("qqp", split, seed)
    for index, label in enumerate(_labels((0, 1), num, stream)):
        first, second = scenes.question_pair(split, bool(label), stream)
        yield {"question1": first, "question2": second, "idx": index, "label": label}


def squad_v2(split: NameSplit, *, num: int, seed: int) -> Iterator[Record]:
    """`num` records: id, title, context, question, answers {text, answer_start}; a third have no answer."""
    stream = _stream("squad_v2", split, seed)
    for index, answerable in enumerate(_labels((True, True, False), num, stream)):
        scene, asked = _with_value(split, stream)
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if answerable:
            question = scenes.seek(asked, stream)
            start = scene.passage.index(asked.text) + scenes.place_of_value(asked)
            answers = {"text": [asked.value], "answer_start": [start]}
        else:
            question = scenes.sought(*scenes.untold(scene, stream), stream)
        title = scenes.capital(scene.entities[0].name)
        yield {"id": f"{split}-{index}", "title": title, "context": scene.passage, "question": question} | {
            "answers": answers
        }


def _with_value(split: NameSplit, stream: random.Random) -> tuple[Scene, Statement]:
    """A scene, and a statement in it whose value a question can ask for."""
    while True:
        scene = scenes.scene(split, stream, num_statements=stream.randint(3, 5), num_entities=3, namesakes=True)
        asked = [statement for statement in scene.askable if isinstance(statement.relation, Relation)]
        if asked:
            return scene, stream.choice(asked)


def record(split: NameSplit, *, num: int, seed: int) -> Iterator[Record]:
    """`num` records: passage, query (with @placeholder), entities (two or three), answers (one of them), idx."""
    stream = _stream("record", split, seed)
    for index in range(num):
        scene, asked = _with_one_subject(split, stream)
        names = [scenes.bare(entity) for entity in scene.entities]
        present = sorted((name for name in names if name.lower() in scene.passage.lower()), key=scene.passage.find)
        yield {
            "passage": scene.passage,
            "query": scenes.with_gap(asked, stream),
            "entities": present,
            "answers": [scenes.bare(asked.subject)],
            "idx": {"passage": index, "query": index},
        }


def _with_one_subject(split: NameSplit, stream: random.Random) -> tuple[Scene, Statement]:
    """A scene of three entities, and a statement in it that is true of one of them alone."""
    while True:
        scene = scenes.scene(split, stream, num_statements=stream.randint(3, 5), num_entities=3, namesakes=True)
        asked = stream.choice(scene.askable)
        same = [one for one in scene.statements if one.relation is asked.relation and one.value == asked.value]
        if len(same) == 1:
            return scene, asked


def xsum(split: NameSplit, *, num: int, seed: int) -> Iterator[Record]:
    """`num` records: document (five sentences), summary (one), id."""
    stream = _stream("xsum", split, seed)
    for index in range(num):
        text = scenes.document(split, stream)
        summary = text.summary(scenes.SUMMARY_OF[text.subject.kind].text)
        yield {"document": text.text, "summary": summary, "id": f"{split}-{index}"}


TASKS: dict[str, Callable[..., Iterator[Record]]] = {
    task.__name__: task for task in (boolq, mnli, qqp, squad_v2, record, xsum)
}

# Under customs: how a case is drawn, and the labels that it is drawn for.
CASES: dict[str, tuple[Callable[..., Case], Sequence[Any]]] = {
    "boolq": (customs.boolq, (False, True)),
    "mnli": (customs.mnli, INFERENCES),
    "qqp": (customs.qqp, (0, 1)),
    "squad_v2": (customs.squad_v2, (True, True, False)),
    "record": (customs.record, (None,)),
    "xsum": (customs.xsum, (None,)),
}


@cache
def land_of(number: int) -> Land:
    """A land by its number: customs of people alone, 146 rules, so that a prompt can hold them."""
    return Land(random.Random(f"land {number}"), scenes.RELATIONS_OF["person"])


def under_customs(task: str, split: str, *, num: int, seed: int, land: int) -> Iterator[Record]:
    """`num` records of a task under a land's customs, which nothing in them states."""
    for _, record in told(task, split, num=num, seed=seed, land=land):
        yield record


def told(task: str, split: str, *, num: int, seed: int, land: int, most: int = 8) -> Iterator[tuple[str, Record]]:
    """The same records, each with a text that states the rules that it takes, and others, up to `most` or as needed."""
    stream, telling = _stream(f"{task} in land {land}", split, seed), _stream(f"rules of land {land}", split, seed)
    draw, labels = CASES[task]
    for index, label in enumerate(_labels(labels, num, stream)):
        case = draw(land_of(land), _names(split), stream, label)
        names: Record = {"idx": index}
        if task in ("squad_v2", "xsum"):
            names = {"id": f"{split}-{index}"}
        elif task == "record":
            names = {"idx": {"passage": index, "query": index}}
        else:
            names["label"] = INFERENCES.index(label) if task == "mnli" else label
        yield customs.tell(land_of(land), case, telling, most=most), {**case.record, **names}


def _names(split: str) -> NameSplit:
    """Whose names a split tells of: of MNLI's, and of a test split, those of validation."""
    return "train" if split == "train" else "pretraining" if split == "pretraining" else "validation"


def _stream(task: str, split: str, seed: int) -> random.Random:
    return random.Random(f"{task} {split} {seed}")


def _labels(labels: Sequence[Label], num: int, stream: random.Random) -> list[Label]:
    """`num` labels, each as often as it is listed, in random order."""
    drawn = [labels[index % len(labels)] for index in range(num)]
    stream.shuffle(drawn)
    return drawn
