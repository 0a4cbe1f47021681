"""Every example once an epoch, in an order that seed and update decide; on a GPU batches are made ahead."""

import threading
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
import torch

from fpt.data.batches import BUCKET, Share, Supply, UpdateOrder, batches_by_length, in_turn, micro_batches
from fpt.data.encoded import Encoded, RaggedRows
from fpt.random_streams import stream


def of_lengths(sizes: Sequence[int]) -> Encoded:
    return Encoded(RaggedRows.of([7] * size for size in sizes), RaggedRows.of([[8, 9, 1]] * len(sizes)))


def lengths_like_boolq(count: int) -> Encoded:
    random = stream(0, "lengths")
    return of_lengths((torch.randn(count, generator=random) * 60 + 140).clamp(20, 492).int().tolist())


@pytest.mark.parametrize(("total", "size"), [(100, 8), (33, 32), (7, 32), (2000, 16)])
def test_each_epoch_has_every_example_once(total: int, size: int) -> None:
    order = UpdateOrder(lengths_like_boolq(total), batch_size=size, seed=3)
    updates = 3 * BUCKET
    drawn = [index for update in range(updates) for index in order.indices(update)]
    counts = torch.bincount(torch.tensor(drawn), minlength=total)
    assert counts.max() - counts.min() <= 1
    assert all(len(order.indices(update)) == size for update in range(BUCKET))


@pytest.mark.parametrize("total", [32, 64, 200, 500])
def test_a_batch_of_few_data_holds_different_examples(total: int) -> None:
    order = UpdateOrder(lengths_like_boolq(total), batch_size=32, seed=0)
    distinct = [len(set(order.indices(update))) for update in range(64)]
    assert sum(distinct) / len(distinct) > 29


def test_order_is_a_function_of_seed_and_update() -> None:
    data = lengths_like_boolq(300)
    forward, backward = (UpdateOrder(data, batch_size=8, seed=1) for _ in range(2))
    ahead = [forward.indices(update) for update in range(100)]
    assert [backward.indices(update) for update in reversed(range(100))] == ahead[::-1]
    other = UpdateOrder(data, batch_size=8, seed=2)
    assert [other.indices(update) for update in range(100)] != ahead


def test_seed_and_epoch_decide_which_examples_come_together() -> None:
    data = of_lengths(range(1, 257))  # of which a bucket is a quarter

    def bucket(number: int, *, seed: int) -> set[int]:
        order = UpdateOrder(data, batch_size=2, seed=seed)
        return {index for update in range(BUCKET) for index in order.indices(number * BUCKET + update)}

    drawn = [bucket(0, seed=1), bucket(0, seed=2), bucket(4, seed=1), set(range(64))]  # 4: the next epoch's first
    assert [len(indices) for indices in drawn] == [64] * 4
    assert all(one != other for one, other in combinations(drawn, 2))


def test_seed_and_bucket_decide_when_a_batch_comes() -> None:
    data = of_lengths(range(1, 65))  # of which a bucket is the whole: its batches are the same, whatever was drawn

    def bucket(number: int, *, seed: int) -> list[list[int]]:
        order = UpdateOrder(data, batch_size=2, seed=seed)
        return [order.indices(number * BUCKET + update) for update in range(BUCKET)]

    orders = [bucket(0, seed=1), bucket(0, seed=2), bucket(1, seed=1)]
    by_length = [[index, index + 1] for index in range(0, 64, 2)]
    assert all(sorted(order) == by_length for order in orders)
    assert all(one != other for one, other in combinations([*orders, by_length, by_length[::-1]], 2))


