"""fpt compare runs what is missing, reads what is there, and its gain at equal FLOPs is what the curves say."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from fpt.__main__ import main
from fpt.runs.run import open_run
from stages import several
from stages.several import Point, reaches
from tests.conftest import Outcome, quick_words, rewritten

Cli = Callable[..., Outcome]
NAMES = ["pt-s0", "pt-s1", "cr-s0", "cr-s1"]


def words(checkpoint: Path, boolq: Path, folder: Path) -> list[str]:
    """Short, with validations every second update and a learning rate that moves the scores of a random model."""
    more = ["train.updates=12", "train.eval_every=2", "optim.lr=3.0", "prompt.init=labels", "seeds=0,1"]
    return ["compare", *quick_words(checkpoint, boolq, folder), *more]


@pytest.fixture(scope="module")
def compared(trains: None, checkpoint: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the finished runs."""
    folder = tmp_path_factory.mktemp("compare") / "runs"
    assert main([*words(checkpoint, boolq, folder), "schedules=cr"]) == 0
    return folder


@pytest.fixture
def command(compared: Path, checkpoint: Path, boolq: Path) -> list[str]:
    return [*words(checkpoint, boolq, compared), "schedules=pt,cr"]


def slow_gain(folder: Path, name: str, seed: int) -> float:
    """The run's score minus vanilla's best, update by update until its FLOPs are spent."""
    result = json.loads((folder / f"{name}-s{seed}/result.json").read_text())
    best = -1.0
    for line in map(json.loads, (folder / f"pt-s{seed}/metrics.jsonl").read_text().splitlines()):
        if line["flops"] > result["flops"]:
            break
        if line.get("split") == "validation" and line["accuracy"] > best:
            best = line["accuracy"]
    return float(result["metric"]["value"] - best)


def test_numbers_are_those_of_the_runs(cli: Cli, compared: Path, command: list[str]) -> None:
    found = json.loads(cli(*command, "--json").out)
    assert (found["metric"], found["seeds"]) == ("accuracy", [0, 1])
    results: dict[str, Any] = {name: json.loads((compared / name / "result.json").read_text()) for name in NAMES}
    for row in found["schedules"]:
        own = [results[f"{row['schedule']}-s{seed}"] for seed in (0, 1)]
        vanilla = [results[f"pt-s{seed}"] for seed in (0, 1)]
        scores = [result["metric"]["value"] for result in own]
        assert row["score"] == {"mean": mean(scores), "deviation": pytest.approx(stdev(scores))}
        last = [result["stages"][-1]["score"] for result in own]
        assert row["last"] == {"mean": mean(last), "deviation": pytest.approx(stdev(last))}
        gains = [slow_gain(compared, row["schedule"], seed) for seed in (0, 1)]
        assert [run["gain"] for run in row["runs"]] == pytest.approx(gains)
        assert row["gain"]["mean"] == pytest.approx(mean(gains))
        for key in ("flops", "seconds"):
            ratios = [one[key] / other[key] for one, other in zip(own, vanilla, strict=True)]
            assert row[f"{key}_ratio"] == pytest.approx(mean(ratios))
    pt, cr = found["schedules"]
    assert pt["gain"] == {"mean": 0.0, "deviation": 0.0}
    assert pt["flops_ratio"] == 1.0
    assert cr["flops_ratio"] == pytest.approx(results["cr-s0"]["flops_ratio"], rel=0.05)
    spent = [(run["vanilla_at_equal_flops"], results[f"pt-s{run['seed']}"]["metric"]["value"]) for run in cr["runs"]]
    assert all(then <= in_the_end for then, in_the_end in spent)


