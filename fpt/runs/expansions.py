"""Says which expansions threw a prompt back, by the training losses on both sides of them."""

from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

BEFORE, AFTER = 8, 3  # updates on each side of an expansion whose losses are compared
# A loss is worse than before by so many standard deviations of single updates', and by so many nats at least, as losses
# that hardly differ deviate by nothing.
SPREAD, NATS = 3, 0.1


def lost_at(stage: int, lines: Iterable[dict[str, Any]]) -> dict[str, float] | None:
    """The mean loss `before` and `after` the expansion to a stage, from the lines of metrics.jsonl, if it is worse.

    None: it is not, or the stage before was too short to tell, or this one has not gone on for long enough.
    """
    losses: dict[int, list[float]] = {stage - 1: [], stage: []}
    for line in lines:
        if "loss" in line and line["stage"] in losses:
            losses[line["stage"]].append(line["loss"])
    last, first = losses[stage - 1][-BEFORE:], losses[stage][:AFTER]
    if len(last) < BEFORE or len(first) < AFTER:
        return None
    before, after = mean(last), mean(first)
    is_lost = after > before + max(SPREAD * stdev(last), NATS)
    return {"before": before, "after": after} if is_lost else None


def sentence(stage: int, lost: dict[str, float]) -> str:
    """A lost expansion in words for the user."""
    return (
        f"the expansion to stage {stage} lost what the prompt had learned: loss {lost['before']:.2f} before,"
        f" {lost['after']:.2f} after; this schedule may not suit this model (schedule=pt has no expansions)"
    )
