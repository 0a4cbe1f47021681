"""Data of one's own: four file formats give the same examples, and every setting that does not fit is named."""

import codecs
import csv
import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pyarrow as arrow
import pyarrow.parquet
import pytest

from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task
from tests.conftest import Outcome, quick_words

ROWS = [
    {"name": "a", "question": "what fell, and when?", "passage": 'The "lamp" fell.', "answer": "the lamp", "right": 1},
    {"name": "b", "question": "what broke?", "passage": "It broke.", "answer": "it", "right": 0},
]


def save(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".parquet":
        pandas.DataFrame(rows).to_parquet(file)
    else:
        table = file.suffix == ".csv"
        with file.open("w", newline="") as stream:
            options: Any = {} if table else {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None}
            writer = csv.DictWriter(stream, list(rows[0]), **options)
            writer.writeheader()
            writer.writerows(rows)
    return file


def words(train: Path, *more: str, valid: Path | None = None) -> list[str]:
    source, target = "task.source='question: {question} context: {passage}'", "task.target='{answer}'"
    files = [f"task.train={train}", f"task.valid={valid or train}"]
    return ["task=files", *files, source, target, *more]


def opened(*arguments: Any, **files: Any) -> Task:
    return open_task(compose.load(words(*arguments, **files)))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path: Path, ending: str) -> None:
    task = opened(save(tmp_path / f"a.{ending}", ROWS))
    first, second = task.train
    assert first.source == 'question: what fell, and when? context: The "lamp" fell.'
    assert (first.target, first.golds) == ("<extra_id_0> the lamp", ("the lamp",))
    assert (second.source, second.golds) == ("question: what broke? context: It broke.", ("it",))
    assert task.valid == task.train
    assert (task.metric, task.labels, task.name) == ("exact_match", (), "files")
    assert task.score([" the lamp", "x"], task.valid) == pytest.approx({"exact_match": 50, "f1": 50})
    assert first.id == {"jsonl": "line 1", "parquet": "row 1"}.get(ending, "line 2")
    assert [example.id for example in opened(tmp_path / f"a.{ending}", "task.id=name").train] == ["a", "b"]


def test_a_quoted_field_of_csv_may_have_several_lines(tmp_path: Path) -> None:
    file = save(tmp_path / "a.csv", [{**ROWS[0], "passage": "one\ntwo"}, {"name": "x", **ROWS[1]}])
    file.write_text("\ufeff" + file.read_text() + "c,d\n")
    with pytest.raises(
        UserError, match=r"a\.csv, line 5: 2 columns, expected 5: name, question, passage, answer, right"
    ):
        opened(file)
    assert opened(file, "task.on_error=skip").train[0].source.endswith("context: one\ntwo")


def test_values_stand_for_label_words(tmp_path: Path) -> None:
    files = [save(tmp_path / f"a.{ending}", ROWS) for ending in ("jsonl", "csv", "parquet")]
    for file in files:
        task = opened(file, "task.target='{right}'", "task.labels={0: nein, 1: ja}", "task.metric=f1")
        assert [example.target for example in task.train] == ["<extra_id_0> ja", "<extra_id_0> nein"]
        assert task.labels == ("nein", "ja")
        assert task.from_text(" JA") == "ja"
        assert task.score(["ja", "x"], task.valid) == pytest.approx({"f1": 200 / 3, "accuracy": 50})
        assert task.baseline_name == "most common label"
    with pytest.raises(UserError, match=r"line 2: the label {right} is '0'; expected 1 or 2, as in task\.labels"):
        opened(files[0], "task.target='{right}'", "task.labels={1: ja, 2: nein}")


