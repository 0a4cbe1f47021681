"""A run goes on in the stage where its last state lies, at every boundary ± 1."""

import pytest

from fpt.backbones.shapes import Shape, Stack
from fpt.training.checkpoint import TrainState
from stages.resume import stages_left
from stages.schedule import Schedule, Stage

FULL = Shape(Stack(6, 48), Stack(6, 48))
STAGES = Schedule(tuple(Stage(number, FULL, 4, first) for number, first in enumerate((0, 4, 8), 1)), FULL)


@pytest.mark.parametrize(
    ("update", "done", "left"),
    [
        (0, False, [1, 2, 3]),
        (3, False, [1, 2, 3]),
        (4, False, [1, 2, 3]),  # whose validation is yet to come
        (4, True, [2, 3]),
        (5, False, [2, 3]),
        (8, True, [3]),
        (10, True, [3]),  # which ran out of patience: its result may not have been written
        (12, True, [3]),
    ],
)
def test_the_stages_that_are_left(update: int, done: bool, left: list[int]) -> None:
    state = TrainState(update=update, prompt={}, done=done)
    assert [stage.index for stage in stages_left(STAGES, state)] == left
