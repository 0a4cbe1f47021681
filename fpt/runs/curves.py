"""Curves of score against FLOPs: a run's validations in one stage, and where they reach a score."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A validation's score, and the FLOPs spent until then."""

    flops: int
    score: float


def curve(metrics: Iterable[Mapping[str, Any]], metric: str, stage: int) -> list[Point]:
    """Pick the validations of a stage, counted from 1, out of the lines of metrics.jsonl."""
    return [Point(line["flops"], line[metric]) for line in metrics if "split" in line and line["stage"] == stage]


def reaches(points: Sequence[Point], score: float) -> int | None:
    """Return the FLOPs of the first validation that has the score and, unless it is the last, the next one too."""
    for place, point in enumerate(points):
        if all(each.score >= score for each in points[place : place + 2]):
            return point.flops
    return None


def after(points: Sequence[Point], flops: float) -> float | None:
    """Return the score of the last validation up to that many FLOPs; None before the first."""
    scores = [point.score for point in points if point.flops <= flops]
    return scores[-1] if scores else None
