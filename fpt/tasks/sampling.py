"""Which examples are drawn with the seed: few of each label, or some for validation.

The one module of `fpt.tasks` that needs torch, whose random streams decide. It is imported when one draws, so that an
error in a setting or in the data need not wait for it.
"""

from collections.abc import Sequence

import numpy as np

from fpt.errors import UserError
from fpt.tasks.task import Example

SEVERAL = 4  # of a label: with so many, one is for validation, however small the share


def split_off(
    examples: Sequence[Example], share: float, seed: int, *, labels: Sequence[str]
) -> tuple[list[Example], list[Example]]:
    """Examples without a sample of them, and the sample, both in their own order.

    Of each label about as large a share is drawn as of all, by largest remainders, and at least one of several.
    """
    if len(examples) < 2:
        raise UserError("task.train: one example cannot be parted into training and validation; give task.valid")
    from fpt.random_streams import drawn

    members = _members(examples, labels)
    counts = _counts({label: len(indices) for label, indices in members.items()}, share)
    sample = {
        indices[position]
        for label, indices in members.items()
        for position in drawn(len(indices), counts[label], seed, f"validation of {label}" if labels else "validation")
    }
    return (
        [example for index, example in enumerate(examples) if index not in sample],
        [example for index, example in enumerate(examples) if index in sample],
    )


def as_lpt_draws(
    examples: Sequence[Example], shots: int, valid_shots: int, seed: int, labels: Sequence[str]
) -> tuple[list[Example], list[Example]]:
    """Examples to train and to validate on, those that Liu et al. 2022's published script draws from the same file.

    `shots` in all and `valid_shots` of the rest, in proportion to the labels, whose order is that of their first
    examples when all are shuffled by numpy's generator; the last label has what rounding leaves. Where the rest of a
    label is fewer, there are fewer. (Of files without a header that script shuffles for a seed what it has shuffled for
    the seed before; here as there for one seed alone.)
    """
    if not labels:
        raise UserError("task.protocol=lpt: draws in proportion to labels, and this task has none; leave it out")
    if shots >= len(examples):
        raise UserError(
            f"task.shots={shots}: there are only {len(examples)} training examples, and some are for validation; give a"
            " smaller number"
        )
    order = list(range(len(examples)))
    np.random.RandomState(seed).shuffle(order)
    members: dict[str, list[int]] = {}
    for index in order:
        members.setdefault(examples[index].golds[0], []).append(index)
    counts = [len(indices) for indices in members.values()]
    taken = _in_proportion(counts, shots)
    left = [count - number for count, number in zip(counts, taken, strict=True)]
    if min(taken) < 0:
        raise UserError(f"task.shots={shots}: too few for {len(members)} labels in proportion; give a larger number")
    more = _in_proportion(left, valid_shots)
    train, valid = list[int](), list[int]()
    for indices, number, further in zip(members.values(), taken, more, strict=True):
        train += indices[:number]
        valid += indices[number : number + max(0, further)]
    return [examples[index] for index in sorted(train)], [examples[index] for index in sorted(valid)]


def _in_proportion(counts: Sequence[int], number: int) -> list[int]:
    """`number` shared out in proportion to counts, rounded to the nearest (half to even); the last has what is left."""
    shares = [round(number * count / sum(counts)) for count in counts[:-1]]
    return [*shares, number - sum(shares)]


def shots_of_each(examples: Sequence[Example], shots: int, seed: int, *, labels: Sequence[str]) -> list[Example]:
    """A sample of `shots` examples of each label, or of all, in their own order."""
    from fpt.random_streams import drawn

    members = _members(examples, labels)
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


def _members(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, list[int]]:
    """The indices of each label's examples; of all, where there are no labels."""
    members: dict[str, list[int]] = {label: [] for label in labels or ("all",)}
    for index, example in enumerate(examples):
        members[example.golds[0] if labels else "all"].append(index)
    return members


def _counts(sizes: dict[str, int], share: float) -> dict[str, int]:
    """How many to draw of each group: the share of all, parted as the groups are; one of each that has several."""
    total = max(1, round(share * sum(sizes.values())))
    counts = {label: max(int(share * size), int(size >= SEVERAL)) for label, size in sizes.items()}
    left = sorted(sizes, key=lambda label: counts[label] - share * sizes[label])  # who lacks most comes first
    for label in left[: max(0, total - sum(counts.values()))]:
        counts[label] += 1
    return counts
