"""Where does the prompt start? At the same place under every schedule."""

import json
from dataclasses import dataclass
from typing import Any

from fpt.config.schema import RunConfig
from fpt.prompts import late, soft
from fpt.prompts.files import TENSOR
from fpt.training.checkpoint import Tensors, dump_prompt
from stages.inputs import Inputs


@dataclass(frozen=True)
class Start:
    """A prompt that is yet to learn.

    Attributes:
        prompt: its tensors, by name.
        block: the encoder's block that it enters before, of the whole backbone.
        metadata: what a file of them says of their use.
    """

    prompt: Tensors
    block: int
    metadata: dict[str, Any]

    @property
    def identity(self) -> bytes:
        """All that tells this start from another."""
        use = json.dumps(self.metadata).encode() if self.metadata else b""
        return b"".join([*(tensor.numpy().tobytes() for tensor in self.prompt.values()), use])

    def dump(self, learned: Tensors, **origin: str) -> bytes:
        """What was learned from here as a file that says where it comes from."""
        return dump_prompt(learned, **origin, **self.metadata)


def start_of(config: RunConfig, inputs: Inputs) -> Start:
    """Where a run's prompt starts.

    Raises:
        UserError: there is nothing to start from, or it does not fit the model.
    """
    prompt, backbone = config.prompt, inputs.backbone
    block = prompt.position(backbone.shape.encoder.blocks)
    if prompt.kind == "late":
        tensors = late.initial(prompt, d_model=backbone.config.d_model, seed=config.seed)
        return Start(tensors, block, late.about(prompt, block))
    return Start({TENSOR: soft.initial(prompt, backbone, labels=inputs.task.labels, seed=config.seed)}, block, {})
