"""Evaluates a prompt: the model answers each example once, and the task scores the answers.

Answers are generated, or chosen by verbalizer, as in most of the literature: the label word of highest probability.

Letters: B batch, L labels, T target.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import IGNORED, Batch, Encoded, padded
from fpt.data.tokens import decoded
from fpt.devices import distributed, ending
from fpt.devices.engine import Engine
from fpt.errors import UserError
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.tasks.mixture import GAIN, joined_scores
from fpt.tasks.task import Example, Task

Output = TypeVar("Output")


class Choice:
    """The label words that a model chooses between."""

    def __init__(self, words: Sequence[str], rows: list[list[int]], answer: str = "score") -> None:
        """Take the words and their targets' token ids; `task.answer` says how their scores are normalised."""
        divisors = {"score_mean": list(map(len, rows)), "score_norm": list(map(len, words))}
        self.words = words
        self.ids = padded(rows, IGNORED, max(map(len, rows)))  # [L, T]
        self.lengths = torch.tensor(divisors.get(answer, [1] * len(rows)))  # [L], to divide log-probabilities by

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


@dataclass(frozen=True)
class Answers:
    """A model's decoded outputs, and the answers that the task reads from them, in the data's order."""

    outputs: list[str]
    read: list[str]


@dataclass(frozen=True)
class Evaluation:
    """The metrics of some answers (`score` is the main one), and the answers."""

    metrics: dict[str, float]
    score: float
    answers: Answers


class KeptSources:
    """What the prompt does not change in batches that are answered again and again, as far as `room` bytes hold it.

    Batches are kept whole, as they were computed, so that keeping them changes no bit of an answer.
    """

    def __init__(self, room: int) -> None:
        self._room, self._states = room, dict[tuple[str, *tuple[int, ...]], Tensor]()

    def with_states(self, model: PromptedModel, batch: Batch, task: str, indices: Sequence[int]) -> Batch:
        """The batch of a task's examples at `indices` with its states, which are computed the first time."""
        states = self._states.get((task, *indices))
        if states is None:
            states = model.below(batch)
            self._room -= states.nbytes
            if self._room >= 0:
                self._states[task, *indices] = states
        return replace(batch, below=states)


