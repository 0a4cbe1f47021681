"""Where does a stage's prompt start? At the same place under every schedule, later where the last stage ended."""

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
    """A run's prompt before its first update: its tensors by name, and what a file of them says of their use."""

    prompt: Tensors
    metadata: dict[str, Any]

    @property
    def identity(self) -> bytes:
        """Bytes that differ wherever two starts do."""
        use = json.dumps(self.metadata).encode() if self.metadata else b""
        return b"".join([*(tensor.numpy().tobytes() for tensor in self.prompt.values()), use])

    def dump(self, learned: Tensors, **origin: str) -> bytes:
        """The bytes of a prompt file with what was learned from this start, and where it comes from."""
        return dump_prompt(learned, **origin, **self.metadata)


def start_of(config: RunConfig, block: int, inputs: Inputs) -> Start:
    """The prompt of a run before its first update; it enters before this block."""
    prompt = initial(config.prompt, inputs.backbone, labels=inputs.task.labels, seed=config.seed)
    return Start(prompt, kind_of(config.prompt).metadata(block))


def recycled(state: TrainState, config: RecycleConfig) -> TrainState:
    """The state in which the next stage starts (Huang et al. 2022): only the model under the prompt changes."""
    optimizer = state.optimizer if config.optimizer else {}
    return TrainState(
        update=state.update, prompt=state.prompt, optimizer=optimizer, mean=state.mean, judged=state.judged
    )
