"""Answers the user's own texts with one or several prompts, and gives the model's probability for each answer."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from fpt.backbones.family_table import FAMILY_TABLE, FamilyRow
from fpt.data.batches import batches_by_length
from fpt.data.encoded import IGNORED, Batch, Encoded, RaggedRows
from fpt.data.encoding import Tokens, decoded, encode
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
        from_text: reads an answer from an output.
        source_length: the length limit of a source in tokens; a longer one is cut as in training.
        beams: the width of the beam search; 1: greedy decoding.
        choice: the labels to choose from; None: answers are generated.
        row: the description of the model's family.
        templates: texts whose special tokens stay special everywhere; all others are plain text.
    """

    model: PromptedModel
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    from_text: Callable[[str], str]
    source_length: int
    max_new_tokens: int
    batch_size: int
    beams: int = 1
    choice: Choice | None = None
    row: FamilyRow = FAMILY_TABLE["t5"]
    templates: str = ""

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        """Predictions in the order of the texts."""
        return self.answer([raw_example(text) for text in texts])

    def answer(self, examples: Sequence[Example], with_bar: WithBar = lambda batches, _: batches) -> list[Prediction]:
        """Predictions in the examples' order; the examples' targets are not used."""
        data = self.encoded(examples)

        def answered(indices: list[int]) -> Iterator[Prediction]:
            outputs = self.outputs(data.batch(indices), [self.max_new_tokens] * len(indices))
            for index, output in zip(indices, outputs, strict=True):
                yield self.prediction(examples[index].source, _cut(data, index), *output)

        return shared_out(batches_by_length(data, self.batch_size), answered, with_bar, "predicting")

    def encoded(self, examples: Sequence[Example]) -> Encoded:
        """The examples' sources as token ids, cut as in training."""
        tokens = Tokens(self.tokenizer, self.row, self.templates)
        return encode(examples, tokens, source_length=self.source_length, target_length=2)

    def outputs(self, batch: Batch, limits: Sequence[int]) -> Iterator[tuple[str, list[int], list[float]]]:
        """Each source's output text, its token ids, padded with IGNORED, and their log-probabilities, padded with 0.

        A generated output has at most as many tokens as its source's limit.
        """
        batch = batch.to(self.device)
        if self.choice is not None:
            texts, ids, logs = self.choice.made(self.model, batch)
        else:
            ids, logs = self.model.answer(batch, max_new_tokens=max(limits), beams=self.beams)
            number = torch.arange(ids.shape[1], device=ids.device)
            beyond = number >= torch.tensor(limits, device=ids.device)[:, None]
            ids, logs = ids.masked_fill(beyond, IGNORED), logs.masked_fill(beyond, 0)
            texts = decoded(ids.tolist(), self.tokenizer)
        return zip(texts, ids.tolist(), logs.tolist(), strict=True)

    def prediction(self, text: str, cut: int, output: str, ids: list[int], logs: list[float]) -> Prediction:
        """The prediction for a text, made of an output, its token ids and their log-probabilities."""
        names = self.tokenizer.convert_ids_to_tokens([token for token in ids if token != IGNORED])
        probabilities = map(math.exp, logs[: len(names)])
        tokens = tuple(zip(names, probabilities, strict=True))
        return Prediction(text, cut, output, self.from_text(output), sum(logs), tokens)


@dataclass(frozen=True)
class MixedPredictor:
    """One model with several prompts; each example names the prompt that answers it, and a batch may mix them.

    `predictors` has one predictor for each prompt, by its name; all have the same model, batch size and beams.
    """

    predictors: dict[str, Predictor]

    def answer(self, examples: Sequence[Example], with_bar: WithBar = lambda batches, _: batches) -> list[Prediction]:
        """Predictions in the examples' order; an example's `group` names the prompt that answers it."""
        one, names = next(iter(self.predictors.values())), list(self.predictors)
        prompts = [predictor.model.prompt for predictor in self.predictors.values()]
        data = self._encoded(examples)

        def answered(indices: list[int]) -> Iterator[Prediction]:
            asked = [examples[index].group for index in indices]
            own = [self.predictors[name] for name in asked]
            model = one.model.with_prompt(MixedPrompt(prompts, list(map(names.index, asked))))
            together = replace(own[0], model=model)  # the predictors of one batch answer in the same way
            outputs = together.outputs(data.batch(indices), [predictor.max_new_tokens for predictor in own])
            for index, predictor, output in zip(indices, own, outputs, strict=True):
                found = predictor.prediction(examples[index].source, _cut(data, index), *output)
                yield replace(found, prompt=examples[index].group)

        ways, batches = [_way(self.predictors[example.group]) for example in examples], []
        for way in sorted(set(ways)):
            some = [index for index in range(len(examples)) if ways[index] == way]
            by_length = batches_by_length(data.taken(some), one.batch_size)
            batches += [[some[index] for index in indices] for indices in by_length]
        return shared_out(batches, answered, with_bar, "predicting")

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


def _way(predictor: Predictor) -> tuple[Sequence[str], Sequence[int], int]:
    """What all predictors of a batch must share: the labels to choose from and, in a beam search, the length limit.

    A beam search's result depends on the limit; a greedy output can be cut to its own limit afterwards.
    """
    choice, limit = predictor.choice, predictor.max_new_tokens if predictor.beams > 1 else 0
    if choice is None:
        return (), (), limit
    return tuple(choice.words), (*choice.ids.flatten().tolist(), *choice.lengths.tolist()), limit


def _cut(data: Encoded, index: int) -> int:
    """How many tokens of a source were cut off."""
    assert data.whole is not None
    return int(data.whole[index, 0]) - data.lengths[index][0]
