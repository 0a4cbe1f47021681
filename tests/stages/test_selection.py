"""Blocks are spread evenly, neurons are the most important ones, and a saved selection reads back the same."""

from itertools import pairwise

import pytest
import torch

from fpt.backbones.shapes import Selection, Shape, Stack, StackSelection
from stages import selection
from stages.schedule import num_below
from stages.selection import around, choose, evenly, everything, most_important

PAPER = {  # Huang et al. 2022, T5-Large's 24 layers
    6: (0, 4, 8, 13, 18, 23),
    12: (0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 23),
    18: (*range(12), 13, 15, 17, 19, 21, 23),
    24: tuple(range(24)),
}


@pytest.mark.parametrize("kept", PAPER)
def test_evenly_is_the_papers(kept: int) -> None:
    assert evenly(kept, 24) == PAPER[kept]


@pytest.mark.parametrize("total", range(1, 49))
def test_evenly_for_every_count(total: int) -> None:
    for kept in range(1, total + 1):
        picked = evenly(kept, total)
        gaps = [after - before for before, after in pairwise(picked)]
        assert len(picked) == kept
        assert picked[0] == 0
        assert kept == 1 or picked[-1] == total - 1
        assert gaps == sorted(gaps)  # the wider gaps come last
        assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("kept", "total"), [(0, 4), (5, 4), (-1, 4)])
def test_evenly_refuses_what_is_not_there(kept: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"keep {kept} of {total}"):
        evenly(kept, total)


@pytest.mark.parametrize("total", [1, 2, 3, 6, 13, 24])
def test_the_block_below_a_prompt_is_kept_at_every_depth(total: int) -> None:
    for layer in range(total + 1):
        before = 0, 0
        for kept in range(1, total + 1):
            picked = around(kept, total, layer)
            assert list(picked) == sorted(set(picked))
            assert (len(picked), layer == 0 or layer - 1 in picked) == (kept, True)
            below = sum(block < layer for block in picked)
            assert below == num_below(kept, total, layer)
            assert kept == 1 or layer == total or picked[-1] == total - 1
            assert kept == 1 or layer in (0, total) or 0 < below < kept
            assert below >= before[0]  # both sides grow
            assert kept - below >= before[1]
            before = below, kept - below
        assert around(total, total, layer) == tuple(range(total))
    assert around(12, 24, 12) == (0, 2, 4, 6, 8, 11, 12, 14, 16, 18, 20, 23)


def test_ties_go_to_the_lower_index() -> None:
    assert most_important(torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0]), 3) == (0, 1, 3)
    assert most_important(torch.zeros(200), 50) == tuple(range(50))


def test_each_kept_block_keeps_its_own_neurons() -> None:
    full = Shape(Stack(4, 3), Stack(2, 3))
    scores = torch.tensor([[9.0, 1, 2], [0, 0, 0], [0, 0, 0], [1, 2, 9]])
    chosen = choose(Shape(Stack(2, 2), Stack(2, 3)), full, {"encoder": scores})
    assert chosen.encoder == StackSelection((0, 3), ((0, 2), (1, 2)))
    assert chosen.decoder == StackSelection((0, 1), None)


def test_a_selection_survives_its_file() -> None:
    for chosen in (
        everything(Shape(Stack(3, 5), Stack(2, 5))),
        Selection(StackSelection((0, 2), ((0, 1), (2, 4))), StackSelection((0,), None)),
    ):
        assert selection.load(selection.dump(chosen)) == chosen
