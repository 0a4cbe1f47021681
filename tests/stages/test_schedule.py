"""Presets are the paper's, counts and fractions mean what they say, and an impossible schedule is refused."""

from typing import Any

import pytest

from fpt.backbones.shapes import Shape, Stack
from fpt.config.compose import load
from fpt.config.schema import ScheduleConfig
from fpt.errors import UserError
from stages.schedule import Schedule, Stage, build

LARGE = Shape(Stack(24, 2816), Stack(24, 2816))
XL = Shape(Stack(24, 5120), Stack(24, 5120))


def sizes(shape: Shape, preset: str, *, reduce_decoder: bool, updates: int) -> list[tuple[int, int, int, int, int]]:
    config = load([f"schedule={preset}"]).schedule
    stages = build(config, full=shape, updates=updates, reduce_decoder=reduce_decoder).stages
    return [
        (s.shape.encoder.blocks, s.shape.decoder.blocks, s.shape.encoder.neurons, s.shape.decoder.neurons, s.updates)
        for s in stages
    ]


def test_presets_are_the_papers() -> None:
    for preset, depths, widths in (
        ("ld", (6, 12, 18, 24), (2816,) * 4),
        ("fr", (24,) * 4, (704, 1408, 2112, 2816)),
        ("cr", (6, 12, 18, 24), (704, 1408, 2112, 2816)),
    ):
        got = sizes(LARGE, preset, reduce_decoder=True, updates=30000)
        counts = (6000, 6000, 6000, 12000)
        assert got == [(d, d, w, w, n) for d, w, n in zip(depths, widths, counts, strict=True)]
    assert [row[2] for row in sizes(XL, "cr", reduce_decoder=True, updates=15000)] == [1280, 2560, 3840, 5120]
    assert sizes(LARGE, "pt", reduce_decoder=True, updates=9) == [(24, 24, 2816, 2816, 9)]


def test_short_labels_leave_the_decoder_whole() -> None:
    assert all(row[1] == 24 and row[3] == 2816 for row in sizes(LARGE, "cr", reduce_decoder=False, updates=100))


@pytest.mark.parametrize("updates", [5, 7, 99, 101, 12345])
def test_shares_divide_any_number_of_updates(updates: int) -> None:
    rows = sizes(LARGE, "cr", reduce_decoder=True, updates=updates)
    assert sum(row[4] for row in rows) == updates
    assert all(abs(row[4] - updates * share) <= 1 for row, share in zip(rows, (0.2, 0.2, 0.2, 0.4), strict=True))


def custom(*stages: Any, full: Shape = LARGE, **more: Any) -> list[tuple[Any, ...]]:
    config = ScheduleConfig(name="custom", stages=list(stages), **more)
    built = build(config, full=full, updates=100, reduce_decoder=True)
    return [(stage.shape, stage.first_update, stage.updates) for stage in built.stages]


def test_counts_fractions_full_and_one_stack_alone() -> None:
    rows = custom(
        {"depth": 6, "width": {"encoder": 0.5}, "updates": 10},
        {"depth": {"encoder": "full", "decoder": 0.5}, "width": "full", "updates": 20},
        {"updates": 30},
    )
    assert rows == [
        (Shape(Stack(6, 1408), Stack(6, 2816)), 0, 10),
        (Shape(Stack(24, 2816), Stack(12, 2816)), 10, 20),
        (LARGE, 30, 30),
    ]


def test_uneven_stacks_take_the_fraction_of_each() -> None:
    byt5 = Shape(Stack(12, 3584), Stack(4, 3584))
    (first, *_), *_ = custom({"depth": 0.25, "share": 0.5}, {"share": 0.5}, full=byt5)
    assert (first.encoder.blocks, first.decoder.blocks) == (3, 1)


FULL = {"share": 0.5}
REFUSED: list[tuple[list[Any], str]] = [
    ([], "the list is empty"),
    ([3], r"stages\[1\]=3"),
    ([{"depht": 3, "share": 1.0}], "Did you mean 'depth'"),
    ([{"depth": 3}], "either share"),
    ([{"share": 1.0, "updates": 3}], "either share"),
    ([{"depth": 25, "share": 0.5}, FULL], r"depth=25.*1 to 24"),
    ([{"depth": 0, "share": 0.5}, FULL], r"depth=0.*1 to 24"),
    ([{"depth": 1.5, "share": 0.5}, FULL], r"depth=1\.5"),
    ([{"depth": True, "share": 0.5}, FULL], "depth=True"),
    ([{"width": 2817, "share": 0.5}, FULL], r"width=2817.*2816"),
    ([{"width": {"middle": 3}, "share": 0.5}, FULL], "encoder: …, decoder: …"),
    ([{"depth": 0.5, "share": 0.4}, FULL], r"add up to 0\.9"),
    ([{"depth": 0.5, "share": -0.5}, FULL], r"share=-0\.5"),
    ([{"depth": 0.5, "share": float("inf")}, FULL], "share=inf"),
    ([{"depth": 0.5, "share": float("nan")}, FULL], "share=nan"),
    ([{1: 2, "share": 0.5}, FULL], "unknown key '1'"),
    ([{"depth": 0.5, "updates": 1.5}, FULL], r"updates=1\.5"),
    ([{"depth": 0.5, "updates": 10}, FULL], "give every stage a share, or"),
    ([{"depth": 0.5, "share": 0.5}, {"depth": 0.25, "share": 0.5}], "smaller in part"),
    ([{"depth": 0.5, "share": 0.25}, {"depth": 12, "share": 0.25}, FULL], "the same as"),
    ([{"depth": 0.5, "share": 1.0}], "not the full model"),
    ([{"depth": 0.5, "share": 0.001}, {"share": 0.999}], "too few"),
]


@pytest.mark.parametrize(("stages", "reason"), REFUSED)
def test_an_impossible_schedule_is_refused(stages: list[Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        custom(*stages)


def test_a_partial_end_must_be_asked_for() -> None:
    rows = custom({"depth": 0.5, "width": 0.25, "share": 1.0}, partial_end=True)
    assert rows == [(Shape(Stack(12, 704), Stack(12, 704)), 0, 100)]


WHOLE = Shape(Stack(6, 48), Stack(6, 48))
STAGES = Schedule(tuple(Stage(number, WHOLE, 4, first) for number, first in enumerate((0, 4, 8), 1)), WHOLE)


@pytest.mark.parametrize(
    ("update", "done", "left"),
    [
        (0, False, [1, 2, 3]),
        (3, False, [1, 2, 3]),
        (4, False, [1, 2, 3]),  # whose validation is yet to come
        (4, True, [2, 3]),
        (5, False, [2, 3]),
        (8, True, [3]),
        (10, True, [3]),  # which ran out of patience: its result may not have been written
        (12, True, [3]),
    ],
)
def test_the_stages_that_are_left(update: int, done: bool, left: list[int]) -> None:
    """A run goes on in the stage where its last state lies, at every boundary ± 1."""
    assert [stage.index for stage in STAGES.left(update, is_over=done)] == left