def test_values_may_share_a_label_word_which_is_read_without_case(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "right": number} for number in range(3)]
    file = save(tmp_path / "a.jsonl", rows)
    task = opened(file, "task.target='{right}'", "task.labels={0: 'Straße', 1: ja, 2: ja}")
    assert task.labels == ("Straße", "ja")
    assert [task.from_text(text) for text in (" STRASSE ", "Ja", "nein ")] == ["Straße", "ja", "nein"]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (True, "True"),
        ("True", "true"),
        (1, "1.0"),
        (1.0, "1"),
        ("1.50", "1.5"),
        ("null", "null"),
        ("a & b", "a & b"),
        ("01", "01"),
        ("x: y, z", "'x: y, z'"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_values_are_compared_as_texts_whatever_the_file_writes_them_as(
    tmp_path: Path, ending: str, cell: object, value: str
) -> None:
    file = save(tmp_path / f"a.{ending}", [{**ROWS[0], "right": cell}, {**ROWS[1], "right": "other"}])
    task = opened(file, "task.target={right}", f"task.labels={{{value}: 好, other: no}}")
    assert [example.golds for example in task.train] == [("好",), ("no",)]


def test_two_keys_that_are_one_value_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"two keys are the value 1, as 1\.0 is 1"):
        opened(save(tmp_path / "a.jsonl", ROWS), "task.labels={1: nein, 1.0: ja}")


@pytest.mark.parametrize("name", ["a: b", "wow!", "x[0]", "a.b", "two words", "题目", "c!r", "d:>9"])
def test_a_column_may_have_any_name(tmp_path: Path, name: str) -> None:
    file = save(tmp_path / "a.csv", [{name: "one", "answer": "x"}, {name: "two", "answer": "y"}])
    task = opened(file, f"task.source={{{{{{{name}}}}}}}: {{{name}}} (#&~!)")
    assert [example.source for example in task.train] == ["{one}: one (#&~!)", "{two}: two (#&~!)"]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_a_test_file_needs_no_target(tmp_path: Path, ending: str) -> None:
    file = save(tmp_path / f"a.{ending}", ROWS)
    asked = [{"name": row["name"], "question": row["question"], "passage": row["passage"]} for row in ROWS]
    bare = save(tmp_path / f"bare.{ending}", asked)
    empty = save(
        tmp_path / f"empty.{ending}", [{**row, "answer": "" if ending in ("csv", "tsv") else None} for row in asked]
    )
    values = compose.load(words(file, "task.id=name"))

    def tested(test: Path, **more: str) -> Task:
        return open_task(replace(values, task=replace(values.task, test=str(test), **more)))

    for test in (bare, empty):
        task = tested(test)
        assert [(example.id, example.target, example.golds) for example in task.test] == [("a", "", ()), ("b", "", ())]
        assert [example.source for example in task.test] == [example.source for example in task.train]
        assert (task.test_split, task.score_test(["x", "y"])) == ("test", None)
    task = tested(file)
    assert task.score_test(["the lamp", "x"]) == pytest.approx({"exact_match": 50, "f1": 50})
    mixed = save(tmp_path / f"mixed.{ending}", [ROWS[0], {**ROWS[1], "answer": ""}])
    with pytest.raises(UserError, match=rf"mixed\.{ending}, (line|row) \d: has a label or an answer, and .* has none"):
        tested(mixed)
    with pytest.raises(UserError, match=r"the target {answer} is empty|'answer' is None"):
        tested(empty, train=str(empty))


@pytest.mark.parametrize(
    ("metric", "answers", "scores"),
    [
        ("f1", ["a lamp", "it"], {"exact_match": 50, "f1": 75}),
        ("squad_f1", ["a lamp", "it"], {"squad_em": 100, "squad_f1": 100}),
        ("rougeL", ["the lamp", "x"], {"rougeL": 50, "rouge1": 50, "rouge2": 50}),
    ],
)
def test_the_metric_is_chosen(tmp_path: Path, metric: str, answers: list[str], scores: dict[str, float]) -> None:
    task = opened(save(tmp_path / "a.jsonl", ROWS), f"task.metric={metric}")
    assert task.metric == metric
    assert task.score(answers, task.valid) == pytest.approx(scores)
    assert task.baseline_name == "most common answer"


