"""Finds a task's rules by its name, as the settings ask, where its data are, and which of its splits are read."""

from dataclasses import replace
from pathlib import Path
from statistics import mode

from fpt.config.mixture import tasks_of
from fpt.config.run_config import RunConfig
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, check_among
from fpt.tasks import answers, fields, own_task
from fpt.tasks.benchmarks import RULES, wordings_of
from fpt.tasks.task import TaskRules

GENERATED = (4000, 500)  # training and validation examples of every generated task


def rules_of(task: TaskConfig) -> TaskRules:
    """The task's rules, changed as the user's settings ask."""
    if task.of is not None:
        names = ", ".join(Path(name).stem for name in task.of)
        raise UserError(f"task={task.name}: this prompt is of several tasks, {names}; task=NAME says which is meant")
    rules = own_task.rules(task) if is_own(task) else _named_rules(task)
    for text in (rules.template.text, *rules.labels):
        fields.readable(text, f"task={task.name}: {text!r}")
    for key in ("answer", "class_weights"):
        if getattr(task, key) not in ("generate", None) and not rules.classes:
            way_out = ", or give task.labels" if is_own(task) and not rules.multilabel else ""
            raise task.error(
                key, f"is for examples with one label each, unlike those of {task.name}; leave it out{way_out}"
            )
    answers.class_weights(task, rules)
    return rules


def is_own(task: TaskConfig) -> bool:
    """Whether the data are the user's own files: task=files, or another name that is not a built-in task's."""
    return task.name == "files" or (task.train is not None and task.name not in RULES)


def _named_rules(task: TaskConfig) -> TaskRules:
    check_among(task.name, RULES, f"task.name={task.name}: allowed are")
    own_task.check_unused(task)
    rules = _worded(RULES[task.name], task)
    metric = task.metric or rules.metric
    check_among(metric, rules.metrics or (rules.metric,), f"task.metric={metric}: {task.name} has")
    rules = replace(rules, metric=metric)
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
    given = task.labels or {}
    for label in given:
        check_among(label, rules.labels, f"task.labels={{{label}: …}}: {task.name} has")
    words = dict(zip(rules.labels, spelt, strict=True)) | given
    if len(set(words.values())) < len(words):
        raise UserError(f"task.labels: two labels have the word '{mode(words.values())}'; give each its own")
    renamed = {value: words[word] for value, word in rules.words.items()}
    return answers.label_rules(template, renamed, rules.records, rules.metrics)


def data_of(config: RunConfig, rules: TaskRules) -> str:
    """Where the data are: 'world', 'hub' or a folder."""
    task = config.task
    is_generated = config.model.weights == "embedded" and rules.records.generated
    auto = "." if is_own(task) else "world" if is_generated else "hub"
    data = auto if task.data == "auto" else task.data
    if data == "world":
        return data
    for key in ("world", "land"):
        if getattr(task, key) is not None:
            given = "files of your own" if is_own(task) else rules.records.describe(data)
            raise task.error(key, f"is for generated data, these are {given}; leave it out, or give task.data=world")
    return data


def most_examples(config: RunConfig) -> tuple[int | None, int | None]:
    """How many training and validation examples there are at most; None where that is not known."""
    task, limits = config.task, (config.task.train_examples, config.task.valid_examples)
    if task.of is not None:
        trains, valids = zip(*map(most_examples, tasks_of(config).values()), strict=True)
        return None if None in trains else sum(trains), None if None in valids else sum(valids)
    if is_own(task):
        return limits
    rules = rules_of(task)
    sizes = {"world": GENERATED, "hub": rules.records.sizes}.get(data_of(config, rules), (None, None))
    train, valid = (min(filter(None, pair), default=None) for pair in zip(limits, sizes, strict=True))
    if rules.each_gold:  # a record makes several examples
        train = task.train_examples
    elif task.shots is not None:
        train = task.shots * max(1, len(rules.labels))
    return train, valid


def asked_test_split(config: RunConfig, rules: TaskRules) -> str | None:
    """The test split that the settings ask for; None: none."""
    task, tests, own = config.task, rules.records.tests, is_own(config.task)
    check_among(task.valid_split, rules.records.validations, f"task.valid_split={task.valid_split}: {task.name} has")
    split = "test" if own and task.test and task.test_split is None else task.test_split
    if split is None:
        return None
    if own and not tests:
        raise task.error("test_split", "for task=files give task.test=FILE, or leave it out")
    check_among(split, tests, f"task.test_split={split}: {task.name} has")
    if not rules.records.splits[split].hub and data_of(config, rules) == "hub":
        raise task.error("test_split", f"{task.name} has no public test split; leave it out, or give a folder with it")
    return split


def with_split(config: RunConfig, split: str | None) -> RunConfig:
    """The configuration changed so that `split` is read: train, a validation split or a test split."""
    if split is None and config.task.of is not None:
        return config
    records, task = rules_of(config.task).records, config.task
    if split in records.tests:
        return replace(config, task=replace(task, test_split=split))
    if split not in (None, "validation"):
        check_among(split, records.splits, f"split={split}: {task.name} has")
    valid_split = split if split in records.validations else task.valid_split
    return replace(config, task=replace(task, test_split=None, test=None, valid_split=valid_split))
