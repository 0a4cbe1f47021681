"""The generated BoolQ has no shortcut, and nothing of its validation split is seen before."""

from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fpt import compose
from fpt.tasks import open_task, world


def test_a_seed_decides_all() -> None:
    first = list(world.boolq("train", num=50, seed=1))
    assert first == list(world.boolq("train", num=50, seed=1))
    assert first != list(world.boolq("train", num=50, seed=2))
    assert set(first[0]) == {"question", "passage", "idx", "label"}


def test_labels_are_balanced() -> None:
    assert sum(row["label"] for row in world.boolq("train", num=1000, seed=0)) == 500


@pytest.mark.parametrize("other", ["train", "pretraining"])
def test_no_fact_and_no_name_of_the_validation_split_is_seen_before(other: world.Split) -> None:
    held_out = list(world.boolq_examples("validation", num=2000, seed=0))
    seen = list(world.boolq_examples(other, num=4000, seed=0))
    facts, earlier = (frozenset().union(*(example.facts for example in part)) for part in (held_out, seen))
    assert facts
    assert not facts & earlier
    names, before = (
        frozenset().union(*(world.names_in(example.row["passage"]) for example in part)) for part in (held_out, seen)
    )
    assert names
    assert not names & before


@pytest.mark.parametrize("fields", [("question",), ("passage",), ("question", "passage")])
def test_words_alone_do_not_give_the_label_away(fields: tuple[str, ...]) -> None:
    """Word pairs of the question, the passage or both, without seeing how they belong together, stay at chance."""

    def texts(split: world.Split, num: int) -> tuple[list[str], list[bool]]:
        rows = list(world.boolq(split, num=num, seed=0))
        return [" ".join(row[field] for field in fields) for row in rows], [row["label"] for row in rows]

    model = make_pipeline(CountVectorizer(ngram_range=(1, 2), binary=True), LogisticRegression(max_iter=500, C=0.1))
    model.fit(*texts("train", 3000))
    assert model.score(*texts("validation", 2000)) < 0.6


def test_written_files_are_read_as_boolqs_own(tmp_path: Path) -> None:
    world.main(["boolq", str(tmp_path)])
    files, direct = (open_task(compose.load([f"task.data={data}"])) for data in (tmp_path, "world"))
    assert [files.train, files.valid] == [direct.train, direct.valid]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.jsonl", "val.jsonl"]
