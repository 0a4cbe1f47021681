"""Rows of the leaderboard are settings that fpt takes, and what is read off their runs is what the records say."""

import pytest

from bench import rows
from bench.backbone import choices
from bench.leaderboard import printed
from fpt.config import compose
from stages import schedule
from stages.several import Point

ROWS = [*rows.SCHEDULES, *rows.FURTHER, *rows.PARTIAL]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_a_run_that_can_be_made(row: str) -> None:
    config = compose.load(rows.overrides("boolq", row, 0))
    stages = schedule.of(config).stages
    examples = sum(stage.updates for stage in stages) * config.train.batch_size
    assert examples == rows.UPDATES * rows.BATCH_SIZE
    assert (config.train.batch_size == rows.SMALL) == ("small batches" in row)
    assert config.task.land == rows.LANDS[0]
    assert config.optim.lr in rows.TRIED
    assert (config.optim.average > 0) == ("averaged" in row)
    assert (config.optim.momentum is not None) == ("momentum" in row)


@pytest.mark.dear
def test_rates_are_chosen_on_a_land_of_their_own() -> None:
    runs = choices()
    assert len(runs) == len(rows.TRIED) * (len(rows.RATES) + len(rows.CLIMBING) - 1)
    for words in runs.values():
        assert compose.load(words).task.land not in rows.LANDS


def test_a_mean_has_a_score_where_its_runs_have_it_together() -> None:
    """Vanilla's own mean has its last score at its last validation at the latest, which is all of its FLOPs."""
    seeds = range(len(rows.LANDS))
    for task in rows.CLIMBING:
        share = rows.mean_to_vanilla(task, rows.VANILLA, seeds)
        assert share is not None
        assert 0.5 < share <= 1
        assert rows.mean_curve(task, rows.VANILLA, seeds)[-1].score == pytest.approx(
            sum(rows.last(task, rows.VANILLA, seed) for seed in seeds) / len(seeds)
        )
        assert rows.flops_share(task, rows.VANILLA, seeds) == 1


def test_a_page_of_rows_that_never_get_there_says_so() -> None:
    page = printed(["boolq", "xsum"], ["pt", "fr"], [0])
    assert "| fr | 0 of 2 | – | never | never | never |" in page


@pytest.mark.parametrize(("flops", "score"), [(9.9, None), (10, 50.0), (29, 70.0), (1000, 60.0)])
def test_what_a_run_had_is_its_last_validation_up_to_there(flops: float, score: float | None) -> None:
    assert rows.after([Point(10, 50), Point(20, 70), Point(30, 60)], flops) == score
