"""Answers the user's own texts with one or several prompts, and gives the model's probability for each answer."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fpt.data.batches import batches_by_length
from fpt.data.encoded import IGNORED, Batch, Encoded, RaggedRows
from fpt.data.encoding import encode
from fpt.data.tokens import Tokens, decoded
from fpt.prompts.modules import MixedPrompt, Prompt
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.tasks.predict_input import raw_example
from fpt.tasks.task import Example
from fpt.training.evaluation import Choice, shared_out


@dataclass(frozen=True)
class Prediction:
    """The model's answer to one text."""

    input: str  # the model's input text, before it was cut
    cut: int  # how many of its tokens were cut off
    output: str  # the generated text, or the likeliest label
    answer: str  # the answer that the task reads from the output
    score: float  # the natural logarithm of the output's probability, including its end token
    tokens: tuple[tuple[str, float], ...]  # the output's tokens, each with its probability
    prompt: str | None = None  # the name of the prompt that answered, where there are several

    def to_json(self) -> dict[str, Any]:
        """The prediction as values for JSON; `tokens` is a list of objects, and `prompt` is left out if it is None."""
        tokens = [{"token": token, "probability": probability} for token, probability in self.tokens]
        values = {**vars(self), "tokens": tokens}
        return values if self.prompt is not None else {name: values[name] for name in values if name != "prompt"}


@dataclass(frozen=True)
class TaskPrompt:
    """A prompt, and how texts of its task are read and answered."""

    prompt: Prompt
    tokens: Tokens  # makes token ids of texts
    from_text: Callable[[str], str]  # reads an answer from an output
    source_length: int  # the length limit of a source in tokens; a longer one is cut as in training
    max_new_tokens: int  # the length limit of an output
    choice: Choice | None = None  # the labels to choose from; None: answers are generated

    def prediction(self, example: Example, cut: int, output: str, ids: list[int], log_probs: list[float]) -> Prediction:
        """The prediction for an example, made of an output, its token ids and their log-probabilities."""
        names = self.tokens.tokenizer.convert_ids_to_tokens([token for token in ids if token != IGNORED])
        tokens = tuple((name, math.exp(log)) for name, log in zip(names, log_probs, strict=False))
        answer = self.from_text(output)
        return Prediction(example.source, cut, output, answer, sum(log_probs), tokens, example.group or None)


@dataclass(frozen=True)
class Predictor:
    """A model with one or several prompts, ready to answer; each example names its prompt, and a batch may mix them."""

    model: PromptedModel  # with the first prompt
    prompts: dict[str, TaskPrompt]  # by name; a single one may be called ""
    device: torch.device
    batch_size: int  # the number of texts answered at once

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        """Predictions in the order of the texts, by the prompt called ""."""
        return self.answer([raw_example(text) for text in texts])

    def answer(self, examples: Sequence[Example], with_bar: WithBar = lambda batches, _: batches) -> list[Prediction]:
        """Predictions in the examples' order, each by the prompt that its `group` names; targets are not used."""
        owners, data = [self.prompts[example.group] for example in examples], self._encoded(examples)
        assert data.whole is not None
        cut = (data.whole[:, 0] - np.array(data.sources.lengths)).tolist()

        def answered(indices: list[int]) -> Iterator[Prediction]:
            own = [owners[index] for index in indices]
            outputs = self._outputs(data.batch(indices), own)
            for index, owner, output in zip(indices, own, outputs, strict=True):
                yield owner.prediction(examples[index], cut[index], *output)

        return shared_out(self._batches(data, owners), answered, with_bar, "predicting")

    def _encoded(self, examples: Sequence[Example]) -> Encoded:
        """The examples as token ids; each is cut by its own prompt's limit."""
        rows = dict[str, Iterator[tuple[list[int], list[int], list[int]]]]()
        for name, one in self.prompts.items():
            own = [example for example in examples if example.group == name]
            data = encode(own, one.tokens, source_length=one.source_length, target_length=2)
            assert data.whole is not None
            rows[name] = zip(data.sources, data.targets, data.whole.tolist(), strict=True)
        sources, targets, whole = zip(*(next(rows[example.group]) for example in examples), strict=True)
        return Encoded(RaggedRows.of(sources), RaggedRows.of(targets), np.array(whole), pad=data.pad, blank=data.blank)

    def _batches(self, data: Encoded, owners: Sequence[TaskPrompt]) -> list[list[int]]:
        """Batches of examples whose prompts choose among the same labels or all generate, longest first.

        Behind a source there is no room for padding, so prompts there have one length.
        """
        alike: dict[str, list[int]] = {}
        for index, owner in enumerate(owners):
            choice = owner.choice
            labels = choice and (choice.words, choice.ids.tolist(), choice.lengths.tolist())
            length = owner.prompt.length if owner.prompt.is_behind else 0
            alike.setdefault(repr((labels, length)), []).append(index)
        return [
            [some[index] for index in indices]
            for some in alike.values()
            for indices in batches_by_length(data.taken(some), self.batch_size)
        ]

    def _outputs(self, batch: Batch, own: Sequence[TaskPrompt]) -> Iterator[tuple[str, list[int], list[float]]]:
        """Each source's output text, its token ids, padded with IGNORED, and their log-probabilities, padded with 0.

        A generated output has at most as many tokens as its own prompt's limit.
        """
        batch, choice, model = batch.to(self.device), own[0].choice, self.model
        if len(self.prompts) > 1:
            model = model.with_prompt(MixedPrompt([one.prompt for one in own]))
        if model.prompt.is_behind:
            batch = model.read_once(batch)
        if choice is not None:
            texts, ids, log_probs = choice.choose(model, batch)
        else:
            limits = torch.tensor([one.max_new_tokens for one in own], device=self.device)
            ids, log_probs = model.answer(batch, max_new_tokens=int(limits.max()))
            beyond = torch.arange(ids.shape[1], device=ids.device) >= limits[:, None]
            ids, log_probs = ids.masked_fill(beyond, IGNORED), log_probs.masked_fill(beyond, 0)
            texts = decoded(ids.tolist(), own[0].tokens.tokenizer)
        return zip(texts, ids.tolist(), log_probs.tolist(), strict=True)
