"""Updates that cannot be done as they were planned are done again: with fewer examples at once, or without graphs."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fpt.__main__ import main
from fpt.devices import distributed
from fpt.errors import UserError
from fpt.prompts.prompted import PromptedModel
from fpt.training import loop
from fpt.training.graphs import NoGraphError, Replay
from stages.planning import decide
from tests.processes import in_processes

FORWARD = PromptedModel.forward


def short_of_memory(most: int, rank: int, model: Any, batch: Any) -> Any:
    """A forward pass for which the device of one rank has no room where it has more than `most` examples."""
    if len(batch.source) > most and distributed.rank() == rank:
        raise torch.OutOfMemoryError("CUDA out of memory (as a card would say)")
    return FORWARD(model, batch)


def train(words: list[str], most: int, rank: int) -> None:
    """The command, on such a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptedModel, "forward", lambda model, batch: short_of_memory(most, rank, model, batch))
        assert main(["train", *words]) == 0


def learned(folder: Path) -> torch.Tensor:
    return load_file(folder / "prompt.safetensors")["prompt"]


@pytest.mark.trains
def test_the_update_is_done_again_and_its_gradient_does_not_change(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*quick, "train.updates=4", "train.batch_size=8", "schedule=pt", "engine=torch"]
    train([*words, f"run.dir={tmp_path}/short"], most=2, rank=0)
    said = capsys.readouterr().err
    assert [f"from here on {count} examples at once" in said for count in (4, 2, 1)] == [True, True, False]
    assert main(["train", *words, f"run.dir={tmp_path}/two", "train.micro_batch=2"]) == 0
    assert torch.equal(learned(tmp_path / "short"), learned(tmp_path / "two"))


@pytest.mark.trains
def test_processes_take_fewer_examples_together(quick: list[str], tmp_path: Path) -> None:
    """Where one of two has no room, both halve, or their sums would be of different updates."""
    words = [*quick, "train.updates=4", "train.batch_size=8", "schedule=pt", "engine=torch"]
    in_processes(2, partial(train, [*words, f"run.dir={tmp_path}/short"], 1, 1), tmp_path / "a")
    more = [f"run.dir={tmp_path}/one", "train.micro_batch=1"]
    in_processes(2, partial(main, ["train", *words, *more]), tmp_path / "b")
    assert torch.equal(learned(tmp_path / "short"), learned(tmp_path / "one"))


@pytest.mark.trains
def test_without_room_for_one_example_it_ends_in_a_line(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptedModel, "forward", lambda model, batch: short_of_memory(0, 0, model, batch))
    assert main(["train", *quick, "engine=torch", "train.micro_batch=1"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "out of memory with 1 example at once: train.activation_checkpointing=true" in said


def again(run: Replay) -> Replay:
    """Stands in for a card's recorder, whose graph is its function run again."""
    run()
    return run


def refused(_: Replay) -> Replay:
    """Likewise, of a model that asks the card something."""
    raise NoGraphError("operation not permitted")


@pytest.mark.trains
def test_a_run_of_graphs_learns_what_it_learns_without(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, as the loss is summed over other positions; also where the largest batch has no room."""
    words = [*quick, "train.updates=10", "train.batch_size=8", "schedule=cr", "engine=torch", "optim.lr=0.01"]
    assert main(["train", *words, "train.micro_batch=2", f"run.dir={tmp_path}/plain"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(decide, "graphs_here", lambda *_: True)
        patch.setattr(loop, "Recorder", lambda _: again)
        train([*words, f"run.dir={tmp_path}/graphs"], most=2, rank=0)
    assert "from here on 2 examples at once" in capsys.readouterr().err
    torch.testing.assert_close(learned(tmp_path / "graphs"), learned(tmp_path / "plain"), rtol=1e-4, atol=1e-4)


@pytest.mark.trains
def test_a_model_whose_updates_cannot_be_graphs_is_trained_without(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*quick, "train.updates=10", "train.batch_size=8", "schedule=cr", "engine=torch"]
    assert main(["train", *words, f"run.dir={tmp_path}/plain"]) == 0
    monkeypatch.setattr(decide, "graphs_here", lambda *_: True)
    monkeypatch.setattr(loop, "Recorder", lambda _: refused)
    assert main(["train", *words, f"run.dir={tmp_path}/graphs"]) == 0
    said = capsys.readouterr().err
    assert said.count("from here on updates are no CUDA graphs: operation not permitted") == 1
    assert torch.equal(learned(tmp_path / "graphs"), learned(tmp_path / "plain"))


@pytest.mark.parametrize(("update", "way_out"), [(1, "try engine.dtype=float32"), (2, r"try a lower optim\.lr=0\.3")])
def test_a_rate_that_has_moved_nothing_is_not_blamed(update: int, way_out: str) -> None:
    with pytest.raises(UserError, match=f"the loss is nan at update {update}: .*{way_out}"):
        loop._updated(update, torch.tensor(float("nan")), 0.3, 1, 0.0)
