"""Several tasks that one prompt learns together: how many examples of each are drawn, and one score for all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean

from fpt.config.mixture import tasks_of, weights_of
from fpt.config.run_config import RunConfig
from fpt.tasks.task import Task

GAIN = "gain"  # the main metric: how far each task's own is above the task's baseline, in the mean
MOST = 2**19  # a task with more examples weighs as if it had so many, as in T5's mixtures (Raffel et al. 2020)


def mixed(config: RunConfig, tasks: Mapping[str, Task]) -> Task:
    """The tasks of a mixture as one; records are read, and outputs understood, by these alone, in its `tasks`."""
    parts = list(tasks.values())
    counts = counts_of(config, [len(task.train) for task in parts])
    shares = [f"{count / sum(counts):.0%} {name}" for name, count in zip(tasks, counts, strict=True)]
    return replace(
        parts[0],
        name=config.task.name,
        words={label: label for task in parts for label in task.labels},
        metric=GAIN,
        train=list(chain(*(task.train for task in parts))),
        valid=[example._replace(task=name) for name, task in tasks.items() for example in task.valid],
        origin="; ".join(f"{share}: {task.origin}" for share, task in zip(shares, parts, strict=True)),
        notes=(),
        skipped=tuple(chain(*(task.skipped for task in parts))),
        baseline_name="each task's baseline",
        majority=0.0,
        tasks=tasks,
        counts=counts,
    )


def counts_of(config: RunConfig, sizes: Sequence[int]) -> list[int]:
    """How many examples of each task an epoch takes, which ends when one task has given all of its `sizes` examples."""
    weights = weights_of(config.task, list(tasks_of(config))) or [min(size, MOST) for size in sizes]
    least = min(size / weight for size, weight in zip(sizes, weights, strict=True))
    return [max(1, round(least * weight)) for weight in weights]


def joined_scores(tasks: Mapping[str, Task], own: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean gain, and every task's `own` scores and baseline, with the task's name before theirs."""
    scores = {GAIN: fmean(of[task.metric] - task.majority for task, of in zip(tasks.values(), own, strict=True))}
    for (name, task), of in zip(tasks.items(), own, strict=True):
        scores |= {f"{name}.{key}": value for key, value in of.items()} | {f"{name}.majority": task.majority}
    return scores
