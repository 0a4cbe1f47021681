"""A finished run's prompt scores what the run said, on any split and under any configuration that fits it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Outcome, boolq_lines, save_checkpoint

Cli = Callable[..., Outcome]


def test_the_score_is_the_runs_to_the_last_digit(cli: Cli, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.jsonl"
    scored = json.loads(cli("eval", f"run={finished}", f"output={output}", "--json").out)
    result = json.loads((finished / "result.json").read_text())
    assert scored["metrics"] == result["metrics"]
    assert output.read_bytes() == (finished / "predictions.jsonl").read_bytes()


def test_a_prompt_file_scores_the_same_without_its_run(
    cli: Cli, finished: Path, checkpoint: Path, boolq: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.jsonl"
    words = [f"prompt.file={finished / 'prompt.safetensors'}", f"model={checkpoint}", f"task.data={boolq}"]
    done = cli("eval", *words, f"output={output}")
    assert done.status == 0, done.err
    assert output.read_bytes() == (finished / "predictions.jsonl").read_bytes()
    assert "accuracy" in done.out


def test_a_stages_prompt_scores_what_the_stage_did(cli: Cli, finished: Path, tmp_path: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    for number, row in enumerate(result["stages"][:-1], 1):
        words = (f"run={finished}", f"stage={number}", f"output={tmp_path}/{number}.jsonl", "--json")
        assert json.loads(cli("eval", *words).out)["metrics"]["accuracy"] == row["score"]


def test_other_data_and_splits_by_override(cli: Cli, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(boolq_lines(8))
    (tmp_path / "val.jsonl").write_text(boolq_lines(7, 2000))
    (tmp_path / "test.jsonl").write_text(
        boolq_lines(5, 3000).replace(', "label": true', "").replace(', "label": false', "")
    )
    words = (f"run={finished}", f"task.data={tmp_path}", f"output={tmp_path}/answers.jsonl", "--json")
    found = {split: json.loads(cli("eval", *words, f"split={split}").out) for split in ("validation", "train", "test")}
    assert {split: about["examples"] for split, about in found.items()} == {"validation": 7, "train": 8, "test": 5}
    assert found["test"]["metrics"] is None
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 5


def test_a_run_goes_on_with_evaluations_in_its_folder(cli: Cli, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    done = cli("eval", f"run={run}")
    assert done.status == 0, done.err
    assert (run / "evals" / "boolq-small-validation.jsonl").read_bytes() == (run / "predictions.jsonl").read_bytes()
    assert cli("eval", f"run={run}").status == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which prompt? give run=DIR"),
        (["run=/nowhere"], "run=/nowhere: no such folder"),
        (["run=."], "run=.: is not the folder of a run"),
        (["run={run}", "prompt.file=x"], "both name a prompt"),
        (["run={run}", "split=tests"], "split=tests: boolq has train, validation, test. Did you mean 'test'?"),
        (["run={run}", "stage=9"], "stage=9: "),
        (["run={run}", "stage=0"], "stage=0: expected a whole number"),
        (["run={run}", "task.train_exampls=3"], "unknown key"),
        (["run={run}", "experiment=large-cr"], "is for a new run"),
        (["run={run}", "output=/"], "output=/: is a folder"),
        (["run={run}", "output={run}/result.json"], "result.json: is a record of the run in that folder"),
        (["run={run}", "model={other}"], "was trained on another model"),
        (["prompt.file=/nowhere"], "prompt.file=/nowhere: no such file"),
        (["prompt.file={prompt}", "stage=1"], "a prompt file has no stages"),
        (["prompt.file={prompt}", "task.data=world"], "holds vectors of 32, but"),
    ],
)
def test_bad_input_ends_in_one_line(
    cli: Cli, finished: Path, tmp_path: Path, words: list[str], said: str, request: pytest.FixtureRequest
) -> None:
    other = request.getfixturevalue("other")
    places = {"run": finished, "other": other, "prompt": finished / "prompt.safetensors"}
    done = cli("eval", *(word.format(**places) for word in words))
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("other") / "t5", "Flan-T5")


def test_a_damaged_record_is_named(cli: Cli, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "prompt.safetensors").write_bytes(b"else")
    assert "prompt.safetensors: is damaged" in cli("eval", f"run={run}").err
    (run / "result.json").unlink()
    assert "result.json: is missing" in cli("eval", f"run={run}").err


def test_an_unfinished_run_is_refused(cli: Cli, finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    ledger = json.loads((run / "checksums.json").read_text())
    del ledger["result.json"]
    (run / "checksums.json").write_text(json.dumps(ledger))
    assert "this run is not finished" in cli("eval", f"run={run}").err
