"""Rows give back what was put in, however they came together."""

import numpy as np
import pytest

from fpt.data.rows import Rows

LISTS = [[5, 6, 1], [], [7], [2**31 - 1, 0]]


def test_lists_and_their_lengths_are_given_back() -> None:
    rows = Rows.of(LISTS)
    assert (list(rows), rows[0], rows.lengths, len(rows)) == (LISTS, LISTS[0], [3, 0, 1, 2], 4)
    assert (rows.ids.dtype, rows.starts.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("cut", range(5))
def test_parts_joined_are_the_whole(cut: int) -> None:
    whole, joined = Rows.of(LISTS), Rows.joined([Rows.of(LISTS[:cut]), Rows.of(LISTS[cut:])])
    assert (joined.ids.tobytes(), joined.starts.tobytes()) == (whole.ids.tobytes(), whole.starts.tobytes())
    assert (len(Rows.joined([])), Rows.joined([]).ids.dtype) == (0, np.int32)
