"""Our full model computes what transformers' own does, for every family and every way its weights are kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from fpt.config.schema import ModelConfig
from fpt.errors import UserError
from stages.partial import build
from stages.selection import everything
from tests.conftest import FAMILIES, open_downloaded, open_folder, save_checkpoint
from tests.families import save_family
from tests.models import logits

FORMATS: dict[str, dict[str, Any]] = {
    "safetensors": {},
    "sharded": {"max_shard_size": "60KB"},
    "bin": {},
    "sharded bin": {"max_shard_size": "60KB"},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_full_model_equals_transformers(family: str, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", family)
    backbone = open_folder(folder)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    # To the last bit but for the gate, whose tanh GELU torch rounds otherwise than transformers' many steps do.
    bound = 0.0 if family == "T5 1.0" else 1e-5
    ours = logits(build(backbone, everything(backbone.shape)))
    torch.testing.assert_close(ours, logits(theirs), rtol=bound, atol=bound)


def to_bin(folder: Path, **how: Any) -> None:
    """The same weights as PyTorch would have saved them, shard by shard."""
    for file in folder.glob("*.safetensors"):
        name = file.name.replace("model", "pytorch_model").replace("safetensors", "bin")
        torch.save(load_file(file), folder / name, **how)
        file.unlink()
    for index in folder.glob("*.safetensors.index.json"):
        text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        index.unlink()


TIED = {  # what a family's checkpoint may hold a second time, and what of
    "T5 1.1": ("decoder.embed_tokens.weight", "shared.weight"),
    "mT5": ("encoder.embed_tokens.weight", "shared.weight"),
    "gpt2": ("lm_head.weight", "transformer.wte.weight"),
    "qwen3": ("lm_head.weight", "model.embed_tokens.weight"),
    "roberta": ("lm_head.decoder.bias", "lm_head.bias"),
    "t5gemma": ("lm_head.out_proj.weight", "model.decoder.embed_tokens.weight"),
}


@pytest.mark.parametrize("family", TIED)
def test_a_tied_tensor_that_is_saved_twice_and_differs_is_refused(family: str, tmp_path: Path) -> None:
    """transformers computes with the second one, of which nothing would be read here."""
    folder = (save_checkpoint if family in FAMILIES else save_family)(tmp_path / "model", family)
    file, (name, of) = folder / "model.safetensors", TIED[family]
    tensors = load_file(file)
    save_file({**tensors, name: tensors[of].clone()}, file, {"format": "pt"})
    open_folder(folder)
    save_file({**tensors, name: tensors[of] * 1.5}, file, {"format": "pt"})
    with pytest.raises(UserError, match="are one tensor by"):
        open_folder(folder)


@pytest.mark.parametrize("kept", FORMATS)
def test_every_format_reads_the_same(kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = open_folder(save_checkpoint(tmp_path / "plain", "T5 1.1"))
    folder = save_checkpoint(tmp_path / "model", "T5 1.1", **FORMATS[kept])
    if "bin" in kept:
        to_bin(folder)
    assert ("sharded" in kept) == (len(list(folder.glob("*model*-of-*"))) > 1)
    backbone = open_downloaded(folder, monkeypatch) if "bin" in kept else open_folder(folder)
    assert torch.equal(
        logits(build(backbone, everything(backbone.shape))), logits(build(plain, everything(plain.shape)))
    )


def test_an_old_bin_that_holds_the_tied_head_twice_stays_tied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.0")
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    (folder / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    backbone = open_downloaded(folder, monkeypatch)
    model = build(backbone, everything(backbone.shape))
    assert model.lm_head.weight is model.shared.weight
    assert torch.equal(logits(model), logits(theirs))


@pytest.mark.parametrize(
    ("family", "word"),
    [("longt5", "LongT5"), ("gemma3", "Gemma 3"), ("phi3", "Phi-3"), ("bart", "'bart'"), (None, "'None'")],
)
def test_other_families_are_refused_by_name(family: str | None, word: str, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "model_type": family}))
    with pytest.raises(UserError, match=word):
        open_folder(folder)


@pytest.mark.parametrize(
    "wrong",
    [{"d_model": "512"}, {"num_decoder_layers": 0}, {"d_ff": None}, {"dense_act_fn": "nothing"}, {"num_heads": True}],
)
def test_a_wrong_value_in_config_json_is_one_line(wrong: dict[str, Any], tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **wrong}))
    with pytest.raises(UserError) as caught:
        open_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_null_start_token_is_t5s(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "decoder_start_token_id": None}))
    assert open_folder(folder).config.decoder_start_token_id == 0


def test_a_shape_that_conf_does_not_state_is_refused(checkpoint: Path) -> None:
    from fpt.backbones.backbone import open_backbone
    from fpt.config.compose import load

    stated = load(["model=t5-small"]).model.config
    with pytest.raises(UserError, match=r"model\.config says"):
        open_backbone(ModelConfig(name="x", weights=str(checkpoint), config=stated))
