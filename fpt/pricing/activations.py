"""Counts the peak memory of a micro-batch's forward and backward pass, in bytes, without allocating any.

Training's own code runs on the meta device with two blocks in each stack, and every live tensor is counted. Each
further block of the same kind adds as much to the peak as the second one did, so two blocks are enough for any number.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode  # documented by torch, despite its underscore
from transformers import PreTrainedConfig

from fpt.backbones.backbone import family_of
from fpt.backbones.precision import compute_states_in_float32
from fpt.backbones.shapes import Shape
from fpt.config.schema import PromptConfig
from fpt.data.encoded import Batch
from fpt.prompts.kinds import kind_of
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model

BLOCKS = 2  # how many blocks of each stack are run


@dataclass(frozen=True)
class Peaks:
    """Bytes of a stack's passes: the peaks forward and backward, those kept in between, and those that a block adds."""

    forward: int
    kept: int
    backward: int
    block: int

    def of(self, blocks: int) -> "Peaks":
        """The peaks of a stack with this number of blocks of the same kind."""
        more = max(blocks - BLOCKS, 0) * self.block
        return Peaks(self.forward + more, self.kept + more, self.backward + more, self.block)


def peaks(
    config: PreTrainedConfig,
    shape: Shape,
    prompt: PromptConfig,
    batch: int,
    source: int,
    target: int,
    *,
    dtype: str,
    states_dtype: str,
    checkpointing: bool,
    sharded: bool,
    on_card: bool,
) -> tuple[Peaks, Peaks]:
    """The peaks of the stack that reads the source, with up to BLOCKS blocks, and of all that comes after it.

    The latter do not include what the first stack keeps. `source` includes the prompt's positions. `sharded` matters
    because DeepSpeed's linear layers keep their input, and `on_card` because T5's norms are one kernel on a GPU.
    """
    kind, family = kind_of(prompt), family_of(config)
    body, (first, second, *_) = family.skeleton(config, shape).to(getattr(torch, dtype)), (*shape, "")
    if states_dtype != dtype:
        compute_states_in_float32(body)
    with torch.device("meta"):
        tensors = {name: torch.empty(size) for name, size in kind.shapes(family.row.first.width_in(config)).items()}
    ids, labels = (torch.ones(batch, length, dtype=torch.long) for length in (source - prompt.length, target))
    inputs = Batch(ids, torch.ones_like(ids), labels).to("meta")
    # A late prompt is put before the first block too: only blocks above it are run here.
    model = prompted_model(body, kind.build(tensors, 0), checkpointing=checkpointing)
    with _AsTrained(is_padded=batch > 1, sharded=sharded, on_card=on_card):
        with _Living(model) as living:
            states, mask = model.encode(inputs)
            read = living.measured(states, first)
        leaf = states.detach().requires_grad_(states.requires_grad)
        with _Living(model, leaf, mask) as living:
            rest = living.measured(model.loss(inputs, leaf, mask), second)
    return read, rest


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live tensors, except the model's and `others`."""

    def __init__(self, model: PromptedModel, *others: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = weakref.WeakKeyDictionary[UntypedStorage, Any]()  # each storage with its finalizer
        self._seen.update({tensor.untyped_storage(): None for tensor in (*model.parameters(), *others)})
        self._marks: dict[str, list[int]] = {stack: [] for stack in model.family.row.stacks}
        self._hooks = [
            block.register_forward_hook(lambda *_, stack=stack: self._marks[stack].append(self.now))
            for stack in self._marks
            for block in model.family.blocks_of(model.body, stack)
        ]

    def measured(self, end: Tensor, stack: str) -> Peaks:
        """The peaks of the forward pass that gave `end`, and of the backward pass from it, which is run here."""
        forward, kept = self.peak, self.now
        marks = self._marks.get(stack, [])  # of BLOCKS blocks; of twice as many if two passes go through them
        if not end.requires_grad:
            return Peaks(forward, kept, 0, 0)
        seed = torch.empty_like(end)
        for tensor in (end, seed):  # freed as soon as the backward pass has used them
            if subtract := self._seen.get(tensor.untyped_storage()):
                subtract()
        self.peak = self.now
        # From a gradient edge: given a tensor, torch would disable _AsTrained for the whole backward pass.
        torch.autograd.backward(get_gradient_edge(end), seed)
        return Peaks(forward, kept, self.peak, sum(marks[1::BLOCKS]) - sum(marks[::BLOCKS]))

    def __exit__(self, *raised: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

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


class OnMeta(TorchFunctionMode):
    """Answers questions about values, which tensors on the meta device do not have."""

    def __init__(self, *, is_padded: bool) -> None:
        super().__init__()
        self._is_padded = is_padded

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__bool__:  # the only such question is of a padding mask: is nothing padded?
            return not self._is_padded
        return self._run(func, args, kwargs or {})

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        return func(*args, **kwargs)


class _AsTrained(OnMeta):
    """Also runs the kernels, or stand-ins for them, that a real device would run."""

    def __init__(self, *, is_padded: bool, sharded: bool, on_card: bool) -> None:
        super().__init__(is_padded=is_padded)
        self._sharded, self._on_card = sharded, on_card

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is functional.scaled_dot_product_attention:
            return _fused_attention(*args, **kwargs)
        if func is functional.rms_norm:
            return _FusedNorm.apply(args[0]) if self._on_card else _norm(args[0], kwargs["weight"])  # type: ignore[no-untyped-call]
        if func is functional.linear and self._sharded:
            states, bias = _KeepingLinear.apply(*args[:2]), args[2]  # type: ignore[no-untyped-call]
            return states if bias is None else states + bias
        return func(*args, **kwargs)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Any, scale: float, **more: Any) -> Tensor:
    """Attention by the CPU's fused kernel; the meta device would choose one that holds all attention weights."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    states: Tensor = fused(query, key, value, 0.0, more["is_causal"], attn_mask=attn_mask, scale=scale)[0]
    return states


def _norm(states: Tensor, weight: Tensor) -> Tensor:
    """T5's norm as transformers computes it, whose float32 intermediates are held for the backward pass."""
    whole = states.to(torch.float32)
    whole = states * whole.pow(2).mean(-1, keepdim=True).rsqrt()
    return weight * whole.to(weight.dtype)


class _FusedNorm(torch.autograd.Function):
    """A fused norm, which keeps only its input and one number for each position."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        ctx.save_for_backward(states, states.new_empty(states.shape[:-1], dtype=torch.float32))
        return torch.empty_like(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        states, _ = ctx.saved_tensors
        return torch.empty_like(gradient, dtype=states.dtype)


class _KeepingLinear(torch.autograd.Function):
    """A linear layer that keeps its input, as DeepSpeed's does even if it is frozen."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return states.matmul(weight.t())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.matmul(ctx.saved_tensors[1]), None
