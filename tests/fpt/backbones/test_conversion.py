"""Old .bin weights are read whole once, by one process, and mapped ever after; code in a pickle is never run."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForSeq2SeqLM

from fpt.backbones.conversion import mappable
from fpt.backbones.weights import can_be_mapped
from fpt.errors import UserError
from stages.partial import build
from stages.selection import everything
from tests.conftest import open_downloaded, open_folder, save_checkpoint
from tests.fpt.backbones.test_families import to_bin
from tests.fpt.backbones.test_weights import Bomb
from tests.models import logits

OLD = {"_use_new_zipfile_serialization": False}  # as torch wrote before 1.6


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies are kept."""
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "assets"))
    return tmp_path / "assets" / "fpt" / "weights" / "mappable"


def old_checkpoint(folder: Path, family: str = "T5 1.1") -> Path:
    save_checkpoint(folder, family, max_shard_size="60KB")
    to_bin(folder, **OLD)
    assert not any(map(can_be_mapped, folder.glob("*.bin")))
    return folder


def test_an_old_bin_is_converted_once(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, said = old_checkpoint(tmp_path / "model"), list[str]()
    backbone = open_downloaded(folder, monkeypatch, said.append)
    shards = sorted(folder.glob("*.bin"))
    assert [Path(line.partition(":")[0]).name for line in said] == [shard.name for shard in shards]
    assert backbone.weights is not None
    assert backbone.weights.parent == assets
    assert len(list(assets.glob("*/*.bin"))) == len(shards) > 1
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(
        logits(build(backbone, everything(backbone.shape))), logits(theirs), rtol=1e-5, atol=1e-5
    )
    again = open_downloaded(folder, monkeypatch, said.append)
    assert again.weights == backbone.weights != backbone.folder
    assert again.fingerprint == backbone.fingerprint
    assert len(said) == len(shards)


def test_files_that_changed_are_converted_anew(assets: Path, tmp_path: Path) -> None:
    folder = old_checkpoint(tmp_path / "model")
    first = mappable(folder, print)
    os.utime(next(folder.glob("*.bin")), (1, 1))
    assert mappable(folder, print) != first


def test_of_several_processes_one_converts(assets: Path, tmp_path: Path) -> None:
    folder, said = old_checkpoint(tmp_path / "model"), list[str]()
    with ThreadPoolExecutor(4) as pool:  # each opens the lock by itself, as a process would
        places = list(pool.map(lambda _: mappable(folder, said.append), range(4)))
    assert len(set(places)) == 1
    assert len(said) == len(list(folder.glob("*.bin")))


def test_an_embedding_that_is_saved_under_four_names_stays_tied(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.0")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    (folder / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin", **OLD)
    backbone = open_downloaded(folder, monkeypatch)
    model = build(backbone, everything(backbone.shape))
    assert model.lm_head.weight is model.shared.weight
    assert torch.equal(logits(model), logits(theirs))


def test_a_newer_bin_is_mapped_where_it_is(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    to_bin(folder)
    backbone = open_downloaded(folder, monkeypatch)
    assert backbone.weights == backbone.folder
    assert not assets.exists()


@pytest.mark.parametrize("options", [{}, OLD], ids=["mapped", "old"])
@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "60KB"}], ids=["one", "index"])
def test_a_folders_bins_are_read_as_a_downloads_are(
    assets: Path, tmp_path: Path, options: dict[str, bool], shards: dict[str, str]
) -> None:
    """The folder is left as it was."""
    folder = save_checkpoint(tmp_path / "model", "T5 1.1", **shards)
    whole = build(whole_backbone := open_folder(folder), everything(whole_backbone.shape))
    to_bin(folder, **options)
    before = sorted(folder.iterdir())
    backbone = open_folder(folder)
    assert torch.equal(logits(build(backbone, everything(backbone.shape))), logits(whole))
    assert sorted(folder.iterdir()) == before
    assert assets.exists() == bool(options)


def test_code_in_an_old_bin_is_never_run(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPT_BOMB", str(tmp_path / "exploded"))
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    (folder / "model.safetensors").unlink()
    for write in (lambda file: torch.save({"a": Bomb()}, file, **OLD), lambda file: pickle.dump({"a": Bomb()}, file)):
        with (folder / "pytorch_model.bin").open("wb") as file:
            write(file)
        with pytest.raises(UserError, match=r"pytorch_model\.bin: (?!cannot be mapped)"):
            open_downloaded(folder, monkeypatch)
    assert not (tmp_path / "exploded").exists()
    assert [file.suffix for file in assets.iterdir()] == [".lock"] * 2


def test_a_copy_that_cannot_be_written_is_one_line(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = old_checkpoint(tmp_path / "model")
    (tmp_path / "assets").write_text("a file in the folder's place")
    with pytest.raises(UserError, match=r"cannot be mapped, nor its copy be written .*HF_ASSETS_CACHE"):
        open_downloaded(folder, monkeypatch)
