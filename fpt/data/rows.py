"""Many lists of token ids, stored one after another in one array to save memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Rows:
    """Token ids of texts: row i is ids[starts[i] : starts[i + 1]]."""

    ids: NDArray[Any]
    starts: NDArray[np.int64]  # followed by the end of the last row

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]]) -> "Rows":
        """Store these lists of token ids, one per row."""
        lists = list(rows)
        return cls(np.fromiter(chain.from_iterable(lists), np.int32), np.cumsum([0, *map(len, lists)]))

    @classmethod
    def joined(cls, parts: Sequence["Rows"]) -> "Rows":
        """The rows of all parts, one after another."""
        ids = np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)])
        return cls(ids, np.cumsum([0, *(length for part in parts for length in part.lengths)]))

    @property
    def lengths(self) -> list[int]:
        """Each row's number of ids."""
        lengths: list[int] = np.diff(self.starts).tolist()
        return lengths

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> list[int]:
        row: list[int] = self.ids[self.starts[index] : self.starts[index + 1]].tolist()
        return row
