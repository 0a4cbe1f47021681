"""Large data are read once: the examples are kept for the next run, by the content of their files."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, overload

from fpt.config.run_config import RunConfig
from fpt.tasks import opening, origins
from fpt.tasks.catalogue import data_of, rules_of
from fpt.tasks.splits import asked_test_split, parts_of
from fpt.tasks.task import Example, Task, TaskRules

if TYPE_CHECKING:  # an error in small data must not wait for torch
    from torch import Tensor

    from fpt.data.rows import Rows

LARGE = 10_000_000  # bytes of data from which on they are kept: a second or two of reading
# Settings that do not decide what is read.
UNREAD = ("source_length", "target_length", "max_new_tokens", "reduce_decoder", "answer")
SUMMED_UP = ("origin", "notes", "baseline_name", "majority", "skipped")  # what a task says of its examples


class CachedExamples(Sequence[Example]):
    """Examples as JSON in one array of bytes, made when they are asked for.

    Attributes:
        fingerprint: of all of them.
    """

    def __init__(self, texts: "Rows", fingerprint: str) -> None:
        self._texts, self.fingerprint = texts, fingerprint

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        picked = range(len(self))[index]
        return self._example(picked) if isinstance(picked, int) else list(map(self._example, picked))

    def _example(self, index: int) -> Example:
        name, source, target, golds, spare, *rest = json.loads(self._texts.text(index))
        return Example(name, source, target, tuple(golds), tuple(spare), *rest)


def open_task(config: RunConfig) -> Task:
    """The task as `fpt.tasks.opening.open_task` has it; from the cache where its files are large and were read before.

    Raises:
        UserError: as there, or the cache's folder cannot be made.
    """
    rules = rules_of(config.task)
    files = _files(config, rules)
    if sum(file.stat().st_size for file in files) < LARGE:
        return opening.open_task(config)
    from fpt.data.rows import Rows
    from fpt.runs.tensor_cache import find_or_make

    key, cache = _key(config, rules, files), Path(config.cache_dir).expanduser()
    tensors = find_or_make(cache, "examples", key, lambda: _tensors(opening.open_task(config)))
    parts = {
        name: CachedExamples(Rows.from_tensors(tensors, name), f"{key} {name}")
        for name in ("train", "validation", "test")
        if f"{name}.ids" in tensors
    }
    summed_up = json.loads(Rows.from_tensors(tensors, "summed up").text(0))
    return Task(
        **vars(rules),
        name=config.task.name,
        train=parts["train"],
        valid=list(parts["validation"]),
        test_split=asked_test_split(config, rules),
        test=parts.get("test", ()),
        **{**summed_up, **{name: tuple(summed_up[name]) for name in ("notes", "skipped")}},
    )


def _files(config: RunConfig, rules: TaskRules) -> list[Path]:
    """The files that the task is read from; none where that is no folder's."""
    data = data_of(config, rules)
    if data in ("world", "hub"):
        return []
    splits = (
        ["train"] if origins.is_whole(rules.records, data) else ["train", *parts_of(config.task.valid_split, rules)]
    )
    if (test := asked_test_split(config, rules)) in rules.records.tests:
        splits.append(str(test))
    known = [split for split in splits if split in (*rules.records.splits, *rules.records.tests)]
    return [file for split in known for file in origins.files_of(rules.records, data, split)]


def _key(config: RunConfig, rules: TaskRules, files: Sequence[Path]) -> str:
    """Names what is read from the files, by this version of the code, with those settings that decide it."""
    own = rules.records.is_own
    left_out = ("name", *UNREAD) if own else UNREAD
    task = {name: value for name, value in asdict(config.task).items() if name not in left_out}
    drawn = config.task.shots is not None or (own and config.task.valid is None) or bool(rules.records.whole)
    digest = hashlib.sha256(json.dumps([task, config.seed if drawn else None], default=str).encode())
    code = [*Path(opening.__file__).parent.rglob("*.py"), Path(__file__)]
    for file in (*files, *sorted(code)):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _tensors(task: Task) -> "dict[str, Tensor]":
    from fpt.data.rows import Rows

    summed_up = json.dumps({name: getattr(task, name) for name in SUMMED_UP})
    tensors = Rows.of_texts([summed_up]).as_tensors("summed up")
    for name, examples in task.parts.items():
        tensors |= Rows.of_texts(map(json.dumps, examples)).as_tensors(name)
    return tensors