ANSWERED = ["A", "-5", ".5", "5%", "<5", "the", "答案", "Ответ"]


@pytest.mark.parametrize("said", ["", "5", "a", "B", "答", "ответ."])
def test_no_other_text_passes_for_an_answer(tmp_path: Path, said: str) -> None:
    """In SQuAD's normal form "A" and "the" are empty, and four of these are 5."""
    rows = [{"question": "what", "passage": str(number), "answer": gold} for number, gold in enumerate(ANSWERED)]
    task = opened(save(tmp_path / "a.jsonl", rows))
    assert task.score([said] * len(rows), task.valid)["exact_match"] == 0
    assert task.score([said] * len(rows), task.valid)["f1"] < 50
    assert not any(task.correct(said, example) for example in task.valid)
    same = [f" {gold}\n" for gold in ANSWERED]
    assert task.score(list(map(task.from_text, same)), task.valid) == {"exact_match": 100, "f1": 100}
    squads = opened(tmp_path / "a.jsonl", "task.metric=squad_em")
    assert squads.score(["5"] * len(rows), squads.valid)["squad_em"] == 50


NESTED = {
    "choices": [{"text": "sea", "label": "A"}, {"text": "sky", "label": "B"}],
    "answers": {"text": ["the lamp", "lamp", "the lamp"], "start": [4, 8, 4]},
    "meta": {"a.b": 1, "c": {"d": "deep"}},
    "meta.c.d": "flat",
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("answers.text.0", "the lamp"),
        ("answers.start.1", "8"),
        ("choices.1.text", "sky"),
        ("choices.text.1", "sky"),
        ("meta.c.d", "flat"),
        ("meta.c", "'meta.c' is {'d': 'deep'}; expected a text or a number"),
        ("meta.x.y", "'meta.x.y' is missing; expected a text or a number. It has question, passage"),
        ("answers.text.3", "'answers.text.3' is missing"),
        ("answers.text", "expected a text or a number; 'answers.text.0' is its first"),
    ],
)
def test_a_field_of_a_nested_record(tmp_path: Path, ending: str, name: str, wanted: str) -> None:
    row = {**{key: ROWS[0][key] for key in ("question", "passage", "answer")}, **NESTED}
    file = save(tmp_path / f"a.{ending}", [row, {**row, "question": "other"}])
    if " " in wanted and wanted != "the lamp":
        with pytest.raises(UserError, match=re.escape(wanted)):
            opened(file, f"task.source={{{name}}}")
    else:
        assert [example.source for example in opened(file, f"task.source=<{{{name}}}>").train] == [f"<{wanted}>"] * 2


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_several_columns_hold_golds_of_which_empty_ones_are_none(tmp_path: Path, ending: str) -> None:
    golds = [
        {"answer_a": "red lamp", "answer_b": "", "answer_c": "lamp"},
        {"answer_a": "it", "answer_b": "", "answer_c": ""},
    ]
    rows = [
        {"question": row["question"], "passage": row["passage"], **own} for row, own in zip(ROWS, golds, strict=False)
    ]
    file = save(tmp_path / f"a.{ending}", rows)
    train = opened(file, "task.target={answer_*}").train
    assert [(example.target, example.golds) for example in train] == [
        ("<extra_id_0> red lamp", ("red lamp", "lamp")),
        ("<extra_id_0> it", ("it",)),
    ]
    with pytest.raises(UserError, match=r"'anwser_\*' is missing; expected a text or a number\. It has question"):
        opened(file, "task.target={anwser_*}")


