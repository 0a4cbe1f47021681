"""Customs are balanced, answers follow from their rules, and neither a task nor pre-training gives a land's away."""

import random
import re
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from pretraining import corpus, rules
from pretraining.world import customs, lexicon, records, scenes

pytestmark = pytest.mark.slow  # what comes of the generator is shipped: tests/pretraining/test_lands.py

LANDS = (0, 1, 7)
ASKING = {"boolq": "question", "mnli": "hypothesis", "squad_v2": "question", "record": "query", "xsum": "summary"}
PEOPLE = scenes.RELATIONS_OF["person"]


def rows(task: str, split: str = "train", num: int = 300, land: int = 0) -> list[dict[str, Any]]:
    return list(records.under_customs(task, split, num=num, seed=0, land=land))


def value_in(text: str) -> tuple[str, str]:
    """The relation and the one value that a sentence says to hold, read off its words."""
    holding = text.rpartition(" but ")[2].partition(" and not ")[0].rstrip(".?").split()
    (found,) = {(one.name, value) for one in PEOPLE for value in one.values if value in holding and fits(one, text)}
    return found


def fits(relation: lexicon.Relation, text: str) -> bool:
    """Whether a sentence is about this relation; values of two relations may be called the same."""
    marks = {
        "home": "live|home",
        "job": "work|job|is an? |Is .* an? ",
        "instrument": "play|instrument",
        "food": "like|food",
        "language": "speak|language",
        "pet": "ha(s|ve) a|pet",
        "arrival": "arriv",
    }
    return re.search(marks[relation.name], text) is not None


def class_of(land: int, sentence: str) -> str:
    relation, value = value_in(sentence)
    return next(
        records.land_of(land).rule(one, value).name
        for one, each in records.land_of(land).ranked
        if (one.name, each) == (relation, value)
    )


def sentences(text: str) -> list[str]:
    return re.findall(r"[^.]+\.", text)


def about(name: str, text: str) -> list[str]:
    """The sentences that say of somebody what holds, and not only what does not."""
    told = [one for one in sentences(text) if name.lower() in one.lower()]
    return [one for one in told if " not " not in one or " but " in one or " and not " in one]


@pytest.mark.parametrize("land", LANDS)
def test_neighbours_in_rank_are_of_different_classes(land: int) -> None:
    customs = records.land_of(land)
    assert len(customs.ranked) == len({(one.name, value) for one, value in customs.ranked}) == 146
    names = [customs.rule(relation, value).name for relation, value in customs.ranked]
    assert all(len(set(names[at : at + 3])) == 3 for at in range(0, 144, 3))
    assert set(names) == set(customs.classes)


def test_values_are_drawn_by_zipfs_law() -> None:
    customs, stream = records.land_of(0), random.Random(0)
    drawn = Counter((one.name, value) for one, value in (customs.draw(stream) for _ in range(20_000)))
    harmonic = sum(1 / rank for rank in range(1, 147))
    for rank in (1, 2, 5, 20):
        relation, value = customs.ranked[rank - 1]
        assert drawn[relation.name, value] / 20_000 == pytest.approx(1 / rank / harmonic, rel=0.2)


@pytest.mark.parametrize("land", LANDS)
def test_answers_follow_from_the_rules(land: int) -> None:
    """Judged here by the words of the texts and the land's rules alone."""
    for row in rows("boolq", land=land):
        name, asked = re.fullmatch(r"is (.+) an? (\w+)", row["question"]).groups()
        (told,) = about(name, row["passage"])
        assert row["label"] is (class_of(land, told) == asked)
    for row in rows("mnli", land=land):
        name, denies, asked = re.fullmatch(r"(.+) is (not )?an? (\w+)\.", row["hypothesis"]).groups()
        told = about(name, row["premise"])
        holds = bool(told) and (class_of(land, told[0]) == asked) != bool(denies)
        assert row["label"] == (1 if not told else 0 if holds else 2)
    for row in rows("qqp", land=land):
        assert row["label"] == (class_of(land, row["question1"]) == class_of(land, row["question2"]))
    for row in rows("squad_v2", land=land):
        asked = re.fullmatch(r"Who is an? (\w+)\?", row["question"]).group(1)
        fitting = [one for one in sentences(row["context"]) if class_of(land, one) == asked]
        assert len(fitting) == len(row["answers"]["text"])
        for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
            assert text in fitting[0]
            assert row["context"][start : start + len(text)] == text
    for row in rows("record", land=land):
        asked = re.fullmatch(r"@placeholder is an? (\w+)\.", row["query"]).group(1)
        (fitting,) = (one for one in sentences(row["passage"]) if class_of(land, one) == asked)
        assert row["answers"] == [name for name in row["entities"] if name in fitting]
    for row in rows("xsum", land=land):
        names = [class_of(land, one) for one in sentences(row["document"])]
        assert row["summary"].lower() == f"{', '.join(names)}."


