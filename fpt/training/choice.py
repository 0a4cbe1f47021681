"""Answers by verbalizer: of a task's label words those that the model finds likeliest, in one forward pass.

As most of the literature scores. Nothing is generated, and no answer is outside the labels.

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
    """What there is to choose from.

    Attributes:
        words: the label words.
        ids: their targets' token ids [L, T], each closed with </s>, IGNORED behind it.
        lengths: what each label's log-probability is divided by, [L].
    """

    words: Sequence[str]
    ids: Tensor
    lengths: Tensor

    def made(self, model: PromptedModel, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        """Each source's likeliest label word, its target's ids [B, T], and the log-probability of each of these.

        A label's probability is its whole target's, the end included, so that undivided the likeliest has the least
        training loss of all. Of equals the first is taken.
        """
        ids = self.ids.to(batch.source.device)
        logs = model.weigh(batch, ids)
        likeliest = (logs.sum(2) / self.lengths.to(logs.device)).argmax(1)
        words = [self.words[index] for index in likeliest.tolist()]
        return words, ids[likeliest], logs[torch.arange(len(words)), likeliest]


def choice_of(words: Sequence[str], rows: list[list[int]], answer: str = "score") -> Choice:
    """The choice between label words, given their targets' token ids, as `task.answer` says."""
    lengths = {"score": [1] * len(rows), "score_mean": list(map(len, rows)), "score_norm": list(map(len, words))}
    return Choice(words, padded(rows, IGNORED, max(map(len, rows))), torch.tensor(lengths[answer]))