def test_flops_to_vanillas_score_are_where_the_curves_reach_it(
    cli: Cli, compared: Path, command: list[str], tmp_path: Path
) -> None:
    """With curves of the test's own, so that some get there, at known places, and one does not."""
    copy = shutil.copytree(compared, tmp_path / "runs")
    again = [word.replace(str(compared), str(copy)) for word in command]
    scores = {
        "pt-s0": [30, 60, 50, 70, 70, 70],
        "pt-s1": [20, 20, 20, 20, 40, 50],
        "cr-s0": [60, 50, 60],
        "cr-s1": [59],
    }
    spent = {}
    for name, values in scores.items():  # the last of vanilla's have 60 in the mean
        lines = [json.loads(line) for line in (copy / name / "metrics.jsonl").read_text().splitlines()]
        end = json.loads((copy / name / "result.json").read_text())
        flops = [end["flops"] * number // 10 for number in range(1, len(values) + 1)]
        kept = [line for line in lines if "split" not in line]
        stage = {"split": "validation", "stage": len(end["stages"])}
        kept += [
            {**stage, "update": 1, "flops": at, "accuracy": value} for at, value in zip(flops, values, strict=True)
        ]
        rewritten(copy / name, "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        spent[name] = flops, end["flops"]
    done = cli(*again, "--json")
    found = json.loads(done.out)
    assert found["vanilla"] == 60.0
    pt, cr = found["schedules"]
    assert [run["flops_to_vanilla"] for run in pt["runs"]] == [pytest.approx(0.4, abs=1e-6), None]
    crossing = spent["cr-s0"][0][2] / spent["pt-s0"][1]
    assert [run["flops_to_vanilla"] for run in cr["runs"]] == [pytest.approx(crossing), None]
    assert (cr["flops_to_vanilla"]["mean"], cr["reached_vanilla"]) == (pytest.approx(crossing), 1)
    shown = cli(*again).out.splitlines()
    assert re.split(r"  +", shown[3].strip())[1] == f"{crossing:.1%} (1 of 2)"


def test_finished_runs_are_read_missing_ones_run(cli: Cli, compared: Path, command: list[str]) -> None:
    before = {name: (compared / name / "result.json").stat().st_mtime_ns for name in NAMES}
    shutil.rmtree(compared / "cr-s1")
    done = cli(*command)
    assert done.status == 0, done.err
    after = {name: (compared / name / "result.json").stat().st_mtime_ns for name in NAMES}
    assert [name for name in NAMES if before[name] != after[name]] == ["cr-s1"]
    assert f"run 3 of 4: schedule=cr seed=0: finished, in {compared / 'cr-s0'}" in done.err
    assert f"run 4 of 4: schedule=cr seed=1, in {compared / 'cr-s1'}" in done.err
    lines = done.out.splitlines()
    columns = ["schedule", "to vanilla's score *", "accuracy", "last prompt", "FLOPs", "time"]
    assert re.split(r"  +", lines[1].strip()) == [*columns, "gain **"]
    assert [line.split()[0] for line in lines[2:4]] == ["pt", "cr"]


@pytest.mark.parametrize(
    ("words", "every"),
    [
        ("train.updates=40", 4),
        ("train.updates=40 train.eval_every=20", 20),
        ("train.updates=3 schedules=pt", 1),
        ("", 150),
        ("model=t5-large", 500),
    ],
)
def test_a_short_run_is_validated_often_enough_to_be_compared(words: str, every: int) -> None:
    planned = several.comparison([word for word in words.split() if "schedules" not in word], ["pt"], [0])
    assert planned[0].config.train.eval_every == every


def test_a_run_of_another_configuration_is_not_taken_for_this_one(cli: Cli, command: list[str]) -> None:
    done = cli(*command, "optim.weight_decay=0.5")
    assert done.status == 2
    assert "optim.weight_decay: 1e-05 then, 0.5 now" in done.err
    assert "Give run.dir=DIR, in which every run gets a folder of its own" in done.err
    assert len(done.err.splitlines()) == 1


def test_a_run_that_was_damaged_is_said(cli: Cli, compared: Path, command: list[str]) -> None:
    file = compared / "cr-s0/result.json"
    whole = file.read_text()
    file.write_text(whole.replace("accuracy", "accurate"))
    done = cli(*command)
    file.write_text(whole)
    assert done.status == 2
    assert "result.json: is damaged" in done.err


def test_before_vanillas_first_validation_there_is_no_gain(
    cli: Cli, compared: Path, command: list[str], tmp_path: Path
) -> None:
    copy = shutil.copytree(compared, tmp_path / "runs")
    again = [word.replace(str(compared), str(copy)) for word in command]
    for seed in (0, 1):
        run = copy / f"pt-s{seed}"
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        kept = [line for line in lines if "split" not in line or line["update"] == 12]
        rewritten(run, "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
    cr = json.loads(cli(*again, "--json").out)["schedules"][1]
    assert cr["gain"] is None
    assert cli(*again).out.splitlines()[3].endswith("–")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("schedules=pt,crr", "schedule=crr: allowed are auto, cr, cr-half, fast, fr, ld, pt. Did you mean 'cr'?"),
        ("schedules=cr,auto", "schedules=auto: is cr on this model, which is compared already"),
        ("schedules=cr,cr", "schedules=cr,cr: expected values parted by commas, each once"),
        ("schedules=nope.yaml", "schedule=nope.yaml: no such file"),
        ("seeds=", "seeds=: expected values parted by commas"),
        ("seeds=0,x", "seeds=0,x: x is no whole number"),
        ("seed=1", "seed=1: is what is compared"),
        ("schedule=cr", "schedule=cr: is what is compared"),
        ("run.dir=/proc/no optim.lr=-1", "optim.lr=-1.0: must be greater than 0"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_runs(cli: Cli, more: str, said: str) -> None:
    done = cli("compare", *more.split())
    assert done.status == 2
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_two_schedules_of_one_name_would_share_a_folder(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "cr.yaml").write_text("- {width: 0.5, share: 0.5}\n- {share: 0.5}\n")
    done = cli("compare", f"schedules=cr,{tmp_path / 'cr.yaml'}", "seeds=0", f"run.dir={tmp_path}")
    assert done.status == 2
    assert "would share the folder" in done.err


def points(*scores: float) -> list[Point]:
    """Validations every ten FLOPs."""
    return [Point(10 * number, score) for number, score in enumerate(scores, 1)]


@pytest.mark.parametrize(
    ("scores", "spent"),
    [
        ([50, 80, 80, 80], 20),
        ([50, 80, 79, 80, 90], 40),  # it has to be there at the next validation too
        ([50, 60, 80], 30),  # the last has none
        ([80], 10),
        ([79, 79.9], None),
        ([80, 50, 80, 50], None),
        ([], None),
    ],
)
def test_a_score_is_reached_when_the_next_validation_has_it_too(scores: list[float], spent: int | None) -> None:
    assert reaches(points(*scores), 80.0) == spent


def test_a_curve_is_of_the_last_stages_validations(compared: Path) -> None:
    lines = [json.loads(line) for line in (compared / "cr-s0/metrics.jsonl").read_text().splitlines()]
    curve = [(line["flops"], line["accuracy"]) for line in lines if "split" in line and line["stage"] == 4]
    assert several.validations(open_run(compared / "cr-s0")) == curve
    assert any("split" in line and line["stage"] < 4 for line in lines)
