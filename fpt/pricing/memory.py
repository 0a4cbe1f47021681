"""What one update holds in a device's memory, in bytes, without weights: the frozen model, its activations, the rest.

Activations are those at the peak of a micro-batch's forward and backward pass. Training's own code is run on the meta
device with two blocks in each stack, and every tensor that lives is counted. A further block of the same kind adds
what the second one did to all that is alive when the passes are deepest, so that two are enough for any number.

Letters: B batch, S source with the prompt, T target, D model.
"""

import weakref
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5Config

from fpt.backbones.families import family_of
from fpt.backbones.shapes import STACKS, Shape, Stack
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.data.encoded import Batch
from fpt.devices.engine import KEPT_WHOLE, fetched_ahead
from fpt.prompts.kinds import kind_of
from fpt.prompts.prompted import PromptedModel

BLOCKS = 2  # of each stack, that are run
SOFT = PromptConfig(length=1)
PROMPT_COPIES = 5  # the prompt itself, its gradient, and what its optimizer makes of it in a step

_counts: dict[tuple[Any, ...], tuple["_Count", "_Count"]] = {}
_numels: dict[tuple[str, Shape], list[int]] = {}


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


@dataclass(frozen=True)
class _Count:
    """Of a stack of up to BLOCKS blocks: the peaks forward and backward, what stays in between, what a block adds."""

    forward: int
    kept: int
    backward: int
    block: int

    def of(self, blocks: int) -> "_Count":
        """The same of more blocks."""
        more = max(blocks - BLOCKS, 0) * self.block
        return _Count(self.forward + more, self.kept + more, self.backward + more, self.block)


