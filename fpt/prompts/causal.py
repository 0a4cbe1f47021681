"""The passes of decoder-only models, with a cache of what was read, so that more can follow without reading it again.

Letters: B batch, L positions, N positions of one pass, P prompt, S source, T target, D model.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from fpt.backbones.calls import Call
from fpt.data.encoded import IGNORED, Batch
from fpt.prompts.prompted import Encoded, PromptedModel, Written, mean_weights

TARGETS_AT_ONCE = 32  # the most targets side by side behind a source, which attention computes with each other
MASK = "attention_mask"  # what transformers' blocks call their [B, 1, L, L] mask; None: all earlier positions are seen


class Causal(PromptedModel):
    """Reads with a decoder-only stack, which has the prompt, and which source and target pass one after the other."""

    keeps_target = True

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        given = batch.labels[:, :-1]  # nothing is read from the last token
        lengths, places = batch.mask.sum(1, keepdim=True), torch.arange(given.shape[1], device=given.device)
        ids = torch.cat([batch.source, torch.zeros_like(given)], 1)
        ids = ids.scatter(1, lengths + places, given.masked_fill(given == IGNORED, 0))
        ends = lengths + ((batch.labels != IGNORED).sum(1, keepdim=True) - 1).clamp(min=0)
        return ids, (torch.arange(ids.shape[1], device=ids.device) < ends).long()

    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        assert texts == 1  # as every target needs a pass of its own
        return following(encoded[0], self.prompt.length + batch.mask.sum(1) - 1, batch.labels.shape[1])

    def read(self, batch: Batch, more: int) -> "Context":
        """Read source and prompt into a cache, behind which up to `more` tokens can follow."""
        self.begin_pass()
        cache = DynamicCache()
        blocks = partial(CachedBlocks, self, more=more, cache=cache)
        lower = blocks(mask=batch.mask, last=self.prompt.position)
        states = lower.read(lower.embedded(padded_in_front(batch.source, batch.mask)))
        lengths, width = batch.mask.sum(1), batch.mask.shape[1]
        states = following(states, width - lengths, width)  # the padding is behind now, where the mask has it
        states, mask = self.prompt.joined(states, batch.mask, batch.mask)
        upper = blocks(mask=mask, first=self.prompt.position)
        return Context(self, cache, lower, upper, padded_in_front(states, mask))

    def _generated(self, batch: Batch, most: int) -> tuple[Tensor, Encoded | None]:
        start = self.family.pad_token(self.body.config)
        return self._greedy(self.read(batch, most), batch.mask, most, start), None

    @torch.no_grad()
    def target_log_probs(self, batch: Batch, targets: Tensor) -> Tensor:
        """As every model's; the source is read once, and some targets at a time follow it side by side."""
        context = self.read(batch, targets.shape[1] - 1)
        return torch.cat([self._log_probs_behind(context, some) for some in torch.split(targets, TARGETS_AT_ONCE)], 1)

    def _log_probs_behind(self, context: "Context", targets: Tensor) -> Tensor:
        """Log-probabilities [B, N, T] of targets behind a context; what several begin with is read once for all."""
        texts = [tuple(row[row != IGNORED].tolist()) for row in targets]
        begun = sorted({text[:end] for text in texts for end in range(1, len(text))})
        place = {text: index for index, text in enumerate([(), *begun])}
        places = torch.tensor([[place.get(text[:end], 0) for end in range(targets.shape[1])] for text in texts])
        states = context.last[:, None]
        if begun:
            ids = torch.tensor([text[-1] for text in begun], device=targets.device)
            sees = torch.tensor([[one[: len(other)] == other for other in begun] for one in begun])
            self.begin_pass()
            states = torch.cat([states, context.read(ids.expand(len(states), -1), sees.to(targets.device))], 1)
        parts = self._logit_parts(len(states), states.shape[1])
        log_probs = [self.logits(states[part]).log_softmax(-1)[:, places, targets.clamp(min=0)] for part in parts]
        return torch.cat(log_probs).masked_fill(targets == IGNORED, 0)


