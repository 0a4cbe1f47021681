"""Answers by verbalizer: of a task's label words those that the model finds likeliest, in one forward pass.

As Liu et al. 2022 score, and most of the literature. Nothing is generated, and no answer is outside the labels.

Letters: B batch, L labels, T target.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fpt.data.encoded import IGNORED, Batch, padded
from fpt.data.encoding import Tokens
from fpt.errors import UserError
from fpt.prompts.prompted import PromptedModel
from fpt.tasks.task import ANSWER


@dataclass(frozen=True, eq=False)
class Choice:
    """What there is to choose from.

    Attributes:
        words: the label words.
        ids: their targets' token ids [L, T], each closed with </s>, IGNORED behind it.
    """

    words: Sequence[str]
    ids: Tensor

    def made(self, model: PromptedModel, batch: Batch) -> tuple[list[str], Tensor, Tensor]:
        """Each source's likeliest label word, its target's ids [B, T], and the log-probability of each of these.

        A label's probability is its whole target's, the end included: of all labels it has the least training loss. Of
        equals the first is taken.
        """
        ids = self.ids.to(batch.source.device)
        logs = model.weigh(batch, ids)
        likeliest = logs.sum(2).argmax(1)
        words = [self.words[index] for index in likeliest.tolist()]
        return words, ids[likeliest], logs[torch.arange(len(words)), likeliest]


def choice_of(words: Sequence[str], tokens: Tokens) -> Choice:
    """The choice between label words.

    Raises:
        UserError: to the tokenizer two of them are the same, or in a masked model one is no single token.
    """
    rows = tokens.of_targets([ANSWER.format(answer=word) for word in words])
    for index, row in enumerate(rows):
        if tokens.row.reads == "mask" and len(row) != 1:
            raise UserError(
                f"task.labels.{words[index]}: a masked model says one token, and {words[index]!r} is {len(row)} to its"
                f" tokenizer; give a word that is one, as in task.labels.{words[index]}=…"
            )
        if (first := rows.index(row)) < index:
            raise UserError(
                f"task.answer=score: the label words {words[first]!r} and {words[index]!r} are the same tokens to this"
                " model's tokenizer, so that neither can be the likelier; give one of them another word"
            )
    return Choice(words, padded(rows, IGNORED, max(map(len, rows))))
