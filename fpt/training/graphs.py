"""Computes gradients with CUDA graphs, which launch all kernels of a forward and backward pass as one.

An update launches some two thousand kernels; with a small model, a fast GPU mostly waits for these launches.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fpt.data.encoded import Batch, Encoded
from fpt.errors import reason
from fpt.prompts.prompted import PromptedModel

MOST = 200  # graphs in a stage, of 2 to 6 MB each; with more sizes, recording would take most of the time
Sizes = tuple[torch.Size | None, ...]
Replay = Callable[[], None]


class NoGraphError(Exception):
    """A model's passes cannot be recorded as a CUDA graph."""


class Recorder:
    """Records CUDA graphs that share one memory pool, as large as the largest graph needs."""

    def __init__(self, device: torch.device) -> None:
        """Record on this GPU."""
        self._device, self._is_warm = device, False
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def __call__(self, run: Replay) -> Replay:
        """Return a function that replays the kernels which `run` launches; `run` must read nothing back from the GPU.

        The tensors that `run` makes keep their addresses, and are valid until another graph is replayed.

        Raises:
            torch.OutOfMemoryError: there is too little memory.
            NoGraphError: it cannot be recorded; the GPU can still be used.
        """
        try:
            return self._recorded(run)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first: BaseException = error
            while first.__context__ is not None:  # ending a failed recording raises another error, which says less
                first = first.__context__
            if isinstance(first, torch.OutOfMemoryError) or "out of memory" in str(error):
                raise torch.OutOfMemoryError(str(first)) from None
            raise NoGraphError(reason(first)) from None

    def _recorded(self, run: Replay) -> Replay:
        # A failed recording leaves its own stream as the current one; this restores the earlier one.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            if not self._is_warm:  # or what libraries allocate at their first use would become part of the graph
                self._stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._stream):
                    run()
                torch.cuda.current_stream().wait_stream(self._stream)
                self._is_warm = True
            graph = torch.cuda.CUDAGraph()
            # The thread that makes the next batch allocates pinned memory, which would end a global capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                run()
        return graph.replay


class _Graph:
    """The graph for one batch size: it reads a batch, and writes loss and gradients, at fixed addresses."""

    def __init__(self, model: PromptedModel, batch: Batch, tokens: Tensor, record: Callable[[Replay], Replay]) -> None:
        self._model, self._batch, self._tokens = model, batch, tokens
        self.replay = record(self._run)

    def _run(self) -> None:
        loss = self._model(self._batch) / self._tokens
        self.loss = loss.detach()
        self.gradients = torch.autograd.grad(loss, [*self._model.prompt.parameters()], allow_unused=True)


class Graphs:
    """The graphs of a stage, one for each batch size, recorded when the first batch of that size comes.

    The largest is recorded first, so that the others fit into its memory.
    """

    def __init__(self, model: PromptedModel, largest: Batch, record: Callable[[Replay], Replay]) -> None:
        """Use a model whose weights and prompt stay at their addresses; no batch may be larger than `largest`.

        `record` makes a graph of a function: on a GPU it is a `Recorder`.
        """
        self._model, self._largest, self._record = model, largest, record
        self._graphs: dict[Sizes, _Graph] = {}
        self._inputs: list[Tensor | None] = []

    def add(self, batch: Batch, tokens: float, loss: Tensor) -> None:
        """Add a batch's part to the prompt's gradients and to `loss` [1], both means over the update's `tokens`.

        Raises:
            torch.OutOfMemoryError: the largest batch does not fit into memory.
            NoGraphError: the passes cannot be recorded, or batches have too many sizes.
        """
        if not self._graphs:
            self._tokens = torch.ones_like(loss)
            self._inputs = [
                None if tensor is None else torch.empty(tensor.numel(), dtype=tensor.dtype, device=loss.device)
                for tensor in self._largest.tensors
            ]
            self._graph_of(self._largest)
        graph = self._graph_of(batch)
        self._tokens.fill_(tokens)
        graph.replay()
        loss += graph.loss
        for parameter, gradient in zip(self._model.prompt.parameters(), graph.gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)

    def _graph_of(self, batch: Batch) -> _Graph:
        """The graph for the batch's size, after copying the batch to the graph's input."""
        sizes = tuple(None if tensor is None else tensor.shape for tensor in batch.tensors)
        places = [
            None if whole is None or size is None else whole[: size.numel()].view(size)
            for whole, size in zip(self._inputs, sizes, strict=True)
        ]
        for place, tensor in zip(places, batch.tensors, strict=True):
            if place is not None and tensor is not None:
                place.copy_(tensor, non_blocking=True)
        if sizes not in self._graphs:
            if len(self._graphs) == MOST:  # none can be dropped alone, as they share more than their memory
                raise NoGraphError(f"batches are of more than {MOST} sizes")
            at_its_places = Batch(*places)  # type: ignore[arg-type]
            # A graph needs fixed sizes, so that logits are computed at padded positions too.
            vars(at_its_places)["real"] = torch.arange(batch.labels.numel(), device=self._tokens.device)
            self._graphs[sizes] = _Graph(self._model, at_its_places, self._tokens, self._record)
        return self._graphs[sizes]


def largest_batch(data: Encoded, at_once: int, dropout: Callable[[Sequence[int]], Tensor | None]) -> Batch:
    """A batch of `at_once` examples, as wide as the longest source, target, and source and target together."""
    lengths = [(source, target, source + target) for source, target in data.lengths]
    longest = [max(range(len(data)), key=lambda index: lengths[index][which]) for which in range(3)]
    return replace(data.batch(longest).rows([0] * at_once), factors=dropout(longest[:1] * at_once))
