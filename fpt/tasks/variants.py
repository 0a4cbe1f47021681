"""Changes a task's rules as the settings ask: template, label words, main metric, or both validation sets together.

`task.template=lpt` takes the templates and label words of late prompt tuning (Liu et al. 2022). They were written for a
masked language model; for T5 its first sentinel stands at the mask, and the target says what it stands for.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

from fpt.config import label_words
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, check_among, did_you_mean
from fpt.tasks import fields, labels
from fpt.tasks.benchmarks import wordings_of
from fpt.tasks.free_answers import Score
from fpt.tasks.task import Example, TaskRules

BOTH = "both"  # the name of MNLI's two validation sets together
MEAN = "mean"  # the name of the mean of all metrics


def wanted(rules: TaskRules, task: TaskConfig) -> TaskRules:
    """The rules of a built-in task, changed as the settings ask."""
    rules = _measured(_worded(rules, task), task)
    return rules if task.valid_split != BOTH else replace(rules, score=partial(_over_sets, rules.score, rules.metric))


def _worded(rules: TaskRules, task: TaskConfig) -> TaskRules:
    """The rules with the template and label words that the settings name or spell out."""
    named = wordings_of(task.name)
    template, spelt = named.get(task.template or "", (rules.template, rules.labels))
    if task.template is not None and task.template not in named:
        template = replace(template, text=task.template, key="task.template")
        other = f"{task.name}, whose named texts are {', '.join(named)}," if named else task.name
        template.check_fields(rules.template.fields, other)
    words = dict(zip(rules.labels, spelt, strict=True)) | _given_words(rules, task)
    label_words.check_spelling(words.values())
    if twice := next((word for word, count in Counter(words.values()).items() if count > 1), None):
        raise UserError(f"task.labels: two labels have the word '{twice}'; give each its own")
    if not rules.labels:
        return replace(rules, template=template)
    renamed = {value: words[word] for value, word in rules.words.items()}
    return labels.label_rules(template, renamed, rules.records, rules.metrics)


def _given_words(rules: TaskRules, task: TaskConfig) -> dict[str, str]:
    """The label words that the user gives, keyed by the words that they replace."""
    if task.labels is None:
        return {}
    if not rules.labels:
        raise UserError(f"task.labels: {task.name} has no labels; leave it out")
    words = {fields.as_text(key): fields.as_text(word) for key, word in task.labels.items()}
    unknown = next((label for label in words if label not in rules.labels), None)
    if unknown is not None:
        raise UserError(
            f"task.labels.{unknown}: {task.name} has {', '.join(rules.labels)}.{did_you_mean(unknown, rules.labels)}"
            f" Other words for them are {label_words.shown(dict.fromkeys(rules.labels, 'WORD'))}"
        )
    return words


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


def _over_sets(score: Score, main: str, answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """Each metric's unweighted mean over the validation sets, and each set's main metric (as in Liu et al. 2022)."""
    pairs, scores = list(zip(answers, examples, strict=True)), dict[str, dict[str, float]]()
    for name in dict.fromkeys(example.group for example in examples):
        own = [pair for pair in pairs if pair[1].group == name]
        scores[name] = score([answer for answer, _ in own], [example for _, example in own])
    means = {metric: fmean(each[metric] for each in scores.values()) for metric in next(iter(scores.values()))}
    return {**means, **{f"{main}_{name}": each[main] for name, each in scores.items() if name}}
