"""Scores of answers against gold, between 0 and 100."""

from collections import Counter
from collections.abc import Sequence


def accuracy(answers: Sequence[str], golds: Sequence[str]) -> float:
    """Percentage of answers that equal their gold; anything else, garbage included, is wrong."""
    return 100 * sum(answer == gold for answer, gold in zip(answers, golds, strict=True)) / len(golds)


def most_common(golds: Sequence[str]) -> str:
    """The most frequent gold, the alphabetically first among equals."""
    counts = Counter(golds)
    return min(counts, key=lambda gold: (-counts[gold], gold))
