"""What people see while a run goes on: progress bars on a terminal, a line per validation elsewhere."""

import logging
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fpt.devices.processes import speaks

WithBar = Callable[[Sequence[list[int]], str], Iterable[list[int]]]  # batches of indices and what is done with them


class Progress:
    """Progress on standard error; standard output stays free for results."""

    def __init__(self) -> None:
        """Nothing is shown before `running`; of several processes one shows what all do."""
        self.console = Console(stderr=True, highlight=False, quiet=not speaks())
        self._bars = rich_progress.Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._total = self._bars.add_task("", visible=False)
        self._score, self._loss = "–", math.nan

    @contextmanager
    def running(self) -> Iterator[None]:
        """Bars are drawn within."""
        with self._bars:
            yield

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, markup=False, soft_wrap=True)

    def expect(self, flops: int, *, done: int) -> None:
        """The run's whole computation, so that the time left knows that later stages are slower."""
        self._bars.reset(self._total, total=flops, completed=done, visible=True)

    def goes_on(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """The run has these lines of metrics.jsonl already: its last loss is shown until there is another."""
        self._loss = next((line["loss"] for line in reversed(lines) if "loss" in line), math.nan)

    def updated(self, where: str, *, loss: float, done: int) -> None:
        """An optimizer update is done, and with it so many FLOPs of the run."""
        self._loss = loss
        detail = f"{where}  loss {loss:.3f}  score {self._score}"
        self._bars.update(self._total, completed=done, description=detail)

    def scored(self, where: str, *, score: float) -> None:
        """A validation is done."""
        self._score = f"{score:.2f}"
        if not self.console.is_terminal:
            loss = "" if math.isnan(self._loss) else f"  loss {self._loss:.3f}"
            self.say(f"{where}{loss}  score {score:.2f}")

    def with_bar(self, batches: Sequence[list[int]], what: str) -> Iterable[list[int]]:
        """The batches, with a bar while they are worked through."""
        bar = self._bars.add_task(what, total=sum(map(len, batches)))
        try:
            for batch in batches:
                yield batch
                self._bars.update(bar, advance=len(batch))
        finally:
            self._bars.remove_task(bar)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Elapsed wall-clock seconds."""
        return time.perf_counter() - self._start


def quiet_libraries() -> None:
    """Keep the libraries' advice off the screen, before any is imported; errors and bars of downloads come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # DeepSpeed warns on standard output, and accelerate imports it for transformers. PEFT comes with transformers'
    # Adafactor, and imports bitsandbytes, which looks for kernels that no run uses.
    for name in ("DeepSpeed", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
