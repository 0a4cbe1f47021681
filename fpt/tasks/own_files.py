"""Your own data: JSONL, CSV, TSV or Parquet, with templates for source and target, and a metric."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fpt.config.schema import TaskConfig
from fpt.errors import UserError, did_you_mean, reason
from fpt.tasks import labels, origins, ratings, reading, summary
from fpt.tasks.labels import LabelTask
from fpt.tasks.origins import Located, Omissions, Origin, Reader, Record
from fpt.tasks.task import Example, Golds, TaskForm, Template

OWN = (
    "train",
    "valid",
    "test",
    "source",
    "target",
    "spare",
    "id",
    "labels",
    "metric",
)  # keys that belong to task=files
OF_LABELS = ("accuracy", "f1", "macro_f1", "matthews")
OF_TEXT = ("exact_match", "f1", "pearson", "spearman", "rougeL", "rouge1", "rouge2")


def form(config: TaskConfig) -> TaskForm:
    """The rules of the user's own task.

    Raises:
        UserError: a setting is missing or wrong, or there is no such file.
    """
    records = _records(config)
    source, target = _template(config, "source"), _template(config, "target")
    if config.spare is not None:
        Template(f"{{{config.spare}}}").check("task.spare", source.fields, "task.source")
    words = None if config.labels is None else _words(config.labels)
    scored = _scored_as_text(config.metric or "exact_match") if words is None else _scored_as_label(config, words)
    numbers = scored.metric in ("pearson", "spearman")
    return replace(
        scored,
        records=records,
        template=Template(source.text, source.fields if config.spare is None else (config.spare,)),
        question=partial(_question, config.id),
        answer=partial(_answer, target, words, numbers),
        answered=partial(_is_answered, target),
        each_gold=False,
    )


def check_unused(config: TaskConfig) -> None:
    """Refuse settings of task=files where the task is another.

    Raises:
        UserError: there are some.
    """
    given = next((key for key in OWN if getattr(config, key) is not None), None)
    if given is not None:
        other = {
            "source": " Another wording for the task's source is task.template",
            "test": " Its own test split is task.test_split=test",
        }
        raise UserError(f"task.{given} is for task=files, not for {config.name}.{other.get(given, '')}")


def _scored_as_text(metric: str) -> TaskForm:
    """A form with the metric's rules."""
    if metric not in OF_TEXT:
        hint = " Those of labels need task.labels" if metric in OF_LABELS else did_you_mean(metric, OF_TEXT)
        raise UserError(f"task.metric={metric}: without task.labels, allowed are {', '.join(OF_TEXT)}.{hint}")
    if metric in ("pearson", "spearman"):
        return replace(ratings.FORMS["stsb"], metric=metric, score=partial(ratings.score, limits=None))
    free = summary.FORMS["xsum"] if metric.startswith("rouge") else reading.FORMS["record"]
    return replace(free, metric=metric, baseline=reading.most_common_answer)


def _words(given: Mapping[Any, Any]) -> dict[str, str]:
    """Label words by the value, as text, that they stand for; an answer is compared without case and outer space."""
    words: dict[str, str] = {}
    spelt: dict[str, str] = {}
    for key, word in given.items():
        text = str(word)
        if not isinstance(word, str | int | float) or not text or text != text.strip():
            raise UserError(
                f"task.labels: the label word of {key} is {word!r}; expected a text, not empty, and without white"
                " space around it"
            )
        other = spelt.setdefault(labels.folded(text), text)
        if other != text:
            raise UserError(
                f"task.labels: {other!r} and {text!r} are one label word, as answers are read without case; spell them"
                " alike, or give two words"
            )
        if _text(key) in words:
            raise UserError(
                f"task.labels: two keys read {_text(key)}, a number or truth value and a text, and the target's values"
                " are compared as texts; give one of them"
            )
        words[_text(key)] = text
    return words


def _scored_as_label(config: TaskConfig, words: Mapping[str, str]) -> TaskForm:
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


def _question(id_field: str | None, source: Template, record: Record, where: str) -> Example:
    text, spare = source.fill(_values(record, source.fields, where))
    name = _values(record, (id_field,), where)[id_field] if id_field else where.rpartition(", ")[2]
    return Example(name, text, "", (), spare)