@pytest.mark.parametrize("metric", ["exact_match", "f1", "squad_em", "squad_f1", "rougeL", "rouge1", "rouge2"])
def test_the_best_of_several_golds_counts_and_the_first_is_trained(tmp_path: Path, metric: str) -> None:
    golds = ["red lamp", "blue boat", 5]
    file = save(tmp_path / "a.jsonl", [{**ROWS[0], "answer": golds}, {**ROWS[1], "answer": ["it", "it"]}])
    task = opened(file, f"task.metric={metric}")
    assert [(example.target, example.golds) for example in task.train] == [
        ("<extra_id_0> red lamp", ("red lamp", "blue boat", "5")),
        ("<extra_id_0> it", ("it",)),
    ]
    one = list(task.train)[:1]
    assert [task.score([said], one)[metric] for said in ("red lamp", "blue boat", "zork")] == [100, 100, 0]
    framed = opened(file, "task.target=is {answer}.")
    assert framed.train[0].golds == ("is red lamp.", "is blue boat.", "is 5.")


@pytest.mark.parametrize(
    ("answer", "more", "said"),
    [
        ([], (), "the target {answer} is empty; expected a text"),
        (["x", " "], (), "the target {answer} is empty; expected a text"),
        (["x", None], (), "'answer[1]' is None; expected a text or a number"),
        (["x"], ("task.labels=[x,y]",), "expected a text or a number; 'answer.0' is its first"),
        ([1], ("task.metric=pearson",), "expected a text or a number; 'answer.0' is its first"),
    ],
)
def test_golds_that_do_not_fit_are_named(tmp_path: Path, answer: list[Any], more: tuple[str, ...], said: str) -> None:
    file = save(tmp_path / "a.jsonl", [{**ROWS[0], "answer": answer}])
    with pytest.raises(UserError, match=re.escape(f"line 1: {said}") if not more else re.escape(said)):
        opened(file, *more)


def test_numbers_are_correlated(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "right": number / 2} for number in range(5)]
    file = save(tmp_path / "a.csv", rows)
    task = opened(file, "task.target='{right}'", "task.metric=spearman")
    assert task.score(["0", "1", "10", "20", "300"], task.valid)["spearman"] == pytest.approx(100)
    with pytest.raises(UserError, match=r"line 2: the target {answer} is 'the lamp'; expected a number"):
        opened(file, "task.metric=pearson")


def test_without_a_validation_file_a_part_of_the_training_file_is_drawn(tmp_path: Path) -> None:
    file = save(tmp_path / "a.jsonl", [{**ROWS[0], "name": str(number)} for number in range(40)])
    plain = words(file, "task.id=name", "task.valid=null")
    task, again, other, more = (
        open_task(compose.load([*plain, word])) for word in ("seed=0", "seed=0", "seed=1", "task.valid_share=0.25")
    )
    assert (len(task.train), len(task.valid), len(more.valid)) == (36, 4, 10)
    ids = [[int(example.id) for example in part] for part in (task.train, task.valid)]
    assert sorted(ids[0] + ids[1]) == list(range(40))
    assert ids == [sorted(part) for part in ids]
    assert task.valid == again.valid != other.valid
    assert task.notes == (
        f"{file}: 4 of its 40 examples are for validation, drawn with the seed, as there is no task.valid",
        "of 4 validation examples one answer is 25.0 points of the score; more say more: task.valid, or a larger"
        " task.valid_share",
    )
    with pytest.raises(UserError, match="one example cannot be parted"):
        open_task(compose.load([*plain, "task.train_examples=1"]))


def test_the_part_for_validation_has_each_labels_share(tmp_path: Path) -> None:
    """By chance alone 6 of 60 would often have but one label, and one that is not training's most common."""
    rows = [{**ROWS[0], "right": ("a", "b", "c")[number % 6 % 4 % 3]} for number in range(60)]
    file = save(tmp_path / "a.jsonl", rows)
    plain = [word for word in words(file, "task.valid=null") if not word.startswith("task.target=")]
    plain += ["task.target='{right}'", "task.labels={a: yes, b: no, c: maybe}"]
    golds = {example.golds[0] for example in open_task(compose.load(plain)).train}
    assert golds == {"yes", "no", "maybe"}
    for seed in range(5):
        task = open_task(compose.load([*plain, f"seed={seed}"]))
        counts = Counter(example.golds[0] for example in task.valid)
        assert counts == {"yes": 3, "no": 2, "maybe": 1}
        assert task.majority == 50
        assert len(task.train) == 54


