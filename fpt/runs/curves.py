"""A run's validations on its last stage's model: score against FLOPs, and where the curve reaches a score."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A validation: what was spent until then, and the score."""

    flops: int
    score: float


def curve(metrics: Iterable[Mapping[str, Any]], metric: str, stage: int) -> list[Point]:
    """The validations among lines of metrics.jsonl that were made in the stage of this number, from 1."""
    return [Point(line["flops"], line[metric]) for line in metrics if "split" in line and line["stage"] == stage]


def reaches(points: Sequence[Point], score: float) -> int | None:
    """The FLOPs of the first validation that has the score, and whose next one has it too; None: there is none.

    The last validation needs no next one.
    """
    for place, point in enumerate(points):
        if all(each.score >= score for each in points[place : place + 2]):
            return point.flops
    return None


def after(points: Sequence[Point], flops: float) -> float | None:
    """The score of the last validation with no more FLOPs; None before the first."""
    scores = [point.score for point in points if point.flops <= flops]
    return scores[-1] if scores else None
