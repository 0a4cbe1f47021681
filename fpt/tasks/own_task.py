"""The user's own task (task=files): their files, templates for source and target, and a metric."""

import re
from dataclasses import replace
from functools import partial
from statistics import mode

from fpt.config.keys import LABEL_FORMS
from fpt.config.schema import HUB, TaskConfig
from fpt.errors import UserError, check_among
from fpt.tasks import answers, fields, file_formats, origins
from fpt.tasks.fields import Record
from fpt.tasks.origins import Origin, Split
from fpt.tasks.task import MASK, TaskRules, Template

# The settings that only task=files has
KEYS = ("train", "valid", "test", "columns", "source", "target", "spare", "id", "multilabel")
FIRST_ROW = re.compile(r"\.(csv|tsv|txt)(\.gz)?, line 2$")  # the first record of a table with a header
OF_LABELS, OF_TWO_LABELS = ("accuracy", "macro_f1"), ("accuracy", "f1", "macro_f1", "matthews")


def rules(config: TaskConfig) -> TaskRules:
    """The rules of the user's own task."""
    if config.template is not None:
        raise UserError("task.template is for tasks that have one of their own; for task=files give task.source")
    origin, source, target = _origin(config), _template(config, "source"), _template(config, "target")
    if config.spare is not None:
        Template(f"{{{config.spare}}}", key="task.spare").check_fields(source.fields, "task.source")
    source = replace(source, spare=source.fields if config.spare is None else (config.spare,))
    records = replace(origin, prepare=partial(_checked, config, source))
    if config.labels is not None:
        scored = _label_rules(config, source, target, records)
    elif config.multilabel:
        raise config.error("multilabel", "is for tasks with labels; give task.labels, or leave it out")
    else:
        scored = _free_rules(config.metric or "exact_match", source, target, records)
    return replace(
        scored,
        # An empty cell or list means that the answer is not known, or that there is no label.
        unknown=() if config.multilabel else ("", []),
        id_fields=() if config.id is None else (config.id,),
    )


def check_unused(config: TaskConfig) -> None:
    """Refuse settings that only task=files has in any other task."""
    instead = {"source": "; give task.template for another wording", "test": "; give task.test_split=test for its own"}
    for key in KEYS:
        if getattr(config, key) not in (None, False):
            raise config.error(key, f"is for task=files, not for {config.name}{instead.get(key, '')}")


def _free_rules(metric: str, source: Template, target: Template, records: Origin) -> TaskRules:
    allowed = (*answers.SCORES, *answers.OF_NUMBERS)
    check_among(metric, allowed, f"task.metric={metric}: without task.labels, allowed are")
    make = answers.number_rules if metric in answers.OF_NUMBERS else answers.text_rules
    return make(source, target, records, metric)


def _label_rules(config: TaskConfig, source: Template, target: Template, records: Origin) -> TaskRules:
    given = config.labels or {}
    values = [fields.compared(key) for key in given]
    if len(set(values)) < len(values):
        raise UserError(f"task.labels: two keys are the value {mode(values)}, as 1.0 is 1 and True is true; give one")
    words: dict[str, str] = dict(zip(values, given.values(), strict=True))
    num = len(set(words.values()))
    if num < 2:
        raise UserError(f"task.labels={{{', '.join(words)}}}: expected at least two label words; {LABEL_FORMS}")
    of_one = OF_TWO_LABELS if num == 2 else OF_LABELS
    allowed, form = (answers.OF_SETS, "task.multilabel=true") if config.multilabel else (of_one, f"{num} label words")
    metric = config.metric or allowed[0]
    check_among(metric, allowed, f"task.metric={metric}: with {form}, allowed are")
    if config.multilabel:
        return answers.multilabel_rules(source, words, records, metric, target)
    return answers.label_rules(source, words, records, tuple(dict.fromkeys((metric, "accuracy"))), target)


def _checked(config: TaskConfig, source: Template, record: Record, where: str) -> Record:
    """The record itself; one without its id, or with a column called mask next to a {mask}, is an error."""
    if MASK in source.text and MASK[1:-1] in record:
        raise UserError(f"{where}: the column 'mask' cannot be in task.source, where {MASK} is the answer; rename it")
    if FIRST_ROW.search(where) and all(fields.at(record, name) is None for name in source.fields):
        first = f"its first line has {', '.join(map(str, record))[:200]}"
        raise UserError(
            f"{where}: task.source names no column of this table; {first}. A table without a header needs their names,"
            " as in task.columns=[label,title,text], and a .csv commas between them"
        )
    if config.id is not None:
        fields.text(record, config.id, where)
    return record


def _template(config: TaskConfig, key: str) -> Template:
    template = Template(getattr(config, key) or "", key=f"task.{key}")
    if not template.fields:
        example = {"source": "question: {question} context: {passage}", "target": "{answer}"}[key]
        answer = f"; {MASK} is none, but where the answer is" if MASK in template.text else ""
        raise UserError(f"task=files needs a template with fields of yours as task.{key}, as in '{example}'{answer}")
    return template


def _origin(config: TaskConfig) -> Origin:
    if config.data != "auto":
        raise config.error("data", f"is for the named tasks; for task=files give task.train=FILE or {origins.HUB_FORM}")
    if config.train is None:
        raise UserError(f"task=files needs task.train=FILE ({file_formats.ALLOWED}) or {origins.HUB_FORM}")
    names = {"train": config.train, "validation": config.valid or config.train, "test": config.test}
    splits = {split: Split((name,), split) for split, name in names.items() if name is not None}
    for split, (given, _) in splits.items():
        if given[0].startswith(HUB):
            origins.on_hub(given[0], split)
        else:
            file_formats.check_ending(given[0], f"{origins.key_of(split)}={given[0]}")
    _check_columns(config)
    # Predicting needs no data files, so whether they exist is checked only when they are read.
    return Origin((), splits, partial(file_formats.read, columns=config.columns))


def _check_columns(config: TaskConfig) -> None:
    if config.columns is None:
        return
    if not config.columns or not all(isinstance(name, str) and name for name in config.columns):
        raise config.error("columns", "expected names, as task.columns=[label,title,text]")
    file_formats.check_names(config.columns, "task.columns")
    files = filter(None, (config.train, config.valid, config.test))
    if not any(file_formats.ending(file) in file_formats.ROWS for file in files):
        tables = ", ".join(file_formats.ROWS)
        raise config.error("columns", f"is for tables without a header ({tables}), and there is none; leave it out")
