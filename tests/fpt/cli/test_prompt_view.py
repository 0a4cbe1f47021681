"""What `fpt show run=DIR` says of a prompt is what numpy finds in the checkpoint's own table of embeddings."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from fpt.cli import prompt_view
from tests.conftest import Outcome

Cli = Callable[..., Outcome]


@pytest.mark.parametrize("stage", [None, 2])
def test_the_nearest_by_cosine(
    cli: Cli, finished: Path, checkpoint: Path, stage: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_view, "AT_ONCE", 100)
    words = [] if stage is None else [f"stage={stage}"]
    done = cli("show", f"run={finished}", "n=4", *words, "--json")
    assert done.status == 0, done.err
    look = json.loads(done.out)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    embeddings = load_file(checkpoint / "model.safetensors")["shared.weight"][: len(tokenizer)]
    folders = sorted(finished.glob("stages/*"))
    prompt = load_file((finished if stage is None else folders[stage - 1]) / "prompt.safetensors")["prompt"]
    norms, own = np.linalg.norm(embeddings, axis=1), np.linalg.norm(prompt, axis=1)
    assert look["stage"] == stage
    assert look["typical_norm"] == pytest.approx(np.sort(norms)[(len(norms) - 1) // 2], rel=1e-5)
    assert [vector["norm"] for vector in look["vectors"]] == pytest.approx(own.tolist(), rel=1e-5)
    cosines = prompt @ embeddings.T / np.outer(own, norms)
    for vector, row in zip(look["vectors"], cosines, strict=True):
        best = np.argsort(-row)[:4].tolist()
        assert [item["id"] for item in vector["nearest"]] == best
        assert [item["token"] for item in vector["nearest"]] == tokenizer.convert_ids_to_tokens(best)
        assert [item["cosine"] for item in vector["nearest"]] == pytest.approx(row[best].tolist(), rel=1e-4)


def test_stages_are_compared_vector_by_vector(cli: Cli, finished: Path) -> None:
    prompts = [load_file(folder / "prompt.safetensors")["prompt"] for folder in sorted(finished.glob("stages/*"))]
    units = [prompt / np.linalg.norm(prompt, axis=1, keepdims=True) for prompt in prompts]
    expected = [[float((one * other).sum(axis=1).mean()) for other in units] for one in units]
    look = json.loads(cli("show", f"run={finished}", "--json").out)
    assert np.array(look["similarity"]) == pytest.approx(np.array(expected), rel=1e-4)


def test_people_see_tables(cli: Cli, finished: Path) -> None:
    look, shown = (cli("show", f"run={finished}", "stage=1", *more).out for more in (["--json"], []))
    for vector in json.loads(look)["vectors"]:
        assert "  ".join(f"{item['token']} {item['cosine']:.2f}" for item in vector["nearest"]) in shown
    assert "the prompt of stage 1" in shown
    assert "the mean cosine" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=2"], "stage=…: is for run=DIR"),
        (["run=/nowhere"], "run=/nowhere: no such folder"),
        (["run={run}", "stage=9"], "stage=9: "),
        (["run={run}", "n=0"], "n=0: expected a whole number, at least 1"),
        (["run={run}", "model=tiny"], "holds vectors of 32, but"),
    ],
)
def test_bad_input_ends_in_one_line(cli: Cli, finished: Path, words: list[str], said: str) -> None:
    done = cli("show", *(word.format(run=finished) for word in words))
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
