"""Checkpoint files are read by slice, never written to, and refused in one line when they are not right."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from fpt.backbones.weights import WeightFiles
from fpt.errors import UserError
from stages.partial import build
from stages.selection import everything
from tests.conftest import open_downloaded, open_folder, save_checkpoint
from tests.fpt.backbones.test_families import to_bin
from tests.models import logits

WI = "encoder.block.1.layer.1.DenseReluDense.wi_0.weight"


def test_rows_and_columns_are_the_tensors_own(checkpoint: Path) -> None:
    files, whole = WeightFiles(checkpoint), load_file(checkpoint / "model.safetensors")
    assert torch.equal(files.read(WI), whole[WI])
    assert torch.equal(files.read(WI, rows=(1, 40)), whole[WI][[1, 40]])
    assert torch.equal(files.read(WI, columns=(0, 31)), whole[WI][:, [0, 31]])


@pytest.mark.trains
def test_whole_tensors_share_the_page_cache(tmp_path: Path) -> None:
    """A full model costs no private memory beyond what is cast or sliced."""
    save_file({"big": torch.ones(64, 1024, 1024)}, tmp_path / "model.safetensors")
    script = """
import sys, resource
from pathlib import Path
from safetensors.torch import save_file

from fpt.backbones.weights import WeightFiles
def private():
    fields = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024
files = WeightFiles(Path(sys.argv[1])); before = private()
tensor = files.read("big"); total = tensor.sum(); print(private() - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40  # of 256 MiB


def test_a_tensor_of_another_shape_is_named(checkpoint: Path) -> None:
    with pytest.raises(UserError, match=r"wi_0.*\[48, 32\].*\[64, 32\]"):
        WeightFiles(checkpoint).read(WI, shape=(64, 32))


def test_a_missing_tensor_is_named(checkpoint: Path) -> None:
    with pytest.raises(UserError, match="no tensor 'nothing'"):
        WeightFiles(checkpoint).read("nothing")


def test_a_folder_without_weights_says_what_it_expects(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.safetensors"):
        WeightFiles(tmp_path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        open_folder(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1", max_shard_size="60KB")
    shard = sorted(folder.glob("model-*"))[1]
    shard.unlink()
    with pytest.raises(UserError, match=shard.name):
        open_folder(folder)


def test_an_index_cannot_point_outside_the_folder(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "../elsewhere.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="elsewhere"):
        WeightFiles(tmp_path)


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": {"a": 5}}', '{"weight_map": {"a": ["b"]}}', "\xff", "[" * 9999]
)
def test_what_is_no_index_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index, encoding="latin-1")
    with pytest.raises(UserError, match=r"not an index of weight files|names 5, which is no file"):
        WeightFiles(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    save_file({"a": torch.tensor([[1, value], [2, 3]], dtype=dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: 'a' holds numbers that are not finite"):
        WeightFiles(tmp_path).read("a")
    assert WeightFiles(tmp_path).read("a", rows=(1,)).tolist() == [[2, 3]]


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {os.environ['FPT_BOMB']}",))


def test_code_in_a_bin_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_BOMB", str(tmp_path / "exploded"))
    torch.save({"a": Bomb()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="run code"):
        WeightFiles(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Bomb()}))
    with pytest.raises(UserError):
        WeightFiles(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_the_fingerprint_tells_weights_apart(checkpoint: Path, tmp_path: Path) -> None:
    same = save_checkpoint(tmp_path / "same", "T5 1.1")
    assert WeightFiles(same).fingerprint() == WeightFiles(checkpoint).fingerprint()
    file = same / "model.safetensors"
    whole = file.read_bytes()
    for share in (0.1, 0.37, 0.5, 0.993):
        data = bytearray(whole)
        data[int(share * len(data))] ^= 1
        file.write_bytes(bytes(data))
        assert WeightFiles(same).fingerprint() != WeightFiles(checkpoint).fingerprint()


def test_a_missing_vocabulary_is_not_made_up(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    (folder / "spiece.model").unlink()
    with pytest.raises(UserError, match=r"no vocabulary.*spiece\.model"):
        _ = open_folder(folder).tokenizer
    (folder / "spiece.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"spiece\.model: is a Git LFS pointer"):
        _ = open_folder(folder).tokenizer


OLD = {"_use_new_zipfile_serialization": False}  # as torch wrote before 1.6


def test_an_embedding_that_is_saved_under_four_names_stays_tied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.0")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    (folder / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin", **OLD)
    backbone = open_downloaded(folder, monkeypatch)
    model = build(backbone, everything(backbone.shape))
    assert model.lm_head.weight is model.shared.weight
    assert torch.equal(logits(model), logits(theirs))


@pytest.mark.parametrize("options", [{}, OLD], ids=["mapped", "old"])
@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "60KB"}], ids=["one", "index"])
def test_a_folders_bins_are_read_as_a_downloads_are(
    tmp_path: Path, options: dict[str, bool], shards: dict[str, str]
) -> None:
    """The folder is left as it was."""
    folder = save_checkpoint(tmp_path / "model", "T5 1.1", **shards)
    whole = build(whole_backbone := open_folder(folder), everything(whole_backbone.shape))
    to_bin(folder, **options)
    before = sorted(folder.iterdir())
    backbone = open_folder(folder)
    assert torch.equal(logits(build(backbone, everything(backbone.shape))), logits(whole))
    assert sorted(folder.iterdir()) == before


def test_code_in_an_old_bin_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_BOMB", str(tmp_path / "exploded"))
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    (folder / "model.safetensors").unlink()
    for write in (lambda file: torch.save({"a": Bomb()}, file, **OLD), lambda file: pickle.dump({"a": Bomb()}, file)):
        with (folder / "pytorch_model.bin").open("wb") as file:
            write(file)
        with pytest.raises(UserError, match=r"pytorch_model\.bin: "):
            open_downloaded(folder, monkeypatch)
    assert not (tmp_path / "exploded").exists()
