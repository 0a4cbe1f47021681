"""Seeded samples of examples: a few shots of each label, or a part held out for validation.

torch, which draws, is imported only when something is drawn, so that an error in a setting need not wait for it.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fpt.errors import UserError
from fpt.tasks.task import Example

SEVERAL = 4  # a label with so many examples has at least one held out, however small the share
ALL = "all"  # the one group of a task without labels
Parted = tuple[list[Example], list[Example]]


def split_off(examples: Sequence[Example], share: float, seed: int, *, labels: Sequence[str]) -> Parted:
    """Hold out a sample: the examples that remain, and the sample, both in the data's order.

    The sample is stratified by label with largest remainders; a label with SEVERAL examples or more gives at least one.
    """
    if len(examples) < 2:
        raise UserError("task.train: one example cannot be parted into training and validation; give task.valid")
    members = _by_label(examples, range(len(examples)), labels)
    counts = _proportional({label: len(indices) for label, indices in members.items()}, share)
    sample = _sample(members, counts, seed, "validation of {}" if labels else "validation")
    rest = sorted(set(range(len(examples))) - set(sample))
    return [examples[index] for index in rest], [examples[index] for index in sample]


def shots_of_each(examples: Sequence[Example], shots: int, seed: int, *, labels: Sequence[str]) -> list[Example]:
    """A sample of `shots` examples of each label, or of all if there are no labels, in the data's order."""
    members = _by_label(examples, range(len(examples)), labels)
    label, fewest = min(members.items(), key=lambda member: len(member[1]))
    if len(fewest) < shots:
        of = f" of '{label}'" if labels else ""
        there = f"there are only {len(fewest)} training examples{of}"
        raise UserError(f"task.shots={shots}: {there}; give a smaller number, or add some")
    return [examples[index] for index in _sample(members, dict.fromkeys(members, shots), seed, "shots of {}")]


def as_lpt_draws(examples: Sequence[Example], shots: int, valid_shots: int, seed: int, labels: Sequence[str]) -> Parted:
    """The training and validation examples that the published script of Liu et al. 2022 draws from the same file.

    It draws `shots` in all, and `valid_shots` of the rest, in proportion to the labels, after shuffling with numpy's
    generator. Labels are in the order of their first examples after the shuffle; the last one gets what rounding
    leaves. A label that has too few examples left gives fewer. (Run for several seeds, that script reshuffles files
    without a header from one seed to the next; this matches a run for a single seed.)
    """
    if not labels:
        raise UserError("task.protocol=lpt: draws by label, and here no example has just one; leave it out")
    if shots >= len(examples):
        there = f"only {len(examples)} training examples, and some are for validation"
        raise UserError(f"task.shots={shots}: there are {there}; give a smaller number")
    order = np.random.RandomState(seed).permutation(len(examples)).tolist()
    members = _by_label(examples, order, list(dict.fromkeys(examples[index].golds[0] for index in order)))
    taken = _rounded([len(indices) for indices in members.values()], shots)
    if min(taken) < 0:
        raise UserError(f"task.shots={shots}: too few for {len(members)} labels in proportion; give a larger number")
    left = {label: indices[number:] for (label, indices), number in zip(members.items(), taken, strict=True)}
    more = _rounded([len(indices) for indices in left.values()], valid_shots)
    train = [index for indices, number in zip(members.values(), taken, strict=True) for index in indices[:number]]
    valid = [index for indices, number in zip(left.values(), more, strict=True) for index in indices[: max(0, number)]]
    return [examples[index] for index in sorted(train)], [examples[index] for index in sorted(valid)]


def _by_label(examples: Sequence[Example], order: Iterable[int], labels: Sequence[str]) -> dict[str, list[int]]:
    """The indices of each label's examples, in the given order; without labels there is one group, ALL."""
    members: dict[str, list[int]] = {label: [] for label in labels or (ALL,)}
    for index in order:
        members[examples[index].golds[0] if labels else ALL].append(index)
    return members


def _sample(members: Mapping[str, list[int]], counts: Mapping[str, int], seed: int, purpose: str) -> list[int]:
    """Draw `counts` of each label's examples, from one random stream per label; their indices, in ascending order."""
    from fpt.random_streams import drawn

    return sorted(
        indices[position]
        for label, indices in members.items()
        for position in drawn(len(indices), counts[label], seed, purpose.format(label))
    )


def _rounded(counts: Sequence[int], number: int) -> list[int]:
    """Split `number` in proportion to counts, rounded to the nearest (half to even); the last part is what is left."""
    shares = [round(number * count / sum(counts)) for count in counts[:-1]]
    return [*shares, number - sum(shares)]


def _proportional(sizes: Mapping[str, int], share: float) -> dict[str, int]:
    """How many to draw of each group, in proportion to the groups' sizes; at least one of each that has SEVERAL."""
    total = max(1, round(share * sum(sizes.values())))
    counts = {label: max(int(share * size), int(size >= SEVERAL)) for label, size in sizes.items()}
    lacking = sorted(sizes, key=lambda label: counts[label] - share * sizes[label])  # furthest below its share first
    for label in lacking[: max(0, total - sum(counts.values()))]:
        counts[label] += 1
    return counts
