"""A run, whole: what it leaves behind, and what it refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_pre_hook

from fpt.__main__ import main
from fpt.prompts.prompted import PromptedModel
from fpt.runs.metrics import MetricsLine
from fpt.runs.shared_folder import SharedFolder
from fpt.training.checkpoint import TrainState, load_state
from fpt.training.evaluation import Evaluator
from tests.conftest import Outcome, Stop, boolq_lines, copied_run, save_checkpoint

Cli = Callable[..., Outcome]


def final_prompt(folder: Path) -> torch.Tensor:
    return load_file(folder / "prompt.safetensors")["prompt"].clone()  # the file is mapped, and tests change it


def losses(folder: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["update"], row["loss"]) for row in rows if "loss" in row]


def words(quick: list[str], folder: Path, *more: str) -> list[str]:
    return [*(word for word in quick if not word.startswith("run.dir=")), f"run.dir={folder}", *more]


@pytest.fixture
def whole(finished: Path, tmp_path: Path) -> Path:
    """The folder of a run that was never stopped; a copy to do with as one likes."""
    return copied_run(finished, tmp_path / "whole")


def test_a_run_leaves_everything_behind(whole: Path, quick: list[str]) -> None:
    result = json.loads((whole / "result.json").read_text())
    wanted = {"task", "model", "schedule", "seed", "metric", "metrics", "majority", "updates", "flops", "flops_pt"}
    assert wanted | {"flops_ratio", "seconds", "versions", "stages"} <= set(result)
    last = result["stages"][-1]["score"]
    assert result["metric"] == {"name": "accuracy", "value": result["metrics"]["accuracy"], "last": last}
    assert (result["majority"], result["test"]) == (50, None)
    assert not (whole / "predictions.test.jsonl").exists()
    shapes = [(row["encoder_layers"], row["decoder_layers"], row["ffn"], row["updates"]) for row in result["stages"]]
    assert shapes == [(2, 6, 12, 4), (3, 6, 24, 4), (5, 6, 36, 4), (6, 6, 48, 8)]
    assert all({"flops", "seconds", "score"} <= set(row) for row in result["stages"])
    assert result["flops"] == sum(row["flops"] for row in result["stages"]) + result["flops_importance"]

    plan = json.loads((whole / "plan.json").read_text())
    assert [plan[key] for key in ("updates", "flops", "flops_pt", "flops_ratio")] == [
        result[key] for key in ("updates", "flops", "flops_pt", "flops_ratio")
    ]
    predictions = [json.loads(line) for line in (whole / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in predictions] == [str(1000 + index) for index in range(24)]
    assert 100 * sum(row["correct"] for row in predictions) / 24 == pytest.approx(result["metric"]["value"])
    assert [update for update, _ in losses(whole)] == list(range(1, 21))
    assert final_prompt(whole).shape == (5, 32)
    assert "batch_size: 4" in (whole / "config.yaml").read_text()
    for name in ("1-2x6-12x48", "2-3x6-24x48", "3-5x6-36x48", "4-6x6-48x48"):
        stage = whole / "stages" / name
        assert {file.name for file in stage.iterdir()} == {
            "stage.json",
            "selection.safetensors",
            "prompt.safetensors",
            "state.safetensors",
            "updates.json",
        }
    assert not list(whole.rglob("*.part"))


@pytest.mark.slow
def test_killed_at_any_write_ends_with_the_same_prompt_and_files(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename of a run in turn does not happen, nor anything after it; then the same command is run again."""
    short = ("schedule.stages=[{width: 0.5, share: 0.5}, {share: 0.5}]", "train.updates=4", "train.eval_every=2")
    short += ("tracking=none",)  # a progress's files tell how often a run was begun
    replace = Path.replace

    def run(folder: Path, stop_at: int | None) -> int:
        count = 0

        def counted(aside: Path, target: Path) -> Path:
            nonlocal count
            if folder in Path(target).parents:
                count += 1
                if count == stop_at:
                    raise Stop
            return replace(aside, target)

        monkeypatch.setattr(Path, "replace", counted)
        if stop_at is None:
            assert cli("train", *words(quick, folder, *short)).status == 0
        else:
            with pytest.raises(Stop):
                cli("train", *words(quick, folder, *short))
        monkeypatch.setattr(Path, "replace", replace)
        return count

    def files(folder: Path) -> list[str]:
        return sorted(str(file.relative_to(folder)) for file in folder.rglob("*.*") if file.suffix != ".part")

    whole = tmp_path / "undisturbed"
    total = run(whole, None)
    assert total > 30
    for stop_at in range(1, total + 1):
        folder = tmp_path / str(stop_at)
        run(folder, stop_at)
        assert cli("train", *words(quick, folder, *short)).status == 0, stop_at
        assert torch.equal(final_prompt(folder), final_prompt(whole)), stop_at
        assert files(folder) == files(whole), stop_at
        assert losses(folder) == losses(whole), stop_at