def _answer(
    target: Template, words: Mapping[str, str] | None, numbers: bool, record: Record, where: str
) -> tuple[str, Golds]:
    answer, _ = target.fill(_values(record, target.fields, where))
    if words is not None:
        if answer not in words:
            raise UserError(f"{where}: the label is {answer[:100]!r}; task.labels has {', '.join(words)}")
        answer = words[answer]
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
                f"{where}: no field '{name}'; it has {', '.join(map(str, record))[:200]}.{did_you_mean(name, record)}"
            )
        values[name] = text_of(record, name, where)
    return values


def text_of(record: Record, name: str, where: str) -> str:
    """A field's text; numbers and truth values as JSON writes them.

    Raises:
        UserError: it is a list or an object, or empty.
    """
    if not isinstance(record[name], str | int | float):
        raise UserError(f"{where}: '{name}' is {record[name]!r:.100}; expected a text or a number")
    return _text(record[name])


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


def _records(config: TaskConfig) -> Origin:
    if config.data != "auto":
        raise UserError(f"task.data={config.data}: is for the named tasks; for task=files give task.train=FILE")
    if config.train is None:
        raise UserError(f"task=files needs task.train=FILE: {', '.join(READERS)}")
    files = {"train": config.train, "valid": config.valid or config.train}
    tests = {} if config.test is None else {"test": config.test}
    for key, name in (files | tests).items():
        if Path(name).suffix.lower() not in READERS:
            raise UserError(f"task.{key}={name}: the name must end in one of {', '.join(READERS)}")
        if not Path(name).expanduser().is_file():
            raise UserError(f"task.{key}={name}: no such file")
    splits = origins.two_splits(*(str(Path(name).expanduser()) for name in files.values()))
    return Origin(
        (),
        splits,
        lambda file, omissions: READERS[file.suffix.lower()](file, omissions),
        tests=origins.held_out({key: (str(Path(name).expanduser()),) for key, name in tests.items()}),
    )


Row = tuple[int, int, list[str]]  # its first line, its last, and its cells; none where the line is empty


def _separated(file: Path, omissions: Omissions, *, rows: Callable[[Path], Iterator[Row]]) -> Iterator[Located]:
    """A record a row under a row of names."""
    names: list[str] = []
    for first, last, cells in rows(file):
        where = f"{file}, line {first}"
        broken = any(origins.NOT_UTF8.search(cell) for cell in cells if not cell.isascii())
        fault = UserError(f"{where}: not UTF-8; save the file as UTF-8") if broken else None
        if not names:
            if fault:
                raise fault  # even where such are skipped: the next row's cells are no names
            names = cells
            origins.check_names(names, where)
        elif fault:
            omissions.fault(fault)
        elif len(cells) == len(names):
            yield where, dict(zip(names, cells, strict=True))
        elif any(cells):
            number = f"{len(cells)} columns" + (f" in a row that ends on line {last}" if last > first else "")
            omissions.fault(UserError(f"{where}: {number}, expected {len(names)}: {', '.join(names)[:200]}"))


def _csv(file: Path) -> Iterator[Row]:
    """Fields may be quoted, also over several lines and of any length."""
    text = (f"{line}\n" for _, line in origins.lines(file, Omissions(), errors="surrogateescape"))
    rows = csv.reader(text, strict=True)
    while True:
        first, limit = rows.line_num + 1, csv.field_size_limit(2**31 - 1)
        try:
            cells = next(rows, None)
        except csv.Error as error:
            # Even where such are skipped: a quote that is not closed may have swallowed any number of rows.
            raise UserError(
                f"{file}, line {first}: not CSV ({error}) in the row that begins there; a quote within a quoted field"
                " is written twice"
            ) from None
        finally:
            csv.field_size_limit(limit)
        if cells is None:
            return
        yield first, rows.line_num, cells


def _tsv(file: Path) -> Iterator[Row]:
    """A row a line, whose quotes are letters."""
    for number, line in origins.lines(file, Omissions(), errors="surrogateescape"):
        yield number, number, line.split("\t") if line else []


def _parquet(file: Path, _: Omissions) -> Iterator[Located]:
    """A record a row."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        table = ParquetFile(file)
        origins.check_names(table.schema_arrow.names, str(file))
        for batch in table.iter_batches(1000):
            for record in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", record
    except (ArrowException, OSError) as error:
        raise UserError(f"{file}: cannot be read as Parquet ({reason(error)})") from None


READERS: dict[str, Reader] = {
    ".jsonl": origins.json_lines,
    ".csv": partial(_separated, rows=_csv),
    ".tsv": partial(_separated, rows=_tsv),
    ".parquet": _parquet,
}
