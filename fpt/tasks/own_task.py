"""The user's own task: files of theirs, with templates for source and target, and a metric."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from fpt.config import label_words
from fpt.config.schema import TaskConfig
from fpt.errors import UserError, did_you_mean
from fpt.tasks import fields, labels, metrics, origins, ratings, reading, summary
from fpt.tasks.fields import Record
from fpt.tasks.file_formats import READERS
from fpt.tasks.origins import Origin
from fpt.tasks.task import MASK, Example, Golds, TaskRules, Template

# Keys that belong to task=files.
OWN = ("train", "valid", "test", "source", "target", "spare", "id")
OF_LABELS = ("accuracy", "f1", "macro_f1", "matthews")
OF_TEXT = ("exact_match", "f1", "squad_em", "squad_f1", "pearson", "spearman", "rougeL", "rouge1", "rouge2")


def rules(config: TaskConfig) -> TaskRules:
    """The rules of the user's own task."""
    origin = _origin(config)
    source, target = _template(config, "source"), _template(config, "target")
    if config.spare is not None:
        Template(f"{{{config.spare}}}").check("task.spare", source.fields, "task.source")
    words = None if config.labels is None else _words(config.labels)
    scored = _text_rules(config.metric or "exact_match") if words is None else _label_rules(config, words, origin)
    numbers = scored.metric in ("pearson", "spearman")
    return replace(
        scored,
        records=origin,
        template=Template(source.text, source.fields if config.spare is None else (config.spare,)),
        question=partial(_question, config.id),
        answer=partial(_answer, target, words, numbers),
        answered=partial(_is_answered, target),
        each_gold=False,
    )


def check_unused(config: TaskConfig) -> None:
    """Refuse settings of task=files where the task is another."""
    key = next((key for key in OWN if getattr(config, key) is not None), None)
    if key is not None:
        other = {
            "source": " Another wording for the task's source is task.template",
            "test": " Its own test split is task.test_split=test",
        }
        raise UserError(f"task.{key} is for task=files, not for {config.name}.{other.get(key, '')}")


def _text_rules(metric: str) -> TaskRules:
    """Rules that read and score a free answer by the metric."""
    if metric not in OF_TEXT:
        hint = " Those of labels need task.labels" if metric in OF_LABELS else did_you_mean(metric, OF_TEXT)
        raise UserError(f"task.metric={metric}: without task.labels, allowed are {', '.join(OF_TEXT)}.{hint}")
    if metric in ("pearson", "spearman"):
        return replace(ratings.RULES["stsb"], metric=metric, score=partial(ratings.score, limits=None))
    if metric.startswith("rouge"):
        return replace(summary.RULES["xsum"], metric=metric, baseline=reading.most_common_answer)
    free = replace(reading.RULES["record"], metric=metric, score=_squad_score)
    return free if metric.startswith("squad") else replace(free, score=_score, correct=_correct)


def _score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """How many answers are a gold as it is written, and F1 of words and marks."""
    pairs = list(zip(answers, examples, strict=True))
    return {
        "exact_match": 100 * fmean(_correct(answer, example) for answer, example in pairs),
        "f1": 100 * fmean(metrics.text_f1(answer, example.golds) for answer, example in pairs),
    }


def _squad_score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    """The same in SQuAD's normal form, in which letter case, articles and punctuation do not count."""
    scores = reading.score(answers, examples)
    return {"squad_em": scores["exact_match"], "squad_f1": scores["f1"]}


def _correct(answer: str, example: Example) -> bool:
    return metrics.same_text(answer, example.golds)


def _words(word_of: Mapping[Any, Any]) -> dict[str, str]:
    """Label words by the value that they stand for, as values are compared."""
    words: dict[str, str] = {}
    for key, word in word_of.items():
        value = fields.compared(fields.as_text(key))
        if value in words:
            raise UserError(f"task.labels: two keys are the value {value}, as 1.0 is 1 and True is true; give one")
        words[value] = fields.as_text(word)
    label_words.check(words.values())
    return words


