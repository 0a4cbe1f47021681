"""Generate, decode, read the answer, score: each example once, answers in the data's order."""

import json
import re
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from fpt.data import Encoded, batches_by_length
from fpt.prompts.prompted import PromptedModel
from fpt.tasks.task import Task
from fpt.tracking import Watch

SENTINEL = re.compile(r"<extra_id_\d+>")


@dataclass(frozen=True)
class Evaluation:
    """Metrics (0 to 100) and, in the data's order, each decoded output and the answer read from it."""

    metrics: dict[str, float]
    outputs: list[str]
    answers: list[str]


def evaluate(
    model: PromptedModel,
    task: Task,
    data: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    max_new_tokens: int,
    device: torch.device,
    watch: Watch,
) -> Evaluation:
    """Score the prompt on the task's validation examples, `data` being their tokens."""
    outputs = [""] * len(data)
    for indices in watch(batches_by_length(data, batch_size), "validation"):
        ids = model.generate(data.batch(indices).to(device), max_new_tokens=max_new_tokens)
        for index, text in zip(indices, tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            outputs[index] = SENTINEL.sub("", text).strip()
    answers = [task.from_text(output) for output in outputs]
    return Evaluation(task.score(answers, task.valid), outputs, answers)


def longest_answer(task: Task, train: Encoded, limit: int) -> int:
    """How many tokens to generate: a longer label could only be wrong; free text may be twice as long as in training.

    Only training targets decide, so that nothing is known of the validation's.
    """
    longest = max(target for _, target in train.lengths)
    return min(limit, longest if task.labels else 2 * longest)


def predictions(evaluation: Evaluation, task: Task) -> bytes:
    """predictions.jsonl: id, input, output, answer, golds and correctness of every validation example.

    Correctness is null where answers are not simply right or wrong.
    """
    lines = [
        json.dumps(
            {
                "id": example.id,
                "input": example.source,
                "output": output,
                "answer": answer,
                "gold": example.golds,
                "correct": task.correct(answer, example) if task.correct else None,
            },
            ensure_ascii=False,
        )
        for example, output, answer in zip(task.valid, evaluation.outputs, evaluation.answers, strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()
