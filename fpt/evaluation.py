"""Generate, decode, read the answer, score: each example once, answers in the data's order."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from fpt.data import Encoded, batches_by_length
from fpt.prompts.prompted import PromptedModel
from fpt.tasks.task import Example, Task
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


def longest_answer(task: Task, tokenizer: PreTrainedTokenizerBase, limit: int) -> int:
    """How many tokens to generate: a label task's longest label decides, since more could only be wrong."""
    if not task.labels:
        return limit
    targets = sorted({example.target for example in task.train})
    return min(limit, max(len(ids) for ids in tokenizer(targets)["input_ids"]))


def predictions(evaluation: Evaluation, examples: Sequence[Example]) -> bytes:
    """predictions.jsonl: id, input, output, answer, gold and correctness of every example."""
    lines = [
        json.dumps(
            {
                "id": example.id,
                "input": example.source,
                "output": output,
                "answer": answer,
                "gold": example.gold,
                "correct": answer == example.gold,
            },
            ensure_ascii=False,
        )
        for example, output, answer in zip(examples, evaluation.outputs, evaluation.answers, strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()
