"""A prompt is the same from whatever holds it, and what holds none is refused in one line, before torch is needed."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.prompts.files import open_prompt, prompt_to_start_from
from fpt.training.checkpoint import dump_prompt
from tests.conftest import Outcome

PROMPT = torch.randn(5, 32, generator=torch.Generator().manual_seed(3))


def read_prompt(path: Path) -> torch.Tensor:
    return open_prompt(path).tensors()["prompt"]


def peft_adapter(checkpoint: Path, folder: Path, submodules: int | None) -> torch.Tensor:
    """An adapter as PEFT itself saves it; the encoder's vectors are returned."""
    config = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=5, num_transformer_submodules=submodules
    )
    model = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32), config)
    model.save_pretrained(folder)
    vectors: torch.Tensor = model.prompt_encoder["default"].embedding.weight.detach()[:5]
    return vectors


@pytest.mark.parametrize("submodules", [None, 1, 2])
def test_pefts_own_adapter_gives_the_encoders_prompt(checkpoint: Path, tmp_path: Path, submodules: int | None) -> None:
    """PEFT's default for encoder-decoders is two prompts, of which its forward pass uses the first."""
    wanted = peft_adapter(checkpoint, tmp_path / "adapter", submodules)
    assert torch.equal(read_prompt(tmp_path / "adapter"), wanted)
    rows = load_file(tmp_path / "adapter" / "adapter_model.safetensors")["prompt_embeddings"].shape[0]
    assert rows == 5 * (submodules or 2)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("shape", [(5, 32), (1, 5, 32)])
@pytest.mark.parametrize("name", ["prompt.npy", "encoder.prompt.prompt.prompt"])
def test_arrays_of_any_float_are_read_whatever_their_name(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], name: str
) -> None:
    array = PROMPT.numpy().astype(dtype).reshape(shape)
    with (tmp_path / name).open("wb") as stream:
        np.save(stream, array)
    assert torch.equal(read_prompt(tmp_path / name), torch.from_numpy(array.astype("<f4").reshape(5, 32)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_safetensors_file_of_any_float_becomes_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"prompt": PROMPT.to(dtype)}, tmp_path / "prompt.safetensors")
    assert torch.equal(read_prompt(tmp_path / "prompt.safetensors"), PROMPT.to(dtype).float())


class Configuration:
    """As in a checkpoint of thunlp/FastPromptTuning, whose class is not there where it is read."""

    def __init__(self) -> None:
        self.num_layers = 24


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[list[str]]]:
        return (subprocess.call, (["touch", os.environ["FPT_BOMB"]],))


def saved(file: Path, value: object) -> Path:
    torch.save(value, file)
    return file


@pytest.mark.parametrize("form", ["tensor", "parameter", "checkpoint"])
def test_what_torch_saved_is_read_and_no_code_in_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("FPT_BOMB", str(tmp_path / "exploded"))
    vectors = PROMPT.clone().requires_grad_()
    values = {
        "tensor": vectors,
        "parameter": torch.nn.Parameter(PROMPT),
        "checkpoint": {
            "prompt": vectors,
            "optimizer": {"state": {}},
            "config": Configuration(),
            "args": {"lr": 0.3, "x": Bomb()},
        },
    }
    assert torch.equal(read_prompt(saved(tmp_path / "checkpoint-last.pt", values[form])), PROMPT)
    assert not (tmp_path / "exploded").exists()


def adapter(folder: Path, **changes: object) -> Path:
    values = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 5, "num_transformer_submodules": 1, **changes}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(values))
    save_file({"prompt_embeddings": PROMPT}, folder / "adapter_model.safetensors")
    return folder


