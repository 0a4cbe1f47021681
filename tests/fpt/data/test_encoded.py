"""A batch holds its examples, padded to the longest of them."""

from fpt.data.encoded import IGNORED, Encoded
from fpt.data.rows import Rows


def test_a_batch_is_padded_to_its_own_longest() -> None:
    data = Encoded(Rows.of([[5, 6, 1], [7, 1], [9] * 50]), Rows.of([[8, 1], [8, 9, 1], [1]]))
    batch = data.batch([0, 1])
    assert batch.source.tolist() == [[5, 6, 1], [7, 1, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[8, 1, IGNORED], [8, 9, 1]]
    assert data.padded_size([0, 1]) == (2, 3, 3)
