"""The mean that is scored and kept is torch's own exponential average, and training does not notice it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fpt.__main__ import main
from fpt.prompts.modules import SoftPrompt
from fpt.training.average import Average
from fpt.training.checkpoint import load_state
from tests.conftest import Outcome


def prompts(number: int) -> list[Tensor]:
    return list(torch.randn(number, 5, 8, generator=torch.Generator().manual_seed(0)))


def test_it_is_torchs_exponential_average() -> None:
    first, *rest = prompts(6)
    prompt = SoftPrompt(first)
    average, theirs = Average(prompt, 0.9, None), AveragedModel(prompt, multi_avg_fn=get_ema_multi_avg_fn(0.9))  # type: ignore[no-untyped-call]
    theirs.update_parameters(prompt)  # its first is a copy
    for vectors in rest:
        with torch.no_grad():
            prompt.vectors.copy_(vectors)
        average.update()
        theirs.update_parameters(prompt)
    with average.in_place():
        torch.testing.assert_close(prompt.vectors, theirs.module.vectors)
    assert torch.equal(prompt.vectors, rest[-1])


def test_it_goes_on_from_what_was_taken() -> None:
    prompt = SoftPrompt(torch.zeros(5, 8))
    whole, part = Average(prompt, 0.5, None), Average(prompt, 0.5, None)
    for index, vectors in enumerate(prompts(4)):
        if index == 2:
            part = Average(prompt, 0.5, part.taken())
        with torch.no_grad():
            prompt.vectors.copy_(vectors)
        whole.update()
        part.update()
    ours, theirs = whole.taken(), part.taken()
    assert ours is not None
    assert theirs is not None
    assert torch.equal(ours["prompt"], theirs["prompt"])
    assert Average(prompt, 0.0, None).taken() is None


@pytest.mark.trains
def test_a_run_learns_the_same_and_keeps_the_mean(
    quick: list[str], tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    """Over stages too; what is scored is what is kept."""
    words = [*quick, "engine=torch"]
    for name, more in (("plain", []), ("mean", ["optim.average=0.5"])):
        assert main(["train", *words, f"run.dir={tmp_path}/{name}", *more]) == 0
    plain, mean = (
        {file.parent.name: load_state(file.read_bytes())[0] for file in (tmp_path / name).glob("stages/*/state.*")}
        for name in ("plain", "mean")
    )
    assert len(plain) > 1
    for stage, state in plain.items():
        assert torch.equal(state.prompt["prompt"], mean[stage].prompt["prompt"])
        assert state.mean is None
        kept = load_file(tmp_path / "mean" / "stages" / stage / "prompt.safetensors")["prompt"]
        assert torch.equal(mean[stage].answering["prompt"], kept)
        assert not torch.equal(mean[stage].prompt["prompt"], kept)
    last = mean[max(mean)]
    assert last.best_prompt is not None
    assert torch.equal(load_file(tmp_path / "mean" / "prompt.safetensors")["prompt"], last.best_prompt["prompt"])
    scored = json.loads(cli("eval", f"run={tmp_path}/mean", "--json").out)
    result = json.loads((tmp_path / "mean" / "result.json").read_text())
    assert scored["metrics"] == result["metrics"]
