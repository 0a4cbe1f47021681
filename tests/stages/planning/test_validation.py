"""What validation takes: as often as runs look, and a small part of the FLOPs in the paper's recipe."""

import json
from pathlib import Path

import pytest

from fpt.config.compose import load
from stages import schedule
from stages.planning.decide import described


def planned(*words: str) -> dict[str, float]:
    config = load(words)
    validation: dict[str, float] = described(config, schedule.of(config))["validation"]
    return validation


@pytest.mark.parametrize("task", ["mnli", "qqp", "squad_v2", "record", "xsum"])
@pytest.mark.parametrize("name", ["pt", "cr"])
def test_the_papers_recipe_spends_under_a_tenth_on_it(task: str, name: str) -> None:
    assert planned(f"task={task}", f"experiment=large-{name}", "engine.device_memory=80GB")["share"] < 0.1


def test_outputs_are_counted_one_by_one() -> None:
    """MNLI's 9,815: 60 times a thousand, then all, for the best prompt and the last one; or always all."""
    words = ["task=mnli", "experiment=large-pt"]
    assert planned(*words)["examples"] == 60 * 1000 + 2 * 9815
    assert planned(*words, "train.eval_examples=null")["examples"] == 60 * 9815
    # CR has its last 12,000 updates on the full model, and its partial models' 18,000 besides.
    words[1] = "experiment=large-cr"
    assert (planned(*words)["times"], planned(*words, "train.eval_partial=true")["times"]) == (24, 60)


def test_by_score_every_label_goes_through_the_decoder() -> None:
    """Of MNLI three; the encoder, which takes most, reads a source once."""
    words = ["task=mnli", "experiment=large-pt"]
    said, scored = planned(*words), planned(*words, "task.answer=score")
    assert scored["examples"] == said["examples"]
    assert 1 < scored["flops"] / said["flops"] < 1.1


def test_a_causal_model_reads_a_source_once_for_all_labels() -> None:
    """MNLI has three, BoolQ two: a third label adds its own tokens."""
    of_labels = [planned(f"task={task}", "model=gemma3-270m", "task.answer=score") for task in ("mnli", "boolq")]
    flops = [found["flops"] / found["examples"] for found in of_labels]
    assert flops[0] < 1.2 * flops[1]


@pytest.mark.parametrize("given", ["smollm2-135m prompt=suffix", "t5-large prompt=suffix", "t5-large prompt=late"])
def test_on_a_cpu_a_source_is_read_once_where_the_prompt_does_not_change_it(given: str) -> None:
    words = [*f"model={given}".split(), "task=mnli", "schedule=pt", "train.updates=1000"]
    words += ["train.eval_every=100", "train.eval_examples=null", "engine.device=cpu"]
    kept, every = planned(*words)["flops"], planned(*words, "prompt.cache=off")["flops"]
    once = planned(*words, "train.eval_every=1000")["flops"]
    on_card = planned(*words, "engine.device=cuda", "engine.device_memory=80GB")["flops"]
    assert every == on_card == pytest.approx(10 * once)
    assert once < kept < 0.65 * every


def test_where_the_number_of_examples_is_not_known_nothing_is_said(boolq: Path) -> None:
    config = load([f"task.data={boolq}", "model=t5-small"])
    assert described(config, schedule.of(config))["validation"] is None


@pytest.mark.trains
@pytest.mark.parametrize("partial", [True, False])
def test_runs_look_as_often_as_planned(quick: list[str], tmp_path: Path, partial: bool) -> None:
    from fpt.__main__ import main

    words = [*quick, "task.data=world", f"train.eval_partial={partial}", "train.eval_every=3", "task.valid_examples=4"]
    words += ["task.train_examples=40", "task.world=plain"]
    assert main(["train", *words]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    looks = [line for line in lines if "split" in line]
    assert len(looks) == planned(*words)["times"]
    assert partial == any(line["stage"] < 4 for line in looks)
    stages = json.loads((tmp_path / "run/result.json").read_text())["stages"]
    assert partial == (stages[0]["score"] is not None)