@pytest.mark.parametrize("is_labelled", [False, True])
def test_a_test_split_is_predicted_and_scored_where_it_has_labels(
    cli: Cli, quick: list[str], whole: Path, boolq: Path, tmp_path: Path, is_labelled: bool
) -> None:
    """The validation examples again, as a test split: the prompt says the same to them, and nothing else changes."""
    data, folder = Path(shutil.copytree(boolq, tmp_path / "data")), tmp_path / "run"
    rows = [json.loads(line) for line in (boolq / "val.jsonl").read_text().splitlines()]
    if not is_labelled:
        rows = [{key: value for key, value in row.items() if key != "label"} for row in rows]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    short = ["train.updates=8", "schedule=pt"] if is_labelled else []
    more = words(quick, folder, f"task.data={data}", *short, "task.test_split=test")
    done = cli("train", *more)
    assert done.status == 0, done.err
    tested, valid = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("predictions.test.jsonl", "predictions.jsonl")
    )
    assert tested == valid if is_labelled else tested == [{**row, "gold": [], "correct": None} for row in valid]
    result = json.loads((folder / "result.json").read_text())
    metrics = result["metrics"] if is_labelled else None
    assert result["test"] == {"split": "test", "examples": 24, "metrics": metrics}
    score = f"accuracy {result['metric']['value']:.2f}" if is_labelled else "without labels, so not scored"
    assert f"test split, 24 examples: {score}\n" in done.out
    if not is_labelled:
        assert torch.equal(final_prompt(folder), final_prompt(whole))
        assert (folder / "predictions.jsonl").read_bytes() == (whole / "predictions.jsonl").read_bytes()
        assert "task.test_split: test then, None now" in cli("train", *more[:-1]).err
        (data / "test.jsonl").write_text(json.dumps(rows[0]))
        assert "the data has changed" in cli("train", *more).err
        (folder / "predictions.test.jsonl").unlink()
        assert "predictions.test.jsonl: is missing" in cli("train", *more).err


def test_another_seed_is_another_prompt(cli: Cli, quick: list[str], whole: Path, tmp_path: Path) -> None:
    """The negative control of every equality above."""
    cli("train", *words(quick, tmp_path / "other", "seed=1"))
    assert not torch.equal(final_prompt(tmp_path / "other"), final_prompt(whole))


def test_a_finished_run_is_not_run_again(cli: Cli, quick: list[str], whole: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in whole.rglob("*.*") if file.name != ".lock"}
    done = cli("train", *words(quick, whole))
    assert done.status == 0
    assert "finished" in done.err
    assert "accuracy" in done.out
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_changed_configuration_is_refused_with_its_keys(cli: Cli, quick: list[str], whole: Path) -> None:
    done = cli("train", *words(quick, whole, "optim.lr=0.1", "train.batch_size=8"))
    assert done.status == 2
    assert "optim.lr: 0.3 then, 0.1 now" in done.err
    assert "train.batch_size: 4 then, 8 now" in done.err
    assert len(done.err.splitlines()) == 1
    assert cli("train", *words(quick, whole, "optim.lr=0.1", "resume=never")).status == 0
    assert (whole.parent / "whole.old-1" / "result.json").exists()


