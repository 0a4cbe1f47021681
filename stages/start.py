"""Where a stage's prompt starts: in the first stage from the same vectors under every schedule, later recycled."""

import json
from dataclasses import dataclass
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.config.schema import RecycleConfig
from fpt.prompts.files import initial
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Tensors
from fpt.training.checkpoint import TrainState, dump_prompt
from stages.inputs import Inputs


@dataclass(frozen=True)
class Start:
    """A run's prompt before its first update: its tensors by name, and the metadata that its prompt files carry."""

    prompt: Tensors
    metadata: dict[str, Any]

    @property
    def identity(self) -> bytes:
        """Bytes that are equal only for equal starts."""
        use = json.dumps(self.metadata).encode() if self.metadata else b""
        return b"".join([*(tensor.numpy().tobytes() for tensor in self.prompt.values()), use])

    def dump(self, learned: Tensors, **origin: str) -> bytes:
        """The bytes of a prompt file with the tensors learned from this start, and with their `origin`."""
        return dump_prompt(learned, **origin, **self.metadata)


def start_of(config: RunConfig, block: int, inputs: Inputs) -> Start:
    """The prompt of a run before its first update; it enters before block `block`."""
    prompt = initial(config.prompt, inputs.backbone, labels=inputs.task.labels, seed=config.seed)
    return Start(prompt, kind_of(config.prompt).metadata(block))


def recycled(state: TrainState, config: RecycleConfig) -> TrainState:
    """The state in which the next stage starts (Huang et al. 2022): the prompt goes on, only the model changes."""
    optimizer = state.optimizer if config.optimizer else {}
    return TrainState(
        update=state.update, prompt=state.prompt, optimizer=optimizer, mean=state.mean, judged=state.judged
    )
