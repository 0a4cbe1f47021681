"""A state is the same after it was a file, to the last bit and type."""

import torch

from fpt.checkpoint import TrainState, dump_prompt, dump_state, load_state


def test_a_state_survives_its_file_exactly() -> None:
    state = TrainState(
        update=7,
        prompt=torch.randn(3, 4),
        optimizer={"step": 7, "RMS": 0.1 + 0.2, "exp_avg_sq_row": torch.randn(3)},
        seconds=1 / 3,
        score=200 / 3,
        best_score=70.0,
        best_update=5,
        best_prompt=torch.randn(3, 4),
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
            assert isinstance(other["step"], int)
        else:
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_equal_prompts_are_equal_files() -> None:
    prompt = torch.randn(3, 4)
    assert len({dump_prompt(prompt.clone(), stage="1", model="x") for _ in range(20)}) == 1