@dataclass(frozen=True)
class Evaluator:
    """Has a model with its prompt answer a task's examples, and scores the answers."""

    task: Task
    valid: Encoded  # its validation examples as token ids
    tokenizer: PreTrainedTokenizerBase
    engine: Engine
    with_bar: WithBar
    batch_size: int  # the number of examples answered at once
    max_new_tokens: int  # the length limit of an output
    some: Sequence[int] | None = None  # the validation examples that are scored during training; None: all
    choice: Choice | None = None  # the labels to choose from; None: answers are generated
    kept: KeptSources | None = None  # of the validation examples that are scored during training

    def validate_in_training(self, model: PromptedModel) -> Evaluation:
        """Score the answers to the validation examples that are used during training."""
        return self.validate(model, self.some, self.kept)

    def validate(
        self, model: PromptedModel, some: Sequence[int] | None = None, kept: KeptSources | None = None
    ) -> Evaluation:
        """Score the answers to validation examples, those at the indices `some` or all."""
        data = self.valid if some is None else self.valid.taken(some)
        examples = self.task.valid if some is None else [self.task.valid[index] for index in some]
        answers = self.answers(model, data, "validation", kept)
        metrics = self.task.score(answers.read, examples)
        return Evaluation(metrics, metrics[self.task.metric], answers)

    def answers(self, model: PromptedModel, data: Encoded, split: str, kept: KeptSources | None = None) -> Answers:
        """Answer the examples in `data`, whose targets are not used; `split` is their name on the progress bar."""

        def answered(indices: list[int]) -> list[str]:
            batch = data.batch(indices).to(self.engine.device)
            return self._outputs(model, kept.with_states(model, batch, self.task.name, indices) if kept else batch)

        batches = batches_by_length(data, self.batch_size)
        outputs = shared_out(batches, answered, self.with_bar, split, in_step=model.in_step)
        return Answers(outputs, [self.task.from_text(output) for output in outputs])

    def _outputs(self, model: PromptedModel, batch: Batch) -> list[str]:
        """The output texts of a batch, which is halved when it runs out of memory."""
        try:
            if self.choice is not None:
                return self.choice.choose(model, batch)[0]
            ids = model.generate(batch, max_new_tokens=self.max_new_tokens)
            return decoded(model.trimmed(ids).tolist(), self.tokenizer)
        except torch.OutOfMemoryError:
            pass  # inside this block the error would still hold the tensors that did not fit
        number = len(batch.source)
        if number == 1 or model.in_step:
            raise UserError(
                f"out of memory for {number} answer{'s' if number > 1 else ''} at once: give a smaller"
                " train.eval_batch, engine.dtype=bfloat16, or engine=deepspeed"
            )
        halves = slice(number // 2), slice(number // 2, None)
        return [text for half in halves for text in self._outputs(model, batch.rows(half))]


@dataclass(frozen=True)
class MixedEvaluator(Evaluator):
    """Scores a mixture, of whose tasks each has its own evaluator, in `parts`."""

    parts: Sequence[Evaluator] = ()

    def validate(
        self, model: PromptedModel, some: Sequence[int] | None = None, kept: KeptSources | None = None
    ) -> Evaluation:
        """Score the answers to each task's validation examples, those of its own sample if `some` is given, or all."""
        own = [part.validate(model, None if some is None else part.some, kept) for part in self.parts]
        scores = joined_scores(self.task.tasks, [evaluation.metrics for evaluation in own])
        outputs = [output for evaluation in own for output in evaluation.answers.outputs]
        read = [answer for evaluation in own for answer in evaluation.answers.read]
        return Evaluation(scores, scores[GAIN], Answers(outputs, read))


def shared_out(
    batches: list[list[int]],
    answered: Callable[[list[int]], Iterable[Output]],
    with_bar: WithBar,
    name: str,
    *,
    in_step: bool = False,
) -> list[Output]:
    """Compute outputs for batches of indices, shared out among the processes, and return them all by index.

    They are the same for any number of processes. `in_step` says that the weights are sharded, so that a process
    without a batch of its own takes part in the passes too.

    Raises:
        Interrupted: the run was told to stop.
    """
    own = dict[int, Output]()
    for indices in with_bar(in_turn(batches, distributed.rank(), distributed.size()), name):
        if indices or in_step:
            own |= dict(zip(indices, answered(indices or batches[0]), strict=False))
        if distributed.any_process(ending.requested()):
            ending.stop()
    of_index = {index: output for part in distributed.all_gather(own) for index, output in part.items()}
    return [of_index[index] for index in range(len(of_index))]


def longest_answer(task: Task, train: Encoded, limit: int) -> int:
    """How many tokens to generate, up to `limit`: as the longest label has, or twice as long other targets have.

    Only training targets are used, so that nothing leaks from validation. The longest 1% of these do not
    count, since every output that does not end by itself is generated up to this length.
    """
    targets = train.targets.lengths
    if task.classes:
        return min(limit, max(targets))
    return min(limit, 2 * int(np.quantile(targets, 0.99, method="higher")))


def predictions(answers: Answers, task: Task, examples: Sequence[Example]) -> bytes:
    """The content of predictions.jsonl: id, input, output, answer, golds and correctness of every example.

    In a mixture they name their task. Correctness is null where answers are not simply right or wrong, and where there
    are no golds.
    """
    rows = (
        {
            **({"task": example.task} if example.task else {}),
            "id": example.id,
            "input": example.source,
            "output": output,
            "answer": answer,
            "gold": example.golds,
            "correct": _is_right(task.tasks.get(example.task, task), answer, example),
        }
        for example, output, answer in zip(examples, answers.outputs, answers.read, strict=True)
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _is_right(task: Task, answer: str, example: Example) -> bool | None:
    return task.correct(answer, example) if task.correct and example.golds else None
