"""A selection and a prompt become one model: the partial PLM is built, an engine holds it, the prompt stands in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fpt.backbones.backbone import Backbone
from fpt.backbones.shapes import Selection
from fpt.config.schema import PromptConfig
from fpt.devices import distributed
from fpt.devices.engine import Engine
from fpt.prompts.kinds import kind_of
from fpt.prompts.modules import Prompt, Tensors
from fpt.prompts.prompted import PromptedModel
from stages import partial


@dataclass(frozen=True)
class Models:
    """Opens the models of a run, one after the other.

    Attributes:
        backbone: they are parts of.
        engine: holds them.
        prompt: what theirs are, and where these enter.
        checkpointing: whether updates recompute activations on the way back.
    """

    backbone: Backbone
    engine: Engine
    prompt: PromptConfig
    checkpointing: bool = False

    @contextmanager
    def open(self, selection: Selection, prompt: Tensors) -> Iterator[PromptedModel]:
        """Within, the engine holds the partial PLM that the selection makes, with the prompt's tensors."""
        engine = self.engine
        body = partial.build(
            self.backbone,
            selection,
            dtype=engine.dtype,
            device=engine.device,
            shard=engine.shard,
            quantize=engine.config.quantize,
        )
        with engine.holding(body) as held:
            distributed.barrier()  # one process may take longer than another to read the weights
            module, begin_pass = self.prompt_of(selection, prompt), held.begin_pass
            yield PromptedModel(held.body, module, checkpointing=self.checkpointing, begin_pass=begin_pass)

    def prompt_of(self, selection: Selection, prompt: Tensors) -> Prompt:
        """The prompt's tensors as a module, at its place in the partial PLM."""
        kind = kind_of(self.prompt)
        block = kind.position(self.backbone.shape.source.blocks)
        module = kind.build(prompt, sum(kept < block for kept in selection.source.blocks))
        return module.to(self.engine.device)