class CausalBehind(Causal):
    """Reads the source alone, without gradients, and then the prompt and the target, which stand behind it."""

    keeps_target = False

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.source, batch.mask

    def _below(self, batch: Batch) -> Tensor:
        """Every block's keys and values of the source [B, S, …], side by side."""
        cache = DynamicCache()
        self.family.states_before(self.body, *self.inputs(batch), None, past_key_values=cache)
        parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
        return torch.cat([part.transpose(1, 2).flatten(2) for part in parts], 2)

    def _encode(self, batch: Batch, below: Tensor) -> Encoded:
        """The output [B, P+T-1, D] for the prompt and the target, and the mask of all positions."""
        family, body, mask = self.family, self.body, batch.mask
        self.begin_pass()
        source = self._source(below, mask)
        lengths, number = mask.sum(1, keepdim=True), self.prompt.length + batch.labels.shape[1] - 1
        places = lengths + torch.arange(number, device=mask.device)
        ids = batch.labels.masked_fill(batch.labels == IGNORED, 0)
        target = family.embedded(body, ids, places[:, : ids.shape[1]])
        states = torch.cat([self.prompt(target, mask).to(target.dtype), target[:, :-1]], 1)
        mask = torch.cat([mask.flip(1), mask.new_ones(places.shape)], 1)
        recorded = family.arguments(body, states, mask, places, past_key_values=source)
        states = family.through(body, states, recorded, 0, None, past_key_values=ReadOnly(source))
        return family.normed(body, states), mask

    def position_weights(self, batch: Batch) -> tuple[Tensor, Tensor]:
        prompt, read = batch.mask.new_ones(len(batch.mask), self.prompt.length), batch.labels[:, 1:] != IGNORED
        both = mean_weights(torch.cat([batch.mask, prompt, read], 1))
        return both[:, : batch.mask.shape[1]], both[:, batch.mask.shape[1] :]

    def decode(self, batch: Batch, encoded: Encoded, texts: int = 1) -> Tensor:
        assert texts == 1
        return encoded[0][:, self.prompt.length - 1 :]

    def _source(self, below: Tensor, mask: Tensor) -> DynamicCache:
        """The keys and values that the method `below` gave, as the blocks take them: with the padding in front."""
        rows = padded_in_front(below, mask)
        # A token's part: blocks, keys and values, heads, and their width.
        shape = len(self.family.blocks_of(self.body, "decoder")), 2, *self.family.row.key_heads_in(self.body.config)
        return DynamicCache(rows.view(*rows.shape[:2], *shape).permute(2, 3, 0, 4, 1, 5).unbind(0))

    def read(self, batch: Batch, more: int) -> "Context":
        """As every causal model's; the source is in a cache already, so that only the prompt is read."""
        mask, below = batch.mask, self.below(batch) if batch.below is None else batch.below
        self.begin_pass()
        source = self._source(below, mask)
        blocks = partial(CachedBlocks, self, more=more, cache=source, done=mask.shape[1])
        keys = source.layers[0].keys
        vectors = self.prompt(keys.new_zeros(len(mask), 1, self.width), mask).to(keys.dtype)
        upper = blocks(mask=torch.cat([mask, mask.new_ones(vectors.shape[:2])], 1))
        return Context(self, source, blocks(mask=mask, last=0), upper, vectors)


class CachedBlocks:
    """Blocks of a decoder-only stack with the keys and values of the positions that have passed through them.

    All sequences of the batch end together: their padding is in front. transformers makes masks and rotary angles once,
    for the longest sequence possible; each pass takes its part of them.
    """

    def __init__(
        self,
        model: PromptedModel,
        mask: Tensor,
        more: int,
        cache: DynamicCache,
        *,
        first: int = 0,
        last: int | None = None,
        done: int = 0,
    ) -> None:
        """Take blocks `first` to `last` (exclusive), which share a cache with any others of the stack.

        `mask` [B, L] is the padding mask of the first L positions, in any order; up to `more` can follow. The cache
        has `done` of them already.
        """
        self._family, self._body, self._cache = model.family, model.body, cache
        self._first, self._last, self._done = first, last, done
        self._mask = torch.cat([mask.sort(1).values, mask.new_ones(len(mask), more)], 1)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._calls: list[Call] = []

    def embedded(self, ids: Tensor, sees: Tensor | None = None) -> Tensor:
        """The stack's embedded input [B, N, D] for token ids [B, N], where `read` has them with the same `sees`."""
        ahead = torch.arange(ids.shape[1], device=ids.device) if sees is None else sees.sum(1) - 1
        return self._family.embedded(self._body, ids, self._positions[:, self._done + ahead])

    def read(self, states: Tensor, sees: Tensor | None = None) -> Tensor:
        """Pass hidden states [B, N, D] that follow what is cached through the blocks, and cache their keys and values.

        `sees` [N, N], if given, says which of them attend to which: each to itself and to those before it in its own
        text. Several texts thus follow side by side, or a single one (lower triangular), and the cache stays as it is.
        """
        start, number = self._done, states.shape[1]
        cache: Any = self._cache
        if sees is not None:
            cache = ReadOnly(cache)
        else:
            self._done += number
            if start and number > 1:  # of several, each would see all if there is no mask
                sees = torch.ones(number, number, dtype=torch.bool, device=states.device).tril()
        if self._first == self._last:
            return states
        if not self._calls:
            room = states.new_zeros(1, 1, 1).expand(*self._mask.shape, states.shape[-1])
            self._calls = self._family.arguments(self._body, room, self._mask, self._positions)
        calls = _of_each(self._calls, partial(_part, start=start, end=start + number, sees=sees))
        return self._family.through(self._body, states, calls, self._first, self._last, past_key_values=cache)

    def take(self, going: Tensor) -> None:
        """Keep only these rows of the batch; the cache, which others share, is left to the caller."""
        self._mask, self._positions = self._mask[going], self._positions[going]
        self._calls = _of_each(
            self._calls, lambda _, value: value if value is None or len(value) == 1 else value[going]
        )


