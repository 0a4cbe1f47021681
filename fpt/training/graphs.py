"""A batch's gradients as a CUDA graph: the kernels of a forward and backward pass, launched as one.

A GPU that is fast for its model waits for kernels to be launched one by one, some two thousand in an update.

Letters: B batch, S source, T target.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fpt.data.encoded import Batch, Encoded
from fpt.errors import reason
from fpt.prompts.prompted import PromptedModel

MOST = 200  # graphs of a stage, of 2 to 6 MB each; with more sizes it is recording that takes the time
Sizes = tuple[torch.Size | None, ...]
Replay = Callable[[], None]


class NoGraphError(Exception):
    """A model's passes cannot be a CUDA graph."""


class Recorder:
    """Records CUDA graphs that share their memory, which is as much as the largest takes."""

    def __init__(self, device: torch.device) -> None:
        """Record on this GPU."""
        self._device, self._is_warm = device, False
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def __call__(self, run: Replay) -> Replay:
        """A function that replays the kernels which `run` launches; `run` must not read anything back from the GPU.

        The tensors that `run` makes keep their addresses, and hold until another of the graphs is replayed.

        Raises:
            torch.OutOfMemoryError: there is no room for it.
            NoGraphError: it cannot be a graph; the GPU can be used as before.
        """
        try:
            return self._recorded(run)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            first = _first(error)
            if isinstance(first, torch.OutOfMemoryError) or "out of memory" in str(error):
                raise torch.OutOfMemoryError(str(first)) from None
            raise NoGraphError(reason(first)) from None

    def _recorded(self, run: Replay) -> Replay:
        # A recording that fails leaves its own stream the current one; this puts the earlier one back.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            if not self._is_warm:  # what libraries allocate at their first use would be part of the graph
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
    """The graph of one size of batch: it reads the batch and writes loss and gradients at fixed addresses."""

    def __init__(self, model: PromptedModel, batch: Batch, tokens: Tensor, record: Callable[[Replay], Replay]) -> None:
        self._model, self._batch, self._tokens = model, batch, tokens
        self.replay = record(self._run)

    def _run(self) -> None:
        loss = self._model(self._batch) / self._tokens
        self.loss = loss.detach()
        self.gradients = torch.autograd.grad(loss, [*self._model.prompt.parameters()], allow_unused=True)


class Graphs:
    """A graph for every size of batch, recorded when the first such batch comes.

    The largest is recorded first, so that the others fit into its memory.
    """

    def __init__(self, model: PromptedModel, largest: Batch, record: Callable[[Replay], Replay]) -> None:
        """Compute with a model whose weights and prompt keep their addresses; no batch is larger than `largest`.

        `record` makes a graph of a function: on a GPU it is a `Recorder`.
        """
        self._model, self._largest, self._record = model, largest, record
        self._graphs: dict[Sizes, _Graph] = {}
        self._inputs: list[Tensor | None] = []

    def add(self, batch: Batch, tokens: int, loss: Tensor) -> None:
        """Add to the prompt's gradients, and to `loss` [1], the batch's part of a mean over so many tokens.

        Raises:
            torch.OutOfMemoryError: there is no room for the largest batch.
            NoGraphError: the passes cannot be a graph, or batches have too many sizes.
        """
        if not self._graphs:
            self._tokens = torch.ones_like(loss)
            self._inputs = [
                None if tensor is None else torch.empty(tensor.numel(), dtype=tensor.dtype, device=loss.device)
                for tensor in _tensors(self._largest)
            ]
            self._graph_of(self._largest)
        graph = self._graph_of(batch)
        self._tokens.fill_(tokens)
        graph.replay()
        loss += graph.loss
        for parameter, gradient in zip(self._model.prompt.parameters(), graph.gradients, strict=True):
            if gradient is not None:
                parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad.add_(gradient)

    def __len__(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def _graph_of(self, batch: Batch) -> _Graph:
        """The graph of the batch's size, the batch copied to where it reads it."""
        tensors = _tensors(batch)
        sizes = tuple(None if tensor is None else tensor.shape for tensor in tensors)
        places = [_part(whole, size) for whole, size in zip(self._inputs, sizes, strict=True)]
        for place, tensor in zip(places, tensors, strict=True):
            if place is not None and tensor is not None:
                place.copy_(tensor, non_blocking=True)
        if sizes not in self._graphs:
            if len(self._graphs) == MOST:  # none may go while others stay, for they share more than their memory
                raise NoGraphError(f"batches are of more than {MOST} sizes")
            self._graphs[sizes] = _Graph(self._model, _with_all_positions(places), self._tokens, self._record)
        return self._graphs[sizes]


def largest_batch(data: Encoded, at_once: int, dropout: Callable[[Sequence[int]], Tensor | None]) -> Batch:
    """A batch of `at_once` examples, as wide as the longest source, the longest target, and the longest of both."""
    lengths = [(source, target, source + target) for source, target in data.lengths]
    longest = [max(range(len(data)), key=lambda index: lengths[index][which]) for which in range(3)]
    return replace(data.batch(longest).rows([0] * at_once), factors=dropout(longest[:1] * at_once))


def _first(error: BaseException) -> BaseException:
    """The error that led to the others; ending a recording that failed raises another, which says less."""
    return error if error.__context__ is None else _first(error.__context__)


def _tensors(batch: Batch) -> tuple[Tensor | None, ...]:
    return batch.source, batch.mask, batch.labels, batch.below, batch.factors, batch.places


def _part(whole: Tensor | None, size: torch.Size | None) -> Tensor | None:
    """The first numbers of a flat buffer, as a tensor of this size."""
    return None if whole is None or size is None else whole[: size.numel()].view(size)


def _with_all_positions(places: list[Tensor | None]) -> Batch:
    """A batch of these tensors whose loss is computed at every position, as the number of real ones varies."""
    batch = Batch(*places)  # type: ignore[arg-type]
    vars(batch)["real"] = torch.arange(batch.labels.numel(), device=batch.labels.device)
    return batch
