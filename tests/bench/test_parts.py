"""A part of a model that bench.parts runs within the whole is the partial PLM that a stage would have."""

from pathlib import Path

import pytest
import torch

from bench.parts.text import Text
from bench.parts.ways import WAYS
from fpt.backbones.shapes import Selection, StackSelection
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.readers import prompted_model
from stages import partial
from stages.selection import everything, most_important
from tests.conftest import open_folder
from tests.families import data_of, save_family


@pytest.mark.dear
def test_a_part_within_the_whole_is_the_partial_plm(tmp_path: Path) -> None:
    backbone = open_folder(save_family(tmp_path / "llama", "llama"))
    vectors, data = torch.randn(5, backbone.sizes.width), data_of("llama")
    text = Text("text", prompted_model(partial.build(backbone, everything(backbone.shape)), SoftPrompt(vectors)), data)

    def expected(
        kept: tuple[int, ...], neurons: tuple[tuple[int, ...], ...] | None = None
    ) -> tuple[float, torch.Tensor]:
        selection = Selection(decoder=StackSelection(kept, neurons))
        model, batch = prompted_model(partial.build(backbone, selection), SoftPrompt(vectors)), data.batch(range(4))
        loss = model(batch)
        loss.backward()
        gradient = model.prompt.tensors["prompt"].grad
        assert gradient is not None
        return float(loss) / len(batch.real), gradient

    for way, choose in WAYS.items():
        kept = choose(text, 3)
        assert len(kept) == 3, way
        for ours, theirs in zip(text.loss(kept), expected(kept), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    every = (0, 1, 2, 3)
    alone = text.without_each(every)
    assert alone == pytest.approx([text.loss((*every[:left], *every[left + 1 :]))[0] for left in every])
    active = tuple(most_important(seen.abs().mean(0), 12) for seen in text.activations)
    with text.narrow(0.25, by="activity"):
        assert text.loss(every)[0] == pytest.approx(expected(every, active)[0], rel=1e-4)
    with text.narrow(1, by="variance"):
        assert text.loss(every)[0] == pytest.approx(expected(every)[0], rel=1e-4)
    assert text.loss((0, 3), text.bridge(1, 3))[0] != pytest.approx(text.loss((0, 3))[0])
