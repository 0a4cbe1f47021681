"""The mean that is scored and kept is torch's own exponential average, and training does not notice it."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fpt.__main__ import main
from fpt.prompts.modules import SoftPrompt
from fpt.training import loop
from fpt.training.optimizer import follow
from tests.conftest import Outcome
from tests.models import stage_states

AVERAGED = "optim.average=0.5"


def test_it_is_torchs_exponential_average() -> None:
    first, *rest = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0))
    prompt = SoftPrompt(first)
    mean = deepcopy(prompt)
    theirs = AveragedModel(prompt, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(prompt)  # its first is a copy
    for vectors in rest:
        with torch.no_grad():
            prompt.tensors["prompt"].copy_(vectors)
        follow(mean, prompt, 0.9)
        theirs.update_parameters(prompt)
    torch.testing.assert_close(mean.tensors["prompt"], theirs.module.tensors["prompt"])
    assert torch.equal(prompt.tensors["prompt"], rest[-1])


@pytest.mark.trains
def test_a_run_learns_the_same_and_scores_and_keeps_the_mean(
    quick: list[str], tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from stage to stage, and what a stage is scored with is what its file holds."""
    plain, mean, learned = tmp_path / "plain", tmp_path / "mean", list[Tensor]()

    def noted(mean: SoftPrompt, prompt: SoftPrompt, weight: float) -> None:
        learned.append(prompt.tensors["prompt"].detach().clone())
        follow(mean, prompt, weight)

    monkeypatch.setattr(loop, "follow", noted)
    words = [*quick, "engine=torch", "train.eval_every=1000"]
    assert main(["train", *words, f"run.dir={plain}"]) == 0
    assert main(["train", *words, f"run.dir={mean}", AVERAGED]) == 0
    assert len(learned) == 20
    for ours, theirs in zip(stage_states(mean), stage_states(plain), strict=True):
        assert torch.equal(ours.prompt["prompt"], theirs.prompt["prompt"])
        assert theirs.mean is None
    wanted = torch.zeros(5, 32)  # the start counts for a millionth by now
    for vectors in learned:
        wanted = wanted.lerp(vectors, 0.5)
    *_, last = stage_states(mean)
    torch.testing.assert_close(last.kept_prompt["prompt"], wanted, atol=1e-5, rtol=1e-4)
    assert last.best_prompt is not None
    assert torch.equal(last.best_prompt["prompt"], last.kept_prompt["prompt"])
    assert torch.equal(load_file(mean / "prompt.safetensors")["prompt"], last.kept_prompt["prompt"])
    assert not torch.equal(last.kept_prompt["prompt"], last.prompt["prompt"])
    for number, stage in enumerate(json.loads((mean / "result.json").read_text())["stages"], 1):
        scored = json.loads(cli("eval", f"run={mean}", f"stage={number}", "--json").out)
        assert scored["metrics"]["accuracy"] == stage["score"]
