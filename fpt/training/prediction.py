"""Answers to texts of the user's own: made by length, given in order, each with the model's confidence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fpt.backbones.rows import ROWS, Row
from fpt.data.batches import batches_by_length
from fpt.data.encoded import IGNORED, Batch
from fpt.data.encoding import encode
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.tasks.predict_input import raw_example
from fpt.tasks.task import Example
from fpt.training.choice import Choice
from fpt.training.evaluation import SENTINEL


@dataclass(frozen=True)
class Prediction:
    """What the model says to one text.

    Attributes:
        input: the text as the model saw it, before any cut.
        cut: how many of its tokens were too many.
        output: what was generated, decoded, or the likeliest label.
        answer: what the task reads from it.
        score: natural logarithm of the output's probability, its end included.
        tokens: each of its tokens with its probability.
    """

    input: str
    cut: int
    output: str
    answer: str
    score: float
    tokens: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; `tokens` is a list of objects."""
        tokens = [{"token": token, "probability": probability} for token, probability in self.tokens]
        return {**vars(self), "tokens": tokens}


@dataclass(frozen=True)
class Predictor:
    """A model with its prompt, ready to answer.

    Attributes:
        from_text: reads an answer from an output.
        source_length: longest source in tokens; what is more is cut as in training.
        beams: of beam search; 1: greedy.
        choice: the labels of which the likeliest is the answer; None: answers are generated.
        row: of the model's family.
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
    row: Row = ROWS["t5"]

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        """Predictions in the order of the texts."""
        return self.answer([raw_example(text) for text in texts])

    def answer(self, examples: Sequence[Example], with_bar: WithBar = lambda batches, _: batches) -> list[Prediction]:
        """Predictions in the examples' order; only their sources and what can be spared of them count."""
        data = encode(examples, self.tokenizer, source_length=self.source_length, target_length=2, row=self.row)
        assert data.whole is not None
        of_index: dict[int, Prediction] = {}
        for indices in with_bar(batches_by_length(data, self.batch_size), "predicting"):
            batch = data.batch(indices).to(self.device)
            outputs, ids, logs = self._answers(batch)
            for index, *answer in zip(indices, outputs, ids.tolist(), logs.tolist(), strict=True):
                cut = int(data.whole[index, 0]) - data.lengths[index][0]
                of_index[index] = self._prediction(examples[index].source, cut, *answer)
        return [of_index[index] for index in range(len(examples))]

    def _answers(self, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        """Outputs, their ids [B, T], IGNORED behind each end, and the log-probability of each."""
        if self.choice is not None:
            return self.choice.made(self.model, batch)
        ids, logs = self.model.answer(batch, max_new_tokens=self.max_new_tokens, beams=self.beams)
        kept = ids.masked_fill(ids == IGNORED, int(self.tokenizer.pad_token_id or 0))
        texts = self.tokenizer.batch_decode(kept, skip_special_tokens=True)
        return [SENTINEL.sub("", text).strip() for text in texts], ids, logs

    def _prediction(self, text: str, cut: int, output: str, ids: list[int], logs: list[float]) -> Prediction:
        names = self.tokenizer.convert_ids_to_tokens([token for token in ids if token != IGNORED])
        probabilities = map(math.exp, logs[: len(names)])
        tokens = tuple(zip(names, probabilities, strict=True))
        return Prediction(text, cut, output, self.from_text(output), sum(logs), tokens)
