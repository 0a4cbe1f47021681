"""A finished run is a folder that answers from any place, without its data, and also when it has moved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt import api
from tests.conftest import Outcome

Cli = Callable[..., Outcome]


@pytest.fixture(scope="module")
def project(trains: None, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model, files and a run in it, trained from there with relative paths; the training file is gone."""
    from fpt.__main__ import main

    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(checkpoint, folder / "models" / "small")
    rows = [{"asked": f"what is {number}", "answer": "yes" if number % 2 else "no"} for number in range(8)]
    for name in ("train", "valid"):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    few = ["train.updates=2", "train.eval_every=2", "train.batch_size=2", "schedule=pt"]
    own = ["task.train=train.jsonl", "task.valid=valid.jsonl", "task.source=q: {asked}", "task.target={answer}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "task=files", "task.name=faq", "model=models/small", *own, *few]) == 0
    (folder / "train.jsonl").unlink()
    return folder


def answers(cli: Cli, run: str) -> list[str]:
    """The answers of every way to use a run, from the API and the command line."""
    with api.predictor(run) as answer:
        called = answer(["q: what is 3"])[0].answer
    asked = cli("predict", f"run={run}", "text=q: what is 3", "--json")
    assert asked.status == 0, asked.err
    assert json.loads(asked.out)["answer"] == called
    scored = cli("eval", f"run={run}", f"task.train={Path(run).parents[1] / 'valid.jsonl'}", "--json")
    assert scored.status == 0, scored.err
    assert json.loads(scored.out)["metrics"] == api.open_run(run).result["metrics"]
    for form in ("npy", "hf"):
        done = cli("export", f"run={run}", f"to={form}")
        assert done.status == 0, done.err
        shutil.rmtree(Path(run) / "export")
    return [called]


def test_from_any_working_directory_and_moved(
    cli: Cli, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run,) = (project / "runs").iterdir()
    monkeypatch.chdir(tmp_path)
    first = answers(cli, str(run))
    moved = project.rename(tmp_path / "elsewhere")
    try:
        assert answers(cli, f"elsewhere/runs/{run.name}") == first
        shutil.copytree(moved / "runs" / run.name, tmp_path / "sent")
        missing = cli("predict", "run=sent", "text=q: what is 3")
        assert (missing.status, len(missing.err.splitlines())) == (2, 1)
        assert f"model={project}/models/small: no such folder" in missing.err
        assert answers(cli, f"elsewhere/runs/{run.name}") == first
        named = cli("predict", "run=sent", "model=elsewhere/models/small", "text=q: what is 3")
        assert named.out.strip() == first[0]
    finally:
        moved.rename(project)


def test_what_needs_the_training_file_says_so(cli: Cli, project: Path) -> None:
    (run,) = (project / "runs").iterdir()
    done = cli("eval", f"run={run}", "split=train")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert f"task.train={project}/train.jsonl: no such file" in done.err