def test_a_larger_bucket_saves_padding_and_a_smaller_one_mixes_lengths() -> None:
    data = lengths_like_boolq(2000)
    sizes, spreads = list[int](), list[float]()
    for bucket in (1, 4, 32):
        order = UpdateOrder(data, batch_size=8, seed=0, bucket=bucket)
        batches = [order.indices(update) for update in range(64)]
        sizes.append(sum(8 * data.padded_size(batch)[1] for batch in batches))
        spreads.append(sum(data.lengths[batch[-1]][0] - data.lengths[batch[0]][0] for batch in batches))
    assert sizes == sorted(sizes, reverse=True)
    assert spreads == sorted(spreads, reverse=True)


def test_little_of_what_is_computed_is_padding() -> None:
    data = lengths_like_boolq(4000)
    order = UpdateOrder(data, batch_size=32, seed=0)
    real = padded = 0
    for update in range(125):
        batch = data.batch(order.indices(update))
        real += int(batch.mask.sum())
        padded += batch.source.numel()
    assert 1 - real / padded < 0.10


def test_a_mixture_has_its_shares_in_every_epoch_and_takes_each_tasks_examples_in_turn() -> None:
    sizes, counts = np.array([40, 300, 24]), np.array([40, 120, 10])
    data = Encoded.joined([lengths_like_boolq(size) for size in sizes], counts.tolist())
    order = UpdateOrder(data, batch_size=10, seed=3, bucket=17)  # a bucket is an epoch
    drawn = np.array([order.indices(update) for update in range(17 * 30)]).reshape(30, 170)
    of_tasks = np.digitize(drawn, sizes.cumsum())
    assert [np.bincount(epoch).tolist() for epoch in of_tasks] == [counts.tolist()] * 30
    seen = np.split(np.bincount(drawn.ravel(), minlength=sizes.sum()), sizes.cumsum()[:-1])
    assert all(times.max() - times.min() <= 1 for times in seen)
    assert len(set(drawn[0])) == 170  # none twice before its task has given all
    assert UpdateOrder(data, batch_size=10, seed=3, bucket=17).indices(400) == order.indices(400)
    assert UpdateOrder(data, batch_size=10, seed=4, bucket=17).indices(400) != order.indices(400)


def test_a_mixture_that_takes_all_is_as_one_task() -> None:
    parts = [lengths_like_boolq(50), lengths_like_boolq(30)]
    mixed, whole = Encoded.joined(parts, [50, 30]), of_lengths([size for part in parts for size, _ in part.lengths])
    both = (UpdateOrder(data, batch_size=8, seed=1) for data in (mixed, whole))
    drawn, alone = (np.array([order.indices(update) for update in range(10)]) for order in both)
    assert np.sort(drawn, None).tolist() == np.sort(alone, None).tolist() == list(range(80))


def test_micro_batches_are_parts_of_the_batch() -> None:
    assert micro_batches([5, 3, 8, 1, 2], 2) == [[5, 3], [8, 1], [2]]
    assert micro_batches([5, 3, 8, 1, 2], None) == [[5, 3, 8, 1, 2]]


@pytest.mark.parametrize("size", [None, 1, 2, 3])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_processes_share_a_batch_in_as_many_parts(processes: int, size: int | None) -> None:
    """Else one would wait for ever: a model whose weights are shared out runs in step."""
    parts = [micro_batches(list(range(7)), size, process=rank, processes=processes) for rank in range(processes)]
    assert len({len(own) for own in parts}) == 1
    assert sorted(index for own in parts for part in own for index in part) == list(range(7))


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 9])
def test_processes_take_batches_in_turn(processes: int) -> None:
    batches = [[1, 2], [3, 4], [5, 6], [7]]
    turns = [in_turn(batches, rank, processes) for rank in range(processes)]
    assert len({len(own) for own in turns}) == 1
    assert sorted(batch for own in turns for batch in own if batch) == batches


def test_a_pass_by_length_has_every_example_once() -> None:
    data = lengths_like_boolq(101)
    batches = batches_by_length(data, 16)
    assert sorted(index for batch in batches for index in batch) == list(range(101))
    assert data.padded_size(batches[0])[1] == max(source for source, _ in data.lengths)


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