class Context(Written):
    """A batch's source and prompt as a decoder-only model has read them, and the tokens that were added behind them.

    Blocks below the prompt cache the tokens, those above also the prompt's P vectors.
    """

    def __init__(
        self, model: PromptedModel, cache: DynamicCache, lower: CachedBlocks, upper: CachedBlocks, states: Tensor
    ) -> None:
        """Read hidden states [B, N, D] with the upper blocks, which share a cache with the lower ones."""
        self._family, self._body, self._cache, self._lower, self._upper = model.family, model.body, cache, lower, upper
        self.last = self._family.normed(self._body, upper.read(states)[:, -1])

    def add(self, tokens: Tensor) -> None:
        self.last = self.read(tokens[:, None])[:, -1]

    def read(self, ids: Tensor, sees: Tensor | None = None) -> Tensor:
        """The stack's output [B, N, D] for token ids [B, N] that follow; `sees` as in `CachedBlocks.read`."""
        states = self._lower.read(self._lower.embedded(ids, sees), sees)
        return self._family.normed(self._body, self._upper.read(states, sees))

    def take(self, going: Tensor) -> None:
        self.last = self.last[going]
        self._lower.take(going)
        self._upper.take(going)
        self._cache.batch_select_indices(going)


class ReadOnly:
    """A cache that blocks read, and add nothing to."""

    def __init__(self, cache: DynamicCache) -> None:
        self._layers = cache.layers

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, L, …] of a block with those in the cache before them."""
        cached = self._layers[layer_idx]
        return torch.cat([cached.keys, keys], -2), torch.cat([cached.values, values], -2)


def _of_each(calls: list[Call], part: Callable[[str, Any], Any]) -> list[Call]:
    """A part of each tensor in blocks' arguments, which may be in tuples; what several blocks share is made once."""
    made: dict[tuple[str, int], Any] = {}

    def of(name: str, value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(of(name, one) for one in value)
        if not isinstance(value, Tensor) and name != MASK:
            return value
        if (name, id(value)) not in made:
            made[name, id(value)] = part(name, value)
        return made[name, id(value)]

    return [{name: of(name, value) for name, value in call.items()} for call in calls]


def _part(name: str, value: Tensor | None, start: int, end: int, sees: Tensor | None) -> Tensor | None:
    """The part of an argument for positions `start` to `end`, which see all before them, or each other as in `sees`."""
    if sees is None:
        if value is None:
            return None
        return value[:, :, start:end, :end] if name == MASK else value[:, start:end]
    places = start + sees.sum(1) - 1
    if value is None:
        return torch.cat([sees.new_ones(len(sees), start), sees], 1)[None, None]
    if name != MASK:
        return value[:, places]
    rows, unseen = value[:, :, places], False if value.dtype == torch.bool else torch.finfo(value.dtype).min
    return torch.cat([rows[..., :start], rows[..., places].masked_fill(~sees, unseen)], -1)


def padded_in_front(rows: Tensor, mask: Tensor) -> Tensor:
    """Move the padding of rows [B, L, …], wherever the mask [B, L] has it, to the front."""
    return _at_places(rows, mask.argsort(dim=1, stable=True))


def following(rows: Tensor, starts: Tensor, number: int) -> Tensor:
    """`number` entries of each row [B, L, …] from its start [B] on; past a row's end its last one is repeated."""
    places = starts[:, None] + torch.arange(number, device=starts.device)
    return _at_places(rows, places.clamp(max=rows.shape[1] - 1))


def _at_places(rows: Tensor, places: Tensor) -> Tensor:
    """The entries of rows [B, …] or [B, …, D] at places [B, L]."""
    return rows.take_along_dim(places if rows.ndim == 2 else places[..., None], 1)
