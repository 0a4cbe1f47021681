"""What a configuration leaves open is resolved from the model: its schedule, where a prompt starts, how it learns."""

import json
from pathlib import Path

import pytest
import torch

from fpt.config.compose import load
from fpt.config.schema import RELATIVE_LR, OptimConfig
from fpt.errors import UserError
from stages.resolve import for_plan, for_training, rate_of
from stages.schedule import of
from tests.conftest import open_folder
from tests.families import CASES, opened, save_family

PAPERS, OWN = ("uniform", "adafactor", "constant", 0.3), ("labels", "adamw", "linear", None)
LATE = ("adamw", "linear", 0.001)
LEARNING = {
    "mt5": PAPERS,
    "umt5": PAPERS,
    "t5gemma": OWN,
    "gpt2": OWN,
    "llama": OWN,
    "gemma3_text": OWN,
    "roberta": OWN,
}
GIVEN = {
    "": OWN,
    "optim.lr=0.02": ("labels", "adamw", "linear", 0.02),
    "optim.name=adafactor prompt.init=uniform": ("uniform", "adafactor", "linear", None),
    "prompt=late": ("uniform", *LATE),
    "prompt=late prompt.generator=none": ("normal", *LATE),
    "prompt=late optim.lr=0.1": ("uniform", "adamw", "linear", 0.1),
    "optim.schedule=constant": ("labels", "adamw", "constant", None),
}


def learning(folder: Path, family: str, *words: str) -> tuple[str, str, str, float | None]:
    (folder / "config.json").write_text(json.dumps({"model_type": family, **CASES[family].values}))
    config = for_plan(load([f"model={folder}", "schedule=pt", *words]))
    return config.prompt.init, config.optim.name, config.optim.schedule, config.optim.lr


@pytest.mark.parametrize("family", [family for family in LEARNING if family in CASES])
def test_where_nothing_is_said_the_family_decides_how_a_prompt_learns(family: str, tmp_path: Path) -> None:
    assert learning(tmp_path, family) == LEARNING[family]


@pytest.mark.parametrize(
    ("family", "words", "bucket"), [("mt5", (), 32), ("llama", (), 4), ("llama", ("train.bucket=9",), 9)]
)
def test_how_lengths_are_mixed_is_the_familys_too(
    family: str, words: tuple[str, ...], bucket: int, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, **CASES[family].values}))
    assert for_plan(load([f"model={tmp_path}", *words])).train.bucket == bucket


@pytest.mark.parametrize("words", GIVEN)
def test_what_is_typed_stays(words: str, tmp_path: Path) -> None:
    assert learning(tmp_path, "llama", *words.split()) == GIVEN[words]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bert", "roberta"])
def test_the_rate_is_relative_to_what_the_first_block_sees(family: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path, family)
    with torch.no_grad():
        model = opened(folder, family)
        table = model.get_input_embeddings()
        seen = table(torch.arange(min(5000, table.num_embeddings)))
        if family in ("bert", "roberta"):
            seen = getattr(model, family).embeddings.LayerNorm(seen)
        size = seen.square().mean().sqrt().item()
    for place, share in RELATIVE_LR.items():
        assert rate_of(OptimConfig(), place, open_folder(folder)) == float(f"{share * size:.2g}")
    assert rate_of(OptimConfig(lr=0.5), "prefix", open_folder(folder)) == 0.5


@pytest.mark.parametrize(
    ("model", "words", "name", "stages"),
    [
        ("tiny", [], "cr", 4),
        ("roberta-base", [], "cr", 4),
        ("llama-3.2-1b", [], "pt", 1),
        ("llama-3.2-1b", ["schedule.blocks=evenly"], "pt", 1),
        ("llama-3.2-1b", ["schedule=cr"], "cr", 4),
        ("llama-3.2-1b", ["schedule.stages=[{depth: 0.5, share: 0.5}, {share: 0.5}]"], "custom", 2),
    ],
)
def test_causal_models_are_trained_whole_where_nothing_is_said(
    model: str, words: list[str], name: str, stages: int
) -> None:
    config = load([f"model={model}", *words])
    resolved = for_plan(config)
    assert (resolved.schedule.name, len(resolved.schedule.stages)) == (name, stages)
    assert resolved.schedule.blocks == config.schedule.blocks
    assert resolved.folder.name == f"boolq-{model}-{name}-s0"
    assert of(config) == of(resolved)


def test_epochs_are_so_many_updates_as_see_every_example_so_often(boolq: Path) -> None:
    words = [f"task.data={boolq}", "train.epochs=2.5", "train.batch_size=7"]  # 48 examples
    settled = for_training(load(words))
    assert (settled.train.updates, settled.train.epochs) == (18, None)
    assert for_training(load(words[:1])).train.updates == load(words[:1]).train.updates
    with pytest.raises(UserError, match=r"train\.epochs=2\.5: how many examples there are is not known yet"):
        for_plan(load(words))
    assert for_plan(load(["task=mnli", "train.epochs=1", "model=t5-small"])).train.updates == 12272
    assert for_plan(load(["task=rte", "task.shots=16", "train.epochs=10", "model=t5-small"])).train.updates == 10
