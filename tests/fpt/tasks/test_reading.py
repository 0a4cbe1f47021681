"""SQuAD 2.0 and ReCoRD are read as they are distributed, and scored as their authors do."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task

PASSAGE = "Mira Tanaka met Ole in Port Linden"


def squad(folder: Path, *questions: Any, train: list[Any] | None = None) -> Task:
    for name, asked in (("train-v2.0.json", train or questions), ("dev-v2.0.json", questions)):
        paragraph = {"context": "The lamp is red.", "qas": list(asked)}
        tree = {"version": "v2.0", "data": [{"title": "Lamps", "paragraphs": [paragraph]}]}
        (folder / name).write_text(json.dumps(tree))
    return open_task(compose.load(["task=squad_v2", f"task.data={folder}"]))


def asked(name: str, *texts: Any, **more: Any) -> dict[str, Any]:
    answers = [{"text": text, "answer_start": 4} for text in texts]
    return {"id": name, "question": f"what is {name}?", "answers": answers, "is_impossible": not texts, **more}


def test_a_question_becomes_text(tmp_path: Path) -> None:
    plausible = [{"text": "red", "answer_start": 12}]
    task = squad(tmp_path, asked("x", "the lamp", "lamp", "lamp"), asked("y", plausible_answers=plausible))
    first, second = task.valid
    assert (first.id, first.source) == ("x", "question: what is x? context: The lamp is red.")
    assert (first.target, first.golds) == ("<extra_id_0> the lamp", ("the lamp", "lamp"))
    assert (second.target, second.golds) == ("<extra_id_0> no answer", ("",))
    assert list(task.train) == list(task.valid)  # a question once, whatever the number of its answers


def test_no_answer_is_an_answer(tmp_path: Path) -> None:
    task = squad(tmp_path, asked("x", "the lamp", "a red lamp"), asked("y"), asked("z"))
    answers = [task.from_text(text) for text in (" Red lamp!", "No answer.", "answer")]
    assert answers == ["Red lamp!", "", "answer"]
    assert task.score(answers, task.valid) == pytest.approx(
        {
            "exact_match": 200 / 3,
            "f1": 200 / 3,
            "has_answer_exact_match": 100,
            "no_answer_exact_match": 50,
        }
    )
    assert task.correct
    assert [task.correct(answer, example) for answer, example in zip(answers, task.valid, strict=True)] == [
        True,
        True,
        False,
    ]
    silent = [task.from_text(text) for text in ("", " . ", "the")]
    assert task.score(silent, task.valid)["f1"] == 0  # to say nothing is not to say that there is no answer
    assert task.score(["lamp", "", ""], task.valid)["f1"] == pytest.approx(100)
    assert task.score(["lamp red", "", ""], task.valid)["exact_match"] == pytest.approx(200 / 3)


def test_the_baseline_is_the_commonest_training_answer(tmp_path: Path) -> None:
    task = squad(tmp_path, asked("x", "lamp"), asked("y"), asked("z"))
    assert (task.baseline_name, task.majority) == ("always no answer", pytest.approx(200 / 3))
    train = [asked("x", "lamp"), asked("y"), asked("z", "lamp")]
    task = squad(tmp_path, asked("x", "Lamp"), asked("y"), asked("z"), train=train)
    assert (task.baseline_name, task.majority) == ("most common answer", pytest.approx(100 / 3))
    assert "no_answer_exact_match" not in squad(tmp_path, asked("x", "lamp")).score(["lamp"], task.valid[:1])


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ({"id": "x", "answers": []}, "data[0].paragraphs[0].qas[1]: 'question' is missing; expected a text"),
        ({"id": "x", "question": "what"}, "data[0].paragraphs[0].qas[1]: 'answers.text' is missing; expected a text"),
        (asked("x", []), "data[0].paragraphs[0].qas[1].answers[0]: 'text' is []; expected a text"),
        (asked("x", "\ud83d"), "qas[1].answers[0]: 'text', letter 1: half of a surrogate pair"),
        ("what", "data[0].paragraphs[0].qas[1]: expected an object, got str"),
        (asked("x", answers={"text": []}), "'answers' is {'text': []}; expected a list"),
    ],
)
def test_a_wrong_question_is_named_by_its_path(tmp_path: Path, question: Any, reason: str) -> None:
    with pytest.raises(UserError, match=r"^\S+/train-v2\.0\.json, data\[0\]") as caught:
        squad(tmp_path, asked("ok"), question)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{\n]", "not JSON (Expecting property name enclosed in double quotes at line 2, column 1)"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "'question' is missing; expected a text"),
        ('{"data": []}', "the train split is empty"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "train-v2.0.json").write_text(text)
    with pytest.raises(UserError) as caught:
        open_task(compose.load(["task=squad_v2", f"task.data={tmp_path}"]))
    assert reason in str(caught.value)
    (tmp_path / "train-v2.0.json").unlink()
    (tmp_path / "train-v1.1.json").touch()
    with pytest.raises(UserError, match=r"has no train-v2\.0\.json; it has train-v1\.1\.json"):
        open_task(compose.load(["task=squad_v2", f"task.data={tmp_path}"]))


def passage(*queries: Any, **more: Any) -> dict[str, Any]:
    marked = [{"start": 0, "end": 10}, {"start": 16, "end": 18}, {"start": 23, "end": 33}, {"start": 16, "end": 18}]
    return {"idx": 3, "passage": {"text": PASSAGE, "entities": marked}, "qas": list(queries), **more}


def gap(index: int, *texts: str) -> dict[str, Any]:
    answers = [{"start": 0, "end": 0, "text": text} for text in texts]
    return {"idx": index, "query": f"{index} @placeholder waved", "answers": answers}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("It fell.\n@highlight\nOle fell\n@highlight\nIt broke", "It fell. Ole fell. It broke."),
        ('He said "no"\n@highlight\nWhy?\n@highlight\nNobody knows!', 'He said "no" Why? Nobody knows!'),
        ("No mark", "No mark."),
    ],
)
def test_highlights_are_sentences_of_the_passage(tmp_path: Path, text: str, wanted: str) -> None:
    """What T5's two substitutions make of them, and the end that the published readers set."""
    told = re.sub(r"\n@highlight\n", ". ", re.sub(r"""(\.|\?|\!|\"|\')\n@highlight\n""", r"\1 ", text))
    assert told in (wanted, wanted.removesuffix("."))
    task = record(tmp_path, passage(gap(1, "Ole"), passage={"text": text, "entities": []}))
    assert task.valid[0].source.endswith(f" passage: {wanted}")


