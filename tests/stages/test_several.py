"""fpt train -m runs every combination, each in a folder of its own, and nothing before all are found to be possible."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt.config import compose
from stages import several
from stages.resolve import for_training
from tests.conftest import Outcome

Cli = Callable[..., Outcome]


def folders(*words: str) -> list[str]:
    return [str(run.config.folder) for run in several.combinations(words)]


def test_every_combination_has_a_folder_of_its_own() -> None:
    assert folders("optim.lr=0.1,0.3", "schedule=pt,cr") == [
        "runs/boolq-tiny-pt-s0-optim.lr=0.1",
        "runs/boolq-tiny-cr-s0-optim.lr=0.1",
        "runs/boolq-tiny-pt-s0-optim.lr=0.3",
        "runs/boolq-tiny-cr-s0-optim.lr=0.3",
    ]
    assert folders("seed=0,1", "task=qqp") == ["runs/qqp-tiny-cr-s0", "runs/qqp-tiny-cr-s1"]
    assert folders("seed=0,1", "run.dir=out") == ["out/seed=0", "out/seed=1"]
    assert folders("seed=3") == ["runs/boolq-tiny-cr-s3"]


def test_a_runs_words_make_its_configuration() -> None:
    """With them its processes are started."""
    for run in (
        *several.combinations(
            ["optim.lr=0.1,0.3", "task.name='a, b',c d", "schedule.stages=[{share: 1}],[{updates: 5}]"]
        ),
        *several.comparison(["train.updates=40", "run.dir= x y"], ["cr"], [0, 1]),
        *several.comparison([], ["ld"], [3]),
    ):
        assert for_training(compose.load(run.words)) == run.config


def test_values_that_no_folder_can_be_named_after_are_told_apart() -> None:
    lists = "schedule.stages=[{share: 1}],[{updates: 5}]"
    found = folders(lists, "train.updates=5")
    assert len(set(found)) == 2
    assert all(set(Path(name).name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.=~") for name in found)
    assert found == folders(lists, "train.updates=5")


def test_texts_that_are_taken_as_typed_are_not_swept() -> None:
    (run,) = several.combinations(["task.template=premise {question}, hypothesis {passage}"])
    assert run.config.task.template == "premise {question}, hypothesis {passage}"


@pytest.mark.trains
def test_runs_tell_what_they_came_to_and_one_that_fails_stops_no_other(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    words = [*quick, "schedule=pt", "train.updates=4", "optim.lr=3e38,0.3", "seed=0,1"]
    done = cli("train", "-m", *words, "--json")
    assert done.status == 2
    assert done.err.splitlines()[-1] == "fpt: 2 of 4 runs failed; what they said is above"
    assert "try a lower optim.lr=3e+38" in done.err
    rows = json.loads(done.out)
    assert [row["values"] for row in rows] == [
        {"optim.lr": lr, "seed": seed} for lr in ("3e38", "0.3") for seed in ("0", "1")
    ]
    assert [row["error"] is None for row in rows] == [False, False, True, True]
    for row in rows[2:]:
        result = json.loads((Path(row["folder"]) / "result.json").read_text())
        assert (row["metric"], row["flops"]) == (result["metric"], result["flops"])
    assert Path(rows[2]["folder"]) == tmp_path / "run/optim.lr=0.3-seed=0"
    again = cli("train", "--multirun", *words[:-2], "optim.lr=0.3", "seed=0,1", f"run.dir={tmp_path / 'run2'}")
    assert again.status == 0
    lines = again.out.splitlines()
    assert lines[0].split() == ["seed", "metric", "score", "FLOPs", "seconds", "folder"]
    assert lines[1].endswith(str(tmp_path / "run2/seed=0"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-m optim.lr=0.1,high", "optim.lr=high: expected a number"),
        ("-m run.dir=a,b", "run.dir: cannot be swept"),
        ("-m schedule=pt,crr", "schedule=crr: allowed are"),
        ("-m seed=range(0,3)", "seed=range(0: expected a whole number"),
        ("-m task=glob(mr*)", "task=glob(mr*): allowed are"),
        ("-m seed=0,0", "would share the folder"),
        ("optim.lr=0.1,0.3", "optim.lr=0.1,0.3: has several values at once; fpt train -m runs all combinations"),
        ("-n seed=0", "-n: unknown option"),
        ("--multirun=1 seed=0", "--multirun: ignored explicit argument '1'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("train", *words.split())
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.trains
def test_runs_on_deepspeed_follow_each_other_in_one_process_also_after_one_that_fails(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    """DeepSpeed's groups outlive a run unless they go with it; the second loss is no number."""
    more = ["engine=deepspeed", "schedule=pt", "train.updates=4", f"run.dir={tmp_path / 'all'}"]
    done = cli("train", "-m", *quick, *more, "optim.lr=0.1,1e38,0.2", "--json")
    rows = json.loads(done.out)
    assert [row["error"] is None for row in rows] == [True, False, True]
    assert "the loss is" in rows[1]["error"]
