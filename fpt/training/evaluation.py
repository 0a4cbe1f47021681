"""Generate, decode, read the answer: each example once, answers in the data's order."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import Encoded
from fpt.devices import distributed, interrupts
from fpt.devices.engine import Engine
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import WithBar
from fpt.tasks.task import Example, Task

SENTINEL = re.compile(r"<extra_id_\d+>")


@dataclass(frozen=True)
class Answers:
    """In the data's order, each decoded output and the answer read from it."""

    outputs: list[str]
    read: list[str]


@dataclass(frozen=True)
class Evaluation:
    """Metrics (0 to 100) and the answers that they are of."""

    metrics: dict[str, float]
    answers: Answers


def generate(
    model: PromptedModel,
    task: Task,
    data: Encoded,
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    max_new_tokens: int,
    engine: Engine,
    with_bar: WithBar,
    what: str,
) -> Answers:
    """What the prompt makes the model say to the examples whose tokens are `data`; their targets play no part.

    The batches are the same for any number of processes, which take them in turn; so are the answers.

    Args:
        model: with the prompt.
        task: reads the answers.
        data: the examples.
        tokenizer: the model's own.
        batch_size: examples at once.
        max_new_tokens: no output is longer.
        engine: holds the model.
        with_bar: shows how far this is.
        what: the examples' name there.

    Raises:
        Interrupted: the run was told to stop.
    """
    batches, own = batches_by_length(data, batch_size), dict[int, str]()
    for indices in with_bar(in_turn(batches, distributed.rank(), distributed.size()), what):
        if indices or engine.is_sharded:  # without a batch of its own a process still has a share of the weights
            batch = data.batch(indices or batches[0]).to(engine.device)
            ids = model.generate(batch, max_new_tokens=max_new_tokens, in_step=engine.is_sharded)
            texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
            own |= {index: SENTINEL.sub("", text).strip() for index, text in zip(indices, texts, strict=False)}
        if distributed.any_process(interrupts.requested()):
            interrupts.stop()
    found = {index: text for part in distributed.all_gather(own) for index, text in part.items()}
    outputs = [found[index] for index in range(len(data))]
    return Answers(outputs, [task.from_text(output) for output in outputs])


def longest_answer(task: Task, train: Encoded, limit: int) -> int:
    """How many tokens to generate: a longer label could only be wrong; free text may be twice as long as in training.

    Only training targets decide, so that nothing is known of the validation's.
    """
    longest = max(target for _, target in train.lengths)
    return min(limit, longest if task.labels else 2 * longest)


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
