"""What may be asked of any task: another template, few examples, and to go on past records that are wrong."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task

ROW = {"question": "is the lamp red", "passage": "The lamp is red.", "idx": 0, "label": True}
ROWS = [{**ROW, "idx": index, "label": index % 3 == 0} for index in range(30)]


def boolq(folder: Path, *rows: Any, words: tuple[str, ...] = ()) -> Task:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / "train.jsonl").write_bytes(b"\n".join(lines))
    (folder / "val.jsonl").write_text(json.dumps(ROW))
    return open_task(compose.load(["task=boolq", f"task.data={folder}", *words]))


def test_a_template_may_be_another(tmp_path: Path) -> None:
    task = boolq(tmp_path, ROW, words=("task.template='{passage} {{?}} {question}?'",))
    assert task.train[0].source == "The lamp is red. {?} is the lamp red?"
    assert task.train[0].source[slice(*task.train[0].spare)] == "The lamp is red."
    assert boolq(tmp_path, ROW).train[0].source[slice(*boolq(tmp_path, ROW).train[0].spare)] == "The lamp is red."


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{pasage}", "boolq has no 'pasage'; it has question, passage. Did you mean 'passage'?"),
        ("{passage", "not a template (expected a name between two braces"),
        ("{passage!r}", "boolq has no 'passage!r'; it has question, passage. Did you mean 'passage'?"),
        ("{}", "not a template (expected a name between two braces"),
        ("passage", "names no field; boolq has question, passage, written {question}"),
    ],
)
def test_a_template_that_does_not_fit_is_named(tmp_path: Path, template: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        boolq(tmp_path, ROW, words=(f"task.template='{template}'",))
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"task.template={template}: ")


def test_the_longest_of_several_fields_may_be_cut(tmp_path: Path) -> None:
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("index\tsentence1\tsentence2\tlabel\n0\tshort\tlonger\t1\n1\tlonger\tshort\t0\n")
    task = open_task(compose.load(["task=wnli", f"task.data={tmp_path}"]))
    assert [example.source[slice(*example.spare)] for example in task.valid] == ["longer", "longer"]


def test_shots_are_per_label_and_drawn_with_the_seed(tmp_path: Path) -> None:
    first, again, other = (boolq(tmp_path, *ROWS, words=("task.shots=4", f"seed={seed}")).train for seed in (1, 1, 2))
    assert Counter(example.golds for example in first) == {("yes",): 4, ("no",): 4}
    assert first == again
    assert first != other
    assert boolq(tmp_path, *ROWS, words=("task.shots=4", "seed=2", "task.sample_seed=1")).train == first
    with pytest.raises(UserError, match=r"task\.sample_seed=3: is the seed of task\.shots"):
        boolq(tmp_path, *ROWS, words=("task.sample_seed=3",))
    assert [int(example.id) for example in first] == sorted(int(example.id) for example in first)
    with pytest.raises(UserError, match=r"task\.shots=11: there are only 10 training examples of 'yes'"):
        boolq(tmp_path, *ROWS, words=("task.shots=11",))
    with pytest.raises(UserError, match=r"task\.shots=2: there are only 1 .* of 'yes'; give a smaller"):
        boolq(tmp_path, *ROWS[:3], words=("task.shots=2",))
    with pytest.raises(UserError, match=r"task\.shots=1: there are only 0 .* of 'yes'; .* or add some"):
        boolq(tmp_path, *ROWS[1:3], words=("task.shots=1",))


def test_shots_without_labels_are_that_many_in_all(tmp_path: Path) -> None:
    rows = [{"document": f"lamp {index}", "summary": "lamp", "id": str(index)} for index in range(9)]
    for name in ("train", "val"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["task=xsum", f"task.data={tmp_path}"]
    assert len(open_task(compose.load([*words, "task.shots=5"])).train) == 5
    assert len(open_task(compose.load([*words, "task.shots=5"])).valid) == 9
    with pytest.raises(UserError, match=r"task\.shots=10: there are only 9 training examples; "):
        open_task(compose.load([*words, "task.shots=10"]))


def test_a_field_that_is_missing_is_named_with_those_there_are(tmp_path: Path) -> None:
    row = {**ROW, "text": ROW["passage"]}
    del row["passage"]
    with pytest.raises(
        UserError, match=r"line 1: 'passage' is missing; expected a text or a number. It has question, idx, label"
    ):
        boolq(tmp_path, row)


def test_an_id_that_occurs_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl, line 3: the id '4' occurs a second time"):
        boolq(tmp_path, {**ROW, "idx": 4}, {**ROW, "idx": 5}, {**ROW, "idx": 4})


def test_records_that_are_wrong_are_skipped_counted_and_listed_on_request(tmp_path: Path) -> None:
    wrong = [b"{", b'{"question": "\xff"}', {**ROW, "label": "yes"}, {**ROW, "idx": 1}, {"idx": 9, "label": True}]
    with pytest.raises(UserError, match="line 31"):
        boolq(tmp_path, *ROWS, *wrong)
    task = boolq(tmp_path, *ROWS, *wrong, ROWS[0] | {"idx": 99}, words=("task.on_error=skip",))
    assert [example.id for example in task.train] == [*map(str, range(30)), "99"]
    (note,) = task.notes
    assert note.startswith("task.on_error=skip: 5 skipped: ")
    for line, reason in ((31, "not JSON"), (32, "not UTF-8"), (33, "the label {label} is 'yes'")):
        assert f"train.jsonl, line {line}: {reason}" in note
    assert note.endswith("; and 2 more")
    with pytest.raises(
        UserError, match=r"train split is empty: every record was skipped, the first as .*line 1: not JSON"
    ):
        boolq(tmp_path, b"{", words=("task.on_error=skip",))


@pytest.mark.parametrize(("answer", "kept"), [({"text": None}, ["a", "c"]), ({"text": "lamp"}, ["a", "b", "c"])])
def test_a_wrong_question_is_skipped_and_not_taken_for_one_without_an_answer(
    tmp_path: Path, answer: Any, kept: list[str]
) -> None:
    questions = [{"id": name, "question": "what", "answers": [answer] if name == "b" else []} for name in "abc"]
    tree = {"data": [3, {"paragraphs": [{"context": "the lamp", "qas": [None, *questions]}, {"qas": 5}]}]}
    for file in ("train-v2.0.json", "dev-v2.0.json"):
        (tmp_path / file).write_text(json.dumps(tree))
    task = open_task(compose.load(["task=squad_v2", f"task.data={tmp_path}", "task.on_error=skip"]))
    assert [example.id for example in task.valid] == kept