def test_a_record_that_cannot_be_used_says_how_to_leave_it_out(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("question,text,right\nq,t,one\nq,t\nq,t,two\n")
    plain = [f"task.train={file}", f"task.valid={file}", "task.source='{question} {text}'", "task.target='{right}'"]
    with pytest.raises(UserError, match=r"line 3: 2 columns, expected 3: .*; task\.on_error=skip leaves such out$"):
        open_task(compose.load(["task=files", *plain]))
    task = open_task(compose.load(["task=files", *plain, "task.on_error=skip"]))
    assert [example.target.split()[-1] for example in task.train] == ["one", "two"]
    assert task.skipped == (f"{file}, line 3: 2 columns, expected 3: question, text, right",) * 2


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (
            ["task.source='{pasage}'"],
            "line 1: 'pasage' is missing; expected a text or a number. It has name, question, passage, answer",
        ),
        (["task.source='{pasage'"], "task.source={pasage: not a template"),
        (["task.source=null"], "task=files needs a template with fields of yours as task.source, as in 'question:"),
        (["task.target=null"], "task=files needs a template with fields of yours as task.target, as in '{answer}'"),
        (
            ["task.train=null"],
            "task=files needs task.train=FILE (.jsonl, .json, .parquet, .csv, .tsv, .txt, texts also with .gz behind)",
        ),
        (["task.valid=/nowhere.csv"], "task.valid=/nowhere.csv: no such file"),
        (["task.train=a.doc"], "task.train=a.doc: the name must end in one of .jsonl"),
        (["task.metric=rouge"], "task.metric=rouge: without task.labels, allowed are exact_match, f1"),
        (["task.metric=accuracy"], "without task.labels, allowed are exact_match"),
        (["task.labels={0: a, 1: b, 2: c}", "task.metric=f1"], "with 3 label words, allowed are accuracy, macro_f1"),
        (["task.labels={0: a, 1: a}"], "expected at least two label words"),
        (["task.spare=passages"], "task.source has no 'passages'; it has question, passage. Did you mean 'passage'?"),
        (["task.template=x"], "for task=files give task.source"),
        (["task.data=world"], "task.data=world: is for the named tasks; for task=files give task.train=FILE"),
        (["task.train=null", "task.source=null"], "task=files needs task.train=FILE"),
        (["task.labels={0: a, 1: ' b'}"], "task.labels: the label word ' b' is empty, or has white space around it"),
        (["task.labels={0: a, 1: ''}"], "task.labels: the label word '' is empty"),
        (["task.labels={0: Yes, 1: yes}"], "task.labels: 'Yes' and 'yes' differ only in case"),
        (["task=boolq"], "a.jsonl: is for task=files, not for boolq"),
        (["task.test=/nowhere.csv"], "task.test=/nowhere.csv: no such file"),
        (["task.test=a.gz"], "task.test=a.gz: the name must end in one of .jsonl"),
        (["task.test_split=test"], "task.test_split=test: for task=files give task.test=FILE"),
        (["task.id=nam"], "'nam' is missing"),
    ],
)
def test_a_setting_that_does_not_fit_is_named(tmp_path: Path, more: list[str], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(save(tmp_path / "a.jsonl", ROWS), *more)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"passage": None}, "'passage' is None; expected a text or a number"),
        ({"passage": ["x"]}, "'passage' is ['x']; expected a text or a number"),
        ({"answer": " "}, "the target {answer} is empty; expected a text"),
    ],
)
def test_a_record_that_does_not_fit_is_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    file = save(tmp_path / "a.jsonl", [ROWS[0], {**ROWS[1], **row}])
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: ") as caught:
        opened(file)
    assert reason in str(caught.value)


