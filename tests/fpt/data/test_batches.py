"""Every example once an epoch, in an order that seed and update decide, with little padding and none computed on."""

import pytest
import torch

from fpt.data.batches import CHUNK, UpdateOrder, batches_by_length, in_turn, micro_batches
from fpt.data.encoded import IGNORED, Encoded
from fpt.data.encoding import encode
from fpt.data.rows import Rows
from fpt.random_streams import stream
from fpt.tasks.task import Example
from tests.conftest import open_folder


def lengths_like_boolq(count: int) -> Encoded:
    random = stream(0, "lengths")
    sizes = (torch.randn(count, generator=random) * 60 + 140).clamp(20, 492).int().tolist()
    return Encoded(Rows.of([7] * size for size in sizes), Rows.of([[8, 9, 1]] * count))


@pytest.mark.parametrize(("total", "size"), [(100, 8), (33, 32), (7, 32), (2000, 16)])
def test_each_epoch_has_every_example_once(total: int, size: int) -> None:
    order = UpdateOrder(lengths_like_boolq(total), batch_size=size, seed=3)
    updates = 3 * CHUNK
    drawn = [index for update in range(updates) for index in order.indices(update)]
    counts = torch.bincount(torch.tensor(drawn), minlength=total)
    assert counts.max() - counts.min() <= 1
    assert all(len(order.indices(update)) == size for update in range(CHUNK))


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


def test_batches_are_not_sorted_over_time() -> None:
    data = lengths_like_boolq(2000)
    order = UpdateOrder(data, batch_size=16, seed=1)
    longest = [data.padded_size(order.indices(update))[1] for update in range(CHUNK)]
    assert longest != sorted(longest)


def test_little_of_what_is_computed_is_padding() -> None:
    data = lengths_like_boolq(4000)
    order = UpdateOrder(data, batch_size=32, seed=0)
    real = padded = 0
    for update in range(125):
        batch = data.batch(order.indices(update))
        real += int(batch.mask.sum())
        padded += batch.source.numel()
    assert 1 - real / padded < 0.10


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


def test_a_batch_is_padded_to_its_own_longest() -> None:
    data = Encoded(Rows.of([[5, 6, 1], [7, 1], [9] * 50]), Rows.of([[8, 1], [8, 9, 1], [1]]))
    batch = data.batch([0, 1])
    assert batch.source.tolist() == [[5, 6, 1], [7, 1, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.labels.tolist() == [[8, 1, IGNORED], [8, 9, 1]]
    assert data.padded_size([0, 1]) == (2, 3, 3)


def test_a_pass_by_length_has_every_example_once() -> None:
    data = lengths_like_boolq(101)
    batches = batches_by_length(data, 16)
    assert sorted(index for batch in batches for index in batch) == list(range(101))
    assert data.padded_size(batches[0])[1] == max(source for source, _ in data.lengths)


def test_long_texts_are_cut_at_the_end_and_keep_their_closing_token(checkpoint) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    examples = [
        Example("a", "question: is it red passage: " + "the lamp is red . " * 50, "<extra_id_0> yes", ("yes",)),
        Example("b", "question: is it red", "<extra_id_0> " + "no " * 20, ("no",)),
    ]
    whole = encode(examples, tokenizer, source_length=10_000, target_length=10_000)
    cut = encode(examples, tokenizer, source_length=16, target_length=5)
    assert whole.num_cut == (0, 0)
    assert cut.num_cut == (1, 1)
    assert cut.whole.tolist() == [list(pair) for pair in whole.lengths]
    assert cut.sources[0] == [*whole.sources[0][:15], 1]
    assert cut.targets[1] == [*whole.targets[1][:4], 1]
    assert cut.sources[1] == whole.sources[1]
    assert cut.targets[0] == whole.targets[0] == tokenizer("<extra_id_0> yes").input_ids


def test_what_is_cut_is_the_end_of_the_spare_part(checkpoint) -> None:
    """Whatever comes after it, and to the token: all others are those of the whole source."""
    tokenizer = open_folder(checkpoint).tokenizer
    passage = "the lamp is red . " * 30 + "the stone is old ."
    for plain in ("passage: {} question: is it old?", "passage: {}", "passage: ({})?", "{} is it"):
        start = plain.index("{}")
        example = Example("a", plain.format(passage), "yes", ("yes",), (start, start + len(passage)))
        whole, cut = (
            encode([example], tokenizer, source_length=limit, target_length=9).sources[0] for limit in (999, 40)
        )
        after = tokenizer(plain[start + 2 :]).input_ids
        assert len(cut) == 40
        assert cut == [*whole[: 40 - len(after)], *after]
        assert tokenizer.decode(cut).replace(" ", "").endswith(plain[start + 2 :].replace(" ", "") + "</s>")


def test_where_the_rest_alone_is_too_long_its_end_is_cut(checkpoint) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    before, passage, after = "question: " + "is it red " * 9, "the lamp " * 9, " is it old"
    example = Example("a", before + passage + after, "yes", ("yes",), (len(before), len(before + passage)))
    (cut,) = encode([example], tokenizer, source_length=12, target_length=9).sources
    assert cut == [*tokenizer(before + after).input_ids[:11], 1]


def test_answers_are_lost_where_no_gold_is_left(checkpoint) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    passage = "the red lamp fell . " + "it is old . " * 30 + "the grey stone broke ."
    golds = [("stone broke",), ("stone broke", "Lamp fell."), ("red lamp",), ("",), ("blue",), ("lamp fell", "x")]
    examples = [Example(str(index), passage, "x", gold, (0, len(passage))) for index, gold in enumerate(golds)]
    cut = encode(examples, tokenizer, source_length=30, target_length=9, find_answers=True)
    # "Lamp fell." is not in the source as it stands, but what is left of it says the same.
    assert (cut.num_cut, cut.lost_answers) == ((6, 0), 1)
    assert encode(examples, tokenizer, source_length=999, target_length=9, find_answers=True).lost_answers == 0
    assert encode(examples, tokenizer, source_length=30, target_length=9).lost_answers == 0


def test_parts_do_not_matter(checkpoint, monkeypatch) -> None:
    tokenizer = open_folder(checkpoint).tokenizer
    examples = [Example(str(n), f"is it {n} " * (n % 7 + 1), f"<extra_id_0> {n % 3}", ("x",)) for n in range(23)]
    whole = encode(examples, tokenizer, source_length=20, target_length=9)
    seen: list[list[int]] = []
    monkeypatch.setattr("fpt.data.encoding.PART", 5)
    again = encode(
        examples, tokenizer, source_length=20, target_length=9, with_bar=lambda parts, _: seen.extend(parts) or parts
    )
    assert [index for part in seen for index in part] == list(range(23))
    assert (list(again.sources), list(again.targets)) == (list(whole.sources), list(whole.targets))
    assert again.num_cut[0] == whole.num_cut[0] > 0
    assert list(whole.targets) == [tokenizer(example.target).input_ids for example in examples]
