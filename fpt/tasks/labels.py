"""Tasks whose answer is one of a few label words: one row of data each."""

import codecs
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from fpt import metrics
from fpt.config import TaskConfig
from fpt.errors import UserError, reason
from fpt.tasks.task import Example, Task

ANSWER = "<extra_id_0> {label}"  # the paper's targets: the label word after T5's first sentinel
SPLITS = ("train", "validation")
WORLD_SEED = 0  # the generated data are one data set, whatever the run's seed


@dataclass(frozen=True)
class LabelTask:
    """One row: how a record becomes text, what its labels are called, and where the records are."""

    name: str
    template: str
    fields: tuple[str, ...]
    labels: tuple[tuple[Any, str], ...]  # (value in the record, label word)
    files: dict[str, str]
    hub: tuple[str, str]


TASKS = {
    "boolq": LabelTask(
        name="boolq",
        template="question: {question} passage: {passage}",
        fields=("question", "passage"),
        labels=((False, "no"), (True, "yes")),
        files={"train": "train.jsonl", "validation": "val.jsonl"},
        hub=("aps/super_glue", "boolq"),
    ),
}


def open_label_task(row: LabelTask, config: TaskConfig, *, embedded: bool) -> Task:
    """Read both splits from the generator, a folder or the Hub.

    Raises:
        UserError: a missing file, a malformed line (file, line and reason), an empty split, or an unreachable Hub.
    """
    source = ("world" if embedded else "hub") if config.data == "auto" else config.data
    wanted = {"train": config.train_examples, "validation": config.valid_examples}
    train, valid = (_examples(row, source, split, wanted[split]) for split in SPLITS)
    words = tuple(word for _, word in row.labels)
    common = metrics.most_common([example.gold for example in train])
    golds = [example.gold for example in valid]
    return Task(
        name=row.name,
        train=train,
        valid=valid,
        origin={"world": "generated", "hub": f"Hub {'/'.join(row.hub)}"}.get(source, source),
        labels=words,
        metric="accuracy",
        from_text=partial(_from_text, words),
        score=_score,
        majority=metrics.accuracy([common] * len(golds), golds),
    )


def _examples(row: LabelTask, source: str, split: str, wanted: int | None) -> list[Example]:
    if source == "world":
        records = _generated(row, split, wanted)
    elif source == "hub":
        records = _from_hub(row, split)
    else:
        records = _from_file(Path(source).expanduser(), row.files[split], tuple(row.files.values()))
    examples = [_example(row, record, where) for where, record in islice(records, wanted)]
    if not examples:
        raise UserError(f"task.data={source}: the {split} split is empty")
    return examples


def _generated(row: LabelTask, split: str, wanted: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    from fpt.tasks import world  # here, because `python -m fpt.tasks.world` would import itself twice

    # Never fewer than the whole, which is then cut: fewer examples are a part of it, not other ones.
    count = max(wanted or 0, world.SIZES[split])
    for number, record in enumerate(getattr(world, row.name)(split, num=count, seed=WORLD_SEED), 1):
        yield f"generated {split} record {number}", record


def _from_file(folder: Path, name: str, names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not folder.is_dir():
        raise UserError(
            f"task.data={folder}: no such folder; give 'world', 'hub', or a folder with {' and '.join(names)}"
        )
    file = folder / name
    try:
        lines = file.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    except FileNotFoundError:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise UserError(f"task.data={folder}: has no {name}; it has {found}") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{file}, line {number}", _parse(line, f"{file}, line {number}")


def _parse(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 (byte {error.start}: {error.reason})") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not usable JSON ({reason(error)})") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def _from_hub(row: LabelTask, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets

    try:
        rows = datasets.load_dataset(*row.hub, split=split)
    except Exception as error:  # datasets and the Hub client raise many types
        raise UserError(
            f"task.data=hub: {'/'.join(row.hub)} cannot be fetched ({reason(error)})."
            f" Give a folder with {' and '.join(row.files.values())} as task.data=DIR, or task.data=world"
        ) from None
    for number, record in enumerate(rows, 1):
        yield f"Hub {'/'.join(row.hub)} {split} record {number}", dict(record)


def _example(row: LabelTask, record: dict[str, Any], where: str) -> Example:
    for name in row.fields:
        if not isinstance(record.get(name), str):
            given = "is missing" if name not in record else f"is {record[name]!r}"
            raise UserError(f"{where}: '{name}' {given}; expected a text")
        if not record[name].isascii() and any("\ud800" <= letter <= "\udfff" for letter in record[name]):
            raise UserError(f"{where}: '{name}' holds half of a surrogate pair, which is no character")
    # JSON's true equals Python's 1, which is how the Hub writes it.
    word = next((word for value, word in row.labels if value == record.get("label")), None)
    if word is None:
        allowed = " or ".join(json.dumps(value) for value, _ in row.labels)
        given = "is missing" if "label" not in record else f"is {record['label']!r}"
        raise UserError(f"{where}: 'label' {given}; expected {allowed}")
    source = row.template.format(**{name: record[name] for name in row.fields})
    return Example(str(record.get("idx", where)), source, ANSWER.format(label=word), word)


def _from_text(words: tuple[str, ...], text: str) -> str:
    """The answer as it stands, without case where it is a label word."""
    answer = text.strip()
    return answer.lower() if answer.lower() in words else answer


def _score(answers: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    return {"accuracy": metrics.accuracy(answers, [example.gold for example in examples])}
