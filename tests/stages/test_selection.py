"""Blocks are chosen by a rule, neurons by importance, and a saved selection reads back the same."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch

from fpt.backbones.shapes import Selection, Shape, Stack, StackSelection
from fpt.config.compose import load
from stages import schedule, selection
from stages.schedule import num_below
from stages.selection import around, blocks_of, choose, evenly, everything, most_important, outer

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


def test_outer_leaves_out_a_gap_in_the_middle() -> None:
    for total in range(1, 31):
        for kept in range(1, total + 1):
            picked = outer(kept, total)
            left_out = [block for block in range(total) if block not in picked]
            assert len(picked) == kept
            assert left_out == list(range(total))[(kept + 1) // 2 :][: total - kept]
    assert outer(24, 30) == (*range(12), *range(18, 30))
    assert outer(3, 6) == (0, 1, 5)


def test_every_stack_is_chosen_from_by_the_rule() -> None:
    """A prompt inside the first stack has a gap below it and one above it."""
    full, half = Shape(Stack(24, 8), Stack(6, 8)), Shape(Stack(12, 8), Stack(3, 8))
    rows = {
        ("evenly", 0): {"encoder": evenly(12, 24), "decoder": (0, 2, 5)},
        ("outer", 0): {"encoder": (*range(6), *range(18, 24)), "decoder": (0, 1, 5)},
        ("outer", 12): {"encoder": (0, 1, 2, 9, 10, 11, 12, 13, 14, 21, 22, 23), "decoder": (0, 1, 5)},
    }
    for (rule, layer), expected in rows.items():
        assert blocks_of(half, full, layer, rule) == expected
        chosen = choose(half, full, {}, layer=layer, rule=rule)
        assert {name: stack.blocks for name, stack in chosen.items()} == expected


@pytest.mark.parametrize(
    ("model", "words", "rule"),
    [
        ("t5-large", (), "evenly"),
        ("roberta-base", (), "evenly"),
        ("llama-3.2-1b", (), "outer"),
        ("llama-3.2-1b", ("schedule.blocks=evenly",), "evenly"),
        ("t5-large", ("schedule.blocks=outer",), "outer"),
    ],
)
def test_causal_models_leave_out_the_middle_unless_told_otherwise(
    model: str, words: tuple[str, ...], rule: str
) -> None:
    assert schedule.of(load([f"model={model}", "task=boolq", "schedule=ld", *words])).keeps == rule


@pytest.mark.parametrize("rule", [evenly, outer])
@pytest.mark.parametrize("total", [1, 2, 3, 6, 13, 24])
def test_the_block_below_a_prompt_is_kept_at_every_depth(
    total: int, rule: Callable[[int, int], tuple[int, ...]]
) -> None:
    for layer in range(total + 1):
        before = 0, 0
        for kept in range(1, total + 1):
            picked = around(kept, total, layer, rule)
            assert list(picked) == sorted(set(picked))
            assert (len(picked), layer == 0 or layer - 1 in picked) == (kept, True)
            below = sum(block < layer for block in picked)
            assert below == num_below(kept, total, layer)
            assert kept == 1 or layer == total or picked[-1] == total - 1
            assert kept == 1 or layer in (0, total) or 0 < below < kept
            assert below >= before[0]  # both sides grow
            assert kept - below >= before[1]
            before = below, kept - below
        assert around(total, total, layer, rule) == tuple(range(total))
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
