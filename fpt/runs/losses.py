"""Judges a run by its training losses: in which stage they rose, and which expansions threw the prompt back."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

WATCHED, LAST = 60, 10  # the first updates of a stage, in which its loss should not rise, and the last of these
RISE = 0.5  # nats by which the mean of the last may be above the first, as losses of single batches differ
BEFORE, AFTER = 8, 3  # updates on each side of an expansion whose losses are compared
# A loss is worse than before by so many standard deviations of single updates', and by so many nats at least, as losses
# that hardly differ deviate by nothing.
SPREAD, NATS = 3, 0.1


def risen_in(stage: int, lines: Sequence[dict[str, Any]]) -> tuple[float, float] | None:
    """The losses at both ends of a stage's first updates, from the lines of metrics.jsonl, if they have risen.

    None: they have not, or not all of these updates are done.
    """
    losses = _of(stage, lines)[:WATCHED]
    first, last = losses[0], mean(losses[-LAST:])
    return (first, last) if len(losses) == WATCHED and last > first + RISE else None


def lost_at(stage: int, lines: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """The mean loss `before` and `after` the expansion to a stage, from the lines of metrics.jsonl, if it is worse.

    None: it is not, or the stage before was too short to tell, or this one has not gone on for long enough.
    """
    last, first = _of(stage - 1, lines)[-BEFORE:], _of(stage, lines)[:AFTER]
    if len(last) < BEFORE or len(first) < AFTER:
        return None
    before, after = mean(last), mean(first)
    is_lost = after > before + max(SPREAD * stdev(last), NATS)
    return {"before": before, "after": after} if is_lost else None


def _of(stage: int, lines: Sequence[dict[str, Any]]) -> list[float]:
    return [line["loss"] for line in lines if line["stage"] == stage and "loss" in line]


def expansion_lost(stage: int, lost: dict[str, float]) -> str:
    """A lost expansion in words for the user."""
    return (
        f"the expansion to stage {stage} lost what the prompt had learned: loss {lost['before']:.2f} before,"
        f" {lost['after']:.2f} after; this schedule may not suit this model (schedule=pt has no expansions)"
    )
