"""How models read: what of an example goes through the stack that a prompt enters, and how an answer comes out.

Models are Any, as in `Family`.

Letters: B batch, S source, T target, P prompt, L positions, D model, N texts.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from fpt.backbones.family import Family
from fpt.data.encoded import IGNORED, Batch
from fpt.devices import distributed

if TYPE_CHECKING:
    from fpt.prompts.prompted import PromptedModel

Read = tuple[Tensor, Tensor] | None
LEAVING = 0.75  # a batch drops the examples that have ended when no more than this share has not: dropping copies


class Seq2Seq:
    """An encoder reads the source, a decoder says the target. The other ways to read answer the same questions.

    Attributes:
        reads_target: whether the target goes through the stack that the prompt enters, too.
    """

    reads_target = False

    def __init__(self, family: Family) -> None:
        """Of models of this family."""
        self._family = family

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Ids [B, L] that go through the stack which a prompt enters, and their mask: all that is there in training."""
        return batch.source, batch.mask

    def answering(self, model: "PromptedModel", batch: Batch, states: Tensor, mask: Tensor, texts: int) -> Tensor:
        """States [B, T, D] that the labels are read from, given that stack's output [B, P+L, D] and its mask.

        The labels are one target, or several `texts` of one length in a row.
        """
        inputs = batch.labels.reshape(len(states), texts, -1).roll(1, 2)
        inputs[:, :, 0] = self._family.start_token(model.body.config)
        inputs = inputs.masked_fill(inputs == IGNORED, 0).flatten(1)
        return self._family.decoded(model.body, inputs, states, mask, texts)

    def generated(
        self, model: "PromptedModel", batch: Batch, read: Read, *, max_new_tokens: int, beams: int, in_step: bool
    ) -> Tensor:
        """Output ids [B, ≤ max_new_tokens + 1], the start token first.

        `read` is what `encode` makes of the batch, unless the target is read too.
        """
        assert read is not None
        body, family, (states, mask) = model.body, self._family, read
        # transformers would size the cache by the encoder's depth, which fails for a deeper decoder.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if beams == 1 and not in_step:
            return self._greedy(model, states, mask, max_new_tokens, cache)
        settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=beams,
            use_cache=True,
            pad_token_id=family.pad_token(body.config),
            eos_token_id=family.end_tokens(body.config),
            decoder_start_token_id=family.start_token(body.config),
        )
        return body.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            generation_config=settings,
            synced_gpus=in_step,
            past_key_values=cache,
        )

    def _greedy(
        self, model: "PromptedModel", states: Tensor, mask: Tensor, max_new_tokens: int, cache: EncoderDecoderCache
    ) -> Tensor:
        """Every example's likeliest next token, until its end; those that have ended leave the batch now and then."""
        outputs = _Outputs(model, mask, max_new_tokens, self._family.start_token(model.body.config))
        for _ in range(max_new_tokens):
            inputs = self._family.decoded_next(model.body, outputs.last[:, None], states, mask, cache)
            outputs.add(model.logits(inputs[:, -1]).argmax(-1))
            if outputs.are_ended:
                break
            if (going := outputs.leave()) is not None:
                states, mask = states[going], mask[going]
                cache.batch_select_indices(going)
        return outputs.ids