def test_a_file_without_a_record_is_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv"):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match=rf"^{tmp_path / name}: the train split is empty$"):
            opened(tmp_path / name)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_a_file_that_is_broken_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('question,passage,answer\nx,"y\n')
    with pytest.raises(UserError, match=rf"{name}.*(cannot be read as Parquet|line 2: not CSV)") as caught:
        opened(tmp_path / name)
    assert "\n" not in str(caught.value)


TABLE = "question,passage,answer\n"


def csv_of(folder: Path, text: str | bytes, *more: str) -> Task:
    (folder / "a.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return opened(folder / "a.csv", *more)


@pytest.mark.parametrize("more", [(), ("task.on_error=skip",)])
@pytest.mark.parametrize("rest", ["", 'p,"q" r,s\n'])
def test_a_broken_quote_is_named_where_its_row_begins_even_if_records_are_skipped(
    tmp_path: Path, more: tuple[str, ...], rest: str
) -> None:
    text = TABLE + 'a,"b\nb",c\nd,"e,f\ng,h,i\nj,k,l\n' + rest
    with pytest.raises(UserError, match=r"a\.csv, line 4: not CSV \(.*\) in the row that begins there") as caught:
        csv_of(tmp_path, text, *more)
    assert "\n" not in str(caught.value)


def test_a_row_that_swallows_others_is_named_from_its_first_line_to_its_last(tmp_path: Path) -> None:
    text = TABLE + 'a,b,c\nd,"e,f\ng,h,i\nj,k",l,m\n'
    with pytest.raises(UserError, match=r"line 3: 4 columns in a row that ends on line 5, expected 3"):
        csv_of(tmp_path, text)


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_field_may_have_any_length(tmp_path: Path, ending: str) -> None:
    task = opened(save(tmp_path / f"a.{ending}", [{**ROWS[0], "passage": "x" * 200_000}]))
    assert task.train[0].source.endswith("context: " + "x" * 200_000)


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t")])
def test_lines_are_numbered_as_in_the_file_after_one_that_is_not_utf8(
    tmp_path: Path, ending: str, separator: str
) -> None:
    lines = [b"question,passage,answer", b"a,b,c", b"d,\xff,f", b"", b"g,h,i", b"j,k", b""]
    file = tmp_path / f"a.{ending}"
    file.write_bytes(b"\n".join(lines).replace(b",", separator.encode()))
    with pytest.raises(UserError, match=r"line 3: not UTF-8"):
        opened(file)
    task = opened(file, "task.on_error=skip")
    assert [example.id for example in task.train] == ["line 2", "line 5"]
    assert f"4 skipped: {file}, line 3: not UTF-8; save the file as UTF-8" in task.notes[0]
    assert f"; {file}, line 6: 2 columns" in task.notes[0]
    file.write_bytes(b"\xff\n" + file.read_bytes())
    with pytest.raises(UserError, match=r"line 1: not UTF-8"):  # the second line must not be taken for the names
        opened(file, "task.on_error=skip")


def test_a_quoted_row_that_is_not_utf8_is_skipped_whole(tmp_path: Path) -> None:
    task = csv_of(tmp_path, TABLE.encode() + b'a,b,c\nd,"\xff\ne",f\ng,h,i\n', "task.on_error=skip")
    assert [example.id for example in task.train] == ["line 2", "line 5"]


@pytest.mark.parametrize(("source", "said"), [("{mask} {question}", "rename it"), ("{mask}", "is none, but where the")])
def test_a_column_called_mask_is_not_taken_for_the_answers_place(tmp_path: Path, source: str, said: str) -> None:
    file = save(tmp_path / "a.jsonl", [{**ROWS[0], "mask": "on"}])
    with pytest.raises(UserError, match=said):
        opened(file, f"task.source={source}")


GZIPPED = gzip.compress(b"question,passage,answer\na,b,c\n", mtime=0)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", POINTER, "is a Git LFS pointer to the file, which git lfs pull fetches"),
        ("a.parquet", POINTER, "is a Git LFS pointer to the file, which git lfs pull fetches"),
        ("a.parquet", GZIPPED, "is compressed with gzip; unpack it first"),
        ("a.csv.gz", GZIPPED[:-9], r"is a damaged gzip file \(EOFError.*; fetch or pack it anew"),
        ("a.csv.gz", GZIPPED[:10] + b"\xff" * 9, r"is a damaged gzip file \(error: .* invalid block type"),
        ("a.csv", GZIPPED[:-8] + bytes(8), r"is a damaged gzip file \(BadGzipFile: CRC check failed"),
        ("a.jsonl", b"PK\x03\x04\n", "is a zip archive or a spreadsheet; unpack it, or save the sheet as CSV"),
        ("a.csv", b"PAR1\n", "is Parquet; its name must end in .parquet"),
        ("a.tsv", b"<!doctype HTML><p>", "is a web page; download the file itself"),
        (
            "a.csv",
            "question,passage,answer\na,b,c\n".encode("utf-16-le"),
            "is UTF-16 or UTF-32; save it as UTF-8",
        ),
        ("a.csv", "question,passage,answer\na,b,c\n".encode("utf-32"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("a.csv", codecs.BOM_UTF16_LE + b"a", "is UTF-16 or UTF-32; save it as UTF-8"),
        ("a.csv", "question,passage,answer\na,é,c\n".encode("latin-1"), "line 2: not UTF-8; .* as iconv -f latin1"),
        ("a.csv", b"question;passage;answer\na;b;c\n", "first line has question;passage;answer. A table"),
        (
            "a.csv",
            b"3,a,b\n1,c,d\n",
            r"names no column of this table; its first line has 3, a, b\. .* task\.columns=\[",
        ),
        (
            "a.csv",
            b"question\tpassage\tanswer\na\tb\tc\n",
            "first line has question\tpassage\tanswer. A table",
        ),
        ("a.json", b'[{"question": 1}, 2]', r"a\.json, record 1: 'passage' is missing"),
        ("a.json", b"[2]", r"a\.json, record 1: expected a JSON object, got int"),
        ("a.json", b'[{"question": 1},\n]', r"a\.json: not JSON \(.* line "),
        ("a.json", b'{"rows": []}', r"a\.json: 'question' is missing; .* It has rows"),
        ("a.json", b"3", r"a\.json, line 1: expected a JSON object, got int"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        opened(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet"])
def test_columns_of_one_name_are_refused(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a.{ending}"
    names = ["question", "passage", "answer", "passage"]
    if ending == "parquet":
        arrow.parquet.write_table(arrow.table([["a"], ["b"], ["c"], ["d"]], names=names), file)
    else:
        file.write_text("\n".join(({"csv": ",", "tsv": "\t"}[ending]).join(row) for row in (names, "abcd", "")))
    with pytest.raises(UserError, match=rf"a\.{ending}.*: 2 columns are called 'passage'; give each a name of its own"):
        opened(file, "task.on_error=skip")


@pytest.mark.trains
def test_a_run_on_ones_own_files(tmp_path: Path, checkpoint: Path, cli: Callable[..., Outcome]) -> None:
    file = save(tmp_path / "a.jsonl", [{**ROWS[0], "name": str(number)} for number in range(20)])
    quick = [word for word in quick_words(checkpoint, tmp_path, tmp_path / "run") if "task.data" not in word]
    done = cli("train", *words(file, "task.valid=null", "task.name=lamps"), *quick, "train.updates=8")
    assert done.status == 0, done.err
    assert f"{file}: 2 of its 20 examples are for validation" in done.err
    assert f"lamps ({file}, 18 training and 2 validation examples)" in done.out