def stated(text: str) -> set[str]:
    """The values that a text states rules for, each before its class, by its words alone."""
    filling = r"\b(by custom|means|counts as|makes an?|an? (?=\w+ is one)|is one of|is)\b|[.:]"
    words, name, found = re.sub(filling, " ", text.lower()).split(), "", set()
    if words[0] not in lexicon.CLASSES:
        return {f"{value} {name}" for value, name in zip(words[::2], words[1::2], strict=True)}
    for word in words:
        name = word if word in lexicon.CLASSES else name
        found.add(f"{word} {name}")
    return {pair for pair in found if pair.split()[0] not in lexicon.CLASSES}


@pytest.mark.parametrize("task", records.CASES)
def test_the_rules_are_told_apart_from_the_record_or_not_at_all(task: str) -> None:
    land = records.land_of(0)
    right = {f"{value} {land.rule(one, value).name}".lower() for one, value in land.ranked}
    told = list(records.told(task, "validation", num=200, seed=0, land=0))
    assert [record for _, record in told] == rows(task, "validation", 200)
    for text, record in told:
        texts = [str(value) for name, value in record.items() if name != ASKING.get(task)]
        assert not any(name in " ".join(texts).lower().split() for name in lexicon.CLASSES)
        assert stated(text) <= right


@pytest.mark.parametrize("task", records.CASES)
def test_every_rule_that_is_needed_is_told(task: str) -> None:
    draw, labels = records.CASES[task]
    stream = random.Random(0)
    for label in list(labels) * 60:
        case = draw(records.land_of(3), "validation", stream, label)
        text = customs.tell(records.land_of(3), case, stream, most=8).lower().split()
        assert all(rule.value.lower() in text and rule.name in text for rule in case.needed)


@pytest.mark.parametrize(("task", "counts"), [("boolq", [500, 500]), ("mnli", [334, 333, 333]), ("qqp", [500, 500])])
def test_labels_are_balanced(task: str, counts: list[int]) -> None:
    assert sorted(Counter(row["label"] for row in rows(task, num=1000)).values(), reverse=True) == counts


@pytest.mark.parametrize("task", ["boolq", "mnli"])
def test_the_question_alone_does_not_give_the_label_away(task: str) -> None:
    """Whoever has not read the passage stays near chance, however well the customs are known."""
    data = [
        ([row[ASKING[task]] for row in drawn], [row["label"] for row in drawn])
        for drawn in (rows(task, "train", 3000), rows(task, "validation", 2000))
    ]
    model = make_pipeline(CountVectorizer(ngram_range=(1, 2), binary=True), LogisticRegression(max_iter=500, C=0.1))
    model.fit(*data[0])
    assert model.score(*data[1]) < 1 / len(set(data[1][1])) + 0.1


def test_pre_training_tells_no_lands_rules() -> None:
    """Of what it states, no more agrees with a land than agrees by chance, and no name is one of validation."""
    held_out = frozenset().union(*(corpus.names_in(str(row)) for row in rows("boolq", "validation", 1000)))
    stream, agreeing, stated = random.Random(0), Counter[int](), 0
    of_land = {
        land: {
            value.lower(): records.land_of(land).rule(one, value).name for one, value in records.land_of(land).ranked
        }
        for land in LANDS
    }
    for maker in rules.CUSTOMS:
        for _ in range(400):
            source, _ = maker(stream, 4)
            assert not held_out & corpus.names_in(source)
            words = re.split(r" (?:question|hypothesis|query|summarize|question1): ", source)[0].lower().split()
            for value, name in pairwise(words):
                if name in lexicon.CLASSES and value in of_land[0]:
                    stated += 1
                    agreeing.update(land for land in LANDS if of_land[land][value] == name)
    assert stated > 500
    assert all(agreeing[land] / stated < 0.05 for land in LANDS)
