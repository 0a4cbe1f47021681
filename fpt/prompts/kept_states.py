"""The states below a late prompt, which an example always has: computed once, kept in memory or in a mapped file.

Letters: D model, N tokens of all sources.
"""

import hashlib
import json
import os
import socket
import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import Encoded, KeptStates
from fpt.devices import distributed
from fpt.devices.engine import Engine
from fpt.errors import UserError
from fpt.prompts.prompted import PromptedModel
from fpt.runs.atomic import replaced_file
from fpt.runs.progress import WithBar
from fpt.units import amount

MADE_BY = 1  # one more whenever the same weights and examples give other states
AT_ONCE = 1000  # examples that are hashed between two looks at the clock
SENT = 2**24  # numbers that processes exchange at once


@dataclass(frozen=True)
class StatesBelow:
    """The states below the prompt of a data set's examples: computed by all processes, and kept.

    `batch_size` is part of what names a file, since it changes the last bits.
    """

    model: PromptedModel
    data: Encoded
    batch_size: int
    engine: Engine
    with_bar: WithBar

    @property
    def shape(self) -> tuple[int, int]:
        """[N, D]."""
        return int(self.starts[-1]), self.model.width

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each example's states begin, and the last's end: those of its source, or of all that a stack reads."""
        return self.data.joined_starts if self.model.reader.reads_target else self.data.sources.starts

    def in_memory(self) -> KeptStates:
        """The states in every process's own memory; each computes a part and is told the rest."""
        rows = torch.zeros(self.shape, dtype=self.engine.dtype)
        self._compute(rows, distributed.rank(), distributed.size())
        distributed.barrier()  # what follows gives up on a process that is slow
        # The others' are zeros, so bits added up as whole numbers are the bits themselves.
        for part in torch.split(rows.view(torch.int32).view(-1), SENT):
            distributed.all_reduce_sum_([part])
        return KeptStates(rows, self.starts)

    def in_file(self, folder: Path, origin: dict[str, Any]) -> KeptStates:
        """The states in a file of the folder, mapped into memory; computed first where it is not there or not whole.

        The processes of a machine share it. `origin` says what the states are of, and so names the file.
        """
        description = origin | self._decisive()
        file = folder / f"{hashlib.sha256(json.dumps(description).encode()).hexdigest()[:32]}.npy"
        is_there = distributed.here()[0] > 0 or self._is_whole(file, description)
        if not all(distributed.all_gather(is_there)):
            self._write(file, description)
        return KeptStates(self._mapped(file), self.starts)

    def _decisive(self) -> dict[str, Any]:
        """What else decides the states' bits."""
        digest = hashlib.sha256(self.data.sources.ids.data)
        digest.update(self.data.sources.starts.data)
        digest.update(self.data.targets.starts.data)  # batches are sorted by both lengths
        if self.model.reader.reads_target:
            digest.update(self.data.targets.ids.data)
        return {
            "data": digest.hexdigest(),
            "shape": self.shape,
            "dtype": str(self.engine.dtype),
            "quantize": self.engine.config.quantize,
            "device": self.engine.device.type,
            "batch_size": self.batch_size,
            "made_by": [MADE_BY, torch.__version__, version("transformers")],
        }

    def _compute(self, rows: Tensor, process: int, processes: int) -> None:
        """Compute one process's part of the states; padding is left out."""
        batches = batches_by_length(self.data, self.batch_size)
        own = in_turn(batches, process, processes)
        own += [[]] * (max(distributed.all_gather(len(own))) - len(own))  # machines may have more processes or fewer
        starts = self.starts
        for indices in self.with_bar(own, "states below the prompt"):
            if not indices and not self.engine.is_sharded:
                continue
            states = self.model.below(self.data.batch(indices or batches[0]).to(self.engine.device)).cpu()
            for index, padded in zip(indices, states, strict=False):
                start, end = starts[index], starts[index + 1]
                rows[start:end] = padded[: end - start]

    def _write(self, file: Path, description: dict[str, Any]) -> None:
        """Compute the states into a file aside, which becomes `file` when it is whole.

        Every process of a machine computes a part; the first of them makes, finishes and removes the file.
        """
        process, processes = distributed.here()
        is_first = process == 0
        first_pid = distributed.all_gather(os.getpid())[distributed.rank() - process]
        aside = file.with_name(f"{file.stem}.{socket.gethostname()}-{first_pid}.part")
        try:
            problems = distributed.all_gather(self._reserve(aside) if is_first else None)
            if problem := next(filter(None, problems), None):
                raise UserError(problem)
            self._compute(self._mapped(aside, to_write=True), process, processes)
            distributed.barrier()
            if is_first:
                self._finish(aside, file, description)
        finally:
            if is_first:
                aside.unlink(missing_ok=True)
        distributed.barrier()

    def _finish(self, aside: Path, file: Path, description: dict[str, Any]) -> None:
        """Put what is whole in its place, the description first: without it a file counts as not whole."""
        whole = description | {"sha256": self._digest(self._mapped(aside))}
        try:
            with replaced_file(file.with_suffix(".json"), aside=f"{aside.name}.json") as stream:
                stream.write(f"{json.dumps(whole, indent=2)}\n".encode())
            aside.replace(file)
        except OSError as error:
            raise UserError(self._no_room(file.parent, error)) from None

    def _reserve(self, file: Path) -> str | None:
        """Make a file of the states' size, all of it on disk; what is wrong if that cannot be done.

        A mapped file that finds the disk full when it is written to would end the process.
        """
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _forget_dead(file.parent)
            # numpy has no bfloat16, so that is kept as whole numbers of its bits.
            numbers = {2: np.int16, 4: np.float32}[self.engine.dtype.itemsize]
            np.lib.format.open_memmap(file, mode="w+", dtype=numbers, shape=self.shape)
            if hasattr(os, "posix_fallocate"):  # macOS has none
                with file.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
        except OSError as error:
            return self._no_room(file.parent, error)
        return None

    def _no_room(self, folder: Path, error: OSError) -> str:
        size = amount(self.shape[0] * self.shape[1] * self.engine.dtype.itemsize)
        return (
            f"prompt.cache: {size}B of states cannot be kept in {folder} ({error.strerror});"
            " the same command with prompt.cache=off goes on without, or give another cache_dir"
        )

    def _is_whole(self, file: Path, description: dict[str, Any]) -> bool:
        try:
            known = json.loads(file.with_suffix(".json").read_text())
            digest = known.pop("sha256")
            rows = self._mapped(file)
        except (
            OSError,
            EOFError,
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            RuntimeError,
        ):  # numpy's, torch's
            return False
        same = known == json.loads(json.dumps(description)) and tuple(rows.shape) == self.shape
        return same and self._digest(rows) == digest

    def _digest(self, rows: Tensor) -> str:
        """Of all states, in the examples' order."""
        digest, starts = hashlib.sha256(), self.starts
        number = len(self.data)
        parts = [list(range(start, min(start + AT_ONCE, number))) for start in range(0, number, AT_ONCE)]
        for part in self.with_bar(parts, "checking the states"):
            digest.update(rows[starts[part[0]] : starts[part[-1] + 1]].view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _mapped(self, file: Path, *, to_write: bool = False) -> Tensor:
        """The states in a file, which may be larger than memory; a mapping of our own to write to could not be."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch knows no tensor that may only be read
            return torch.from_numpy(np.load(file, mmap_mode="r+" if to_write else "r")).view(self.engine.dtype)


def _forget_dead(folder: Path) -> None:
    """Remove what runs on this machine left half made when they were killed."""
    for file in folder.glob(f"*.{socket.gethostname()}-*.part*"):
        number = file.name.partition(".part")[0].rpartition("-")[2]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            file.unlink(missing_ok=True)
