"""A batch holds its examples, padded to the longest of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fpt.data.encoded import IGNORED, Encoded, KeptStates, RaggedRows


def test_a_batch_is_padded_to_its_own_longest() -> None:
    data = Encoded(RaggedRows.of([[5, 6, 1], [7, 1], [9] * 50]), RaggedRows.of([[8, 1], [8, 9, 1], [1]]))
    batch = data.batch([0, 1])
    assert batch.source.tolist() == [[5, 6, 1], [7, 1, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[8, 1, IGNORED], [8, 9, 1]]
    assert data.padded_size([0, 1]) == (2, 3, 3)


def test_for_a_card_positions_are_multiples_of_eight_with_the_prompt_before_them() -> None:
    lengths = [3, 12, 13, 20]
    sources = RaggedRows.of([5] * length for length in lengths)
    states = KeptStates(torch.randn(sum(lengths), 4), np.cumsum([0, *lengths]))
    data = replace(Encoded(sources, RaggedRows.of([[8] * 9] * 4)).for_card(before=20), below=states)
    assert [data.padded_size([index]) for index in range(4)] == [(1, 4, 16), (1, 12, 16), (1, 20, 16), (1, 20, 16)]
    batch, plain = data.batch([0, 2]), replace(data, multiple=1).batch([0, 2])
    assert (batch.source.shape, batch.labels.shape, batch.below.shape) == ((2, 20), (2, 16), (2, 20, 4))
    for padded, narrow in ((batch.source, plain.source), (batch.mask, plain.mask), (batch.below, plain.below)):
        assert torch.equal(padded[:, :13], narrow)
        assert not padded[:, 13:].any()
    assert torch.equal(batch.labels[:, :9], plain.labels)
    assert (batch.labels[:, 9:] == IGNORED).all()
    assert data.taken([1]).padded_size([0]) == (1, 12, 16)
    whole = replace(data, multiple=1, before=0)  # an embedding of positions has so many rows for a batch, and no more
    assert [whole.for_card(21, most).padded_size([3]) for most in (42, 41)] == [(1, 27, 16), (1, 20, 9)]


LISTS = [[5, 6, 1], [], [7], [2**31 - 1, 0]]


def test_lists_and_their_lengths_are_given_back() -> None:
    rows = RaggedRows.of(LISTS)
    assert (list(rows), rows[0], rows.lengths, len(rows)) == (LISTS, LISTS[0], [3, 0, 1, 2], 4)
    assert (rows.ids.dtype, rows.starts.dtype) == (np.int32, np.int64)


@pytest.mark.parametrize("cut", range(5))
def test_parts_joined_are_the_whole(cut: int) -> None:
    whole, joined = RaggedRows.of(LISTS), RaggedRows.joined([RaggedRows.of(LISTS[:cut]), RaggedRows.of(LISTS[cut:])])
    assert (joined.ids.tobytes(), joined.starts.tobytes()) == (whole.ids.tobytes(), whole.starts.tobytes())
    assert (len(RaggedRows.joined([])), RaggedRows.joined([]).ids.dtype) == (0, np.int32)