class Causal:
    """One stack reads the source, and goes on with the target."""

    reads_target = True

    def __init__(self, family: Family) -> None:
        """Of models of this family."""
        self._family = family

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Source and target one after the other, [B, S+T-1]: nothing is read from the last token."""
        given = batch.labels[:, :-1]
        lengths, places = batch.mask.sum(1, keepdim=True), torch.arange(given.shape[1], device=given.device)
        ids = torch.cat([batch.source, torch.zeros_like(given)], 1)
        ids = ids.scatter(1, lengths + places, given.masked_fill(given == IGNORED, 0))
        ends = lengths + ((batch.labels != IGNORED).sum(1, keepdim=True) - 1).clamp(min=0)
        return ids, (torch.arange(ids.shape[1], device=ids.device) < ends).long()

    def answering(self, model: "PromptedModel", batch: Batch, states: Tensor, mask: Tensor, texts: int) -> Tensor:
        """Those before the target's tokens; of one text, as each goes through the stack."""
        assert texts == 1
        return _from(states, model.prompt.length + batch.mask.sum(1) - 1, batch.labels.shape[1])

    def generated(
        self, model: "PromptedModel", batch: Batch, _: Read, *, max_new_tokens: int, beams: int, in_step: bool
    ) -> Tensor:
        """Greedy, with one cache, of which the blocks below a prompt hold the tokens, and those above it P more.

        Rows are padded in front, so that all go on at the same place. Masks and angles are the library's for all
        positions there can be, of which each step takes its own.
        """
        assert beams == 1
        family, body, cache, position = self._family, model.body, DynamicCache(), model.prompt.position
        outputs = _Outputs(model, batch.mask, max_new_tokens, family.pad_token(body.config))
        model.begin_pass()
        ids, lower = _Line.of(model, batch.source, batch.mask, max_new_tokens)
        states = lower.through(family.embedded(body, ids, lower.positions(ids.shape[1])), 0, position, cache)
        states, mask = model.prompt.prepend(_in_front(states, batch.mask), batch.mask, batch.mask)
        states, upper = _Line.of(model, states, mask, max_new_tokens)
        states = upper.through(states, position, None, cache)
        while True:
            outputs.add(model.logits(family.normed(body, states[:, -1])).argmax(-1))
            is_over = not distributed.any_process(not outputs.are_ended) if in_step else outputs.are_ended
            if is_over or outputs.are_full:
                return outputs.ids
            if not in_step and (going := outputs.leave()) is not None:
                lower.take(going)
                upper.take(going)
                cache.batch_select_indices(going)
            model.begin_pass()
            states = family.embedded(body, outputs.last[:, None], lower.positions(1))
            states = lower.through(states, 0, position, cache)
            states = upper.through(states, position, None, cache)


class Mask:
    """One stack reads a source in which a mask stands for the answer."""

    reads_target = False

    def __init__(self, family: Family) -> None:
        """Of models of this family."""
        self._family = family

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The source, with its mask token."""
        return batch.source, batch.mask

    def generated(
        self, model: "PromptedModel", batch: Batch, read: Read, *, max_new_tokens: int, beams: int, in_step: bool
    ) -> Tensor:
        """Nothing: a word at the mask is chosen (`PromptedModel.weigh`)."""
        raise AssertionError("a masked model chooses")

    def answering(self, model: "PromptedModel", batch: Batch, states: Tensor, mask: Tensor, texts: int) -> Tensor:
        """That of the mask, for a word each."""
        places = batch.mask.sum(1) - 1 if batch.places is None else batch.places
        return _from(states, model.prompt.length + places, 1).expand(-1, batch.labels.shape[1], -1)


READERS: dict[str, type[Seq2Seq] | type[Causal] | type[Mask]] = {"seq2seq": Seq2Seq, "causal": Causal, "mask": Mask}


def _from(states: Tensor, starts: Tensor, number: int) -> Tensor:
    """So many states of each row [B, number, D], from its start [B] on; behind a row's end the last again."""
    places = starts[:, None] + torch.arange(number, device=starts.device)
    return _taken(states, places.clamp(max=states.shape[1] - 1))


