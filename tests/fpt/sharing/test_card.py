"""The command on a model card reads and answers a text as the run did."""

from dataclasses import replace

import pytest

from fpt.config import compose
from fpt.sharing import export


@pytest.mark.parametrize(
    "words",
    [
        ["task=sst2"],
        [
            "task=sst2",
            "task.template=lpt",
            "task.labels={positive: good one}",
            "task.chat=true",
            "task.source_length=9",
        ],
        [
            *[
                "task=files",
                "task.train=own.csv",
                "task.source={a b}: x",
                "task.target={c}",
                "task.answer=score_norm",
            ],
            *["task.labels={0: no, 1: 'yes, sir'}", "task.target_length=9", "task.columns=[a b,c]"],
        ],
        [
            *["task=files", "task.train=own.csv", "task.source={a}", "task.target={c}", "task.labels=[a, b]"],
            *["task.multilabel=true", "task.metric=micro_f1"],
        ],
    ],
)
def test_the_cards_words_are_the_runs_settings(words: list[str]) -> None:
    """But for what says where the data are, and how they are scored."""
    task = compose.load([*words, "model=gpt2"]).task
    typed = compose.load([*export._words(task), "model=gpt2"]).task
    assert "own.csv" not in " ".join(export._words(task))
    assert replace(typed, train=task.train, columns=task.columns, metric=task.metric) == task
