"""A card's batches, made ahead in a thread, are those that a CPU makes one by one."""

import threading

import pytest
import torch

from fpt.data.batches import UpdateOrder
from fpt.data.encoded import Encoded, RaggedRows
from fpt.data.supply import Share, Supply

DATA = Encoded(
    sources=RaggedRows.of([7] * (1 + index % 9) for index in range(50)),
    targets=RaggedRows.of([8] * (1 + index % 3) for index in range(50)),
)


def supply(*, for_card: bool) -> Supply:
    return Supply(DATA, UpdateOrder(DATA, batch_size=8, seed=3), for_card=for_card)


def same(one: Share, other: Share) -> bool:
    pairs = zip(one.batches, other.batches, strict=True)
    return one.tokens == other.tokens and all(
        torch.equal(getattr(left, name), getattr(right, name))
        for left, right in pairs
        for name in ("source", "mask", "labels", "real")
    )


def test_made_ahead_or_not_an_update_has_the_same_batches() -> None:
    """Across epochs, after a start in the middle, and when memory has run out and the update is done again."""
    asked = [(17, 4), (18, 4), (18, 2), (19, 2), (40, None), (41, None)]
    with supply(for_card=True) as ahead, supply(for_card=False) as plain:
        assert all(same(ahead.share(*one), plain.share(*one)) for one in asked)


def test_the_thread_ends_with_the_training() -> None:
    before = {*threading.enumerate()}
    with supply(for_card=True) as ahead:
        ahead.share(0, None)
        (thread,) = [one for one in {*threading.enumerate()} - before if one.name.startswith("fpt-batches")]
    thread.join(60)
    assert not thread.is_alive()


def test_tokens_are_those_of_all_processes_examples() -> None:
    share = Share.of(DATA, [0, 1, 2, 3, 4], 2)
    assert [len(batch.source) for batch in share.batches] == [2, 2, 1]
    assert share.tokens == sum(int((batch.labels != -100).sum()) for batch in share.batches) == 1 + 2 + 3 + 1 + 2


def test_what_goes_to_a_device_knows_its_real_tokens_already() -> None:
    """On the meta device, which has no values, they could not be found any more."""
    batch = DATA.batch([0, 1, 2])
    assert batch.to("meta").real.shape == batch.real.shape == (6,)
    with pytest.raises(NotImplementedError):
        _ = (batch.to("meta").labels != -100).nonzero()
    assert not DATA.batch([0]).unlabelled().to("meta").real.numel()