class _Outputs:
    """Outputs of a batch as they grow; those that have ended leave the batch now and then."""

    def __init__(self, model: "PromptedModel", mask: Tensor, most: int, start: int) -> None:
        """Of up to `most` tokens behind the start token."""
        family, config = model.family, model.body.config
        self._pad, ends = family.pad_token(config), family.end_tokens(config)
        self._ends = torch.tensor(ends, device=mask.device)
        self._ids = mask.new_full((len(mask), most + 1), self._pad, dtype=torch.long)
        self._ids[:, 0] = start
        self._rows = torch.arange(len(mask), device=mask.device)
        self._ended = torch.zeros_like(mask[:, 0], dtype=torch.bool)
        self._place, self._left = 0, len(mask)

    @property
    def ids(self) -> Tensor:
        """All outputs so far [B, ≤ most + 1]."""
        return self._ids[:, : self._place + 1]

    @property
    def last(self) -> Tensor:
        """The last token of each that is in the batch."""
        return self._ids[self._rows, self._place]

    @property
    def are_ended(self) -> bool:
        """Whether all have ended."""
        return not self._left

    @property
    def are_full(self) -> bool:
        """Whether there is no room for another token."""
        return self._place + 1 == self._ids.shape[1]

    def add(self, tokens: Tensor) -> None:
        """The next token of each that is in the batch."""
        self._place += 1
        self._ids[self._rows, self._place] = tokens.masked_fill(self._ended, self._pad)
        self._ended = self._ended | torch.isin(tokens, self._ends)
        self._left = len(self._ended) - int(self._ended.sum())

    def leave(self) -> Tensor | None:
        """Those of the batch that stay in it; None: all do."""
        if self._left > LEAVING * len(self._ended):
            return None
        going = (~self._ended).nonzero()[:, 0]
        self._rows, self._ended = self._rows[going], self._ended[going]
        return going


class _Line:
    """Positions going through some blocks as they become more, padded in front, so that all rows end at one place."""

    def __init__(self, model: "PromptedModel", mask: Tensor) -> None:
        """Of all positions that there can be, [B, M]."""
        self._model, self._mask, self._done = model, mask, 0
        self._positions = (mask.cumsum(1) - 1).clamp(min=0)
        self._calls: list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, model: "PromptedModel", rows: Tensor, mask: Tensor, more: int) -> "tuple[Tensor, _Line]":
        """The rows [B, L, …], which are padded at their ends, as a line has them; with room for `more` positions."""
        length = mask.shape[1]
        places = torch.arange(length, device=mask.device) - (length - mask.sum(1, keepdim=True))
        mask = torch.cat([(places >= 0).long(), mask.new_ones(len(mask), more)], 1)
        return _taken(rows, places.clamp(min=0)), cls(model, mask)

    def positions(self, number: int) -> Tensor:
        """Those of the next ones, [B, number]."""
        return self._positions[:, self._done : self._done + number]

    def through(self, states: Tensor, first: int, last: int | None, cache: DynamicCache) -> Tensor:
        """The next positions' states [B, number, D] after a part of the blocks."""
        family, body = self._model.family, self._model.body
        if self._calls is None:
            room = states.new_zeros(1, 1, 1).expand(*self._mask.shape, states.shape[-1])
            self._calls = family.arguments(body, room, self._mask, self._positions)
        start, self._done = self._done, self._done + states.shape[1]
        calls = [{name: _rows(value, start, self._done) for name, value in call.items()} for call in self._calls]
        return family.through(body, states, calls, first, last, past_key_values=cache)

    def take(self, going: Tensor) -> None:
        """Keep these rows alone."""
        self._mask, self._positions = self._mask[going], self._positions[going]
        assert self._calls is not None
        self._calls = [{name: _picked(value, going) for name, value in call.items()} for call in self._calls]


def _rows(value: Any, start: int, end: int) -> Any:
    """Of an argument for all positions what belongs to some, which look back on all before them."""
    if isinstance(value, tuple):
        return tuple(_rows(part, start, end) for part in value)
    if not isinstance(value, Tensor):
        return value
    return value[:, :, start:end, :end] if value.ndim == 4 else value[:, start:end]


def _picked(value: Any, going: Tensor) -> Any:
    """Of an argument for all rows those of some; one for any row is for these, too."""
    if isinstance(value, tuple):
        return tuple(_picked(part, going) for part in value)
    return value[going] if isinstance(value, Tensor) and len(value) > 1 else value


def _in_front(states: Tensor, mask: Tensor) -> Tensor:
    """States [B, L, D] that are padded in front, padded at their ends as the mask [B, L] is."""
    length = mask.shape[1]
    places = torch.arange(length, device=mask.device) + (length - mask.sum(1, keepdim=True))
    return _taken(states, places.clamp(max=length - 1))


def _taken(rows: Tensor, places: Tensor) -> Tensor:
    """The places [B, L] of rows [B, …, …]."""
    if rows.ndim == 2:
        return rows.gather(1, places)
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
