"""Counts the bytes that one update takes on a device: the frozen model, its activations, and the rest."""

from dataclasses import dataclass, replace

import torch

from fpt.backbones.shapes import Shape, Stack
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.devices.device import states_precision
from fpt.devices.engine import KEPT_WHOLE, fetched_ahead
from fpt.devices.processes import counted
from fpt.pricing.activations import BLOCKS
from fpt.pricing.flops import Price
from fpt.prompts.kinds import kind_of

NONE = Stack(0, 0)  # stands for the second stack of a model that has only one
# CUDA graphs of many sizes leave gaps between their tensors: this share of activations; measured 0.06 to 0.2 on a GPU.
GAPS = 0.1
PROMPT_COPIES = 5  # the prompt, its gradient, and the optimizer's state and temporaries


@dataclass(frozen=True)
class Need:
    """Bytes on one device at an update's peak: `activations` of one micro-batch, with checkpointing if it is on."""

    weights: int
    activations: int
    rest: int

    @property
    def total(self) -> int:
        """Bytes of weights, activations and the rest together."""
        return self.weights + self.activations + self.rest


def need(
    price: Price,
    shape: Shape,
    engine: EngineConfig,
    sizes: tuple[int, int, int],
    *,
    prompt: PromptConfig,
    below: int = 0,
    checkpointing: bool,
) -> Need:
    """The bytes of an update of a partial PLM, for an engine whose device and precision are not auto.

    `sizes` are a micro-batch's examples, source positions (the prompt's included) and target positions. The `below`
    blocks below the prompt keep nothing for a backward pass.
    """
    # At least one block is counted: even blocks below the prompt take memory, one at a time.
    above = shape.with_source(replace(shape.source, blocks=max(shape.source.blocks - below, 1)))
    activations = _activations(price, above, engine, sizes, prompt, checkpointing)
    learned = PROMPT_COPIES * kind_of(prompt).num_learned(price.d_model) * 4
    gaps = int(GAPS * activations) if has_graphs(engine, checkpointing=checkpointing) else 0
    return Need(weights(price, shape, engine), activations, learned + gaps)


def weights(price: Price, shape: Shape, engine: EngineConfig) -> int:
    """Bytes of the frozen model on one device: all of it, or its shard plus what DeepSpeed holds gathered at once.

    For quantised weights, this includes the largest one's bytes while it is dequantised.
    """
    if not engine.is_sharded:
        return sum(price.packed_weights(shape, engine.dtype, engine.quantize))
    numbers = price.sizes(shape)
    total, width = sum(numbers), getattr(torch, engine.dtype).itemsize
    small = sum(number for number in numbers if number < KEPT_WHOLE)
    gathered = min(total, fetched_ahead(engine.device) + max(numbers)) + small
    share = 0 if engine.offload != "none" else -(-total // counted(engine).all)
    return (share + gathered) * width


def _activations(
    price: Price, shape: Shape, engine: EngineConfig, sizes: tuple[int, int, int], prompt: PromptConfig, check: bool
) -> int:
    """Bytes at the peak of a micro-batch of these sizes."""
    small = Shape(**{name: Stack(min(size.blocks, BLOCKS), size.neurons) for name, size in shape.items()})
    is_on = {"checkpointing": check, "sharded": engine.is_sharded, "on_card": is_for_card(engine)}
    precisions = {"dtype": engine.dtype, "states_dtype": states_precision(engine)}
    stacks = price.peaks(small, prompt, *sizes, **precisions, **is_on)
    read, rest = (peak.of(size.blocks) for peak, size in zip(stacks, (*shape.values(), NONE), strict=False))
    return max(read.forward, read.kept + max(rest.forward, rest.backward), read.backward)


def is_for_card(engine: EngineConfig) -> bool:
    """Whether the model is on a GPU; the device must not be auto."""
    assert engine.device != "auto"
    return engine.device != "cpu"


def has_graphs(engine: EngineConfig, *, checkpointing: bool) -> bool:
    """Whether updates run as CUDA graphs.

    Not with checkpointing or quantised weights: such models are so large that launching kernels does not delay them.
    """
    is_plain = not engine.is_sharded and engine.quantize == "none" and not checkpointing
    return engine.graphs and is_plain and is_for_card(engine)
