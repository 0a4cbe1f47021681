"""A loss that rises or jumps by more than updates differ anyway is told; a stage that is too short says nothing."""

from collections.abc import Callable

import pytest

from fpt.runs.losses import WATCHED, lost_at, risen_in

STEADY = [0.9, 1.1, 1.0, 1.2, 0.8, 1.0, 0.9, 1.1]
CASES = {
    "thrown back": (STEADY, [7.0, 6.0, 5.0], {"before": 1.0, "after": 6.0}),
    "thrown back while it still learned": ([14.0, *STEADY], [9.0, 8.0, 7.0], {"before": 1.0, "after": 8.0}),
    "as before": (STEADY, [1.2, 1.1, 1.0], None),
    "better": (STEADY, [0.5, 0.4, 0.3], None),
    "one hard batch": (STEADY, [1.9, 1.0, 0.9], None),
    "a little worse than steady": ([0.23, 0.24] * 4, [0.27, 0.28, 0.27], None),
    "still falling": ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0], None),
    "too short before": (STEADY[:7], [7.0, 6.0, 5.0], None),
    "too early to tell": (STEADY, [7.0, 6.0], None),
}


@pytest.mark.parametrize("case", CASES)
def test_a_jump_of_the_loss_is_a_lost_expansion(case: str) -> None:
    before, after, expected = CASES[case]
    rows = [(1, 20.0), *((2, loss) for loss in before), *((3, loss) for loss in after)]
    lines = [{"stage": stage, "loss": loss} for stage, loss in rows]
    lines.insert(5, {"stage": 2, "split": "validation", "accuracy": 50.0})
    assert lost_at(3, lines) == (expected and pytest.approx(expected))
    assert lost_at(1, lines) is None
    assert lost_at(4, lines) is None


RISES: dict[str, tuple[Callable[[int], float], int, bool]] = {
    "rises": (lambda update: 2.1 if update == 1 else 6.3, 1, True),
    "rises by less than batches differ": (lambda update: 2.1 if update == 1 else 2.5, 1, False),
    "rises, and falls again": (lambda update: 6.3 if 1 < update < 50 else 2.1, 1, False),
    "falls": (lambda update: 12.0 if update == 1 else 6.3, 1, False),
    "has lost its first lines": (lambda update: 2.1 if update == 5 else 6.3, 5, False),
}


@pytest.mark.parametrize("case", RISES)
def test_a_loss_has_risen_if_it_is_higher_after_a_stages_first_updates(case: str) -> None:
    loss, first, has_risen = RISES[case]
    lines = [{"stage": 2, "loss": loss(update)} for update in range(first, WATCHED + 1)]
    assert (risen_in(2, [{"stage": 1, "loss": 0.1}, *lines]) is not None) == has_risen
