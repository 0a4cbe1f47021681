"""fpt compare prompts=soft,late prints the late prompt paper's table from the runs that it makes or finds."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

from fpt.runs.run import open_run
from stages.several import prompts
from stages.several.prompts import examples_per_second
from tests.conftest import Outcome

Cli = Callable[..., Outcome]


@pytest.mark.trains
def test_kinds_of_prompts_are_compared(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    words = [*quick, "train.epochs=0.25", "train.eval_every=2", "seeds=0,1", "prompts=soft,none"]
    done = cli("compare", *words, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert (found["metric"], found["seeds"]) == ("accuracy", [0, 1])
    rows = {row["prompt"]: row for row in found["prompts"]}
    runs = {name: [open_run(tmp_path / f"run/{name}-s{seed}") for seed in (0, 1)] for name in rows}
    assert {name: row["trainable_parameters"] for name, row in rows.items()} == {"soft": 160, "none": 160}
    for name, row in rows.items():
        assert [run.result["updates"] for run in runs[name]] == [3, 3]  # a quarter of 48 examples, four at once
        assert runs[name][0].config.schedule.name == "pt"
        assert row["score"]["mean"] == mean(run.result["metric"]["value"] for run in runs[name])
        assert row["memory"] == runs[name][0].plan["memory"]["stages"][-1]["total"]
        assert row["examples_per_second"] == pytest.approx(mean(map(examples_per_second, runs[name])))
        lines = [line for line in runs[name][0].metrics if "loss" in line]
        # Updates 1 and 2 follow each other, 2 and 3 have a validation between.
        assert examples_per_second(runs[name][0]) == pytest.approx(4 / (lines[1]["seconds"] - lines[0]["seconds"]))
    assert rows["soft"]["flops_ratio"] == 1.0
    assert 0.5 < rows["none"]["flops_ratio"] < 1.0
    before = (tmp_path / "run/soft-s0/result.json").stat().st_mtime_ns
    shown = cli("compare", *words)
    assert "run 1 of 4: prompt=soft seed=0: finished" in shown.err
    assert (tmp_path / "run/soft-s0/result.json").stat().st_mtime_ns == before
    assert [line.split()[0] for line in shown.out.splitlines()[1:4]] == ["prompt", "soft", "none"]


def test_runs_of_two_generators_have_two_folders() -> None:
    planned = prompts.plan(["task=rte"], ["late", "npg", "appg", "soft"], [3])
    assert [str(one.config.folder) for one in planned] == [
        "runs/rte-tiny-pt-late-s3",
        "runs/rte-tiny-pt-late-s3-npg",
        "runs/rte-tiny-pt-late-s3-appg",
        "runs/rte-tiny-pt-s3",
    ]
    assert {one.config.schedule.name for one in prompts.plan(["schedule=cr"], ["late"], [0])} == {"cr"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prompts=sotf"], "prompts=sotf: allowed are late, soft, npg, appg, mppg, none. Did you mean 'soft'?"),
        (["prompts=soft", "prompt=late"], "prompt=late: is what is compared; give prompts=soft,late"),
        (["prompts=soft", "schedules=pt"], "prompts=… and schedules=… both say what to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused(cli: Cli, words: list[str], said: str) -> None:
    done = cli("compare", *words)
    assert done.status == 2
    assert said in done.err
