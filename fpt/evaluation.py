"""Generate, decode, read the answer, score: each example once, answers in the data's order."""

import json
import re
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from fpt import distributed, interrupts
from fpt.data import Encoded, batches_by_length, in_turn
from fpt.engine import Engine
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
    engine: Engine,
    watch: Watch,
) -> Evaluation:
    """Score the prompt on the task's validation examples, `data` being their tokens.

    The batches are the same for any number of processes, which take them in turn; so are the outputs.

    Raises:
        Interrupted: the run was told to stop.
    """
    batches, own = batches_by_length(data, batch_size), dict[int, str]()
    for indices in watch(in_turn(batches, distributed.rank(), distributed.size()), "validation"):
        if indices or engine.is_sharded:  # without a batch of its own a process still has a share of the weights
            batch = data.batch(indices or batches[0]).to(engine.device)
            ids = model.generate(batch, max_new_tokens=max_new_tokens, in_step=engine.is_sharded)
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            own |= {index: SENTINEL.sub("", text).strip() for index, text in zip(indices, texts, strict=False)}
        if distributed.any_of(interrupts.requested()):
            interrupts.stop()
    found = {index: text for part in distributed.gather(own) for index, text in part.items()}
    outputs = [found[index] for index in range(len(data))]
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
