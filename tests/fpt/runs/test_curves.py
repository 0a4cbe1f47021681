"""Where a curve of validations reaches a score, on curves small enough to read."""

import pytest

from fpt.runs.curves import Point, after, curve, reaches


def points(*scores: float) -> list[Point]:
    """Validations every ten FLOPs."""
    return [Point(10 * number, score) for number, score in enumerate(scores, 1)]


@pytest.mark.parametrize(
    ("scores", "spent"),
    [
        ([50, 80, 80, 80], 20),
        ([50, 80, 79, 80, 90], 40),  # it has to be there at the next validation too
        ([50, 60, 80], 30),  # the last has none
        ([80], 10),
        ([79, 79.9], None),
        ([80, 50, 80, 50], None),
        ([], None),
    ],
)
def test_a_score_is_reached_when_the_next_validation_has_it_too(scores: list[float], spent: int | None) -> None:
    assert reaches(points(*scores), 80.0) == spent


@pytest.mark.parametrize(("flops", "score"), [(9.9, None), (10, 50.0), (29, 70.0), (1000, 60.0)])
def test_what_a_run_had_is_its_last_validation_up_to_there(flops: float, score: float | None) -> None:
    assert after(points(50, 70, 60), flops) == score


def test_a_curve_is_of_one_stages_validations() -> None:
    lines = [
        {"update": 1, "stage": 1, "flops": 5, "loss": 1.0},
        {"update": 1, "stage": 1, "flops": 5, "split": "validation", "f1": 40.0},
        {"update": 2, "stage": 2, "flops": 9, "split": "validation", "f1": 60.0},
    ]
    assert curve(lines, "f1", 2) == [Point(9, 60.0)]