def _label_rules(config: TaskConfig, words: Mapping[str, str], origin: Origin) -> TaskRules:
    """Rules that read an answer as one of the label words, and score it by the metric."""
    metric, num = config.metric or "accuracy", len(set(words.values()))
    if num < 2:
        raise UserError(f"task.labels={{{', '.join(words)}}}: expected at least two label words; {label_words.FORMS}")
    allowed = [name for name in OF_LABELS if num == 2 or name not in labels.OF_TWO]
    if metric not in allowed:
        raise UserError(
            f"task.metric={metric}: with {num} label words, allowed are {', '.join(allowed)}."
            f"{did_you_mean(metric, allowed)}"
        )
    names = tuple(dict.fromkeys((metric, "accuracy")))
    return labels.label_rules(Template(""), tuple(words.items()), origin, names)


def _question(id_field: str | None, source: Template, record: Record, where: str) -> Example:
    name = _values(record, (id_field,), where)[id_field] if id_field else where.rpartition(", ")[2]
    if MASK in source.text and MASK[1:-1] in record:
        raise UserError(f"{where}: the column 'mask' cannot be in task.source, where {MASK} is the answer; rename it")
    return source.fill(_values(record, source.fields, where), name)


def _answer(
    target: Template, words: Mapping[str, str] | None, numbers: bool, record: Record, where: str
) -> tuple[str, Golds]:
    answer = target.fill(_values(record, target.fields, where)).source
    if words is not None:
        value = fields.compared(answer)
        if value not in words:
            more = label_words.shown({**words, value[:100]: "WORD"})
            raise UserError(f"{where}: the label is {answer[:100]!r}, and task.labels has no word for it; give {more}")
        answer = words[value]
    elif numbers and ratings.number(answer) is None:
        raise UserError(f"{where}: the target is {answer[:100]!r}; expected a number")
    elif not answer.strip():
        raise UserError(f"{where}: the target is empty; expected a text")
    return answer, (answer,)


def _is_answered(target: Template, record: Record) -> bool:
    """Whether the target's fields are there and not all empty, as a table's are where nothing is known."""
    values = [record.get(name) for name in target.fields]
    return None not in values and any(value != "" for value in values)


def _values(record: Record, names: Sequence[str], where: str) -> dict[str, str]:
    """The fields' texts; numbers and truth values as JSON writes them."""
    values = {}
    for name in names:
        if name not in record:
            raise UserError(
                f"{where}: no field '{name}'; it has {', '.join(map(str, record))[:200]}."
                f"{fields.parted_otherwise(record, name) or did_you_mean(name, record)}"
            )
        values[name] = fields.text_or_number(record, name, where)
    return values


def _template(config: TaskConfig, key: str) -> Template:
    template = Template(getattr(config, key) or "")
    try:
        names = template.fields
    except ValueError as error:
        raise UserError(f"task.{key}={template.text}: not a template ({error})") from None
    if not names:
        example = {"source": "question: {question} context: {passage}", "target": "{answer}"}[key]
        answer = f"; {MASK} is none, but where the answer is" if MASK in template.text else ""
        raise UserError(f"task=files needs a template with fields of yours as task.{key}, as in '{example}'{answer}")
    return template


def _origin(config: TaskConfig) -> Origin:
    if config.data != "auto":
        raise UserError(f"task.data={config.data}: is for the named tasks; for task=files give task.train=FILE")
    if config.train is None:
        raise UserError(f"task=files needs task.train=FILE: {', '.join(READERS)}")
    files = {"train": config.train, "valid": config.valid or config.train}
    tests = {} if config.test is None else {"test": config.test}
    paths: dict[str, tuple[str, ...]] = {}
    for key, name in (files | tests).items():
        if Path(name).suffix.lower() not in READERS:
            raise UserError(f"task.{key}={name}: the name must end in one of {', '.join(READERS)}")
        paths[key] = (name,)  # what answers needs no data, so whether it is there is asked when it is read
    return Origin(
        (),
        origins.named(train=paths["train"], validation=paths["valid"]),
        lambda file, faults: READERS[file.suffix.lower()](file, faults),
        tests=origins.named(**{key: paths[key] for key in tests}),
    )
