"""Where does the prompt start? At the same place under every schedule."""

import json
from dataclasses import dataclass
from typing import Any

from fpt.config.run_config import RunConfig
from fpt.prompts.files import initial
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Tensors
from fpt.training.checkpoint import dump_prompt
from stages.inputs import Inputs


@dataclass(frozen=True)
class Start:
    """A prompt that is yet to learn.

    Attributes:
        prompt: its tensors, by name.
        metadata: what a file of them says of their use.
    """

    prompt: Tensors
    metadata: dict[str, Any]

    @property
    def identity(self) -> bytes:
        """All that tells this start from another."""
        use = json.dumps(self.metadata).encode() if self.metadata else b""
        return b"".join([*(tensor.numpy().tobytes() for tensor in self.prompt.values()), use])

    def dump(self, learned: Tensors, **origin: str) -> bytes:
        """What was learned from here as a file that says where it comes from."""
        return dump_prompt(learned, **origin, **self.metadata)


def start_of(config: RunConfig, block: int, inputs: Inputs) -> Start:
    """The prompt of a run before its first update; it enters before this block."""
    prompt = initial(config.prompt, inputs.backbone, labels=inputs.task.labels, seed=config.seed)
    return Start(prompt, kind_of(config.prompt).metadata(block))
