"""The queue of questions for a model: those that arrive while it computes become the next batch."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from fpt.tasks.task import Example

if TYPE_CHECKING:
    from fpt.training.prediction import Prediction  # which imports torch

Question = tuple[Example, "asyncio.Future[Prediction]"]


class Waiting:
    """A queue for one model, which computes in a thread of its own; no question waits for a batch to fill up.

    `asked` questions have arrived, and `answered` of them were answered in so many `batches`.
    """

    def __init__(
        self, answer: Callable[[Sequence[Example]], "list[Prediction]"], *, batch_size: int, longest: int
    ) -> None:
        """Prepare a queue for up to `longest` questions, of which `answer` gets up to `batch_size` at once."""
        self._answer, self._batch_size = answer, batch_size
        self._queue = asyncio.Queue[Question](longest)
        self.asked = self.answered = self.batches = 0

    def __len__(self) -> int:
        return self._queue.qsize()

    async def ask(self, example: Example) -> "Prediction":
        """Wait for the prediction; raises asyncio.QueueFull if too many questions wait already."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((example, future))
        self.asked += 1
        return await future

    async def work(self) -> None:
        """Answer questions until cancelled; an error with a question is raised in the call of `ask` that asked it."""
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            while True:
                batch = [await self._queue.get()]
                while len(batch) < self._batch_size and not self._queue.empty():
                    batch.append(self._queue.get_nowait())
                if batch := [question for question in batch if not question[1].done()]:  # not for clients that left
                    await self._compute(thread, batch)

    async def _compute(self, thread: ThreadPoolExecutor, batch: list[Question]) -> None:
        examples = [example for example, _ in batch]
        try:
            found = await asyncio.get_running_loop().run_in_executor(thread, self._answer, examples)
        except Exception as error:
            if len(batch) > 1:  # one question may have caused the error, so each is tried alone
                for one in batch:
                    await self._compute(thread, [one])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        self.answered, self.batches = self.answered + len(batch), self.batches + 1
        for (_, future), prediction in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(prediction)
