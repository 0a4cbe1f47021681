"""A batch's gradients as a CUDA graph: the kernels of a pass and of its way back, started as one.

A card that is fast for its model waits for kernels to be started, some two thousand in an update, one by one.

Letters: B batch, S source, T target.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter

import torch
from torch import Tensor

from fpt.data.encoded import Batch, Encoded
from fpt.errors import reason
from fpt.prompts.prompted import PromptedModel

MOST = 200  # graphs of a stage, each some 2 to 6 MB of the card; with more sizes it is recording that takes the time
MEASURES: tuple[Callable[[tuple[int, int]], int], ...] = (itemgetter(0), itemgetter(1), sum)
Sizes = tuple[torch.Size | None, ...]
Replay = Callable[[], None]


class NoGraphError(Exception):
    """What a model does cannot be a CUDA graph."""


class Recorder:
    """Makes CUDA graphs that have their memory in common, as much as the largest takes."""

    def __init__(self, device: torch.device) -> None:
        """On a card."""
        self._device, self._is_warm = device, False
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]

    def __call__(self, run: Replay) -> Replay:
        """What does again on the card what `run` does there, which asks the card nothing.

        What `run` makes stays where it is, and lives until another of the graphs is played.

        Raises:
            torch.OutOfMemoryError: there is no room for it.
            NoGraphError: it cannot be a graph, as when it asks the card something; the card goes on.
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
        # A recording that fails leaves its own stream the current one; this puts back what was.
        with torch.cuda.device(self._device), torch.cuda.stream(torch.cuda.current_stream(self._device)):
            if not self._is_warm:  # what libraries make when they are first used would be part of the graph
                self._stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(self._stream):
                    run()
                torch.cuda.current_stream().wait_stream(self._stream)
                self._is_warm = True
            graph = torch.cuda.CUDAGraph()
            # The thread that makes the next batch takes pinned memory meanwhile, which would end a global capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                run()
        return graph.replay


class _Graph:
    """One graph, which reads a batch that stays in its place, and what it makes."""

    def __init__(self, model: PromptedModel, batch: Batch, tokens: Tensor, record: Callable[[Replay], Replay]) -> None:
        self._model, self._batch, self._tokens = model, batch, tokens
        self.replay = record(self._run)

    def _run(self) -> None:
        loss = self._model(self._batch) / self._tokens
        self.loss = loss.detach()
        self.gradients = torch.autograd.grad(loss, [*self._model.prompt.parameters()], allow_unused=True)


class Graphs:
    """A graph for every size of batch, made when the first such batch comes.

    The largest is made first: what it takes of memory, the others fit into.
    """

    def __init__(self, model: PromptedModel, largest: Batch, record: Callable[[Replay], Replay]) -> None:
        """Of a model whose weights and prompt stay where they are in memory.

        Args:
            model: with the prompt that gets the gradients.
            largest: as many examples, and as long ones, as any batch has.
            record: makes a graph; on a card a `Recorder`.
        """
        self._model, self._largest, self._record = model, largest, record
        self._graphs: dict[Sizes, _Graph] = {}
        self._inputs: list[Tensor | None] = []

    def add(self, batch: Batch, tokens: int, loss: Tensor) -> None:
        """Add to the prompt's gradients, and to `loss` [1], the batch's part of a mean over so many tokens.

        Raises:
            torch.OutOfMemoryError: there is no room for the largest batch.
            NoGraphError: what the model does cannot be a graph, or batches are of too many sizes.
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
        """How many there are."""
        return len(self._graphs)

    def _graph_of(self, batch: Batch) -> _Graph:
        """That of the batch's size, with the batch in its place."""
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
    longest = [max(range(len(data)), key=lambda index: measure(data.lengths[index])) for measure in MEASURES]
    return replace(data.batch(longest).rows([0] * at_once), factors=dropout(longest[:1] * at_once))


def _first(error: BaseException) -> BaseException:
    """The error that led to the others: the end of a recording that failed is one too, and says less."""
    return error if error.__context__ is None else _first(error.__context__)


def _tensors(batch: Batch) -> tuple[Tensor | None, ...]:
    return batch.source, batch.mask, batch.labels, batch.below, batch.factors, batch.places


def _part(whole: Tensor | None, size: torch.Size | None) -> Tensor | None:
    """The beginning of a row of numbers, as a tensor of some size."""
    return None if whole is None or size is None else whole[: size.numel()].view(size)


def _with_all_positions(places: list[Tensor | None]) -> Batch:
    """A batch of these tensors whose loss is computed at every position: the number of real ones is not in its size."""
    batch = Batch(*places)  # type: ignore[arg-type]
    vars(batch)["real"] = torch.arange(batch.labels.numel(), device=batch.labels.device)
    return batch
