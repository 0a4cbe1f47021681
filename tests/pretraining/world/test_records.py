"""The generated tasks have no shortcut, nothing of their validation splits is seen before, and answers are right."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pretraining import corpus, instructions
from pretraining.world import records as world

pytestmark = pytest.mark.slow  # what comes of the generator is shipped: tests/pretraining/test_lands.py

FIELDS = {  # by label task: what a model sees, and how often a label would be right by chance
    "boolq": ("question", "passage"),
    "mnli": ("hypothesis", "premise"),
    "qqp": ("question1", "question2"),
}


def rows(task: str, split: str, num: int, seed: int = 0) -> list[dict[str, Any]]:
    return list(world.TASKS[task](split, num=num, seed=seed))


def texts(value: Any) -> Iterator[str]:
    """Every text in a record."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts(part)


def names(records: list[dict[str, Any]]) -> frozenset[str]:
    return frozenset().union(*(corpus.names_in(text) for text in texts(records)))


@pytest.mark.parametrize("task", world.TASKS)
def test_a_seed_decides_all(task: str) -> None:
    assert rows(task, "train", 50, seed=1) == rows(task, "train", 50, seed=1)
    assert rows(task, "train", 50, seed=1) != rows(task, "train", 50, seed=2)


@pytest.mark.parametrize(("task", "counts"), [("boolq", [500, 500]), ("mnli", [334, 333, 333]), ("qqp", [500, 500])])
def test_labels_are_balanced(task: str, counts: list[int]) -> None:
    assert sorted(Counter(row["label"] for row in rows(task, "train", 1000)).values(), reverse=True) == counts


@pytest.mark.parametrize("task", world.TASKS)
def test_no_name_of_a_validation_split_is_seen_before(task: str) -> None:
    """Every fact is about somebody's name, so no fact is either."""
    held_out = names(rows(task, "validation", 1000))
    assert len(held_out) > 50
    assert not held_out & names(rows(task, "train", 2000))
    stream = random.Random(0)
    for maker in (*corpus.READING, instructions.instruct, instructions.guess):
        read = [{"texts": list(maker(stream, 4))} for _ in range(300)]
        assert not held_out & names(read)


# Not the words of both of QQP's questions: a pair that names two people is no duplicate, and words do tell that.
@pytest.mark.parametrize(("task", "part"), [(task, part) for task in FIELDS for part in range(3 - (task == "qqp"))])
def test_words_alone_do_not_give_the_label_away(task: str, part: int) -> None:
    """Word pairs of either text or of both, without seeing how the two belong together, stay near chance."""
    fields = FIELDS[task] if part == 2 else (FIELDS[task][part],)

    def data(split: str, num: int) -> tuple[list[str], list[int]]:
        drawn = rows(task, split, num)
        return [" ".join(row[field] for field in fields) for row in drawn], [row["label"] for row in drawn]

    model = make_pipeline(CountVectorizer(ngram_range=(1, 2), binary=True), LogisticRegression(max_iter=500, C=0.1))
    model.fit(*data("train", 3000))
    chance = 1 / len(set(data("train", 100)[1]))
    assert model.score(*data("validation", 2000)) < chance + 0.12


def test_mismatched_mnli_is_of_a_genre_that_training_lacks() -> None:
    splits = ("train", "validation", "validation_mismatched")
    genres = [{row["genre"] for row in rows("mnli", split, 200)} for split in splits]
    assert genres == [{"people", "places"}, {"people", "places"}, {"things"}]


def test_answers_stand_where_they_are_said_to() -> None:
    answered = 0
    for row in rows("squad_v2", "train", 900):
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert row["context"][start : start + len(text)] == text
            answered += 1
    assert answered == 600


def test_a_gap_has_one_right_entity() -> None:
    for row in rows("record", "train", 500):
        assert set(row["answers"]) < set(row["entities"])
        assert row["query"].count("@placeholder") == 1
        assert all(name in row["passage"] or name in row["passage"].lower() for name in row["entities"])


def test_the_first_sentence_is_no_summary() -> None:
    for row in rows("xsum", "train", 300):
        assert row["summary"] not in row["document"]
        assert len(corpus.names_in(row["summary"])) == 1 < len(corpus.names_in(row["document"]))


def verdict(premise: str, hypothesis: str) -> int | None:
    """MNLI's label of two plain statements about one home, read off their words."""
    told, claimed = (
        dict(zip(("who", "where"), text.rstrip(".").split(" lives in "), strict=True)) for text in (premise, hypothesis)
    )
    if told["who"] != claimed["who"]:
        return 1
    return 0 if told["where"] == claimed["where"] else 2


def test_labels_agree_with_what_the_words_say() -> None:
    """The plainest of all MNLI examples, judged here by their words alone."""
    judged = Counter()  # type: Counter[int]
    for row in rows("mnli", "train", 30000):
        pair = (row["premise"], row["hypothesis"])
        plain = all(text.count(" lives in ") == 1 and text.count(".") == 1 and " not " not in text for text in pair)
        if plain and pair[1].rstrip(".").split()[-1] not in ("Europe", "Africa", "Asia", "America"):
            assert row["label"] == verdict(*pair)
            judged[row["label"]] += 1
    assert min(judged.values()) >= 5
