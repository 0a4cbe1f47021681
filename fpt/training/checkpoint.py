"""Training states, to resume from, and prompts as safetensors files."""

import json
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fpt.prompts.modules import Tensors as Tensors
from fpt.prompts.soft import TENSOR
from fpt.runs.folder import described


@dataclass(frozen=True)
class TrainState:
    """All that training resumes from; data order and learning rate are functions of the update.

    Attributes:
        update: how many updates the run has done.
        judged: the last update that was followed by a validation.
        prompt: the learned tensors, float32; a soft prompt's is called `prompt` [P, D].
        optimizer: the optimizer's state as `optimizer.pack` makes it.
        mean: the running mean over updates' prompts, where one is kept.
        seconds: spent in this stage, validation included.
        score: the stage's last validation score.
        best_score, best_update, best_prompt: the best validation of the full model's stage.
        stale: how many validations have followed the best one.
        done: whether the stage is over.
    """

    update: int
    prompt: Tensors
    optimizer: dict[str, Tensor | float | int] = field(default_factory=dict)
    mean: Tensors | None = None
    judged: int = 0
    seconds: float = 0.0
    score: float | None = None
    best_score: float | None = None
    best_update: int | None = None
    best_prompt: Tensors | None = None
    stale: int = 0
    done: bool = False

    @property
    def kept_prompt(self) -> Tensors:
        """The prompt that is scored and kept: the mean where there is one, else what is learned."""
        return self.prompt if self.mean is None else self.mean


def dump_state(state: TrainState, metrics: dict[str, Any]) -> bytes:
    """A state as one safetensors file; `metrics` marks how much of metrics.jsonl belongs to it."""
    plain = {name: value for name, value in state.optimizer.items() if not isinstance(value, Tensor)}
    packed = {name: value for name, value in state.optimizer.items() if isinstance(value, Tensor)}
    prompts = {"prompt": state.prompt, "best_prompt": state.best_prompt or {}, "mean": state.mean or {}}
    parts = {**prompts, "optimizer": packed}
    tensors = {
        part if name == TENSOR else f"{part}.{name}": tensor.contiguous()
        for part, named in parts.items()
        for name, tensor in named.items()
    }
    values = {name: value for name, value in vars(state).items() if name not in parts}
    return save(tensors, {"state": json.dumps({"values": values, "optimizer": plain, "metrics": metrics})})


def load_state(data: bytes) -> tuple[TrainState, dict[str, Any]]:
    """Read back a state, and the mark of its metrics, that `dump_state` wrote."""
    parts: dict[str, Tensors] = {"prompt": {}, "best_prompt": {}, "mean": {}, "optimizer": {}}
    for key, tensor in load(data).items():
        part, _, name = key.partition(".")
        parts[part][name or TENSOR] = tensor
    meta = described(data)
    state = TrainState(
        prompt=parts["prompt"],
        best_prompt=parts["best_prompt"] or None,
        mean=parts["mean"] or None,
        optimizer={**parts["optimizer"], **meta["optimizer"]},
        **meta["values"],
    )
    return state, meta["metrics"]


def dump_prompt(prompt: Tensors, **metadata: Any) -> bytes:
    """Learned tensors as a safetensors file; a soft prompt [P, D] is its one tensor, `prompt`."""
    # One key: the order of several is not fixed, and equal prompts shall be equal files.
    return save({name: tensor.contiguous() for name, tensor in prompt.items()}, {"fpt": json.dumps(metadata)})
