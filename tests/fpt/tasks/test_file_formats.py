"""Files are read as they are published: without a header, as one JSON array, compressed, or in SQuAD's format."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.catalogue import rules_of
from fpt.tasks.fields import Faults
from fpt.tasks.file_formats import read
from fpt.tasks.opening import open_task
from fpt.tasks.predict_input import by_template, check_input, rows_and_examples
from fpt.tasks.task import Task

# As AG News (quoted CSV), MMLU (CSV) and SMS Spam (tabs) are published.
NEWS = '"3","Wall St. Bears","He said ""so"", and left."\n"4","Sky, and sea","One\\of two."\n'
MMLU = "Is 2 even?,no,yes,A,both,B\nIs 3?,no,yes,B,C,A\n"
SPAM = 'ham\tAh, "ok"\nspam\tWin now\n'
PAIRS = [{"q": "one", "a": "x"}, {"q": "two", "a": "y"}]
ARTICLE = {
    "title": "Lamps",
    "paragraphs": [
        {
            "context": "The red lamp fell.",
            "qas": [
                {"id": "p", "question": "What fell?", "answers": [{"text": "lamp", "answer_start": 8}] * 2},
                {"id": "q", "question": "Which?", "answers": [{"text": "red", "answer_start": 4}]},
            ],
        }
    ],
}
SQUAD = {"version": "1.1", "data": [ARTICLE]}


def words(file: Path, source: str, target: str, *more: str) -> list[str]:
    return [
        "task=files",
        f"task.train={file}",
        f"task.valid={file}",
        f"task.source={source}",
        f"task.target={target}",
        *more,
    ]


def opened(file: Path, content: str | bytes, *more: str, source: str = "{q}", target: str = "{a}") -> Task:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_task(compose.load(words(file, source, target, *more)))


@pytest.mark.parametrize(
    ("name", "content", "columns", "source", "target", "wanted"),
    [
        (
            "train.csv",
            NEWS,
            "label,title,text",
            "{title}: {text}",
            "{label}",
            [('Wall St. Bears: He said "so", and left.', "3"), ("Sky, and sea: One\\of two.", "4")],
        ),
        (
            "test.csv",
            MMLU,
            "question,A,B,C,D,answer",
            "{question} {A}|{D}",
            "{answer}",
            [("Is 2 even? no|both", "B"), ("Is 3? no|C", "A")],
        ),
        ("spam.tsv", SPAM, "label,text", "{text}", "{label}", [('Ah, "ok"', "ham"), ("Win now", "spam")]),
        ("spam.txt", SPAM, "label,text", "{text}", "{label}", [('Ah, "ok"', "ham"), ("Win now", "spam")]),
    ],
)
def test_a_table_without_a_header(
    tmp_path: Path, name: str, content: str, columns: str, source: str, target: str, wanted: list[tuple[str, str]]
) -> None:
    task = opened(tmp_path / name, content, f"task.columns=[{columns}]", source=source, target=target)
    assert [(example.source, example.golds[0]) for example in task.train] == wanted
    assert [example.id for example in task.train] == ["line 1", "line 2"]


@pytest.mark.parametrize(
    ("columns", "content", "said"),
    [
        ("[q,a]", "Q,Answer\none,x\n", "a.csv, line 1: is a header, as it has a name of task.columns; give task"),
        ("[q,a,b]", "one,x\n", "a.csv, line 1: 2 columns, expected 3: q, a, b"),
        ("[q,q]", "one,x\n", "task.columns: 2 columns are called 'q'"),
        ("[]", "one,x\n", "task.columns=[]: expected names, as task.columns=[label,title,text]"),
        ("[q,'']", "one,x\n", "expected names, as task.columns=[label,title,text]"),
        ("[q,a] task=boolq", "one,x\n", "is for task=files, not for boolq"),
        ("[q,a] task.train=a.json task.valid=null", "", "is for tables without a header (.csv, .tsv, .txt)"),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path: Path, columns: str, content: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(tmp_path / "a.csv", content, *f"task.columns={columns}".split())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


JSON_FORMS: list[Callable[[list[Any]], str]] = [
    json.dumps,
    lambda rows: json.dumps(rows, indent=2),
    lambda rows: "\ufeff\n" + json.dumps(rows),
    lambda rows: "".join(json.dumps(row) + "\n\n" for row in rows),
]


@pytest.mark.parametrize("form", [*JSON_FORMS, lambda rows: json.dumps({"data": rows}, indent=1)])
def test_a_json_file_holds_an_array_or_data_or_lines(tmp_path: Path, form: Callable[[list[Any]], str]) -> None:
    task = opened(tmp_path / "a.json", form(PAIRS))
    assert [(example.source, example.golds) for example in task.train] == [("one", ("x",)), ("two", ("y",))]
    assert len({example.id for example in task.train}) == 2
    if form in JSON_FORMS:
        assert opened(tmp_path / "a.jsonl", form(PAIRS)).train == task.train


def test_a_json_file_may_hold_one_record(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(PAIRS[0], indent=1))
    assert [record for _, record in read(tmp_path / "one.json", Faults())] == [PAIRS[0]]


def test_a_wrong_item_of_an_array_may_be_left_out(tmp_path: Path) -> None:
    task = opened(tmp_path / "a.json", json.dumps([*PAIRS, 3, {"q": "z"}]), "task.on_error=skip")
    assert [example.id for example in task.train] == ["record 1", "record 2"]
    assert task.skipped[0] == f"{tmp_path}/a.json, record 3: expected a JSON object, got int"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", "".join(json.dumps(row) + "\n" for row in PAIRS)),
        ("a.json", json.dumps(PAIRS)),
        ("a.csv", "q,a\none,x\ntwo,y\n"),
        ("a.tsv", "q\ta\none\tx\ntwo\ty\n"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_compressed_file_is_read_as_the_plain_one(tmp_path: Path, name: str, content: str, encoding: str) -> None:
    plain = opened(tmp_path / name, content)
    packed = gzip.compress(content.encode(encoding))
    for other in (f"{name}.gz", name):  # browsers unpack and rename, or do not
        assert list(opened(tmp_path / other, packed).train) == list(plain.train)
    file = tmp_path / f"{name.upper()}.GZ"
    file.write_bytes(packed)
    check_input(file)
    to_example = by_template(rules_of(compose.load(words(file, "{q}", "{a}")).task))
    assert [example.source for _, example in rows_and_examples(file, to_example, Faults())] == ["one", "two"]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_file_in_squads_format_under_any_name(tmp_path: Path, indent: int | None) -> None:
    file = tmp_path / "biology.json"
    source, target = "{title} {question} {context}", "{answers.text}"
    task = opened(file, json.dumps(SQUAD, indent=indent), "task.id=id", source=source, target=target)
    assert [(example.id, example.source, example.golds) for example in task.train] == [
        ("p", "Lamps What fell? The red lamp fell.", ("lamp",)),
        ("q", "Lamps Which? The red lamp fell.", ("red",)),
    ]
    (asked,) = ARTICLE["paragraphs"]
    bare = [{name: value for name, value in each.items() if name != "answers"} for each in asked["qas"]]
    test = tmp_path / "test.json"
    test.write_text(json.dumps({"data": [{"paragraphs": [{**asked, "qas": bare}]}]}))
    more = ["task.source={question}", "task.target={answers.text}", f"task.test={test}"]
    asked_later = open_task(compose.load([*words(file, source, target), *more]))
    assert [(example.source, example.golds) for example in asked_later.test] == [("What fell?", ()), ("Which?", ())]


def test_a_table_without_a_header_is_asked_for_answers_too(tmp_path: Path) -> None:
    file = tmp_path / "new.csv"
    file.write_text(NEWS)
    task = compose.load(words(file, "{title}", "{label}", "task.columns=[label,title,text]")).task
    to_example = by_template(rules_of(task))
    asked = list(rows_and_examples(file, to_example, Faults(), task.columns))
    assert [example.source for _, example in asked] == ["Wall St. Bears", "Sky, and sea"]
    assert list(asked[0][0]) == ["label", "title", "text"]
    with pytest.raises(UserError, match="'title' is missing"):
        list(rows_and_examples(file, to_example, Faults()))
