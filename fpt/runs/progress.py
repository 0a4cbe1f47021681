"""Shows a run's progress: as bars on a terminal, otherwise as a line for every validation."""

import logging
import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from rich import progress as rich_progress
from rich.console import Console

from fpt.devices.processes import speaks

# Yields batches of indices and shows a bar meanwhile; the text says what is being done with them.
WithBar = Callable[[Sequence[list[int]], str], Iterable[list[int]]]


class Progress:
    """Shows a run's progress on standard error, as standard output is for results; only the main process shows it."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, quiet=not speaks())
        is_hidden = not self.console.is_terminal
        self._bars = rich_progress.Progress(console=self.console, transient=True, disable=is_hidden)
        self._total = self._bars.add_task("", visible=False)
        self._score, self._loss = "–", math.nan

    def running(self) -> AbstractContextManager[object]:
        """A context in which the bars are drawn."""
        return self._bars

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def expect(self, flops: int, *, done: int) -> None:
        """Set the whole run's FLOPs, so that the time left accounts for later stages being slower."""
        self._bars.reset(self._total, total=flops, completed=done, visible=True)

    def updated(self, where: str, *, loss: float, done: int) -> None:
        """Show an update, and the FLOPs that the run has done."""
        self._loss = loss
        detail = f"{where}  loss {loss:.3f}  score {self._score}"
        self._bars.update(self._total, completed=done, description=detail)

    def scored(self, where: str, *, score: float) -> None:
        """Show a validation."""
        self._score = f"{score:.2f}"
        if not self.console.is_terminal:
            loss = "" if math.isnan(self._loss) else f"  loss {self._loss:.3f}"
            self.say(f"{where}{loss}  score {score:.2f}")

    def with_bar(self, batches: Sequence[list[int]], what: str) -> Iterable[list[int]]:
        """Yield the batches, with a bar that advances with each."""
        bar = self._bars.add_task(what, total=sum(map(len, batches)))
        try:
            for batch in batches:
                yield batch
                self._bars.update(bar, advance=len(batch))
        finally:
            self._bars.remove_task(bar)


def quiet_libraries() -> None:
    """Silence the libraries' warnings before they are imported; their errors and download progress still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    # DeepSpeed warns on standard output, and accelerate imports it for transformers.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