def test_must_resume_refuses_to_start_anew(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    done = cli("train", *words(quick, tmp_path / "nothing", "resume=must"))
    assert done.status == 2
    assert "no run in" in done.err
    assert not (tmp_path / "nothing").exists()


@pytest.mark.trains
def test_changed_data_are_refused_and_harm_nothing(cli: Cli, quick: list[str], boolq: Path, tmp_path: Path) -> None:
    """The same path may hold other examples than when the run began, even when it is finished."""
    data, run = Path(shutil.copytree(boolq, tmp_path / "data")), tmp_path / "run"
    again = words(quick, run, f"task.data={data}", "schedule=pt", "train.updates=4")
    assert cli("train", *again).status == 0
    before, lines = (run / "metrics.jsonl").read_bytes(), (data / "train.jsonl").read_text()
    (data / "train.jsonl").write_text("\n".join(lines.splitlines()[:-1]))
    done = cli("train", *again)
    assert done.status == 2
    assert "the data has changed" in done.err
    assert (run / "metrics.jsonl").read_bytes() == before
    (data / "train.jsonl").write_text(lines)
    assert cli("train", *again).status == 0


def test_a_tokenizer_of_another_model_is_refused(cli: Cli, quick: list[str], tmp_path: Path, checkpoint: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1", vocab_size=300)
    done = cli("train", *words(quick, tmp_path / "run", f"model={folder}"))
    assert done.status == 2
    assert "vocab_size=300" in done.err


@pytest.mark.trains
def test_the_best_prompt_is_kept_and_only_of_the_full_model(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """Scores come from the run's own log; the kept prompt gives the best of the last stage again."""
    more = ("train.eval_every=1", "train.updates=40", "optim.lr=3.0", "schedule.partial_end=true", "prompt.init=labels")
    assert cli("train", *words(quick, tmp_path / "run", *more)).status == 0
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    scores = {row["update"]: row["accuracy"] for row in rows if row.get("split") == "validation" and row["stage"] == 4}
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metric"]["value"] == max(scores.values())
    assert result["metric"]["last"] == scores[40]
    assert result["best_update"] == min(update for update, score in scores.items() if score == max(scores.values()))
    kept = states(tmp_path / "run")
    assert [state.best_prompt is None for _, state in sorted(kept.items())] == [True, True, True, False]
    assert torch.equal(final_prompt(tmp_path / "run"), (kept["4-6x6-48x48"].best_prompt or {})["prompt"])


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        ("damaged", "stages/3-5x6-36x48/state.safetensors"),
        ("missing", "stages/1-2x6-12x48/selection.safetensors"),
        ("missing", "scores.safetensors"),
        ("damaged", "metrics.jsonl"),
        ("missing", "metrics.jsonl"),
        ("damaged", "config.yaml"),
        ("missing", "config.yaml"),
        ("damaged", "result.json"),
    ],
)
def test_a_harmed_file_is_named_with_the_way_out(
    cli: Cli, quick: list[str], whole: Path, tmp_path: Path, name: str, harm: str
) -> None:
    """Nothing in the folder is touched; resume=never sets it aside, as it does of a changed configuration."""
    file = whole / name
    if harm == "missing":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    before = {file: file.read_bytes() for file in whole.rglob("*.*")}
    done = cli("train", *words(quick, whole))
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert f"{file}: is {harm}" in done.err
    assert "; start over with resume=never" in done.err
    assert before == {file: file.read_bytes() for file in whole.rglob("*.*")}


def states(folder: Path) -> dict[str, TrainState]:
    return {file.parent.name: load_state(file.read_bytes())[0] for file in folder.glob("stages/*/state.safetensors")}


@pytest.mark.trains
def test_every_schedule_starts_from_the_same_prompt_and_sees_the_same_data(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    """Checked where the model meets them: prompt and source of every pass of training, which alone has gradients."""
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for preset in ("pt", "ld", "fr", "cr"):
        passes = seen.setdefault(preset, [])

        def note(model: torch.nn.Module, inputs: Any, passes: Any = passes) -> None:
            if isinstance(model, PromptedModel) and torch.is_grad_enabled():
                passes.append((inputs[0].source, model.prompt.tensors["prompt"].detach().clone()))

        hook = register_module_forward_pre_hook(note)
        try:
            assert cli("train", *words(quick, tmp_path / preset, f"schedule={preset}", "train.updates=8")).status == 0
        finally:
            hook.remove()
    assert len(seen["pt"]) == 8
    for passes in seen.values():
        assert torch.equal(passes[0][1], seen["pt"][0][1])
        assert all(torch.equal(ours[0], theirs[0]) for ours, theirs in zip(passes, seen["pt"], strict=True))
    assert not torch.equal(seen["cr"][-1][1], seen["pt"][-1][1])


@pytest.mark.trains
def test_the_optimizers_state_is_recycled_or_fresh(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    for name, value in (("kept", "true"), ("fresh", "false")):
        assert cli("train", *words(quick, tmp_path / name, f"recycle.optimizer={value}")).status == 0
    kept, fresh = (states(tmp_path / name) for name in ("kept", "fresh"))
    assert [state.optimizer["0.step"] for _, state in sorted(kept.items())] == [4, 8, 12, 20]
    assert [state.optimizer["0.step"] for _, state in sorted(fresh.items())] == [4, 4, 4, 8]


@pytest.mark.trains
def test_one_stage_alone_is_prompt_tuning_on_a_fixed_partial_plm(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    stages = "schedule.stages=[{depth: 0.5, width: 0.25, share: 1.0}]"
    done = cli("train", *words(quick, tmp_path / "run", stages, "schedule.partial_end=true", "--json"))
    assert done.status == 0, done.err
    result = json.loads(done.out)
    assert [row["encoder_layers"] for row in result["stages"]] == [3]
    assert result["flops_ratio"] < 1


@pytest.mark.trains
def test_patience_ends_the_full_models_stage_alone(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """With a learning rate of nearly nothing no score improves; partial stages run to their end all the same."""
    more = ("optim.lr=1e-30", "train.eval_every=1", "train.patience=3")
    assert cli("train", *words(quick, tmp_path / "run", *more)).status == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [row["updates"] for row in result["stages"]] == [4, 4, 4, 4]
    assert result["updates"] == 16
    assert result["best_update"] == 13
    assert result["flops"] == sum(row["flops"] for row in result["stages"]) + result["flops_importance"]


def ended_by_time(folder: Path, seconds: float) -> dict[str, Any]:
    """The result of a run whose two stages shared the time after the measuring; updates are numbered without a gap."""
    result = json.loads((folder / "result.json").read_text())
    rows = list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))
    updates = [row for row in rows if "loss" in row]
    of_stages = [row["updates"] for row in result["stages"]]
    assert (result["ended"], result["updates"]) == ("time", len(updates))
    assert [row["update"] for row in updates] == [*range(1, len(updates) + 1)]
    assert [sum(row["stage"] == stage for row in updates) for stage in (1, 2)] == of_stages
    measuring = json.loads((folder / "measured.json").read_text())["seconds"]
    assert measuring > 0
    for stage in (1, 2):  # an update's time is read when the next one is under way
        in_time, _, late = [row["seconds"] for row in updates if row["stage"] == stage][-3:]
        assert in_time < measuring + (seconds - measuring) * stage / 2 <= late + 0.001
    return result


HALVES = "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.5}, {share: 0.5}]"


@pytest.mark.trains
def test_time_ends_every_stage_after_its_share(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """The run then is as one that was to have so many updates."""
    run, more = tmp_path / "run", (HALVES, "train.updates=4000", "train.eval_every=4000", "train.max_seconds=2.5")
    done = cli("train", *words(quick, run, *more))
    assert done.status == 0, done.err
    assert "train.max_seconds ended it" in done.out
    ours = ended_by_time(run, 2.5)
    first, last = (row["updates"] for row in ours["stages"])
    counted = f"schedule.stages=[{{depth: 0.5, width: 0.5, updates: {first}}}, {{updates: {last}}}]"
    assert cli("train", *words(quick, tmp_path / "counted", counted, "train.eval_every=4000")).status == 0
    theirs = json.loads((tmp_path / "counted/result.json").read_text())
    assert theirs["ended"] == "updates"
    assert losses(run) == losses(tmp_path / "counted")
    assert torch.equal(final_prompt(run), final_prompt(tmp_path / "counted"))
    for key in ("flops", "flops_pt", "updates", "best_update", "metrics"):
        assert ours[key] == theirs[key]


@pytest.mark.trains
def test_a_run_that_goes_on_keeps_to_the_same_time(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """It is stopped in its second stage, whose first one had its time, and again before its result is written."""
    run, more = tmp_path / "run", (HALVES, "train.updates=4000", "train.eval_every=4000", "train.max_seconds=2.5")
    log, write = SharedFolder.log, SharedFolder.write_json

    def stop_in_the_second(folder: SharedFolder, line: MetricsLine) -> None:
        log(folder, line)
        if line["stage"] == 2 and sum(row["stage"] == 2 for row in folder.metrics()) == 3:
            raise Stop

    def stop_at_the_end(folder: SharedFolder, name: str, values: Any) -> None:
        if name == "result.json":
            raise Stop
        write(folder, name, values)

    for stop in ({"log": stop_in_the_second}, {"write_json": stop_at_the_end}):
        with pytest.MonkeyPatch.context() as patch:
            for name, function in stop.items():
                patch.setattr(SharedFolder, name, function)
            with pytest.raises(Stop):
                main(["train", *words(quick, run, *more)])
    before = losses(run)
    assert cli("train", *words(quick, run, *more, "resume=must")).status == 0
    ended_by_time(run, 2.5)
    assert losses(run) == before


@pytest.mark.trains
def test_a_loss_that_is_no_number_ends_in_one_line(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    done = cli("train", *words(quick, tmp_path / "run", "optim.lr=1e38"))
    assert done.status == 2
    assert "try a lower optim.lr" in done.err


@pytest.mark.trains
def test_losses_do_not_depend_on_the_micro_batch(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """At a small learning rate: at 0.3 Adafactor makes much of the last bit."""
    more = ("optim.lr=0.001", "train.updates=8")
    for name in ("null", "1"):
        assert cli("train", *words(quick, tmp_path / name, *more, f"train.micro_batch={name}")).status == 0
    pairs = zip(losses(tmp_path / "null"), losses(tmp_path / "1"), strict=True)
    assert all(ours[1] == pytest.approx(theirs[1], rel=1e-4) for ours, theirs in pairs)


@pytest.mark.trains
def test_neither_an_automatic_micro_batch_nor_checkpointing_changes_the_losses(
    cli: Cli, quick: list[str], tmp_path: Path
) -> None:
    """On a device that has just what four examples at once take, and nothing left free."""

    def memory(name: str, *more: str) -> dict[str, Any]:
        short = ("optim.lr=0.001", "schedule=ld", "train.updates=8")
        assert cli("train", *words(quick, tmp_path / name, *short, *more)).status == 0
        planned: dict[str, Any] = json.loads((tmp_path / name / "plan.json").read_text())
        return planned

    plain = memory("plain")
    size = f"engine.device_memory={plain['stages'][-1]['total']}B"
    automatic = memory("auto", "train.micro_batch=auto", "engine=torch", size)
    assert plain["micro_batch"] == 4
    assert automatic["micro_batch"] in (1, 2, 3)
    assert automatic["fits"]
    assert memory("checkpointed", "train.activation_checkpointing=true")["activation_checkpointing"]
    assert losses(tmp_path / "checkpointed") == losses(tmp_path / "plain")
    pairs = zip(losses(tmp_path / "plain"), losses(tmp_path / "auto"), strict=True)
    assert all(ours[1] == pytest.approx(theirs[1], rel=1e-4) for ours, theirs in pairs)


@pytest.mark.trains
def test_a_bfloat16_model_trains_a_float32_prompt(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    assert cli("train", *words(quick, tmp_path / "run", "engine.dtype=bfloat16", "train.updates=8")).status == 0
    assert final_prompt(tmp_path / "run").dtype == torch.float32
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert all(row["weight_bytes"] == 2 * row["parameters"] for row in plan["stages"])


@pytest.mark.trains
def test_a_prompt_trained_through_growing_models_beats_the_untrained_one(cli: Cli, tmp_path: Path) -> None:
    """On the embedded model and its generated BoolQ, with fewer updates and examples than by default."""
    few = ["task.world=plain", "train.updates=30", "train.eval_every=30", "train.batch_size=16"]
    few += ["task.train_examples=500", "task.valid_examples=100"]
    stages = "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.5}, {share: 0.5}]"
    folders = [f"run.dir={tmp_path / 'run'}"]
    assert cli("train", *few, stages, *folders).status == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metric"]["value"] > 65
    assert result["metric"]["value"] > result["untrained"] + 10
    assert result["majority"] == pytest.approx(50, abs=10)


@pytest.mark.trains
def test_a_batch_of_more_examples_than_there_are_takes_each_once(cli: Cli, quick: list[str], tmp_path: Path) -> None:
    """An update on each of six twice would be the same step at twice the price; and what was skipped has a file."""
    data, base = tmp_path / "data", [word for word in quick if not word.startswith(("task.data=", "train.batch_size="))]
    data.mkdir()
    (data / "train.jsonl").write_text(boolq_lines(6) + "{}\n[]\n{\n3\n")
    (data / "val.jsonl").write_text(boolq_lines(4))
    more = (f"task.data={data}", "task.on_error=skip", "schedule=pt", "train.updates=3")
    found = []
    for size in (32, 6):
        done = cli("train", *words(base, tmp_path / f"run-{size}", *more, f"train.batch_size={size}"))
        assert done.status == 0, done.err
        said = "train.batch_size=32: an update takes all 6 training examples, once"
        assert (said in done.err) == (size == 32)
        found.append(final_prompt(tmp_path / f"run-{size}"))
    assert torch.equal(*found)
    plans = [json.loads((tmp_path / f"run-{size}/plan.json").read_text()) for size in (32, 6)]
    assert plans[0]["flops"] == plans[1]["flops"]
    skipped = (tmp_path / "run-6/skipped.txt").read_text().splitlines()
    assert [line.partition(", line ")[2].partition(":")[0] for line in skipped] == ["7", "8", "9", "10"]


@pytest.mark.trains
def test_a_run_that_goes_on_begins_with_the_validation_in_which_it_was_stopped(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state was saved before it."""
    base = words(quick, tmp_path / "run", "schedule=pt", "train.updates=4", "train.eval_every=4")
    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "validate_in_training", _stop)
        with pytest.raises(Stop):
            cli("train", *base)
    done = cli("train", *base)
    assert done.status == 0, done.err
    first, _, *rest = done.err.splitlines()
    assert first.endswith("; the model is in float32; 1 thread")
    (validated,) = [line for line in rest if line.startswith("stage 1/1")]
    assert validated.startswith("stage 1/1  update 4/4  score")
    assert re.search(r"^accuracy [\d.]+ with the prompt of update 4  \(last prompt ", done.out, re.M)


def _stop(*_: Any) -> None:
    raise Stop
