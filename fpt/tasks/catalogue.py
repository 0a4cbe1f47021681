"""Finds a task's rules by its name, with the template, label words and main metric that the settings ask for.

`task.template=lpt` takes the templates and label words of late prompt tuning (Liu et al. 2022). They were written for a
masked language model; for T5 its first sentinel stands at the mask, and the target says what it stands for.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean, mode

from fpt.config import label_words
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, check_among
from fpt.tasks import fields, labels, own_task
from fpt.tasks.benchmarks import RULES, wordings_of
from fpt.tasks.free_answers import Score
from fpt.tasks.task import Example, TaskRules

MEAN = "mean"  # the name of the mean of all metrics


def rules_of(task: TaskConfig) -> TaskRules:
    """The task's rules, changed as the user's settings ask."""
    rules = own_task.rules(task) if is_own(task) else _named_rules(task)
    for text in (rules.template.text, *rules.labels):
        fields.readable(text, f"task={task.name}: {text!r}")
    for key in ("answer", "class_weights"):
        if getattr(task, key) not in ("generate", None) and not rules.classes:
            way_out = ", or give task.labels" if is_own(task) and not rules.multilabel else ""
            raise task.error(
                key, f"is for examples with one label each, unlike those of {task.name}; leave it out{way_out}"
            )
    labels.class_weights(task, rules)
    return rules


def is_own(task: TaskConfig) -> bool:
    """Whether the data are the user's own files: task=files, or another name that is not a built-in task's."""
    return task.name == "files" or (task.train is not None and task.name not in RULES)


def _named_rules(task: TaskConfig) -> TaskRules:
    """The rules of a built-in task."""
    check_among(task.name, RULES, f"task.name={task.name}: allowed are")
    own_task.check_unused(task)
    rules = _measured(_worded(RULES[task.name], task), task)
    if task.world != "plain" and rules.records.generated:
        return replace(rules, records=replace(rules.records, land=task.land or 0))
    if task.land is not None:
        raise task.error("land", "only customs have lands; leave it out, or give task.world=customs")
    return rules


def _worded(rules: TaskRules, task: TaskConfig) -> TaskRules:
    """The rules with the template and label words that the settings name or spell out."""
    named = wordings_of(task.name)
    template, spelt = named.get(task.template or "", (rules.template, rules.labels))
    if task.template is not None and task.template not in named:
        template = replace(template, text=task.template, key="task.template")
        other = f"{task.name}, whose named texts are {', '.join(named)}," if named else task.name
        template.check_fields(rules.template.fields, other)
    if not rules.labels:
        if task.labels is not None:
            raise UserError(f"task.labels: {task.name} has no labels; leave it out")
        return replace(rules, template=template)
    given = {fields.as_text(label): fields.as_text(word) for label, word in (task.labels or {}).items()}
    for label in given:
        check_among(label, rules.labels, f"task.labels.{label}: {task.name} has")
    words = dict(zip(rules.labels, spelt, strict=True)) | given
    label_words.check_spelling(words.values())
    if len(set(words.values())) < len(words):
        raise UserError(f"task.labels: two labels have the word '{mode(words.values())}'; give each its own")
    renamed = {value: words[word] for value, word in rules.words.items()}
    return labels.label_rules(template, renamed, rules.records, rules.metrics)


def _measured(rules: TaskRules, task: TaskConfig) -> TaskRules:
    """The rules with another of the task's metrics as the main one, or the mean of all."""
    metric, names = task.metric, (*rules.metrics, MEAN) if rules.metrics else (rules.metric,)
    if metric is None or (metric == MEAN and len(rules.metrics) == 1):
        return rules
    check_among(metric, names, f"task.metric={metric}: {task.name} has")
    score = partial(_with_mean, rules.score, rules.metrics) if metric == MEAN else rules.score
    return replace(rules, metric=metric, score=score)


def _with_mean(
    score: Score, names: Sequence[str], answers: Sequence[str], examples: Sequence[Example]
) -> dict[str, float]:
    scores = score(answers, examples)
    return {MEAN: fmean(scores[name] for name in names), **scores}
