"""What the bench of late prompts asks for can be asked for, and every run has a name of its own."""

import pytest

from bench import late
from fpt.config import compose
from fpt.tasks.catalogue import rules_of


@pytest.mark.dear
def test_every_method_and_curve_composes() -> None:
    runs = [late.Run("mnli", method, "32", 0) for method in late.METHODS]
    runs += [late.curved("mnli", late.FULL, word, 0) for words in late.CURVES.values() for word in words]
    runs += [late.costed("record", "npg", "100", late.UNCACHED)]
    for run in runs:
        config = compose.load(run.words)
        assert rules_of(config.task).metric
        assert config.optim.lr == late.RATES.get(run.method, late.RATES["npg"])
        assert config.schedule.name == ("cr" if run.method in ("cr", late.CR) else "pt")
        if config.prompt.kind == "late":
            assert (config.prompt.init, config.prompt.dropout) == ("auto", None)  # as published


def test_runs_are_told_apart_by_name() -> None:
    whole = late.Scope(seeds=(0, 1))
    for scope in (whole, late.SMALL):
        words = {}
        for run in (*scope.grid(), *scope.curves()):
            assert words.setdefault(run.name, run.words) == run.words
        assert len(words) == len({tuple(each) for each in words.values()})
    assert len(words) < 110  # the small form fits in twenty minutes of a core
