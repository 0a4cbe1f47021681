"""Saves and loads training states, from which a run resumes, and saves prompts, all as safetensors."""

import json
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fpt.prompts.modules import Tensors
from fpt.runs.folder import described
from fpt.training.optimizer import State


@dataclass(frozen=True)
class TrainState:
    """All that training needs to resume; data order and learning rate follow from the update number."""

    update: int  # how many updates the run has done
    prompt: Tensors  # the learned tensors by name, float32; a soft prompt has one, `prompt` [P, D]
    optimizer: State = field(default_factory=dict)  # in the form of `optimizer.pack`
    mean: Tensors | None = None  # the running mean of the prompt; None: none is kept
    judged: int = 0  # the last update after which the prompt was validated
    seconds: float = 0.0  # time spent in this stage, including validation
    score: float | None = None  # the stage's last validation score
    best_score: float | None = None  # this and the next two: of the best validation in the full model's stage
    best_update: int | None = None
    best_prompt: Tensors | None = None
    stale: int = 0  # the number of validations since the best one
    done: bool = False  # whether the stage is finished

    @property
    def kept_prompt(self) -> Tensors:
        """The prompt that is validated and saved: the mean where there is one, else the learned prompt."""
        return self.prompt if self.mean is None else self.mean


def dump_state(state: TrainState, metrics: dict[str, Any]) -> bytes:
    """The bytes of a safetensors file with a state; `metrics` marks how much of metrics.jsonl belongs to it."""
    parts = {name: value for name, value in vars(state).items() if isinstance(value, dict)}
    tensors = {
        f"{part}.{name}": value.contiguous()
        for part, named in parts.items()
        for name, value in named.items()
        if isinstance(value, Tensor)
    }
    numbers = {name: value for name, value in state.optimizer.items() if not isinstance(value, Tensor)}
    values = {name: value for name, value in vars(state).items() if name not in parts}
    return save(tensors, {"state": json.dumps({"values": values, "optimizer": numbers, "metrics": metrics})})


def load_state(data: bytes) -> tuple[TrainState, dict[str, Any]]:
    """The state in a file of `dump_state`, and the mark of its metrics."""
    parts: dict[str, Any] = {"optimizer": {}}
    for key, tensor in load(data).items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = tensor
    about = described(data)
    parts["optimizer"] |= about["optimizer"]
    return TrainState(**about["values"], **parts), about["metrics"]


def dump_prompt(prompt: Tensors, **metadata: Any) -> bytes:
    """The bytes of a safetensors file with learned tensors; a soft prompt is one tensor, `prompt` [P, D]."""
    # All metadata under one key, as safetensors does not fix the order of several, and equal prompts are equal files.
    return save({name: tensor.contiguous() for name, tensor in prompt.items()}, {"fpt": json.dumps(metadata)})
