"""What one update holds in a device's memory, in bytes: the frozen model, its activations, the rest."""

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedConfig

from fpt.backbones.shapes import Shape, Stack
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.devices.engine import KEPT_WHOLE, fetched_ahead
from fpt.devices.precision import name_of
from fpt.devices.processes import counted
from fpt.pricing.activations import BLOCKS
from fpt.pricing.flops import price_of
from fpt.prompts.kinds import kind_of

NONE = Stack(0, 0)  # what comes after a model's only stack
GAPS = 0.1  # of activations, what CUDA graphs of many sizes leave unused between their tensors; 0.06 to 0.2 on a card
PROMPT_COPIES = 5  # the prompt itself, its gradient, and what its optimizer makes of it in a step


@dataclass(frozen=True)
class Need:
    """Bytes on one device at an update's peak: `activations` of one micro-batch, with checkpointing if it is on."""

    weights: int
    activations: int
    rest: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.activations + self.rest


class Memory:
    """The needs of partial PLMs of one backbone."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self._price = price_of(config)

    def need(
        self,
        shape: Shape,
        engine: EngineConfig,
        *,
        batch: int,
        source: int,
        target: int,
        prompt: PromptConfig,
        below: int = 0,
        checkpointing: bool,
    ) -> Need:
        """What an update takes in micro-batches of `batch` examples.

        Of `source` positions some are the prompt's; blocks `below` do not see it, and so keep nothing.
        """
        # Without a block above the prompt one is counted, since one at a time takes memory below it too.
        above = shape.with_source(replace(shape.source, blocks=max(shape.source.blocks - below, 1)))
        activations = self._activations(above, engine, prompt, checkpointing, batch, source, target)
        learned = PROMPT_COPIES * kind_of(prompt).num_learned(self._price.d_model) * 4
        gaps = int(GAPS * activations) if has_graphs(engine, checkpointing=checkpointing) else 0
        return Need(self.weights(shape, engine), activations, learned + gaps)

    def weights(self, shape: Shape, engine: EngineConfig) -> int:
        """Bytes of the frozen model on one device: all, or its share and what DeepSpeed holds gathered at once.

        With packed weights, what one of them takes when it is made whole is among them.
        """
        if not is_sharded(engine):
            return sum(self._price.packed_weights(shape, name_of(engine), engine.quantize))
        numbers = self._price.sizes(shape)
        total, width = sum(numbers), getattr(torch, name_of(engine)).itemsize
        small = sum(number for number in numbers if number < KEPT_WHOLE)
        gathered = min(total, fetched_ahead(engine.device) + max(numbers)) + small
        share = 0 if engine.offload != "none" else -(-total // counted(engine).all)
        return (share + gathered) * width

    def _activations(
        self, shape: Shape, engine: EngineConfig, prompt: PromptConfig, checkpointing: bool, *sizes: int
    ) -> int:
        """Bytes at the peak of a micro-batch of these sizes: examples, source and target positions."""
        small = Shape(**{name: Stack(min(size.blocks, BLOCKS), size.neurons) for name, size in shape.items()})
        is_on = {"checkpointing": checkpointing, "sharded": is_sharded(engine), "on_card": is_for_card(engine)}
        stacks = self._price.peaks(small, prompt, *sizes, dtype=name_of(engine), **is_on)
        read, rest = (peak.of(size.blocks) for peak, size in zip(stacks, (*shape.values(), NONE), strict=False))
        through = read.kept + max(rest.forward, rest.backward)
        return max(read.forward, through, read.backward)


def is_for_card(engine: EngineConfig) -> bool:
    """Whether the model is on a card, at hand or elsewhere."""
    if engine.device == "auto":
        return torch.cuda.is_available() or engine.device_memory is not None
    return engine.device != "cpu"


def has_graphs(engine: EngineConfig, *, checkpointing: bool) -> bool:
    """Whether updates are CUDA graphs. Checkpointing and packing are for models that have no kernel to wait for."""
    is_plain = engine.name != "deepspeed" and engine.quantize == "none" and not checkpointing
    return engine.graphs and is_plain and is_for_card(engine)


def is_sharded(engine: EngineConfig) -> bool:
    """Whether each process holds but a share of the weights."""
    return engine.name == "deepspeed" and engine.zero_stage == 3
