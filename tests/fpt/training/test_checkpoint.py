"""A state is the same after it was a file, to the last bit and type."""

import pytest
import torch

from fpt.training.checkpoint import TrainState, dump_prompt, dump_state, load_state

SOFT = {"prompt": torch.randn(3, 4)}
LATE = {"down": torch.randn(2, 4), "down_bias": torch.randn(2)}


@pytest.mark.parametrize("prompt", [SOFT, LATE], ids=["soft", "late"])
def test_a_state_survives_its_file_exactly(prompt: dict[str, torch.Tensor]) -> None:
    state = TrainState(
        update=7,
        prompt=prompt,
        optimizer={"step": 7, "RMS": 0.1 + 0.2, "exp_avg_sq_row": torch.randn(3)},
        seconds=1 / 3,
        mean={name: tensor + 2 for name, tensor in prompt.items()},
        score=200 / 3,
        best_score=70.0,
        best_update=5,
        best_prompt={name: tensor + 1 for name, tensor in prompt.items()},
        stale=2,
        done=True,
    )
    again, mark = load_state(dump_state(state, {"bytes": 3, "sha256": "x"}))
    assert mark == {"bytes": 3, "sha256": "x"}
    for name, value in vars(state).items():
        other = getattr(again, name)
        if isinstance(value, dict):
            assert value.keys() == other.keys()
            assert all(torch.equal(torch.as_tensor(value[key]), torch.as_tensor(other[key])) for key in value)
        else:
            assert value == other
    assert isinstance(again.optimizer["step"], int)


def test_equal_prompts_are_equal_files() -> None:
    prompt = torch.randn(3, 4)
    assert len({dump_prompt({"prompt": prompt.clone()}, stage="1", model="x") for _ in range(20)}) == 1
