"""What a micro-batch's forward and backward pass hold at their peaks, in bytes, counted without memory or weights.

Training's own code is run on the meta device with two blocks in each stack, and every tensor that lives is counted. A
further block of the same kind adds what the second one did to all that is alive when the passes are deepest, so that
two are enough for any number.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode  # where torch documents it, for all its underscore
from transformers import T5Config

from fpt.backbones.families import family_of
from fpt.backbones.shapes import STACKS, Shape
from fpt.config.schema import PromptConfig
from fpt.data.encoded import Batch
from fpt.prompts.kinds import kind_of
from fpt.prompts.prompted import PromptedModel

BLOCKS = 2  # of each stack, that are run


@dataclass(frozen=True)
class Peaks:
    """Of a stack of up to BLOCKS blocks: the peaks forward and backward, what stays in between, what a block adds."""

    forward: int
    kept: int
    backward: int
    block: int

    def of(self, blocks: int) -> "Peaks":
        """The same of more blocks."""
        more = max(blocks - BLOCKS, 0) * self.block
        return Peaks(self.forward + more, self.kept + more, self.backward + more, self.block)


def peaks(
    config: T5Config,
    shape: Shape,
    prompt: PromptConfig,
    batch: int,
    source: int,
    target: int,
    *,
    dtype: str,
    checkpointing: bool,
    sharded: bool,
) -> tuple[Peaks, Peaks]:
    """Of an encoder and a decoder of up to BLOCKS blocks; the decoder's are beside what the encoder keeps.

    `source` positions are the prompt's too; `sharded` as DeepSpeed's linear layers keep their input.
    """
    kind, body = kind_of(prompt), family_of(config).skeleton(config, shape).to(getattr(torch, dtype))
    with torch.device("meta"):
        tensors = {name: torch.empty(size) for name, size in kind.shapes(config.d_model).items()}
    ids, labels = (torch.ones(batch, length, dtype=torch.long) for length in (source - prompt.length, target))
    inputs = Batch(ids, torch.ones_like(ids), labels).to("meta")
    # A late prompt is put before the first block too, as all that is run here is above it.
    model = PromptedModel(body, kind.build(tensors, 0), checkpointing=checkpointing)
    with _Kernels(sharded=sharded):
        with _Living(model) as living:
            states, mask = model.encode(inputs)
            encoder = living.measured(states, "encoder")
        leaf = states.detach().requires_grad_()
        with _Living(model, leaf, mask) as living:
            decoder = living.measured(model.loss(inputs, leaf, mask), "decoder")
    return encoder, decoder


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that live, but for those of the model and of `others`."""

    def __init__(self, model: PromptedModel, *others: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = weakref.WeakKeyDictionary[UntypedStorage, Any]()  # with what is done at their end
        self._seen.update({tensor.untyped_storage(): None for tensor in (*model.parameters(), *others)})
        self._marks: dict[str, list[int]] = {stack: [] for stack in STACKS}
        self._hooks = [
            block.register_forward_hook(lambda *_, stack=stack: self._marks[stack].append(self.now))
            for stack in STACKS
            for block in model.family.blocks_of(model.body, stack)
        ]

    def measured(self, end: Tensor, stack: str) -> Peaks:
        """What the forward pass to `end` left behind, and what the way back takes."""
        forward, kept = self.peak, self.now
        marks = self._marks[stack][:BLOCKS]
        seed = torch.empty_like(end)
        for tensor in (end, seed):  # gone as soon as the way back has passed them
            if subtract := self._seen.get(tensor.untyped_storage()):
                subtract()
        self.peak = self.now
        # From an edge, not from a tensor, for which torch sets _Kernels aside on the whole way back.
        torch.autograd.backward(get_gradient_edge(end), seed)
        return Peaks(forward, kept, self.peak, marks[-1] - marks[0])

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


class _Kernels(TorchFunctionMode):
    """Takes on the meta device the kernels that a real device takes."""

    def __init__(self, *, sharded: bool) -> None:
        super().__init__()
        self._sharded = sharded

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return _fused_attention(*args, **kwargs)
        if func is functional.linear and self._sharded:
            return _KeepingLinear.apply(*args[:2])  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Any, scale: float, **more: Any) -> Tensor:
    """What a CPU takes; by itself the meta device would take a kernel that holds all weights."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    states: Tensor = fused(query, key, value, 0.0, more["is_causal"], attn_mask=attn_mask, scale=scale)[0]
    return states


class _KeepingLinear(torch.autograd.Function):
    """A linear layer that keeps its input, as DeepSpeed's does even of a frozen one."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return states.matmul(weight.t())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.matmul(ctx.saved_tensors[1]), None