def pickled(folder: Path) -> Path:
    adapter(folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    return folder


def array(file: Path, value: object) -> Path:
    with file.open("wb") as stream:
        np.save(stream, np.asarray(value), allow_pickle=True)
    return file


def cut(file: Path) -> Path:
    array(file, PROMPT.numpy())
    file.write_bytes(file.read_bytes()[:-1])
    return file


def written(file: Path, data: bytes) -> Path:
    file.write_bytes(data)
    return file


def tensors(file: Path, **named: torch.Tensor) -> Path:
    save_file(named, file)
    return file


UNUSABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing": (lambda at: at, r"No such file.*expected a prompt.safetensors"),
    "any folder": (lambda at: at.parent, "has no prompt; expected"),
    "a lora": (lambda at: adapter(at, peft_type="LORA"), "peft_type=LORA; only PROMPT_TUNING"),
    "no sizes": (lambda at: adapter(at, num_virtual_tokens=None), "not the configuration of a PEFT"),
    "other sizes": (lambda at: adapter(at, num_virtual_tokens=4), "has 5 vectors.*1 × 4"),
    "an adapter's pickle": (pickled, "adapter_model.bin is a pickle"),
    "an adapter's file": (lambda at: adapter(at) / "adapter_model.safetensors", "give the adapter's folder"),
    "an array of objects": (lambda at: array(at, [{}]), "cannot be read as a numpy array"),
    "an array of integers": (lambda at: array(at, [[1]]), r"holds int64 of shape \[1, 1\]; expected floats"),
    "a vector": (lambda at: array(at, [1.0]), r"shape \[1\]; expected floats of shape \[P, D\]"),
    "no vectors": (lambda at: array(at, np.zeros((0, 32))), r"shape \[0, 32\]"),
    "a truncated array": (cut, "cannot be read as a numpy array"),
    "not a number": (lambda at: array(at, [[float("nan")]]), "not finite"),
    "too large for float32": (lambda at: array(at, [[1e300]]), "not finite"),
    "another's tensors": (lambda at: saved(at, {"model": PROMPT}), "has no tensor 'prompt', but model"),
    "no tensor": (lambda at: saved(at, [1]), "has no tensor 'prompt', but an object that is no tensor"),
    "a tensor of integers": (lambda at: saved(at, torch.ones(2, 2, dtype=torch.int)), r"holds int32 of shape \[2, 2\]"),
    "a tensor that is not a number": (lambda at: saved(at, torch.tensor([[float("nan")]])), "not finite"),
    "another zip": (lambda at: written(at, b"PK\x03\x04..."), "is refused by torch's restricted reader"),
    "a text": (lambda at: written(at, b"prompt"), "cannot be read as safetensors"),
    "another's safetensors": (lambda at: tensors(at, other=PROMPT), "has no tensor 'prompt', but other"),
    "a pointer": (lambda at: written(at, b"version https://git-lfs.github.com/spec/v1"), "is a Git LFS pointer"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_holds_no_prompt_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    make, reason = UNUSABLE[kind]
    with pytest.raises(UserError, match=reason) as caught:
        read_prompt(make(tmp_path / "it"))
    assert "\n" not in str(caught.value)


def test_another_shape_is_named_with_the_keys_that_it_is_of(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(dump_prompt({"prompt": PROMPT}))
    assert prompt_to_start_from(PromptConfig(length=5, init="file", file=str(tmp_path / "p")), 32) is not None
    for length, width in ((6, 32), (5, 31)):
        with pytest.raises(
            UserError, match=f"length=5 for d_model=32; this run has prompt.length={length} and d_model={width}"
        ):
            prompt_to_start_from(PromptConfig(length=length, init="file", file=str(tmp_path / "p")), width)


def test_a_prompt_that_does_not_fit_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    file = array(tmp_path / "p.npy", PROMPT.numpy())
    code = "import sys; from fpt.__main__ import main; s = main(sys.argv[1:]); sys.exit('torch' in sys.modules or s)"
    words = ["train", "prompt.init=file", f"prompt.file={file}"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        f"fpt: prompt.file={file}: holds a soft prompt with prompt.length=5 for d_model=32; this run has"
        " prompt.length=20 and d_model=128\n"
    )


def test_a_prompt_that_is_not_finite_is_refused_before_there_is_a_run_folder(
    cli: Callable[..., Outcome], quick: list[str], tmp_path: Path
) -> None:
    """Else the corrected command would be another configuration's."""
    file = array(tmp_path / "p.npy", np.full((5, 32), np.nan, dtype=np.float32))
    done = cli("train", *quick, "prompt.init=file", f"prompt.file={file}")
    assert (done.status, (tmp_path / "run").exists()) == (2, False)
    assert f"{file}: holds numbers that are not finite" in done.err


def test_a_damaged_or_unfinished_run_is_refused(tmp_path: Path, finished: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    assert torch.equal(read_prompt(run), load_file(finished / "prompt.safetensors")["prompt"])
    (run / "prompt.safetensors").write_bytes(dump_prompt({"prompt": PROMPT}))
    with pytest.raises(UserError, match="is damaged"):
        read_prompt(run)
    ledger = json.loads((run / "checksums.json").read_text())
    del ledger["result.json"]
    (run / "checksums.json").write_text(json.dumps(ledger))
    with pytest.raises(UserError, match="not finished"):
        read_prompt(run)


@pytest.mark.trains
@pytest.mark.parametrize("form", ["run", "array", "adapter"])
def test_a_run_starts_from_exactly_another_runs_prompt(
    cli: Callable[..., Outcome], quick: list[str], finished: Path, tmp_path: Path, form: str
) -> None:
    """Prompt transfer (SPoT, Vu et al. 2022); with a learning rate of nearly nothing it ends there too."""
    prompt = load_file(finished / "prompt.safetensors")["prompt"]
    start = finished
    if form == "array":
        start = array(tmp_path / "p.npy", prompt.numpy())
    elif form == "adapter":
        start = adapter(tmp_path / "adapter")
        save_file({"prompt_embeddings": prompt}, start / "adapter_model.safetensors")
    more = ["optim.lr=1e-30", "schedule=pt", "train.updates=2", "seed=1"]
    done = cli("train", *quick, *more, "prompt.init=file", f"prompt.file={start}")
    assert done.status == 0, done.err
    inputs, theirs = (json.loads((folder / "inputs.json").read_text()) for folder in (tmp_path / "run", finished))
    assert inputs["prompt's start"] == hashlib.sha256(prompt.numpy().tobytes()).hexdigest() != theirs["prompt's start"]
    assert torch.equal(read_prompt(tmp_path / "run"), prompt)