class Memory:
    """The needs of partial PLMs of one backbone."""

    def __init__(self, config: T5Config) -> None:
        """Count for shapes of the model that `config` describes."""
        self._config, self._family = config, family_of(config)
        self._name = config.to_json_string(use_diff=False)

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
        """What an update takes.

        Args:
            shape: of the model.
            engine: what holds it.
            batch: examples of a micro-batch.
            source: positions, the prompt's among them.
            target: positions.
            prompt: what it is.
            below: encoder blocks that do not see it, and so keep nothing.
            checkpointing: whether activations are checkpointed.
        """
        activations = self.activations(
            # Without a block above the prompt one is counted, since one at a time takes memory below it too.
            replace(shape, encoder=replace(shape.encoder, blocks=max(shape.encoder.blocks - below, 1))),
            batch=batch,
            source=source,
            target=target,
            dtype=engine.dtype,
            checkpointing=checkpointing,
            sharded=is_sharded(engine),
            prompt=prompt,
        )
        learned = PROMPT_COPIES * kind_of(prompt).num_learned(self._config.d_model) * 4
        return Need(self.weights(shape, engine), activations, learned)

    def weights(self, shape: Shape, engine: EngineConfig) -> int:
        """Bytes of the frozen model on one device: all, or its share and what DeepSpeed holds gathered at once."""
        numbers = self._parameters(shape)
        total, width = sum(numbers), getattr(torch, engine.dtype).itemsize
        if not is_sharded(engine):
            return total * width
        small = sum(number for number in numbers if number < KEPT_WHOLE)
        gathered = min(total, fetched_ahead(engine.device) + max(numbers)) + small
        share = 0 if engine.offload != "none" else -(-total // (engine.processes * engine.nodes))
        return (share + gathered) * width

    def _parameters(self, shape: Shape) -> list[int]:
        """The size of every parameter, embedding and head included, a tied head once."""
        if (self._name, shape) not in _numels:
            _numels[self._name, shape] = [
                parameter.numel() for parameter in self._family.tied(self._config, shape).parameters()
            ]
        return _numels[self._name, shape]

    def activations(
        self,
        shape: Shape,
        *,
        batch: int,
        source: int,
        target: int,
        dtype: str,
        checkpointing: bool,
        sharded: bool = False,
        prompt: PromptConfig = SOFT,
    ) -> int:
        """Bytes at the peak of a micro-batch; `sharded` as DeepSpeed's linear layers keep their input too."""
        small = Shape(*(Stack(min(stack.blocks, BLOCKS), stack.neurons) for stack in (shape.encoder, shape.decoder)))
        key = (self._name, small, batch, source, target, dtype, checkpointing, sharded, prompt)
        if key not in _counts:
            body = self._family.skeleton(self._config, small).to(getattr(torch, dtype))
            _counts[key] = _count(body, batch, source, target, prompt, checkpointing=checkpointing, sharded=sharded)
        encoder, decoder = (
            count.of(shape.stack(name).blocks) for name, count in zip(STACKS, _counts[key], strict=True)
        )
        through = encoder.kept + max(decoder.forward, decoder.backward)
        return max(encoder.forward, through, encoder.backward)


def is_sharded(engine: EngineConfig) -> bool:
    """Whether each process holds but a share of the weights."""
    return engine.name == "deepspeed" and engine.zero_stage == 3


def _count(
    body: Any, batch: int, source: int, target: int, prompt: PromptConfig, *, checkpointing: bool, sharded: bool
) -> tuple[_Count, _Count]:
    """Both stacks' counts; the decoder's are beside what the encoder keeps, loss included."""
    with torch.device("meta"):
        values = {name: torch.empty(shape) for name, shape in kind_of(prompt).shapes(body.config.d_model).items()}
        ids, labels = (torch.ones(batch, length, dtype=torch.long) for length in (source - prompt.length, target))
        inputs = Batch(ids, torch.ones_like(ids), labels)
    # A late prompt is put before the first block too, as all that is run here is above it.
    model = PromptedModel(body, kind_of(prompt).build(values, 0), checkpointing=checkpointing)
    with _Unseen(is_padded=batch > 1, sharded=sharded):
        with _Living(model) as living:
            states, mask = model.encode(inputs)
            encoder = living.measured(states, "encoder")
        given = states.detach().requires_grad_()
        with _Living(model, given, mask) as living:
            decoder = living.measured(model.loss(inputs, given, mask), "decoder")
    return encoder, decoder


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that live, but for those of the model and of `others`."""

    def __init__(self, model: PromptedModel, *others: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._storages: dict[int, Any] = {}
        self._marks: dict[str, list[int]] = {stack: [] for stack in STACKS}
        for tensor in (*model.parameters(), *others):
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = storage
        self._hooks = [
            block.register_forward_hook(lambda *_, stack=stack: self._marks[stack].append(self.now))
            for stack in STACKS
            for block in model.family.blocks_of(model.body, stack)
        ]

    def measured(self, end: Tensor, stack: str) -> _Count:
        """What the forward pass to `end` left behind, and what the way back takes."""
        forward, kept = self.peak, self.now
        marks = self._marks[stack][:BLOCKS]
        seed = torch.empty_like(end)
        for tensor in (end, seed):  # gone as soon as the way back has passed them
            self._forget(tensor.untyped_storage())
        self.peak = self.now
        # end.backward(), but within _Unseen: torch sets function modes aside for functions that they can see.
        torch.autograd.Variable._execution_engine.run_backward(
            (end,), (seed,), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
        return _Count(forward, kept, self.peak, marks[-1] - marks[0])

    def __exit__(self, *raised: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return made

    def _forget(self, storage: torch.UntypedStorage) -> None:
        self._storages[storage._cdata] = storage
        self.now -= storage.nbytes()

    def _add(self, storage: torch.UntypedStorage) -> None:
        name, size = storage._cdata, storage.nbytes()
        if name in self._storages:
            return

        def drop(_: Any) -> None:
            del self._storages[name]
            self.now -= size

        self._storages[name] = weakref.ref(storage, drop)
        self.now += size


class _Unseen(TorchFunctionMode):
    """Answers on the meta device what depends on values, and takes the kernels that a real device takes."""

    def __init__(self, *, is_padded: bool, sharded: bool) -> None:
        super().__init__()
        self._is_padded, self._sharded = is_padded, sharded

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is Tensor.__bool__:  # asked of a mask alone: is nothing padded?
            return not self._is_padded
        if func is Tensor.__getitem__ and isinstance(args[1], Tensor) and args[1].dtype is torch.bool:
            rows = args[0].flatten(0, args[1].ndim - 1)  # every position is real
            return rows[torch.zeros(len(rows), dtype=torch.long, device="meta")]
        if func is functional.scaled_dot_product_attention:
            return _fused_attention(*args, **kwargs)
        if func is functional.linear and self._sharded:
            return _KeepingLinear.apply(*args[:2])  # type: ignore[no-untyped-call]
        return func(*args, **kwargs)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Any, scale: float, **more: Any) -> Tensor:
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    found: Tensor = fused(query, key, value, 0.0, more["is_causal"], attn_mask=attn_mask, scale=scale)[0]
    return found


class _KeepingLinear(torch.autograd.Function):
    """A linear layer that keeps its input, as DeepSpeed's does even of a frozen one."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return states.matmul(weight.t())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.matmul(ctx.saved_tensors[1]), None
