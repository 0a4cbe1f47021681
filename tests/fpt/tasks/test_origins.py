"""From the original files as from the Hub, a record gives the same example; generated data are shipped files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fpt.backbones import tiny
from fpt.config import compose
from fpt.errors import UserError
from fpt.tasks.benchmarks import RULES
from fpt.tasks.catalogue import GENERATED, most_examples
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task

GENERATED_TASKS = [name for name, form in RULES.items() if form.records.generated]
MNLI = "index\tsentence1\tsentence2\tgold_label\n0\tp\th\tneutral\n1\tq\ti\tentailment\n"
QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n5\t1\t2\ta\tb\t1\n6\t1\t2\tc\td\t0\n"
SQUAD = {
    "data": [
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "Ole met Mira",
                    "qas": [
                        {"id": "x", "question": "who?", "answers": [{"text": "Ole", "answer_start": 0}]},
                        {"id": "y", "question": "when?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ]
}
RECORD = {
    "idx": 0,
    "passage": {"text": "Ole met Mira", "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 11}]},
    "qas": [{"idx": 4, "query": "@placeholder came", "answers": [{"start": 0, "end": 2, "text": "Ole"}]}],
}
XSUM = {"document": "Ole met Mira.", "summary": "Ole met her", "id": "9"}
BOTH = {"idx": 0, "title": "t", "passage": "Ole met Mira", "context": "Ole met Mira"}

# The original files of each task (training, validation) and the same records as the Hub has them.
SAME: dict[str, tuple[tuple[str, str], str, list[dict[str, Any]]]] = {
    "mnli": (
        ("train.tsv", "dev_matched.tsv"),
        MNLI,
        [
            {"premise": "p", "hypothesis": "h", "label": 1, "idx": 0},
            {"premise": "q", "hypothesis": "i", "label": 0, "idx": 1},
        ],
    ),
    "qqp": (
        ("train.tsv", "dev.tsv"),
        QQP,
        [
            {"question1": "a", "question2": "b", "label": 1, "idx": 0},
            {"question1": "c", "question2": "d", "label": 0, "idx": 1},
        ],
    ),
    "squad_v2": (
        ("train-v2.0.json", "dev-v2.0.json"),
        json.dumps(SQUAD),
        [
            {**BOTH, "id": "x", "question": "who?", "answers": {"text": ["Ole"], "answer_start": [0]}},
            {**BOTH, "id": "y", "question": "when?", "answers": {"text": [], "answer_start": []}},
        ],
    ),
    "record": (
        ("train.jsonl", "val.jsonl"),
        json.dumps(RECORD),
        [
            {
                "passage": "Ole met Mira",
                "query": "@placeholder came",
                "entities": ["Ole", "Mira"],
                "answers": ["Ole"],
                "idx": {"passage": 0, "query": 4},
            }
        ],
    ),
    "xsum": (("train.jsonl", "validation.jsonl"), json.dumps(XSUM), [XSUM]),
}


@pytest.mark.parametrize("name", SAME)
def test_files_and_hub_give_the_same_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A folder of the data set's name, which `datasets` takes for the Hub's, stands in for the Hub."""
    files, content, records = SAME[name]
    for file in files:
        (tmp_path / file).write_text(content)
    source = RULES[name].records
    hub = tmp_path.joinpath(source.hub[0])
    hub.mkdir(parents=True)
    splits = [source.splits[split].hub for split in list(source.splits)[:2]]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    card = [{"config_name": "".join(source.hub[1:]) or "default", "data_files": []}]
    for split in splits:
        (hub / f"{split}.jsonl").write_text(lines)
        card[0]["data_files"].append({"split": split, "path": f"{split}.jsonl"})  # type: ignore[attr-defined]
    (hub / "README.md").write_text(f"---\nconfigs: {json.dumps(card)}\n---\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    ours, theirs = (open_task(compose.load([f"task={name}", f"task.data={data}"])) for data in (tmp_path, "hub"))
    assert list(ours.valid) == list(theirs.valid)
    assert list(ours.train) == list(theirs.train)
    assert len(ours.valid) == len(records)
    assert theirs.origin.startswith(f"Hub {'/'.join(source.hub)}")
    assert (ours.baseline_name, ours.majority) == (theirs.baseline_name, theirs.majority)


OWN = ["task=files", "task.source={q}", "task.target={a.text}", "task.train=hub:acme/qa/two:train"]
CARD = "---\nconfigs:\n- config_name: one\n  data_files: one.jsonl\n- config_name: two\n  data_files: two.jsonl\n---\n"


def own_on_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> Task:
    """A task of the user's own from two configurations; a folder of the data set's name stands in for the Hub."""
    folder = tmp_path / "acme" / "qa"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for name in ("one", "two"):
        rows = [{"q": f"{name} {number}", "a": {"text": [name, "x"], "start": [0, 1]}} for number in range(20)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return open_task(compose.load([*OWN, *words]))


def test_a_data_set_on_the_hub_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = own_on_hub(tmp_path, monkeypatch, "task.valid=hub:acme/qa/one:train[:3]")
    assert [(example.id, example.source, example.golds) for example in task.valid] == [
        (f"record {number + 1}", f"one {number}", ("one", "x")) for number in range(3)
    ]
    assert (len(task.train), task.train[0].source) == (20, "two 0")
    assert task.origin == "hub:acme/qa/two:train and hub:acme/qa/one:train[:3]"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hub:acme/qa", "expected hub:OWNER/NAME:SPLIT, or hub:OWNER/NAME/CONFIGURATION:SPLIT"),
        ("hub:acme/qa/one/two:train", "expected hub:OWNER/NAME:SPLIT"),
        ("hub:acme/qa:train", "cannot be fetched (ValueError: Config name is missing. Please pick one among"),
        ("hub:acme/qa/three:train", "cannot be fetched (ValueError: BuilderConfig 'three' not found"),
        ("hub:acme/qa/two:test", 'cannot be fetched (ValueError: Unknown split "test"'),
        ("hub:acme/none:train", "acme/none cannot be fetched ("),
    ],
)
def test_what_the_hub_has_not_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        own_on_hub(tmp_path, monkeypatch, f"task.valid={name}")
    assert str(caught.value).startswith(f"task.valid={name}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", GENERATED_TASKS)
