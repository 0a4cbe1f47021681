"""What `fpt show` says of a task is what training would see, and of a prompt what numpy finds in the embeddings."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from fpt.backbones import tiny
from tests.conftest import Outcome, quick_words


def shown(cli: Callable[..., Outcome], *words: str) -> dict[str, Any]:
    done = cli("show", *words, "--json")
    assert done.status == 0, done.err
    look: dict[str, Any] = json.loads(done.out)
    return look


def test_counts_lengths_and_examples(cli: Callable[..., Outcome], boolq: Path, tmp_path: Path) -> None:
    look = shown(cli, f"task.data={boolq}", "n=5")
    train, valid = look["splits"]
    assert (train["examples"], train["labels"]) == (48, {"no": 24, "yes": 24})
    assert (valid["examples"], valid["labels"]) == (24, {"no": 12, "yes": 12})
    assert (look["metric"], look["baseline"]) == ("accuracy", {"name": "most common label", "score": 50})
    assert [example["id"] for example in look["examples"]] == ["0", "9", "19", "28", "38"]
    tokenizer = AutoTokenizer.from_pretrained(tiny.FOLDER)
    lines = [json.loads(line) for line in (boolq / "train.jsonl").read_text().splitlines()]
    lengths = []
    for line in lines:
        lengths.append(len(tokenizer(f"question: {line['question']} passage: {line['passage']}").input_ids))
    assert train["source_tokens"] == {
        "median": sorted(lengths)[23],
        "90 %": sorted(lengths)[43],
        "99 %": max(lengths),
        "longest": max(lengths),
    }
    assert (train["unknown"], look["skipped"]) == ({}, [])
    for example in look["examples"]:
        line = lines[int(example["id"])]
        assert example["source"] == f"question: {line['question']} passage: {line['passage']}"
        assert example["source_tokens"] == tokenizer.convert_ids_to_tokens(tokenizer(example["source"]).input_ids)
        assert example["target_tokens"][-1] == "</s>"
        assert example["golds"] == ["yes" if line["label"] else "no"]
        assert example["cut"] == 0


def test_labels_in_brackets_stand_in_the_table(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    """In which rich would see markup, and :smile: for an emoji."""
    rows = [{"q": f"number {number}", "a": ("[neg]", "[/pos]", ":smile:")[number % 3]} for number in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = [f"task.train={tmp_path}/a.jsonl", "task.source={q}", "task.target={a}"]
    done = cli("show", "task=files", *words, 'task.labels=["[neg]","[/pos]",":smile:"]')
    assert done.status == 0, done.err
    assert all(f"'{label}'" in done.out for label in ("[neg]", "[/pos]", ":smile:"))


@pytest.mark.parametrize("labels", [[None, None], [True, False]])
def test_a_test_split_is_listed_when_it_is_asked_for(
    cli: Callable[..., Outcome], boolq: Path, tmp_path: Path, labels: list[bool | None]
) -> None:
    for name in ("train.jsonl", "val.jsonl"):
        shutil.copy(boolq / name, tmp_path)
    rows = [{"question": "is it", "passage": "it is .", "idx": 5 + n, "label": label} for n, label in enumerate(labels)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = (f"task.data={tmp_path}", "task.test_split=test")
    test = shown(cli, *words)["splits"][2]
    counts = None if labels[0] is None else {"no": 1, "yes": 1}
    assert (test["name"], test["examples"], test["labels"]) == ("test", 2, counts)
    assert (test["target_tokens"] is None) == (counts is None)
    out = cli("show", *words, "n=0").out
    assert "test sources" in out
    assert ("test targets" in out) == (counts is not None)


def long_squad(folder: Path) -> None:
    """Three questions on a context whose end, with the second answer, has to go."""
    for name in ("train-v2.0.json", "dev-v2.0.json"):
        asked = [
            {"id": text, "question": "what?", "answers": [{"text": text}] if text != "x" else []}
            for text in ("the lamp", "the stone", "x")
        ]
        context = "the lamp is red . " + "it is old . " * 20 + "the stone is grey ."
        (folder / name).write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": asked}]}]}))


def test_what_is_cut_is_counted(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    long_squad(tmp_path)
    words = ("task=squad_v2", f"task.data={tmp_path}", "task.source_length=24")
    look = shown(cli, *words, "n=2")
    assert [split["cut_sources"] for split in look["splits"]] == [3, 3]
    assert [example["id"] for example in look["examples"]] == ["the lamp", "the stone"]
    assert all(len(example["source_tokens"]) == 24 and example["cut"] > 50 for example in look["examples"])
    out = cli("show", *words, "n=1").out
    assert "3 (100.0%)" in out
    assert "24 source tokens (" in out
    assert shown(cli, *words, "n=0")["examples"] == []


@pytest.mark.trains
def test_a_run_says_it_too(cli: Callable[..., Outcome], checkpoint: Path, tmp_path: Path) -> None:
    long_squad(tmp_path)
    words = ["task=squad_v2", *quick_words(checkpoint, tmp_path, tmp_path / "run"), "train.updates=8"]
    done = cli("train", *words, "task.source_length=24", "task.target_length=3")
    assert done.status == 0, done.err
    said = "3 of 3 sources cut to 24 tokens, 3 targets to 3"
    assert f"training: {said}" in done.err
    assert f"validation: {said}" in done.err


@pytest.mark.parametrize("task", ["boolq", "record", "xsum"])
def test_for_people_it_is_a_page(cli: Callable[..., Outcome], tmp_path: Path, task: str) -> None:
    done = cli("show", f"task={task}", "task.train_examples=20", "task.valid_examples=10")
    assert done.status == 0, done.err
    assert f"{task} (generated, land 0), in tokens of tiny; main metric" in done.out
    assert done.out.count("source tokens") == 3
    assert "<extra_id_0>" in done.out


def test_what_the_tokenizer_does_not_know_is_counted(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    file = tmp_path / "faq.jsonl"
    texts = ["is it 5 € or 6 € or €", "and this 漢 is much the longest of them all, is it not", "short", "so it is"]
    file.write_text("".join(json.dumps({"asked": text, "said": f"{text} ♞"}) + "\n" for text in texts))
    words = (f"task.train={file}", f"task.valid={file}", "task.source='{asked}'", "task.target='{said}'")
    done = cli("show", "task=files", *words, "n=0")
    assert done.status == 0, done.err
    assert "train: 3 characters that the tokenizer does not know, as € (6), ♞ (4), 漢 (2)" in done.out


def test_class_weights_stand_below_the_labels_counts(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    words = ("task=boolq", "task.train_examples=30", "task.class_weights={yes: 2.5}", "n=0")
    done = cli("show", *words)
    assert done.status == 0, done.err
    (row,) = [line.split() for line in done.out.splitlines() if line.startswith("weights")]
    assert row == ["weights", "1", "2.5"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("task.labels=[是, 否]",), "are the same tokens to the model's tokenizer"),
        (("task.labels=['a  b', no]",), "'a  b' reads back as 'a b'"),
        (("task.labels=['a  b', no]", "task.answer=score"), ""),
        (("task.source='{asked} {mask} {mask}'",), "leave one"),
    ],
)
def test_it_says_why_a_run_would_be_refused(
    cli: Callable[..., Outcome], tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    words = ("task.source={asked}", "task.target={said}", *words)
    known = "a  b" if "a  b" in " ".join(words) else "是"
    rows = [{"asked": "is it", "said": said} for said in (known, {"是": "否", "a  b": "no"}[known])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = (f"task.train={tmp_path}/a.jsonl", f"task.valid={tmp_path}/a.jsonl")
    notes = shown(cli, "task=files", *files, *words)["notes"]
    refused = " ".join(note for note in notes if note.startswith("task."))
    assert said in refused
    assert bool(said) == bool(refused)


@pytest.mark.dear
def test_a_model_that_cannot_be_had_is_said_before_any_data_are_asked_for(
    cli: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub is asked for data again and again for half a minute."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: pytest.fail("the Hub is asked for data"))
    for verb in (("show",), ("train", f"run.dir={tmp_path / 'run'}")):
        done = cli(*verb, "model=nobody/nothing", "task=sst2")
        assert done.status == 2
        assert done.err.startswith("fpt: model=nobody/nothing: is no folder here, and cannot be fetched from the Hub")
        assert len(done.err.splitlines()) == 1


Cli = Callable[..., Outcome]


@pytest.mark.parametrize("stage", [None, 2])
def test_the_nearest_by_cosine(
    cli: Cli, finished: Path, checkpoint: Path, stage: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fpt.prompts.nearest.AT_ONCE", 100)
    words = [] if stage is None else [f"stage={stage}"]
    done = cli("show", f"run={finished}", "n=4", *words, "--json")
    assert done.status == 0, done.err
    look = json.loads(done.out)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    embeddings = load_file(checkpoint / "model.safetensors")["shared.weight"][: len(tokenizer)]
    folders = sorted(finished.glob("stages/*"))
    prompt = load_file((finished if stage is None else folders[stage - 1]) / "prompt.safetensors")["prompt"]
    norms, own = np.linalg.norm(embeddings, axis=1), np.linalg.norm(prompt, axis=1)
    assert look["stage"] == stage
    assert look["typical_norm"] == pytest.approx(np.sort(norms)[(len(norms) - 1) // 2], rel=1e-5)
    assert [vector["norm"] for vector in look["vectors"]] == pytest.approx(own.tolist(), rel=1e-5)
    cosines = prompt @ embeddings.T / np.outer(own, norms)
    for vector, row in zip(look["vectors"], cosines, strict=True):
        best = np.argsort(-row)[:4].tolist()
        assert [item["id"] for item in vector["nearest"]] == best
        assert [item["token"] for item in vector["nearest"]] == tokenizer.convert_ids_to_tokens(best)
        assert [item["cosine"] for item in vector["nearest"]] == pytest.approx(row[best].tolist(), rel=1e-4)


def test_a_run_keeps_what_it_learned(cli: Cli, finished: Path) -> None:
    look = json.loads(cli("show", f"run={finished}", "--json").out)
    learned = json.loads((finished / "result.json").read_text())["learned"]
    assert learned == {key: look[key] for key in ("typical_norm", "vectors")}


def test_stages_are_compared_vector_by_vector(cli: Cli, finished: Path) -> None:
    prompts = [load_file(folder / "prompt.safetensors")["prompt"] for folder in sorted(finished.glob("stages/*"))]
    units = [prompt / np.linalg.norm(prompt, axis=1, keepdims=True) for prompt in prompts]
    expected = [[float((one * other).sum(axis=1).mean()) for other in units] for one in units]
    look = json.loads(cli("show", f"run={finished}", "--json").out)
    assert np.array(look["similarity"]) == pytest.approx(np.array(expected), rel=1e-4)


def test_people_see_tables(cli: Cli, finished: Path) -> None:
    look, shown = (cli("show", f"run={finished}", "stage=1", *more).out for more in (["--json"], []))
    for vector in json.loads(look)["vectors"]:
        assert "  ".join(f"{item['token']} {item['cosine']:.2f}" for item in vector["nearest"]) in shown
    assert "the prompt of stage 1" in shown
    assert "the mean cosine" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=2"], "stage=…: is for run=DIR"),
        (["run=/nowhere"], "run=/nowhere: no such folder"),
        (["run={run}", "stage=9"], "stage=9: "),
        (["run={run}", "n=0"], "n=0: expected a whole number, at least 1"),
        (["run={run}", "model=tiny"], "holds vectors of 32, but"),
    ],
)
def test_bad_input_of_a_prompt_ends_in_one_line(cli: Cli, finished: Path, words: list[str], said: str) -> None:
    done = cli("show", *(word.format(run=finished) for word in words))
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
