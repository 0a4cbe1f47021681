"""Runs to report on, made once: a finished one, one that stopped half-way, and one of another task and metric."""

import json
from pathlib import Path
from typing import Any

import pytest

from fpt.__main__ import main
from fpt.training import loop
from tests.conftest import quick_words

HOSTILE = "</script><script>document.title = 'taken over'</script><img src=x onerror=alert(1)> {{ 7 * 7 }}"


def stopped(words: list[str], after: int) -> None:
    """Train, and end as a kill would after so many updates."""
    step, calls = loop.step, iter(range(after))

    def step_or_stop(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "step", step_or_stop)
        assert main(["train", *words]) == 130


@pytest.fixture(scope="session")
def runs(trains: None, checkpoint: Path, boolq: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Only ever read; tests that change one copy it."""
    folder = tmp_path_factory.mktemp("runs")
    found = {name: folder / name for name in ("finished", "unfinished", "faq")}
    finished, unfinished, faq = found.values()
    assert main(["train", *quick_words(checkpoint, boolq, finished)]) == 0
    stopped([*quick_words(checkpoint, boolq, unfinished), "seed=1", "train.eval_every=3"], after=10)
    # Of another task and metric, in one stage, with a prompt of another length.
    data = folder / "faq.jsonl"
    rows = [{"question": f"{HOSTILE} {number}", "answer": "at nine"} for number in range(12)]
    data.write_text("\n".join(map(json.dumps, rows)) + "\n")
    texts = ["task=files", "task.name=faq", f"task.train={data}", "task.source={question}", "task.target={answer}"]
    words = [word for word in quick_words(checkpoint, boolq, faq) if not word.startswith("task.")]
    few = ["task.metric=exact_match", "schedule=pt", "train.updates=4", "prompt.length=3", "task.valid_share=0.5"]
    assert main(["train", *words, *texts, *few]) == 0
    # HTML, SVG and matplotlib could each misread this.
    named = faq.rename(folder / "faq $x^ <b>&")
    return {"finished": finished, "unfinished": unfinished, "faq": named}


@pytest.fixture(scope="session")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all the runs together."""
    file = tmp_path_factory.mktemp("all") / "out" / "all.html"
    assert main(["report", *map(str, runs.values()), f"output={file}"]) == 0
    return file
