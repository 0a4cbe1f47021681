"""A packed layer computes, forward and back, with the weights that its bits stand for; and plans know its bytes."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from fpt.backbones import precision
from fpt.backbones.precision import FORMATS, Linear, layers_of, packed_bytes
from fpt.backbones.shapes import Selection, StackSelection
from fpt.config import run_config
from fpt.errors import UserError
from fpt.pricing.flops import price_of
from stages import partial
from stages.selection import everything
from tests.conftest import on_cpu, open_folder, save_checkpoint
from tests.models import logits

KEPT = Selection(
    StackSelection((0, 5), (tuple(range(0, 48, 2)), tuple(range(24)))),
    StackSelection((0, 2, 5), (tuple(range(17)),) * 3),
)
LOST = {"int8": 0.01, "nf4": 0.1}  # of a normal weight, on average


def layer_of(outputs: int, inputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False).requires_grad_(False)
    torch.nn.init.normal_(layer.weight, std=0.3)
    return layer


def bytes_of(layer: Linear) -> int:
    """The bytes of a packed weight's tensors."""
    held = inspect.getclosurevars(layer.unpack).nonlocals
    codes = held["codes"]
    if "largest" in held:
        return int(codes.nbytes + held["largest"].nbytes)
    scales, of_scales = held["state"], held["state"].state2
    tensors = (codes, scales.absmax, scales.code, scales.offset, of_scales.absmax, of_scales.code)
    return sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantize", FORMATS)
def test_states_and_gradient_are_those_of_the_weights_the_bits_stand_for(quantize: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = layer_of(96, 40)
    ours = Linear(layer, quantize, dtype)
    theirs = ours.unpack()
    assert theirs.dtype == dtype
    lost = (theirs.float() - layer.weight).abs().mean() / layer.weight.abs().mean()
    assert 0 < lost < LOST[quantize]
    states = torch.randn(3, 7, 40).to(dtype).requires_grad_()
    product, expected = ours(states), nn.functional.linear(states, theirs)
    assert torch.equal(product, expected)
    seed = torch.randn_like(product)
    (gradient,), (wanted,) = (torch.autograd.grad(output, states, seed) for output in (product, expected))
    torch.testing.assert_close(gradient, wanted)


def test_int8_is_off_by_half_a_step_at_most() -> None:
    """A step is a 127th of the output's largest weight."""
    layer = layer_of(50, 64)
    layer.weight[7] = 0
    off = (Linear(layer, "int8", torch.float32).unpack() - layer.weight).abs()
    step = layer.weight.abs().amax(1, keepdim=True) / 127
    assert bool((off <= 0.51 * step + 2**-11 * layer.weight.abs()).all())
    assert not bool(off[7].any())


@pytest.mark.parametrize("quantize", FORMATS)
@pytest.mark.parametrize("shape", [(96, 40), (17, 32), (33, 129), (512, 128)])
def test_the_bytes_counted_are_those_of_the_tensors(quantize: str, shape: tuple[int, int]) -> None:
    layer = layer_of(*shape)
    assert packed_bytes(layer, quantize) == bytes_of(Linear(layer, quantize, torch.float32))


def test_no_whole_weight_is_kept_for_the_way_back() -> None:
    kept: list[Any] = []
    layer, states = Linear(layer_of(64, 32), "int8", torch.float32), torch.randn(5, 32, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda saved: saved):
        layer(states).sum()
    assert kept == []


def dequantised(model: Any) -> Any:
    """The same model with ordinary layers of the weights that the bits stand for."""
    for name, module in list(model.named_modules()):
        if isinstance(module, Linear):
            layer = nn.Linear(module.in_features, module.out_features, bias=False)
            layer.weight = nn.Parameter(module.unpack(), requires_grad=False)
            model.set_submodule(name, layer)
    return model


@pytest.mark.parametrize("quantize", FORMATS)
@pytest.mark.parametrize("family", ["T5 1.0", "T5 1.1", "ByT5"])
def test_a_partial_plm_is_packed_slice_by_slice(quantize: str, family: str, tmp_path: Path) -> None:
    """All of its blocks' linear layers, and neither embedding, head, norms nor the bias tables."""
    backbone = open_folder(save_checkpoint(tmp_path / "model", family))
    kept = KEPT if family == "T5 1.1" else everything(backbone.shape)
    plain, ours = (partial.build(backbone, kept, on_cpu(quantize=how)) for how in ("none", quantize))
    linear = len(layers_of(backbone.family, plain))
    assert sum(isinstance(module, Linear) for module in ours.modules()) == linear
    whole = dict(plain.named_parameters())
    assert all(torch.equal(value, whole[name]) for name, value in ours.named_parameters())
    assert len(list(ours.parameters())) == len(whole) - linear
    total = sum(value.nbytes for value in ours.parameters())
    total += sum(bytes_of(module) for module in ours.modules() if isinstance(module, Linear))
    shape = partial.shape_of(kept, backbone.shape)
    assert price_of(backbone.config).packed_weights(shape, "float32", quantize)[0] == total
    said = logits(ours)
    assert not torch.allclose(said, logits(plain), atol=1e-4)
    torch.testing.assert_close(said, logits(dequantised(ours)))


def test_a_full_model_computes_what_transformers_computes_with_the_same_weights(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", "T5 1.1")
    backbone, theirs = open_folder(folder), AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = partial.build(backbone, everything(backbone.shape), on_cpu(quantize="nf4"))
    for name, module in ours.named_modules():
        if isinstance(module, Linear):
            theirs.get_submodule(name).weight = nn.Parameter(module.unpack())
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-5, atol=1e-5)


def test_without_bitsandbytes_packing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_config, "find_spec", lambda _: None)
    precision._library.cache_clear()
    with pytest.raises(UserError, match=r"engine\.quantize=int8: .*pip install 'fpt\[quantize\]'"):
        Linear(layer_of(4, 4), "int8", torch.float32)
