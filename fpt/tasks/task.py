"""What every task gives the trainer: examples as text, how an output is read, and how outputs are scored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """One example as the model sees it; `gold` is what metrics compare with."""

    id: str
    source: str
    target: str
    gold: str


@dataclass(frozen=True)
class Task:
    """A task's data and the rules that turn text into scores (between 0 and 100).

    Attributes:
        name: as in `task=`.
        train: examples to train on.
        valid: examples to score, in their own order.
        origin: where the examples come from, for people.
        labels: the label words; empty where the answer is free text.
        metric: the main metric's name, a key of what `score` returns.
        from_text: a decoded output to an answer.
        score: answers and examples to metrics.
        majority: what answering the most common training label scores, on the main metric.
    """

    name: str
    train: Sequence[Example]
    valid: Sequence[Example]
    origin: str
    labels: tuple[str, ...]
    metric: str
    from_text: Callable[[str], str]
    score: Callable[[Sequence[str], Sequence[Example]], dict[str, float]]
    majority: float
