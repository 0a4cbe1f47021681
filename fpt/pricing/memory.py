"""Counts the bytes that one update takes on a device: the frozen model, its activations, and the rest.

Activations are counted without allocating any. Training's own code runs on the meta device, with two blocks in each
stack and with three, and every live tensor is counted. Each further block adds as much as the third one did.
"""

import weakref
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode  # documented by torch, despite its underscore

from fpt.backbones.precision import compute_states_in_float32
from fpt.backbones.shapes import Shape, Stack
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.data.encoded import Batch
from fpt.devices.engine import KEPT_WHOLE, fetched_ahead, states_precision
from fpt.devices.processes import counted
from fpt.pricing.flops import OnMeta, Price
from fpt.prompts.kinds import kind_of
from fpt.prompts.readers import prompted_model

Sizes = tuple[int, int, int]  # a micro-batch's examples, source positions (the prompt's included), target positions
NONE = Stack(0, 0)  # stands for the second stack of a model that has only one
# CUDA graphs of many sizes leave gaps between their tensors: this share of activations; measured 0.06 to 0.2 on a GPU.
GAPS = 0.1
INPUTS = 1.3  # DeepSpeed's linear layers keep their inputs even if they are frozen: 1.1 to 1.6 times the activations
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
    sizes: Sizes,
    *,
    prompt: PromptConfig,
    below: int = 0,
    checkpointing: bool,
) -> Need:
    """The bytes of an update of a partial PLM, for an engine whose device and precision are not auto.

    The `below` blocks below the prompt keep nothing for a backward pass.
    """
    # At least one block is counted: even blocks below the prompt take memory, one at a time.
    above = Shape(**{**shape, next(iter(shape)): replace(shape.source, blocks=max(shape.source.blocks - below, 1))})
    activations = _activations(price, above, engine, sizes, prompt, checkpointing)
    if engine.is_sharded and not checkpointing:
        activations = int(INPUTS * activations)
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


class _Peaks(NamedTuple):
    """Bytes of a stack's passes: the peaks forward and backward, and those kept in between."""

    forward: int
    kept: int
    backward: int


def _activations(
    price: Price, shape: Shape, engine: EngineConfig, sizes: Sizes, prompt: PromptConfig, check: bool
) -> int:
    """Bytes at the peak of a micro-batch of these sizes."""
    parts = (
        Shape(**{name: replace(size, blocks=min(size.blocks, most)) for name, size in shape.items()}) for most in (2, 3)
    )
    two, three = (_peaks(price, part, engine, sizes, prompt, check) for part in parts)
    more = [max(size.blocks - 2, 0) for size in (*shape.values(), NONE)]
    read, rest = (
        _Peaks(*(of_two + blocks * (of_three - of_two) for of_two, of_three in zip(*peaks, strict=True)))
        for blocks, *peaks in zip(more, two, three, strict=False)
    )
    return max(read.forward, read.kept + max(rest.forward, rest.backward), read.backward)


@cache
def _peaks(
    price: Price, shape: Shape, engine: EngineConfig, sizes: Sizes, prompt: PromptConfig, check: bool
) -> tuple[_Peaks, _Peaks]:
    """The peaks of the stack that reads the source, and of all that comes after it without what the first one keeps."""
    batch, source, target = sizes
    kind, family = kind_of(prompt), price.family
    body = family.skeleton(price.config, shape).to(getattr(torch, engine.dtype))
    if states_precision(engine) != engine.dtype:
        compute_states_in_float32(body)
    with torch.device("meta"):
        tensors = {name: torch.empty(size) for name, size in kind.shapes(price.d_model).items()}
    ids, labels = (torch.ones(batch, length, dtype=torch.long) for length in (source - prompt.length, target))
    inputs = Batch(ids, torch.ones_like(ids), labels).to("meta")
    # A late prompt is put before the first block too: only blocks above it are run here.
    model = prompted_model(body, kind.build(tensors, 0), checkpointing=check)
    norm = _fused if is_for_card(engine) else _norm  # T5's, which is one kernel on a GPU
    kernels = {functional.scaled_dot_product_attention: _attention, functional.rms_norm: norm}
    with OnMeta(is_padded=batch > 1, instead=kernels):
        with _Living(*model.parameters()) as living:
            states, mask = model.encode(inputs)
            read = living.until(states)
        leaf = states.detach().requires_grad_(states.requires_grad)
        with _Living(*model.parameters(), leaf, mask) as living:
            rest = living.until(model.loss(inputs, leaf, mask))
    return read, rest


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors, except of those that were there before."""

    def __init__(self, *before: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = weakref.WeakKeyDictionary[UntypedStorage, Any]()  # each storage with its finalizer
        self._seen.update({tensor.untyped_storage(): None for tensor in before})

    def until(self, end: Tensor) -> _Peaks:
        """The peaks of the forward pass that gave `end`, and of the backward pass from it, which is run here."""
        forward, kept = self.peak, self.now
        if not end.requires_grad:
            return _Peaks(forward, kept, 0)
        seed = torch.empty_like(end)
        for tensor in (end, seed):  # freed as soon as the backward pass has used them
            if subtract := self._seen.get(tensor.untyped_storage()):
                subtract()
        self.peak = self.now
        # From a gradient edge: given a tensor, torch would disable OnMeta for the whole backward pass.
        torch.autograd.backward(get_gradient_edge(end), seed)
        return _Peaks(forward, kept, self.peak)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        for tensor in results if isinstance(results, tuple | list) else (results,):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()) not in self._seen:
                self.now += storage.nbytes()
                self._seen[storage] = weakref.finalize(storage, self._drop, storage.nbytes())
        self.peak = max(self.peak, self.now)
        return results

    def _drop(self, size: int) -> None:
        self.now -= size


def _attention(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Any, scale: float, **more: Any) -> Tensor:
    """Attention by the CPU's fused kernel; the meta device would choose one that holds all attention weights."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    states: Tensor = fused(query, key, value, 0.0, more["is_causal"], attn_mask=attn_mask, scale=scale)[0]
    return states


def _norm(states: Tensor, _: Any, *, weight: Tensor, **__: Any) -> Tensor:
    """T5's norm as transformers computes it, whose float32 intermediates are held for the backward pass."""
    whole = states.to(torch.float32)
    whole = states * whole.pow(2).mean(-1, keepdim=True).rsqrt()
    return weight * whole.to(weight.dtype)


def _fused(states: Tensor, shape: Any, *, weight: Tensor, **_: Any) -> Tensor:
    """A norm of one kernel, which keeps only its input and a number or two for each position."""
    return functional.layer_norm(states, shape, weight)
