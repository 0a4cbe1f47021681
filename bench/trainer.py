"""The other side of the speed benchmark: PEFT's prompt tuning in transformers' own Trainer."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from bench.clock import now
from bench.synthetic import LIMIT, PROMPT
from fpt.backbones import tiny
from fpt.config.schema import OptimConfig
from fpt.data.encoded import IGNORED, Encoded

Row = dict[str, list[int]]


class Rows(torch.utils.data.Dataset[Row]):
    """Examples as Trainer takes them."""

    def __init__(self, data: Encoded, indices: Sequence[int], *, padded: bool) -> None:
        """The examples at `indices`, in this order; `padded` to LIMIT and to the longest target of all."""
        self._data, self._indices = data, indices
        self._padded = (LIMIT, max(data.targets.lengths)) if padded else (0, 0)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> Row:
        index = self._indices[position]
        source, target = self._data.sources[index], self._data.targets[index]
        more, more_target = (max(0, size - len(row)) for size, row in zip(self._padded, (source, target), strict=True))
        return {
            "input_ids": source + [0] * more,
            "attention_mask": [1] * len(source) + [0] * more,
            "labels": target + [IGNORED] * more_target,
        }


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds from the fetching of the first batch to the end of the last update."""

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Start."""
        self.start = now()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Stop, when a card has done what it was given."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds = now() - self.start


class PeftSide:
    """PEFT's prompt before a frozen model, trained by Trainer on batches that Trainer's own sampler makes.

    `padded` pads to the limits and draws batches at random, as PEFT's own example and Trainer's defaults do; otherwise
    batches are grouped by length and padded to their longest, as the documentation advises.
    """

    def __init__(
        self,
        body: Any,
        start: Tensor,
        *,
        batch_size: int,
        optim: OptimConfig,
        padded: bool,
        bf16: bool = False,
        on_cpu: bool = True,
    ) -> None:
        """Put a prompt that starts at `start` before `body`, which is changed."""
        kind = PromptTuningConfig(
            task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=PROMPT, num_transformer_submodules=1
        )
        self.model = get_peft_model(body, kind)
        with torch.no_grad():
            self.vectors.copy_(start)
        self._optim, self._size, self._padded, self._bf16, self._on_cpu = optim, batch_size, padded, bf16, on_cpu
        self._folder = tempfile.TemporaryDirectory()
        tokenizer = AutoTokenizer.from_pretrained(tiny.FOLDER)  # to pad with: T5's pad id is 0 everywhere
        self._collate = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=IGNORED)

    @property
    def vectors(self) -> nn.Parameter:
        """The prompt [P, D]: all that trains."""
        (vectors,) = (parameter for parameter in self.model.parameters() if parameter.requires_grad)
        return vectors

    def batches(self, data: Encoded) -> list[list[int]]:
        """Every example once, in the batches of Trainer's own sampler."""
        rows = self._rows(data, range(len(data)))
        sampler = self._trainer(rows, "random" if self._padded else "group_by_length")._get_train_sampler()
        order = list(sampler)
        return [order[start : start + self._size] for start in range(0, len(order), self._size)]

    def padded_size(self, data: Encoded, indices: list[int]) -> tuple[int, int]:
        """Positions of the collated batch: source without the prompt, target."""
        collated = self._collated(data, indices)
        return collated["input_ids"].shape[1], collated["labels"].shape[1]

    def loss(self, data: Encoded, indices: list[int]) -> float:
        """Mean loss over the batch's target tokens."""
        with torch.no_grad():
            loss: float = self.model(**self._collated(data, indices)).loss.item()
        return loss

    def seconds(self, data: Encoded, batches: Sequence[list[int]]) -> float:
        """Train on these batches, one update each, in this order."""
        clock = Clock()
        trainer = self._trainer(self._rows(data, [index for indices in batches for index in indices]), "sequential")
        trainer.add_callback(clock)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return clock.seconds

    def _rows(self, data: Encoded, indices: Sequence[int]) -> Rows:
        return Rows(data, indices, padded=self._padded)

    def _collated(self, data: Encoded, indices: Sequence[int]) -> Any:
        rows = self._rows(data, indices)
        return self._collate([rows[position] for position in range(len(rows))])

    def _trainer(self, rows: Rows, strategy: str) -> Any:
        settings = TrainingArguments(
            output_dir=str(Path(self._folder.name)),
            per_device_train_batch_size=self._size,
            num_train_epochs=1,
            optim="adafactor",
            learning_rate=self._optim.lr,
            weight_decay=self._optim.weight_decay,
            max_grad_norm=self._optim.clip,
            lr_scheduler_type="constant",
            train_sampling_strategy=strategy,
            bf16=self._bf16,
            use_cpu=self._on_cpu,
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        return Trainer(self.model, settings, train_dataset=rows, data_collator=self._collate)
