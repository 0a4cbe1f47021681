"""A run is used with the model and the tokenizer that it was trained with, or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fpt import api
from fpt.errors import UserError
from tests.conftest import Outcome, copied_run, rewritten

Cli = Callable[..., Outcome]
OTHER = "the prompt was trained with another tokenizer than that in"
USES = ["eval run={run}", "predict run={run} text=x", "export run={run} to=npy", "export run={run} to=hf"]
USES += ["export run={run} to=tokens", "eval prompt.file={run} model={model} task.data={data}"]
USES += ["train prompt.init=file prompt.file={run} prompt.length=5 model={model} task.data={data} run.dir={run}-x"]


@pytest.fixture
def places(finished: Path, checkpoint: Path, boolq: Path, tmp_path: Path) -> dict[str, Path]:
    """A run with a model of its own, whose tokenizer's files are another's now."""
    model = Path(shutil.copytree(checkpoint, tmp_path / "model"))
    run = copied_run(finished, tmp_path / "run")
    rewritten(run, weights=str(model))
    return {"run": run, "model": model, "data": boolq}


def swap_two_pieces(model: Path) -> None:
    from sentencepiece import sentencepiece_model_pb2

    pieces = vars(sentencepiece_model_pb2)["ModelProto"].FromString((model / "spiece.model").read_bytes())
    one, other = pieces.pieces[300], pieces.pieces[301]
    one.piece, other.piece = other.piece, one.piece
    (model / "spiece.model").write_bytes(pieces.SerializeToString())


@pytest.mark.parametrize("use", USES)
def test_a_changed_tokenizer_is_refused(cli: Cli, places: dict[str, Path], use: str) -> None:
    swap_two_pieces(places["model"])
    done = cli(*(word.format(**places) for word in use.split()))
    assert (done.status, len(done.err.strip().splitlines())) == (2, 1)
    assert f"{OTHER} {places['model']}" in done.err
    assert "prompt.safetensors as prompt.file" in done.err


@pytest.mark.parametrize("harm", ["emptied", "gone"])
def test_so_it_is_where_it_is_no_tokenizer_any_more(cli: Cli, places: dict[str, Path], harm: str) -> None:
    file = places["model"] / "spiece.model"
    file.write_bytes(b"") if harm == "emptied" else file.unlink()
    with pytest.raises(UserError), api.predictor(places["run"]):
        pass
    done = cli("predict", f"run={places['run']}", "text=x")
    assert (done.status, len(done.err.strip().splitlines())) == (2, 1)


def test_the_prompt_alone_may_be_tried_with_it(cli: Cli, places: dict[str, Path]) -> None:
    swap_two_pieces(places["model"])
    prompt, model = f"prompt.file={places['run']}/prompt.safetensors", f"model={places['model']}"
    assert cli("predict", prompt, model, "text=x").status == 0


def test_a_run_that_does_not_say_its_tokenizer_is_used(cli: Cli, places: dict[str, Path]) -> None:
    inputs = json.loads((places["run"] / "inputs.json").read_text())
    assert inputs.pop("tokenizer")
    rewritten(places["run"], "inputs.json", json.dumps(inputs))
    assert cli("predict", f"run={places['run']}", "text=x").status == 0
