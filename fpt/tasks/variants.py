"""A task's rules as the user wants them: another text, other label words, another main metric, both validation sets."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

from fpt.config import label_words
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, did_you_mean
from fpt.tasks import fields
from fpt.tasks.task import Example, TaskRules
from fpt.tasks.wordings import WORDINGS

BOTH = "both"  # MNLI's validation sets, as if they were one
MEAN = "mean"  # of all metrics, or of all sets
Score = Callable[[Sequence[str], Sequence[Example]], dict[str, float]]


def wanted(rules: TaskRules, task: TaskConfig) -> TaskRules:
    """The rules of a named task with the settings that change them."""
    rules = _worded(rules, task)
    if task.metric is not None:
        rules = _measured(rules, task)
    if task.valid_split == BOTH:
        rules = replace(rules, score=partial(_over_sets, rules.score, rules.metric))
    return rules


def _worded(rules: TaskRules, task: TaskConfig) -> TaskRules:
    named = {name: wordings[task.name] for name, wordings in WORDINGS.items() if task.name in wordings}
    wording = named.get(task.template or "")
    words = {**(wording.words if wording else {}), **_words(rules, task)}
    template = rules.template if wording is None else wording.template
    if words:
        assert rules.relabelled is not None  # or there would be no labels to name
        spelt = [words.get(label, label) for label in rules.labels]
        label_words.check(spelt)
        if twice := next((word for word in spelt if spelt.count(word) > 1), None):
            raise UserError(f"task.labels: two labels have the word '{twice}'; give each its own")
        rules = replace(rules.relabelled(words), records=rules.records)
    if task.template is not None and wording is None:
        template = replace(template, text=task.template, key="task.template")
        other = f"{task.name}, whose named texts are {', '.join(named)}," if named else task.name
        template.check_fields(rules.template.fields, other)
    return replace(rules, template=template)


def _words(rules: TaskRules, task: TaskConfig) -> dict[str, str]:
    """The label words that the user gives, by those they replace."""
    if task.labels is None:
        return {}
    if not rules.labels:
        raise UserError(f"task.labels: {task.name} has no labels; leave it out")
    words = {fields.as_text(key): fields.as_text(word) for key, word in task.labels.items()}
    for label in words:
        if label not in rules.labels:
            raise UserError(
                f"task.labels.{label}: {task.name} has {', '.join(rules.labels)}.{did_you_mean(label, rules.labels)}"
                f" Other words for them are {label_words.shown(dict.fromkeys(rules.labels, 'WORD'))}"
            )
    return words


def _measured(rules: TaskRules, task: TaskConfig) -> TaskRules:
    """With another of the task's metrics as the main one, or the mean of all."""
    names = (*rules.metrics, MEAN) if rules.metrics else (rules.metric,)
    if task.metric == MEAN and len(rules.metrics) == 1:
        return rules
    if task.metric not in names:
        allowed = ", ".join(names)
        raise UserError(f"task.metric={task.metric}: {task.name} has {allowed}.{did_you_mean(str(task.metric), names)}")
    score = partial(_with_mean, rules.score, rules.metrics) if task.metric == MEAN else rules.score
    return replace(rules, metric=str(task.metric), score=score)


def _with_mean(
    score: Score, names: Sequence[str], answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, float]:
    scores = score(answers, examples)
    return {MEAN: fmean(scores[name] for name in names), **scores}


def _over_sets(score: Score, main: str, answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """The mean of the sets' scores, whatever their sizes, and the main one's of each (Liu et al. 2022 on MNLI)."""
    members: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        members.setdefault(example.group, []).append(index)
    scores = {
        name: score([answers[index] for index in indices], [examples[index] for index in indices])
        for name, indices in members.items()
    }
    means = {metric: fmean(each[metric] for each in scores.values()) for metric in next(iter(scores.values()))}
    return {**means, **{f"{main}_{name}": each[main] for name, each in scores.items() if name}}
