"""Classes weigh in the loss as scikit-learn balances them, or as the user says."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from fpt.config.compose import load
from fpt.errors import UserError
from fpt.tasks.opening import open_task
from fpt.tasks.task import Task

GOLDS = [*["no"] * 7, *["yes"] * 2, "maybe"]


def opened(folder: Path, *words: str) -> Task:
    file = folder / "a.jsonl"
    file.write_text("".join(json.dumps({"text": f"{index}", "is": gold}) + "\n" for index, gold in enumerate(GOLDS)))
    files = [f"task.train={file}", f"task.valid={file}", "task.source='{text}'", "task.target='{is}'"]
    return open_task(load(["task=files", *files, "task.labels={yes: ja, no: nein, maybe: vielleicht}", *words]))


@pytest.mark.parametrize("more", [(), ("task.train_examples=8",), ("task.shots=1",)])
def test_balanced_weights_are_scikit_learns_of_the_examples_that_are_used(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Also where only two of the three labels occur."""
    task = opened(tmp_path, "task.class_weights=balanced", *more)
    golds = [example.golds[0] for example in task.train]
    classes = np.unique(golds)
    expected = compute_class_weight("balanced", classes=classes, y=golds)
    assert task.class_weights == pytest.approx(dict(zip(classes, expected, strict=True)))


@pytest.mark.parametrize(
    ("typed", "weights"),
    [
        ("null", {}),
        ("{ja: 1, nein: 2.5, vielleicht: 1e-3}", {"ja": 1, "nein": 2.5, "vielleicht": 0.001}),
        ("{no: 2, vielleicht: 3}", {"ja": 1, "nein": 2, "vielleicht": 3}),
    ],
)
def test_weights_are_given_by_word_or_value(tmp_path: Path, typed: str, weights: dict[str, float]) -> None:
    assert opened(tmp_path, f"task.class_weights={typed}").class_weights == weights


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task.class_weights=balance"], "balance: expected balanced, or weights of labels"),
        (["task.class_weights=[1, 2]"], "expected balanced, or weights of labels"),
        (["task.class_weights={}"], "expected balanced, or weights of labels"),
        (
            ["task.class_weights={neun: 1}"],
            r"no label 'neun'; there are yes, no, maybe, ja, nein, .* Did you mean 'nein'\?",
        ),
        (["task.class_weights={ja: 1, yes: 2}"], "two keys are the label 'ja'; give one"),
        (["task.class_weights={ja: 1, ja: 2}"], "'ja' is given twice"),
        *(
            ([f"task.class_weights={{ja: {weight}}}"], "expected a number from 1e-06 to 1,000,000 for ja, not")
            for weight in ("0", "-1", "x", "nan", "1e7", "inf")
        ),
        (
            ["task.labels=null", "task.class_weights=balanced"],
            "is for examples with one label each, unlike those of files; leave it out, or give task.labels",
        ),
    ],
)
def test_what_are_no_weights_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=f"^task.class_weights.*{said}") as caught:
        opened(tmp_path, *words)
    assert "\n" not in str(caught.value)
