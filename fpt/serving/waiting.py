"""Questions that wait for a model: what came while it computed is the next batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from fpt.tasks.task import Example
from fpt.training.prediction import Prediction


class Full(Exception):  # noqa: N818 - like asyncio.QueueFull, it names what happened
    """No more may wait."""


class Waiting:
    """A line of questions before one model, which computes in a thread of its own.

    Nobody is made to wait for a batch to fill: a lone question is computed at once, and those that come meanwhile
    together.

    Attributes:
        asked: how many questions came in.
        answered: how many of them were answered.
        batches: in how many batches.
    """

    def __init__(
        self, answer: Callable[[Sequence[Example]], list[Prediction]], *, batch_size: int, longest: int
    ) -> None:
        """Give `answer` up to batch_size questions at once, of up to `longest` that wait."""
        self._answer, self._batch_size, self._longest = answer, batch_size, longest
        self._line = deque[tuple[Example, asyncio.Future[Prediction]]]()
        self._came = asyncio.Event()
        self.asked = self.answered = self.batches = 0

    def __len__(self) -> int:
        return len(self._line)

    async def ask(self, example: Example) -> Prediction:
        """The prediction, when it is this question's turn.

        Raises:
            Full: too many wait already.
        """
        if len(self._line) >= self._longest:
            raise Full
        self.asked += 1
        future = asyncio.get_running_loop().create_future()
        self._line.append((example, future))
        self._came.set()
        return await future

    async def work(self) -> None:
        """Answer until cancelled; what goes wrong with a question is raised where it was asked."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="model") as thread:
            while True:
                await self._came.wait()
                self._came.clear()
                while self._line:
                    batch = [self._line.popleft() for _ in range(min(self._batch_size, len(self._line)))]
                    batch = [
                        (example, future) for example, future in batch if not future.done()
                    ]  # who left is not asked
                    if batch:
                        await self._compute(loop, thread, batch)

    async def _compute(
        self,
        loop: asyncio.AbstractEventLoop,
        thread: ThreadPoolExecutor,
        batch: list[tuple[Example, asyncio.Future[Prediction]]],
    ) -> None:
        try:
            found = await loop.run_in_executor(thread, self._answer, [example for example, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # of which one may be at fault: the others are answered without it
                for one in batch:
                    await self._compute(loop, thread, [one])
                return
            ((_, future),) = batch
            if not future.done():
                future.set_exception(error)
            return
        self.answered, self.batches = self.answered + len(batch), self.batches + 1
        for (_, future), prediction in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(prediction)
