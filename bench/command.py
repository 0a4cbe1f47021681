"""From the command to the score: `python -m bench.command` times fpt's runs and PEFT's of the same task whole.

The other side is a script as one writes it with PEFT: transformers' Seq2SeqTrainer, its own generation for every
validation, Adafactor. All sides have the embedded model, the same generated examples, as many updates and as many
validations of the whole split; what is left is how they start, pad, train and validate, and the stages.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from fpt.runs.progress import Stopwatch, quiet_libraries

TASK, UPDATES, VALIDATIONS, BATCH, RATE = "boolq", 300, 6, 16, 0.3
VECTORS, SOURCE = 20, 128  # the embedded model's recipe
THEIRS = {"PEFT padded": "padded", "PEFT grouped": "grouped"}
OURS = {"fpt pt": "pt", "fpt ld": "ld", "fpt cr": "cr"}


def train_with_peft(how: str, updates: int) -> float:
    """The last prompt's accuracy; `how`: padded to the longest of all as in PEFT's examples, or grouped by length."""
    import torch
    from datasets import Dataset
    from peft import PromptTuningConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSeq2SeqLM,
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
    )

    from fpt.backbones import tiny
    from fpt.config import compose
    from fpt.tasks.opening import open_task

    torch.manual_seed(0)
    task = open_task(compose.load([f"task={TASK}"]))
    tokenizer = AutoTokenizer.from_pretrained(tiny.FOLDER)
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny.FOLDER)
    model = get_peft_model(
        model,
        PromptTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=VECTORS, num_transformer_submodules=1),
    )
    padding = "max_length" if how == "padded" else False

    def tokenised(examples: Sequence[Any]) -> Any:
        rows = tokenizer([one.source for one in examples], truncation=True, max_length=SOURCE, padding=padding)
        return Dataset.from_dict({**rows, "labels": tokenizer([one.target for one in examples]).input_ids})

    def accuracy(found: Any) -> dict[str, float]:
        ids = found.predictions.clip(0)
        answers = [task.from_text(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return {"accuracy": task.score(answers, task.valid)[task.metric]}

    with tempfile.TemporaryDirectory() as folder:
        settings = Seq2SeqTrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=128,
            max_steps=updates,
            optim="adafactor",
            learning_rate=RATE,
            weight_decay=1e-5,
            lr_scheduler_type="constant",
            train_sampling_strategy="group_by_length" if how == "grouped" else "random",
            eval_strategy="steps",
            eval_steps=updates // VALIDATIONS,
            predict_with_generate=True,
            generation_max_length=8,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = Seq2SeqTrainer(
            model,
            settings,
            train_dataset=tokenised(task.train),
            eval_dataset=tokenised(task.valid),
            data_collator=DataCollatorForSeq2Seq(tokenizer, model),
            compute_metrics=accuracy,
        )
        trainer.train()
    scores = [line["eval_accuracy"] for line in trainer.state.log_history if "eval_accuracy" in line]
    return float(scores[-1])


def timed(command: Sequence[str]) -> tuple[float, float, str]:
    """Seconds on the wall and of the processor that a command takes, and what it prints."""
    before, stopwatch = resource.getrusage(resource.RUSAGE_CHILDREN), Stopwatch()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return stopwatch.seconds, spent, done.stdout


def turn(updates: int) -> dict[str, tuple[float, float, float]]:
    """Of each side the seconds, the processor's, and the last prompt's score."""
    found = {}
    for name, how in THEIRS.items():
        wall, spent, said = timed([sys.executable, "-m", "bench.command", "--peft", how, "--updates", str(updates)])
        found[name] = wall, spent, float(said.splitlines()[-1])
    for name, schedule in OURS.items():
        with tempfile.TemporaryDirectory() as folder:
            words = [f"task={TASK}", f"schedule={schedule}", f"train.updates={updates}", f"optim.lr={RATE}"]
            words += [f"train.batch_size={BATCH}", f"train.eval_every={updates // VALIDATIONS}", "seed=0"]
            words += ["train.eval_partial=false", "train.score_untrained=false", f"cache_dir={folder}/cache"]
            wall, spent, _ = timed([sys.executable, "-m", "fpt", "train", *words, f"run.dir={folder}/run"])
            result = json.loads(Path(folder, "run/result.json").read_text())
        found[name] = wall, spent, result["metric"]["last"]
    return found


def table(turns: Sequence[Mapping[str, tuple[float, float, float]]]) -> Table:
    """Medians over the turns."""
    grid = Table(box=None, pad_edge=False)
    for column in ("side", "seconds", "CPU seconds", "last score", *(f"{name} against it" for name in OURS)):
        grid.add_column(column, justify="left" if column == "side" else "right")
    middle = {name: [median(each[name][part] for each in turns) for part in range(3)] for name in turns[0]}
    for name, (wall, spent, score) in middle.items():
        ratios = [f"{spent / middle[ours][1]:.2f} x" if name in THEIRS else "" for ours in OURS]
        grid.add_row(name, f"{wall:.0f}", f"{spent:.0f}", f"{score:.1f}", *ratios)
    return grid


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.command", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=UPDATES, help="of every side (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of every side (default %(default)s)")
    parser.add_argument("--peft", choices=list(THEIRS.values()), help="PEFT's side alone, which prints its score")
    options = parser.parse_args()
    quiet_libraries()
    if options.peft:
        print(train_with_peft(options.peft, options.updates))
        return
    turns = [turn(options.updates) for _ in range(options.rounds)]
    console = Console(width=130, highlight=False)
    console.print(f"{TASK}, {options.updates} updates of {BATCH}, {VALIDATIONS} validations; {_threads()}")
    console.print(table(turns))


def _threads() -> str:
    threads = os.environ.get("OMP_NUM_THREADS")
    return f"OMP_NUM_THREADS={threads}" if threads else "as many threads as cores"


if __name__ == "__main__":
    main()
