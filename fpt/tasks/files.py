"""Your own data: JSONL, CSV, TSV or Parquet, with templates for source and target, and a metric."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fpt.config import TaskConfig
from fpt.errors import UserError, did_you_mean, reason
from fpt.tasks import labels, ratings, reading, sources, summary
from fpt.tasks.labels import LabelTask
from fpt.tasks.sources import Located, Omissions, Reader, Record, Source
from fpt.tasks.task import ANSWER, Example, Form, Template

OWN = ("train", "valid", "source", "target", "spare", "id", "labels", "metric")  # keys that belong to task=files
OF_LABELS = ("accuracy", "f1", "macro_f1", "matthews")
OF_TEXT = ("exact_match", "f1", "pearson", "spearman", "rougeL", "rouge1", "rouge2")


def form(config: TaskConfig) -> Form:
    """The rules of the user's own task.

    Raises:
        UserError: a setting is missing or wrong, or there is no such file.
    """
    source, target = _template(config, "source"), _template(config, "target")
    if config.spare is not None:
        Template(f"{{{config.spare}}}").check("task.spare", source.fields, "task.source")
    words = None if config.labels is None else {_text(key): str(word) for key, word in config.labels.items()}
    scored = _scored_as_text(config.metric or "exact_match") if words is None else _scored_as_label(config, words)
    numbers = scored.metric in ("pearson", "spearman")
    return replace(
        scored,
        records=_records(config),
        template=Template(source.text, source.fields if config.spare is None else (config.spare,)),
        example=partial(_example, target, config.id, words, numbers),
        each_gold=False,
    )


def check_unused(config: TaskConfig) -> None:
    """Refuse settings of task=files where the task is another.

    Raises:
        UserError: there are some.
    """
    given = next((key for key in OWN if getattr(config, key) is not None), None)
    if given is not None:
        other = {"source": " Another wording for the task's source is task.template", "train": "", "valid": ""}
        raise UserError(f"task.{given} is for task=files, not for {config.name}.{other.get(given, '')}")


def _scored_as_text(metric: str) -> Form:
    """A form with the metric's rules."""
    if metric not in OF_TEXT:
        hint = " Those of labels need task.labels" if metric in OF_LABELS else did_you_mean(metric, OF_TEXT)
        raise UserError(f"task.metric={metric}: without task.labels, allowed are {', '.join(OF_TEXT)}.{hint}")
    if metric in ("pearson", "spearman"):
        return replace(ratings.FORMS["stsb"], metric=metric, score=partial(ratings.score, limits=None))
    free = summary.FORMS["xsum"] if metric.startswith("rouge") else reading.FORMS["record"]
    return replace(free, metric=metric, baseline=reading.most_common_answer)


def _scored_as_label(config: TaskConfig, words: Mapping[str, str]) -> Form:
    """A form with the labels' and the metric's rules."""
    metric, num = config.metric or "accuracy", len(set(words.values()))
    if num < 2:
        raise UserError(f"task.labels={config.labels}: expected at least two label words")
    allowed = [name for name in OF_LABELS if num == 2 or name not in labels.OF_TWO]
    if metric not in allowed:
        raise UserError(
            f"task.metric={metric}: with {num} label words, allowed are {', '.join(allowed)}."
            f"{did_you_mean(metric, allowed)}"
        )
    names = tuple(dict.fromkeys((metric, "accuracy")))
    return labels.form(LabelTask(Template(""), tuple(words.items()), _records(config), names))


def _example(
    target: Template,
    id_field: str | None,
    words: Mapping[str, str] | None,
    numbers: bool,
    source: Template,
    record: Record,
    where: str,
) -> Example:
    text, spare = source.fill(_values(record, source.fields, where))
    answer, _ = target.fill(_values(record, target.fields, where))
    if words is not None:
        if answer not in words:
            raise UserError(f"{where}: the label is {answer[:100]!r}; task.labels has {', '.join(words)}")
        answer = words[answer]
    elif numbers and ratings.number(answer) is None:
        raise UserError(f"{where}: the target is {answer[:100]!r}; expected a number")
    elif not answer.strip():
        raise UserError(f"{where}: the target is empty; expected a text")
    name = _values(record, (id_field,), where)[id_field] if id_field else where.rpartition(", ")[2]
    return Example(name, text, ANSWER.format(answer=answer), (answer,), spare)


def _values(record: Record, names: Sequence[str], where: str) -> dict[str, str]:
    """The fields' texts; numbers and truth values as JSON writes them."""
    values = {}
    for name in names:
        if name not in record:
            raise UserError(
                f"{where}: no field '{name}'; it has {', '.join(map(str, record))[:200]}.{did_you_mean(name, record)}"
            )
        if not isinstance(record[name], str | int | float):
            raise UserError(f"{where}: '{name}' is {record[name]!r:.100}; expected a text or a number")
        values[name] = _text(record[name])
    return values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _template(config: TaskConfig, key: str) -> Template:
    template = Template(getattr(config, key) or "")
    try:
        fields = template.fields
    except ValueError as error:
        raise UserError(f"task.{key}={template.text}: not a template ({error})") from None
    if not fields:
        example = {"source": "question: {question} context: {passage}", "target": "{answer}"}[key]
        raise UserError(f"task=files needs a template with fields of yours as task.{key}, as in '{example}'")
    return template


def _records(config: TaskConfig) -> Source:
    if config.train is None:
        raise UserError(f"task=files needs task.train=FILE: {', '.join(READERS)}")
    files = {"train": config.train, "valid": config.valid or config.train}
    for key, name in files.items():
        if Path(name).suffix.lower() not in READERS:
            raise UserError(f"task.{key}={name}: the name must end in one of {', '.join(READERS)}")
        if not Path(name).expanduser().is_file():
            raise UserError(f"task.{key}={name}: no such file")
    splits = sources.two_splits(*(str(Path(name).expanduser()) for name in files.values()))
    return Source((), splits, lambda file, omissions: READERS[file.suffix.lower()](file, omissions))


def _separated(file: Path, omissions: Omissions, *, separator: str) -> Iterator[Located]:
    """A record a row under a row of names. CSV may quote, also over several lines; TSV's quotes are letters."""
    text = (f"{line}\n" for _, line in sources.lines(file, omissions))
    options: dict[str, Any] = {} if separator == "," else {"quoting": csv.QUOTE_NONE}
    rows = csv.reader(text, delimiter=separator, strict=True, **options)
    names: list[str] = []
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            omissions.fault(UserError(f"{file}, line {rows.line_num}: not {file.suffix[1:].upper()} ({error})"))
            continue
        where = f"{file}, line {rows.line_num}"
        if not names:
            names = cells
        elif len(cells) == len(names):
            yield where, dict(zip(names, cells, strict=True))
        elif any(cells):
            omissions.fault(
                UserError(f"{where}: {len(cells)} columns, expected {len(names)}: {', '.join(names)[:200]}")
            )


def _parquet(file: Path, _: Omissions) -> Iterator[Located]:
    """A record a row."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        for batch in ParquetFile(file).iter_batches(1000):
            for record in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", record
    except (ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read as Parquet ({reason(error)})") from None


READERS: dict[str, Reader] = {
    ".jsonl": sources.json_lines,
    ".csv": partial(_separated, separator=","),
    ".tsv": partial(_separated, separator="\t"),
    ".parquet": _parquet,
}
