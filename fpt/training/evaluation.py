"""What the model answers, and what that scores: each example once, answers in the data's order."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Answers:
    """In the data's order, each decoded output and the answer read from it."""

    outputs: list[str]
    read: list[str]


@dataclass(frozen=True)
class Evaluation:
    """Metrics (0 to 100) and the answers that they are of; `score` is the main one."""

    metrics: dict[str, float]
    score: float
    answers: Answers


@dataclass(frozen=True)
class Evaluator:
    """Asks a model and its prompt for a task's answers, and scores them; `valid`: its validation examples' tokens.

    `some` are the indices of those that training looks at; None: all. `choice` has the labels of which the likeliest is
    the answer; None: answers are generated.
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
        """Scores and answers on all validation examples."""
        return self._evaluation(self.answers(model, self.valid, "validation"), self.task.valid)

    def look(self, model: PromptedModel) -> Evaluation:
        """The same on those that training looks at."""
        if self.some is None:
            return self.validate(model)
        answers = self.answers(model, self.valid.taken(self.some), "validation")
        return self._evaluation(answers, [self.task.valid[index] for index in self.some])

    def _evaluation(self, answers: Answers, examples: Sequence[Example]) -> Evaluation:
        metrics = self.task.score(answers.read, examples)
        return Evaluation(metrics, metrics[self.task.metric], answers)

    def answers(self, model: PromptedModel, data: Encoded, split: str) -> Answers:
        """What the prompt makes the model say to the examples whose tokens are `data`; their targets play no part.

        The batches are the same for any number of processes, which take them in turn; so are the answers. `split` is
        the examples' name on the bar.

        Raises:
            Interrupted: the run was told to stop.
        """
        batches, own = batches_by_length(data, self.batch_size), dict[int, str]()
        for indices in self.with_bar(in_turn(batches, distributed.rank(), distributed.size()), split):
            if indices or self.engine.is_sharded:  # without a batch of its own a process still has a share of weights
                batch = data.batch(indices or batches[0]).to(self.engine.device)
                texts = self._outputs(model, batch)
                own |= dict(zip(indices, texts, strict=False))
            if distributed.any_process(interrupts.requested()):
                interrupts.stop()
        outputs_of = {index: text for part in distributed.all_gather(own) for index, text in part.items()}
        outputs = [outputs_of[index] for index in range(len(data))]
        return Answers(outputs, [self.task.from_text(output) for output in outputs])

    def _outputs(self, model: PromptedModel, batch: Batch) -> list[str]:
        """One after the other where there is no memory for all at once."""
        try:
            return self._all_at_once(model, batch)
        except torch.OutOfMemoryError:
            pass  # out of this block, or the error would keep what there is no room for
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


def longest_answer(task: Task, train: Encoded, limit: int) -> int:
    """How many tokens to generate: a longer label could only be wrong; free text may be twice as long as in training.

    Of free text one long target in a hundred does not count, for an output without an end goes on until here. Only
    training targets decide, so that nothing is known of the validation's.
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
