"""Answers the user's own texts with one or several prompts, and gives the model's probability for each answer."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from fpt.data.batches import batches_by_length
from fpt.data.encoded import IGNORED, Batch, Encoded, RaggedRows
from fpt.data.encoding import encode
from fpt.data.tokens import Tokens, decoded
from fpt.prompts.modules import MixedPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.tasks.predict_input import raw_example
from fpt.tasks.task import Example
from fpt.training.choice import Choice
from fpt.training.evaluation import shared_out


@dataclass(frozen=True)
class Prediction:
    """The model's answer to one text.

    Attributes:
        input: the model's input text, before it was cut.
        cut: how many of its tokens were cut off.
        output: the generated text, or the likeliest label.
        answer: the answer that the task reads from the output.
        score: the natural logarithm of the output's probability, including its end token.
        tokens: the output's tokens, each with its probability.
        prompt: the name of the prompt that answered, where there are several.
    """

    input: str
    cut: int
    output: str
    answer: str
    score: float
    tokens: tuple[tuple[str, float], ...]
    prompt: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The prediction as values for JSON; `tokens` is a list of objects, and `prompt` is left out if it is None."""
        tokens = [{"token": token, "probability": probability} for token, probability in self.tokens]
        values = {**vars(self), "tokens": tokens}
        return values if self.prompt is not None else {name: values[name] for name in values if name != "prompt"}


@dataclass(frozen=True)
class Predictor:
    """A model with its prompt, ready to answer.

    Attributes:
        tokens: makes token ids of texts.
        from_text: reads an answer from an output.
        source_length: the length limit of a source in tokens; a longer one is cut as in training.
        beams: the width of the beam search; 1: greedy decoding.
        choice: the labels to choose from; None: answers are generated.
    """

    model: PromptedModel
    tokens: Tokens
    device: torch.device
    from_text: Callable[[str], str]
    source_length: int
    max_new_tokens: int
    batch_size: int
    beams: int = 1
    choice: Choice | None = None

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        """Predictions in the order of the texts."""
        return self.answer([raw_example(text) for text in texts])

    def answer(self, examples: Sequence[Example], with_bar: WithBar = lambda batches, _: batches) -> list[Prediction]:
        """Predictions in the examples' order; the examples' targets are not used."""
        return MixedPredictor({"": self}).answer([example._replace(group="") for example in examples], with_bar)

    def encoded(self, examples: Sequence[Example]) -> Encoded:
        """The examples' sources as token ids, cut as in training."""
        return encode(examples, self.tokens, source_length=self.source_length, target_length=2)

    def outputs(self, batch: Batch, limits: Sequence[int]) -> Iterator[tuple[str, list[int], list[float]]]:
        """Each source's output text, its token ids, padded with IGNORED, and their log-probabilities, padded with 0.

        A generated output has at most as many tokens as its source's limit.
        """
        batch = batch.to(self.device)
        if self.model.prompt.is_behind:
            batch = self.model.read_once(batch)
        if self.choice is not None:
            texts, ids, log_probs = self.choice.choose(self.model, batch)
        else:
            ids, log_probs = self.model.answer(batch, max_new_tokens=max(limits), beams=self.beams)
            number = torch.arange(ids.shape[1], device=ids.device)
            beyond = number >= torch.tensor(limits, device=ids.device)[:, None]
            ids, log_probs = ids.masked_fill(beyond, IGNORED), log_probs.masked_fill(beyond, 0)
            texts = decoded(ids.tolist(), self.tokens.tokenizer)
        return zip(texts, ids.tolist(), log_probs.tolist(), strict=True)

    def prediction(self, example: Example, cut: int, output: str, ids: list[int], log_probs: list[float]) -> Prediction:
        """The prediction for an example, made of an output, its token ids and their log-probabilities."""
        names = self.tokens.tokenizer.convert_ids_to_tokens([token for token in ids if token != IGNORED])
        tokens = tuple((name, math.exp(log)) for name, log in zip(names, log_probs, strict=False))
        answer = self.from_text(output)
        return Prediction(example.source, cut, output, answer, sum(log_probs), tokens, example.group or None)


@dataclass(frozen=True)
class MixedPredictor:
    """One model with several prompts; each example names the prompt that answers it, and a batch may mix them.

    `predictors` has one predictor for each prompt, by its name; all have the same model, batch size and beams.
    """

    predictors: dict[str, Predictor]

    def answer(self, examples: Sequence[Example], with_bar: WithBar = lambda batches, _: batches) -> list[Prediction]:
        """Predictions in the examples' order; an example's `group` names the prompt that answers it."""
        prompts = {name: predictor.model.prompt for name, predictor in self.predictors.items()}
        owners = [self.predictors[example.group] for example in examples]
        data = self._encoded(examples)

        def answered(indices: list[int]) -> Iterator[Prediction]:
            own, names = [owners[index] for index in indices], [examples[index].group for index in indices]
            mixed = MixedPrompt([*prompts.values()], [*map([*prompts].index, names)])
            together = own[0] if len(prompts) == 1 else replace(own[0], model=own[0].model.with_prompt(mixed))
            outputs = together.outputs(data.batch(indices), [predictor.max_new_tokens for predictor in own])
            for index, predictor, output in zip(indices, own, outputs, strict=True):
                yield predictor.prediction(examples[index], _num_cut(data, index), *output)

        return shared_out(_batches(data, owners), answered, with_bar, "predicting")

    def _encoded(self, examples: Sequence[Example]) -> Encoded:
        """The examples as token ids; each is cut by its prompt's predictor, as limits may differ."""
        found = dict[int, tuple[list[int], list[int], list[int]]]()
        for name, predictor in self.predictors.items():
            own = [index for index, example in enumerate(examples) if example.group == name]
            data = predictor.encoded([examples[index] for index in own])
            assert data.whole is not None
            found |= dict(zip(own, zip(data.sources, data.targets, data.whole.tolist(), strict=True), strict=True))
        sources, targets, whole = zip(*(found[index] for index in range(len(examples))), strict=True)
        return Encoded(RaggedRows.of(sources), RaggedRows.of(targets), np.array(whole), pad=data.pad, blank=data.blank)


def _batches(data: Encoded, owners: Sequence[Predictor]) -> list[list[int]]:
    """Batches of examples whose predictors choose among the same labels or generate alike, longest first.

    A beam search depends on its length limit; greedy outputs can be cut to their own limits afterwards. Behind a source
    there is no room for padding, so prompts there have one length.
    """
    alike: dict[str, list[int]] = {}
    for index, owner in enumerate(owners):
        choice, limit = owner.choice, owner.max_new_tokens if owner.beams > 1 else 0
        labels = choice and (choice.words, choice.ids.tolist(), choice.lengths.tolist())
        length = owner.model.prompt.length if owner.model.prompt.is_behind else 0
        alike.setdefault(repr((labels, limit, length)), []).append(index)
    return [
        [some[index] for index in indices]
        for some in alike.values()
        for indices in batches_by_length(data.taken(some), owners[0].batch_size)
    ]


def _num_cut(data: Encoded, index: int) -> int:
    """How many tokens of a source were cut off."""
    assert data.whole is not None
    return int(data.whole[index, 0]) - data.lengths[index][0]