def test_every_task_is_generated(name: str) -> None:
    task = open_task(compose.load([f"task={name}", "task.train_examples=60", "task.valid_examples=20"]))
    assert (len(task.train), len(task.valid), task.origin.split(",")[0]) == (60, 20, "generated")
    assert {metric.split("_")[0] for metric in task.score(["x"] * 20, task.valid)} >= {task.metric.split("_")[0]}
    golds = [example.golds[0] or "no answer" for example in task.valid]
    assert task.score([task.from_text(gold) for gold in golds], task.valid)[task.metric] == pytest.approx(100)
    assert 0 <= task.majority < 100


def test_mnlis_validation_sets_are_generated_apart() -> None:
    matched, mismatched = (
        open_task(compose.load(["task=mnli", "task.world=plain", "task.train_examples=2", f"task.valid_split={split}"]))
        for split in ("matched", "mismatched")
    )
    assert {example.source for example in matched.valid}.isdisjoint(example.source for example in mismatched.valid)
    assert len(matched.valid) == len(mismatched.valid) == GENERATED[1]


@pytest.mark.parametrize("name", GENERATED_TASKS)
def test_the_embedded_model_can_say_every_label(name: str) -> None:
    """A label that is cut, or that comes back as other text, could never be right."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.FOLDER)
    for label in RULES[name].labels:
        ids = tokenizer(f"<extra_id_0> {label}").input_ids
        assert RULES[name].from_text(tokenizer.decode(ids[1:], skip_special_tokens=True)) == label
        assert len(ids) <= compose.load([f"task={name}"]).task.target_length


def test_customs_are_asked_for_by_two_settings() -> None:
    plain, first, second, default = (
        open_task(compose.load(["task=boolq", "task.train_examples=20", *words]))
        for words in (["task.world=plain"], ["task.world=customs"], ["task.land=0"], [])
    )
    assert [task.origin for task in (plain, first, second, default)] == ["generated", *["generated, land 0"] * 3]
    assert plain.train != first.train == second.train == default.train


def test_a_task_has_as_many_generated_examples_as_are_planned_for() -> None:
    config = compose.load(["task=qqp", "task.train_examples=9999", "task.valid_examples=9999"])
    task = open_task(config)
    assert most_examples(config) == (len(task.train), len(task.valid))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task.world=plain", "task.land=1"], "task.land=1: only customs have lands; leave it out"),
        (["task.land=-1"], "task.land=-1: must be at least 0"),
        (["task.world=zork"], "task.world=zork: allowed are plain, customs"),
        (["task.data=hub", "task.world=customs"], "task.world=customs: is for generated data, these are Hub"),
        (
            ["task=mnli", "task.valid_split=mismatched"],
            "mismatched: a land's customs are about people alone",
        ),
        (
            ["task=mnli", "task.test_split=test_mismatched"],
            "test_mismatched: a land's customs are about people alone",
        ),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        open_task(compose.load(words))


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(UserError, match=r"task\.name=mnly: allowed are boolq, .*Did you mean 'mnli'\?"):
        open_task(compose.load(["task.name=mnly"]))
