"""The real models' bench asks for runs that fpt takes, in a telling order, and reads off rows what they say."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.real.arms import ARMS, PARTS, PEFT, TASKS, VANILLA, Kind, in_turn
from bench.real.picture import drawn
from bench.real.tables import of_model, of_parts, printed, summary
from fpt.config import compose
from fpt.data.encoded import IGNORED

UPDATES = dict.fromkeys(TASKS, 40)


@pytest.mark.parametrize("arm", ARMS | PARTS)
def test_an_arm_is_a_run_that_can_be_made(arm: str) -> None:
    kind = Kind("gemma3", "trec", arm, 2, 40, rate=0.5, shots=64)
    config, name = compose.load(kind.words), f"gemma3-trec-{arm}@0.5-s2-u40-k64"
    assert (config.seed, config.train.updates, config.optim.lr) == (2, 40, 0.5)
    assert (kind.name, config.task.shots) == (name, 64)


def test_vanilla_is_run_beside_peft_then_in_all_seeds_and_then_the_others() -> None:
    kinds = [(kind.task, kind.arm, kind.seed) for kind in in_turn("smollm2", TASKS, list(ARMS), range(3), UPDATES)]
    assert kinds[:6] == [(task, arm, 0) for task in TASKS for arm in (VANILLA, PEFT)]
    assert {kind[1] for kind in kinds[6:12]} == {VANILLA}
    assert len(kinds) == len(set(kinds)) == 3 * 3 * len(ARMS)
    assert {kind.task for kind in in_turn("gemma3", TASKS, list(ARMS), range(1), UPDATES)} == {"trec"}


def row(arm: str, seed: int, looks: list[list[Any]], **more: Any) -> dict[str, Any]:
    kind = Kind("smollm2", "trec", arm, seed, 40)
    fixed = {"metric": {"last": looks[-1][3]}, "flops": looks[-1][2], "stages": 1, "threads": 1, "processor": "a"}
    return {"name": kind.name, **kind._asdict(), "looks": looks, **fixed, **more}


ROWS = [
    row(VANILLA, 0, [[10, 1, 100, 40.0, 20, 0], [20, 1, 200, 80.0, 30, 0], [40, 1, 400, 80.0, 50, 0]]),
    row(PEFT, 0, [[10, 1, None, 40.0, 40, 0], [20, 1, None, 60.0, 60, 0], [40, 1, None, 70.0, 100, 0]]),
    row("cr", 0, [[20, 2, 90, 85.0, 30, 0], [40, 2, 200, 70.0, 40, 0]], stages=2),
    row("late", 0, [[10, 1, 50, 80.0, 15, 0], [40, 1, 200, 90.0, 25, 0]]),
]


def test_shares_are_of_vanillas_run_and_of_pefts() -> None:
    rows = of_model({each["name"]: each for each in ROWS}, "smollm2", UPDATES)
    late, cr, peft = (summary(arm, rows) for arm in ("late", "cr", PEFT))
    assert (late["flops_to_vanilla"], late["seconds_to_vanilla"], late["seconds_to_peft"]) == ([0.125], [0.3], [0.15])
    assert (late["against"], late["flops"], late["scores"]) == ([10.0], [0.5], {"trec": [90.0]})
    assert cr["flops_to_vanilla"] == [None]  # one validation has the score, and the next does not hold it
    assert cr["seconds_to_peft"] == [0.3]
    busy = rows | {PEFT: {pair: {**one, "busy": True} for pair, one in rows[PEFT].items()}}
    assert summary(PEFT, busy)["seconds_to_vanilla"] == []
    assert (peft["flops"], peft["flops_to_vanilla"], peft["seconds_to_vanilla"]) == ([], [], [None])


def test_the_page_and_the_picture_are_made_of_the_rows_that_there_are() -> None:
    rows = {each["name"]: each for each in ROWS}
    page = printed(rows, "smollm2", UPDATES)
    assert "| cr | 70.0 | -10.0 | 50% | never (0 of 1) | never (0 of 1) | 30% (1 of 1) |" in page
    assert printed(rows, "gemma3", UPDATES) == ""
    picture = drawn(of_model(rows, "smollm2", UPDATES))
    assert picture.count("</svg>") == 1
    alone = {"alone": {**ROWS[0], "task": "subj"}}  # a line has the runs that every line has
    assert drawn(of_model(rows | alone, "smollm2", UPDATES)) == picture


def test_the_table_of_parts_has_the_score_on_the_part_and_then_on_the_whole() -> None:
    own = row("ld-0.5", 0, [[10, 1, 40, 30.0, 20, 0], [20, 1, 80, 60.0, 30, 0], [40, 2, 90, 50.0, 50, 0]], stages=2)
    assert "| 50% | 60.0, 50.0 | –, – | –, – |" in of_parts({own["name"]: own}, "smollm2", UPDATES)


@pytest.mark.dear
def test_an_answer_counts_if_every_token_is_said() -> None:
    from bench.real.peft_side import accuracy  # PEFT's import takes seconds

    gold = np.array([[IGNORED, IGNORED, 5, 1, IGNORED], [IGNORED, IGNORED, 6, 7, 1]])
    said = np.array([[0, 5, 1, 9, 9], [0, 6, 8, 1, 9]])
    assert accuracy(SimpleNamespace(predictions=said, label_ids=gold)) == {"accuracy": 50.0}
