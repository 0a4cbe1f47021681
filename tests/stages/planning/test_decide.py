"""What is decided before the first update holds to the end of the run, whatever memory is free tomorrow."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from fpt.config.compose import load
from fpt.config.schema import RELATIVE_LR, EngineConfig, OptimConfig
from fpt.devices import engine as devices
from fpt.errors import UserError
from fpt.runs.progress import Progress
from fpt.runs.shared_folder import SharedFolder
from fpt.tasks.opening import open_task
from stages import schedule
from stages.inputs import open_inputs
from stages.planning.costs import work_on
from stages.planning.decide import Plan, decide, plan_ahead, plan_run
from stages.resolve import rate_of
from tests.conftest import Outcome, open_folder, quick_words, stopped_after
from tests.families import save_family

Cli = Callable[..., Outcome]
LATE = ["prompt=late", "prompt.cache=memory"]


def free(monkeypatch: pytest.MonkeyPatch, amount: int) -> None:
    """So many bytes of memory are free on this machine."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=amount))


def room_for_two(words: list[str]) -> int:
    """Bytes into which a forward pass of two examples fits, and of three does not."""
    config = load(words)
    stages, inputs = schedule.of(config), open_inputs(config, open_task(config), Progress())
    for power in range(100):
        with pytest.MonkeyPatch.context() as patch:
            free(patch, amount := int(10**6 * 1.1**power))
            if decide(config, stages, work_on(config, stages, inputs)).micro_batch == 2:
                return amount
    raise AssertionError("no amount fits two and not three")


@pytest.mark.trains
def test_a_run_that_goes_on_has_the_micro_batch_that_it_began_with(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*quick, "train.micro_batch=auto", "schedule=pt"]
    enough = room_for_two(words)
    free(monkeypatch, enough)
    with stopped_after(7):
        cli("train", *words)
    began = (tmp_path / "run/plan.json").read_bytes()
    assert json.loads(began)["micro_batch"] == 2
    free(monkeypatch, 10 * enough)
    assert cli("train", *words, "resume=must").status == 0
    assert (tmp_path / "run/plan.json").read_bytes() == began
    free(monkeypatch, enough)
    assert cli("train", *words, f"run.dir={tmp_path / 'whole'}").status == 0
    for name in ("prompt.safetensors", "plan.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.trains
def test_what_is_typed_anew_is_decided_anew(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*quick, "schedule=pt"]
    free(monkeypatch, room_for_two([*words, "train.micro_batch=auto"]))
    with stopped_after(3):
        cli("train", *words, "train.micro_batch=auto")
    assert cli("train", *words, "train.micro_batch=1").status == 0
    assert json.loads((tmp_path / "run/plan.json").read_text())["micro_batch"] == 1


@pytest.mark.dear
@pytest.mark.parametrize(
    "more",
    [[], LATE, ["engine.device=cpu", "engine.device_memory=1GB"]],
    ids=["soft", "late", "on a device that is given"],
)
def test_what_is_read_back_is_what_was_decided(quick: list[str], tmp_path: Path, more: list[str]) -> None:
    config = load([*quick, *more])
    stages, inputs = schedule.of(config), open_inputs(config, open_task(config), Progress())
    folder = SharedFolder(config.folder)
    try:
        plan = plan_run(config, stages, inputs, folder, 0)
        values: dict[str, Any] = json.loads((tmp_path / "run/plan.json").read_text())
        assert Plan.from_json(values, "plan.json") == plan
        folder.write_json("plan.json", values | {"micro_batch": 3})  # which would not be decided
        assert plan_run(config, stages, inputs, folder, 0).micro_batch == 3
        assert (plan.states is None) == (more != LATE)
        resolved = plan.resolved(config)
        assert (resolved.engine.name, resolved.engine.dtype, resolved.engine.graphs) == ("torch", "float32", False)
        assert resolved.optim.lr == plan.lr is not None
        assert (resolved.train.micro_batch, resolved.train.activation_checkpointing) == (4, False)
        folder.write_json("plan.json", values | {"stages": [{"name": "1-6x6-24x24"}]})
        with pytest.raises(UserError, match=r"run/plan\.json: was written by another version of fpt"):
            plan_run(config, stages, inputs, folder, 0)
    finally:
        folder.close()


@pytest.mark.trains
def test_a_run_that_goes_on_elsewhere_keeps_its_precision(
    cli: Cli, quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What auto stood for where it began, here on a CPU with AMX."""
    words = [*quick, "schedule=pt", "engine.device=cpu"]
    with monkeypatch.context() as patch, stopped_after(3):
        patch.setattr(devices, "WIDE", 1)
        patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
        cli("train", *words)
    assert cli("train", *words, "train.micro_batch=1", "resume=must").status == 0
    assert json.loads((tmp_path / "run/plan.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((tmp_path / "run/result.json").read_text())["dtype"] == "bfloat16"


@pytest.mark.trains
def test_a_run_that_goes_on_keeps_the_rate_that_its_models_embeddings_gave_it(
    cli: Cli, boolq: Path, tmp_path: Path
) -> None:
    model = save_family(tmp_path / "llama", "llama")
    words = [*quick_words(model, boolq, tmp_path / "run"), "schedule=pt", "train.updates=5", "tracking=none"]
    ahead = cli("plan", *words, "--json").out
    assert json.loads(ahead)["learning"].endswith(
        f"optim.lr={RELATIVE_LR['prefix']} of the root mean square of the model's embeddings"
    )
    with stopped_after(3):
        cli("train", *words)
    assert cli("train", *words, "train.micro_batch=1", "resume=must").status == 0
    plan = json.loads((tmp_path / "run/plan.json").read_text())
    assert plan["learning"] == f"prompt.init=labels, optim.name=adamw, optim.schedule=linear, optim.lr={plan['lr']:g}"
    assert plan["micro_batch"] == 1
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    rates = [line["lr"] for line in lines if "lr" in line]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == plan["lr"] == rate_of(OptimConfig(), "prefix", open_folder(model))


@pytest.mark.parametrize(
    ("device", "has_card", "computes", "has_amx", "width", "dtype"),
    [
        ("auto", True, True, False, 32, "bfloat16"),
        ("cuda:1", True, True, False, 32, "bfloat16"),
        ("auto", True, False, True, 1024, "float32"),
        ("cuda", False, False, False, 32, "bfloat16"),  # a plan for a card that is not here
        ("cpu", True, True, False, 1024, "float32"),
        ("auto", False, False, False, 1024, "float32"),
        ("auto", False, False, True, 512, "bfloat16"),
        ("cpu", True, True, True, 512, "bfloat16"),
        ("auto", False, False, True, 511, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_device_computes_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, device: str, has_card: bool, computes: bool, has_amx: bool, width: int, dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes or including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    assert devices.with_precision(EngineConfig(device=device), width).dtype == dtype
    assert devices.with_precision(EngineConfig(device=device, dtype="float32"), width).dtype == "float32"


@pytest.mark.parametrize(("words", "dtype"), [((), "bfloat16"), (("engine.dtype=float32",), "float32")])
def test_a_plan_for_a_cpu_says_why_it_takes_bfloat16(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], dtype: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    config = load(["task=boolq", "model=t5-small", "schedule=pt", "engine.device=cpu", *words])
    plan = plan_ahead(config, schedule.of(config))
    assert plan.dtype == dtype
    assert ("engine.dtype=auto: bfloat16" in " ".join(plan.sentences("cpu"))) == (dtype == "bfloat16")
