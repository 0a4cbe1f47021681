"""Saves and loads training states, from which a run resumes, and saves prompts, all as safetensors."""

import json
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from fpt.prompts.modules import Tensors
from fpt.prompts.soft import TENSOR
from fpt.runs.folder import described


@dataclass(frozen=True)
class TrainState:
    """All that training needs to resume; data order and learning rate follow from the update number.

    Attributes:
        update: how many updates the run has done.
        judged: the last update after which the prompt was validated.
        prompt: the learned tensors by name, float32; a soft prompt has one, `prompt` [P, D].
        optimizer: the optimizer's state in the form of `optimizer.pack`.
        mean: the running mean of the prompt; None: none is kept.
        seconds: time spent in this stage, including validation.
        score: the stage's last validation score.
        best_score, best_update, best_prompt: those of the best validation in the full model's stage.
        stale: the number of validations since the best one.
        done: whether the stage is finished.
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
        """The prompt that is validated and saved: the mean where there is one, else the learned prompt."""
        return self.prompt if self.mean is None else self.mean


def dump_state(state: TrainState, metrics: dict[str, Any]) -> bytes:
    """The bytes of a safetensors file with a state; `metrics` marks how much of metrics.jsonl belongs to it."""
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
    """The state in a file of `dump_state`, and the mark of its metrics."""
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
    """The bytes of a safetensors file with learned tensors; a soft prompt is one tensor, `prompt` [P, D]."""
    # All metadata under one key, as safetensors does not fix the order of several, and equal prompts are equal files.
    return save({name: tensor.contiguous() for name, tensor in prompt.items()}, {"fpt": json.dumps(metadata)})
