"""Evaluation: the model answers each example once, and the answers are scored in the data's order."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import Batch, Encoded
from fpt.data.encoding import decoded
from fpt.devices import distributed, interrupts
from fpt.devices.engine import Engine
from fpt.errors import UserError
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.tasks.task import Example, Task
from fpt.training.choice import Choice

Output = TypeVar("Output")


@dataclass(frozen=True)
class Answers:
    """The decoded outputs, and the answers read from them, in the data's order."""

    outputs: list[str]
    read: list[str]


@dataclass(frozen=True)
class Evaluation:
    """Metrics (0 to 100), the main one of which is `score`, and the answers that were scored."""

    metrics: dict[str, float]
    score: float
    answers: Answers


@dataclass(frozen=True)
class Evaluator:
    """Has a model with its prompt answer a task's examples, and scores the answers.

    Attributes:
        task: the task.
        valid: its validation examples as tokens.
        tokenizer: decodes outputs.
        engine: holds the model.
        with_bar: shows progress.
        batch_size: examples answered at once.
        max_new_tokens: the longest output.
        some: indices of the validation examples that training looks at; None: all.
        choice: the labels to choose from; None: answers are generated.
    """

    task: Task
    valid: Encoded
    tokenizer: PreTrainedTokenizerBase
    engine: Engine
    with_bar: WithBar
    batch_size: int
    max_new_tokens: int
    some: Sequence[int] | None = None
    choice: Choice | None = None

    def validate(self, model: PromptedModel) -> Evaluation:
        """Score the answers to all validation examples."""
        return self._evaluation(self.answers(model, self.valid, "validation"), self.task.valid)

    def look(self, model: PromptedModel) -> Evaluation:
        """Score the answers to the validation examples that training looks at."""
        if self.some is None:
            return self.validate(model)
        answers = self.answers(model, self.valid.taken(self.some), "validation")
        return self._evaluation(answers, [self.task.valid[index] for index in self.some])

    def _evaluation(self, answers: Answers, examples: Sequence[Example]) -> Evaluation:
        metrics = self.task.score(answers.read, examples)
        return Evaluation(metrics, metrics[self.task.metric], answers)

    def answers(self, model: PromptedModel, data: Encoded, split: str) -> Answers:
        """Answer the examples whose tokens are `data`, whatever their targets; `split` is their name on the bar.

        Raises:
            Interrupted: the run was told to stop.
        """

        def answered(indices: list[int]) -> list[str]:
            return self._outputs(model, data.batch(indices).to(self.engine.device))

        batches = batches_by_length(data, self.batch_size)
        outputs = shared_out(batches, answered, self.with_bar, split, in_step=self.engine.is_sharded)
        return Answers(outputs, [self.task.from_text(output) for output in outputs])

    def _outputs(self, model: PromptedModel, batch: Batch) -> list[str]:
        """Output texts of a batch, in halves where there is no memory for all at once."""
        try:
            return self._all_at_once(model, batch)
        except torch.OutOfMemoryError:
            pass  # go on outside this block, in which the error keeps the tensors that there is no room for
        number = len(batch.source)
        if number == 1 or self.engine.is_sharded:
            raise UserError(
                f"out of memory for {number} answer{'s' if number > 1 else ''} at once: give a smaller"
                " train.eval_batch, engine.dtype=bfloat16, or engine=deepspeed"
            )
        return [text for half in batch.halves() for text in self._outputs(model, half)]

    def _all_at_once(self, model: PromptedModel, batch: Batch) -> list[str]:
        if self.choice is not None:
            return self.choice.made(model, batch)[0]
        ids = model.generate(batch, max_new_tokens=self.max_new_tokens, in_step=self.engine.is_sharded)
        return decoded(model.said(ids).tolist(), self.tokenizer)


def shared_out(
    batches: list[list[int]],
    answered: Callable[[list[int]], Iterable[Output]],
    with_bar: WithBar,
    name: str,
    *,
    in_step: bool = False,
) -> list[Output]:
    """What is answered to batches of all indices, by index; the processes take the batches in turn.

    The answers are the same for any number of processes. `in_step` says that each process holds a share of the weights,
    so that one without a batch of its own joins in.

    Raises:
        Interrupted: the run was told to stop.
    """
    own = dict[int, Output]()
    for indices in with_bar(in_turn(batches, distributed.rank(), distributed.size()), name):
        if indices or in_step:
            own |= dict(zip(indices, answered(indices or batches[0]), strict=False))
        if distributed.any_process(interrupts.requested()):
            interrupts.stop()
    of_index = {index: output for part in distributed.all_gather(own) for index, output in part.items()}
    return [of_index[index] for index in range(len(of_index))]


def longest_answer(task: Task, train: Encoded, limit: int) -> int:
    """How many tokens to generate, up to the limit: as many as the longest label, or twice as many as free text has.

    Only training targets count, so that nothing leaks from the validation's. Of free text the longest hundredth does
    not, since an output that does not end goes on until here.
    """
    targets = train.targets.lengths
    if task.labels:
        return min(limit, max(targets))
    return min(limit, 2 * int(np.quantile(targets, 0.99, method="higher")))


def predictions(answers: Answers, task: Task, examples: Sequence[Example]) -> bytes:
    """predictions.jsonl: id, input, output, answer, golds and correctness of every example.

    Correctness is null where answers are not simply right or wrong, and where there are no golds.
    """
    lines = [
        json.dumps(
            {
                "id": example.id,
                "input": example.source,
                "output": output,
                "answer": answer,
                "gold": example.golds,
                "correct": task.correct(answer, example) if task.correct and example.golds else None,
            },
            ensure_ascii=False,
        )
        for example, output, answer in zip(examples, answers.outputs, answers.read, strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()