def record(folder: Path, *passages: Any) -> Task:
    for name in ("train.jsonl", "val.jsonl"):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in passages))
    return open_task(compose.load(["task=record", f"task.data={folder}"]))


def test_every_query_counts_and_every_answer_is_trained(tmp_path: Path) -> None:
    task = record(
        tmp_path, passage(gap(5, "Ole"), gap(9, "Mira Tanaka", "Mira", "Mira Tanaka")), passage(gap(40, "Ole"))
    )
    assert [example.id for example in task.valid] == ["3-5", "3-9", "3-40"]
    assert task.valid[1].golds == ("Mira Tanaka", "Mira")
    assert task.valid[1].source == (
        f"query: 9 @placeholder waved entities: Mira Tanaka, Ole, Port Linden passage: {PASSAGE}."
    )
    assert [(example.id, example.target) for example in task.train] == [
        ("3-5", "<extra_id_0> Ole"),
        ("3-9", "<extra_id_0> Mira Tanaka"),
        ("3-9", "<extra_id_0> Mira"),
        ("3-40", "<extra_id_0> Ole"),
    ]
    assert (task.baseline_name, task.majority) == ("most common answer", pytest.approx(200 / 3))
    assert task.score(["ole", "mira", "x Ole"], task.valid) == pytest.approx(
        {"exact_match": 200 / 3, "f1": 100 * (1 + 1 + 2 / 3) / 3}
    )


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (passage(gap(1)), "line 2, qas[0]: the target {answers} is empty"),
        (passage(gap(1, "Ole"), {"idx": 2, "answers": [{"text": "Ole"}]}), "line 2, qas[1]: 'query' is missing"),
        (passage({"idx": 2, "query": "@placeholder"}), "line 2, qas[0]: the target {answers} is empty"),
        (passage(gap(1, "Ole"), passage="Ole"), "line 2: 'passage.text' is missing"),
        (passage(gap(1, "Ole"), passage={"entities": []}), "line 2: 'passage.text' is missing"),
        (
            passage(gap(1, "Ole"), passage={"text": "Ole", "entities": [{"start": 0, "end": 3}]}),
            "line 2, passage.entities[0]: start 0 and end 3 mark nothing in a text of 3 letters",
        ),
        (passage(gap(1, "Ole"), qas=None), "line 2: 'qas' is None; expected a list"),
    ],
)
def test_a_wrong_query_is_named_by_line_and_path(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl, line 2") as caught:
        record(tmp_path, passage(gap(1, "Ole"), idx=1), row)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
