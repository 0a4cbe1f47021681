"""Which examples are drawn with the seed: few of each label, or some for validation.

The one module of `fpt.tasks` that needs torch, whose random streams decide. It is imported when one draws, so that an
error in a setting or in the data need not wait for it.
"""

from collections.abc import Sequence

from fpt.errors import UserError
from fpt.tasks.task import Example


def split_off(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Examples without a sample of them, and the sample, both in their own order."""
    if len(examples) < 2:
        raise UserError("task.train: one example cannot be parted into training and validation; give task.valid")
    from fpt.random_streams import drawn

    sample = set(drawn(len(examples), max(1, round(share * len(examples))), seed, "validation"))
    return (
        [example for index, example in enumerate(examples) if index not in sample],
        [example for index, example in enumerate(examples) if index in sample],
    )


def shots_of_each(examples: Sequence[Example], shots: int, seed: int, *, labels: Sequence[str]) -> list[Example]:
    """A sample of `shots` examples of each label, or of all, in their own order.

    Raises:
        UserError: there are fewer.
    """
    from fpt.random_streams import drawn

    members: dict[str, list[int]] = {label: [] for label in labels or ("all",)}
    for index, example in enumerate(examples):
        members[example.golds[0] if labels else "all"].append(index)
    label, fewest = min(members.items(), key=lambda member: len(member[1]))
    if len(fewest) < shots:
        there = {0: "are no training examples", 1: "is only 1 training example"}
        of = f" of '{label}'" if labels else ""
        way_out = "give a smaller number" if fewest else "leave out task.shots, or add some"
        raise UserError(
            f"task.shots={shots}: there {there.get(len(fewest), f'are only {len(fewest)} training examples')}{of};"
            f" {way_out}"
        )
    sample = {
        indices[position]
        for label, indices in members.items()
        for position in drawn(len(indices), shots, seed, f"shots of {label}")
    }
    return [example for index, example in enumerate(examples) if index in sample]
