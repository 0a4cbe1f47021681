"""PEFT's prompt tuning in transformers' Trainer, on what `fpt train` would train on.

`python -m bench.real.peft_side WORDS` takes the words of `fpt train`, has fpt read and tokenise the data, and goes on
as one writes it with PEFT: label words to begin with, batches grouped by length and padded on the right,
Trainer's AdamW and its rate that falls to 0. A validation is one pass over the gold answers: where the model would have
said every token of one, greedy decoding says it too, so that this is the accuracy of `task.answer=generate`, at less
than its cost. The run folder gets a metrics.jsonl and a result.json with what the bench reads of fpt's own.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments

from fpt.backbones.backbone import open_backbone
from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.data.encoded import IGNORED, Encoded
from fpt.data.encoding import tokenised
from fpt.data.tokens import tokens_of
from fpt.random_streams import drawn
from fpt.runs.progress import quiet_libraries
from fpt.tasks.opening import open_task

DTYPES = {"auto": torch.float32, "float32": torch.float32, "bfloat16": torch.bfloat16}
EVAL_BATCH = 32


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes each validation into metrics.jsonl as soon as it is done."""

    def __init__(self, file: Path) -> None:
        """Begin the file anew."""
        self._file = file
        file.write_text("")

    def on_evaluate(self, _: Any, state: Any, __: Any, metrics: dict[str, float], **___: Any) -> None:
        """Append the validation's line."""
        line = {"update": state.global_step, "stage": 1, "flops": None, "split": "validation"}
        with self._file.open("a") as stream:
            stream.write(json.dumps({**line, "accuracy": metrics["eval_accuracy"]}) + "\n")


def rows(data: Encoded, indices: Sequence[int]) -> list[dict[str, list[int]]]:
    """Examples as Trainer takes them: the source and the answer behind it, of which the loss is."""
    pairs = ((data.sources[index], data.targets[index]) for index in indices)
    return [
        {
            "input_ids": source + target,
            "attention_mask": [1] * len(source + target),
            "labels": [IGNORED] * len(source) + target,
        }
        for source, target in pairs
    ]


def train(config: RunConfig) -> dict[str, Any]:
    """Train and evaluate; returns the result."""
    torch.manual_seed(config.seed)
    folder = Path(str(config.run.dir))
    folder.mkdir(parents=True, exist_ok=True)
    task, backbone = open_task(config), open_backbone(config.model)
    data, valid, *_ = tokenised(task, tokens_of(task, backbone, config.task), config.task, lambda parts, _: parts)
    model = AutoModelForCausalLM.from_pretrained(config.model.weights, dtype=DTYPES[config.engine.dtype])
    kind = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=config.prompt.length,
        prompt_tuning_init="TEXT",
        prompt_tuning_init_text=" ".join(task.labels),
        tokenizer_name_or_path=config.model.weights,
    )
    backbone.tokenizer.padding_side = "right"
    backbone.tokenizer.pad_token = backbone.tokenizer.pad_token or backbone.tokenizer.eos_token
    looks = drawn(len(valid), config.train.eval_examples or len(valid), config.seed, "looks")
    trainer = Trainer(
        get_peft_model(model, kind),
        settings(config, folder),
        train_dataset=rows(data, range(len(data))),
        eval_dataset=rows(valid, looks),
        data_collator=DataCollatorForSeq2Seq(backbone.tokenizer, label_pad_token_id=IGNORED),
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=lambda logits, _: said(logits, config.prompt.length),
        callbacks=[Journal(folder / "metrics.jsonl")],
    )
    trainer.train()
    last = trainer.predict(rows(valid, range(len(valid)))).metrics["test_accuracy"]
    return {
        "metric": {"name": "accuracy", "last": last},
        "majority": task.majority,
        "dtype": str(model.dtype).removeprefix("torch."),
        "flops": None,
        "versions": {module.__name__: module.__version__ for module in (peft, transformers, torch)},
        "stages": [{}],
    }


def settings(config: RunConfig, folder: Path) -> TrainingArguments:
    """Trainer's settings for this run; all that is not named here has Trainer's default."""
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=config.train.batch_size,
        per_device_eval_batch_size=EVAL_BATCH,
        max_steps=config.train.updates,
        learning_rate=config.optim.lr,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=config.train.eval_every,
        seed=config.seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )


def said(logits: Tensor, length: int) -> Tensor:
    """The most probable token after each position [B, S], without the prompt's positions."""
    return logits[:, length:].argmax(-1)


def accuracy(found: Any) -> dict[str, float]:
    """The share of examples whose answer is said to its end, in percent."""
    wanted = found.label_ids[:, 1:]
    right = (found.predictions[:, :-1] == wanted) | (wanted == IGNORED)
    return {"accuracy": 100 * float(right.all(1).mean())}


def main(words: Sequence[str]) -> None:
    """Train as the words of `fpt train` say, and write result.json."""
    quiet_libraries()
    config = compose.load(words)
    result = train(config)
    (Path(str(config.run.dir)) / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
