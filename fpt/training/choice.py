"""Answers by verbalizer, as in most of the literature: the label word that the model gives the highest probability.

Nothing is generated, and no answer is outside the labels.

Letters: B batch, L labels, T target.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpt.data.encoded import IGNORED, Batch, padded
from fpt.prompts.prompted import PromptedModel


@dataclass(frozen=True, eq=False)
class Choice:
    """The label words that a model chooses between.

    Attributes:
        words: the label words.
        ids: their targets' token ids [L, T], padded with IGNORED.
        lengths: the numbers [L] that the labels' log-probabilities are divided by.
    """

    words: Sequence[str]
    ids: Tensor
    lengths: Tensor

    def choose(self, model: PromptedModel, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        """Each source's likeliest label word, its target's ids [B, T], and the log-probability of each id.

        A label's probability is that of its whole target, with the end token: undivided, the likeliest label has the
        smallest training loss. Of equally likely labels the first is taken.
        """
        ids = self.ids.to(batch.source.device)
        log_probs = model.target_log_probs(batch, ids)
        likeliest = (log_probs.sum(2) / self.lengths.to(log_probs.device)).argmax(1)
        words = [self.words[index] for index in likeliest.tolist()]
        return words, ids[likeliest], log_probs[torch.arange(len(words)), likeliest]


def choice_of(words: Sequence[str], rows: list[list[int]], answer: str = "score") -> Choice:
    """The choice between label words, given their token ids; `task.answer` says how their scores are normalised."""
    lengths = {"score": [1] * len(rows), "score_mean": list(map(len, rows)), "score_norm": list(map(len, words))}
    return Choice(words, padded(rows, IGNORED, max(map(len, rows))), torch.tensor(lengths[answer]))
