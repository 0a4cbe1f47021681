"""Large data are read once: the examples are kept for the next run, by the content of their files."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, overload

from fpt.config.schema import RunConfig
from fpt.tasks import opening as tasks
from fpt.tasks import origins
from fpt.tasks.task import Example, Task, TaskForm

if TYPE_CHECKING:
    from torch import Tensor

LARGE = 10_000_000  # bytes of data from which on they are kept: a second or two of reading
UNREAD = ("source_length", "target_length", "reduce_decoder")  # settings that do not decide what is read


class CachedExamples(Sequence[Example]):
    """Examples in one array of bytes, made when they are asked for.

    Attributes:
        fingerprint: of all of them.
    """

    def __init__(self, data: "Tensor", starts: "Tensor", fingerprint: str) -> None:
        """Of the examples' bytes, and of where each starts, with the end of the last behind them."""
        self._data, self._starts, self.fingerprint = data.numpy().data, starts.tolist(), fingerprint

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        start, end = self._starts[range(len(self))[index]], self._starts[range(len(self))[index] + 1]
        name, source, target, golds, spare, group = json.loads(bytes(self._data[start:end]))
        return Example(name, source, target, tuple(golds), tuple(spare), group)


def open_task(config: RunConfig) -> Task:
    """The task as `fpt.tasks.opening.open_task` has it; from the cache where its files are large and were read before.

    Raises:
        UserError: as there, or the cache's folder cannot be made.
    """
    form = tasks.form_of(config.task)
    files = _files(config, form)
    if sum(file.stat().st_size for file in files) < LARGE:
        return tasks.open_task(config)
    from fpt.runs.tensor_cache import kept

    key = _key(config, form, files)
    found = kept(Path(config.cache_dir).expanduser(), "tasks", key, lambda: _stored(tasks.open_task(config)))
    parts = {
        name: CachedExamples(found[name], found[f"{name} starts"], f"{key} {name}")
        for name in ("train", "valid", "test")
        if name in found
    }
    about = json.loads(bytes(found["about"].numpy()))
    return Task(
        **vars(form),
        name=config.task.name,
        train=parts["train"],
        valid=list(parts["valid"]),
        test_split=tasks.asked_test_split(config, form),
        test=parts.get("test", ()),
        **{**about, "notes": tuple(about["notes"])},
    )


def _files(config: RunConfig, form: TaskForm) -> list[Path]:
    """The files that the task is read from; none where that is no folder's."""
    data = tasks.data_of(config, form)
    if data in ("world", "hub"):
        return []
    splits = [split for split in ("train", config.task.valid_split) if split in form.records.splits]
    if test := tasks.asked_test_split(config, form):
        splits.append(test)
    return [file for split in splits for file in origins.files_of(form.records, data, split)]


def _key(config: RunConfig, form: TaskForm, files: Sequence[Path]) -> str:
    """Names what is read from the files, by this version of the code, with those settings that decide it."""
    own = form.records.is_own
    left_out = ("name", *UNREAD) if own else UNREAD
    task = {name: value for name, value in asdict(config.task).items() if name not in left_out}
    drawn = config.task.shots is not None or (own and config.task.valid is None)
    digest = hashlib.sha256(json.dumps([task, config.seed if drawn else None], default=str).encode())
    code = Path(tasks.__file__).parent
    for file in (*files, *sorted(code.rglob("*.py"))):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def _stored(task: Task) -> "dict[str, Tensor]":
    import numpy as np
    import torch

    def packed(lines: Iterable[bytes]) -> "tuple[Tensor, Tensor]":
        data, starts = bytearray(), [0]
        for line in lines:
            data += line
            starts.append(len(data))
        return torch.from_numpy(np.frombuffer(data, np.uint8)), torch.tensor(starts)

    about = {name: getattr(task, name) for name in ("origin", "notes", "baseline_name", "majority")}
    found = {"about": packed([json.dumps(about).encode()])[0]}
    parts = {"train": task.train, "valid": task.valid, **({"test": task.test} if task.test else {})}
    for name, examples in parts.items():
        found[name], found[f"{name} starts"] = packed(json.dumps(example).encode() for example in examples)
    return found
