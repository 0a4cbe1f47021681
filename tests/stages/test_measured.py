"""Neuron scores equal a slow reference: one example at a time, no padding, transformers' own forward."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from fpt.config.compose import load
from fpt.data.encoded import Encoded, RaggedRows
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.readers import prompted_model
from stages import partial
from stages.inputs import Inputs
from stages.measured import importance
from stages.selection import everything
from tests.conftest import FAMILIES, ON_CPU, open_folder, save_checkpoint

EXAMPLES = Encoded(
    sources=RaggedRows.of([[5, 6, 7, 1], [8, 9, 10, 11, 12, 13, 14, 1], [15, 1], [16, 17, 18, 19, 20, 1]]),
    targets=RaggedRows.of([[1100, 30, 1], [1100, 1], [1100, 31, 32, 33, 1], [1100, 34, 1]]),
)


def reference(folder: Path, prompt: torch.Tensor) -> dict[str, torch.Tensor]:
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    seen: dict[str, torch.Tensor] = {}
    for stack in ("encoder", "decoder"):
        for index, block in enumerate(getattr(model, stack).block):

            def keep(_: Any, inputs: tuple[torch.Tensor], name: str = f"{stack} {index}") -> None:
                seen[name] = inputs[0][0].abs().mean(0)

            block.layer[-1].DenseReluDense.wo.register_forward_pre_hook(keep)
    rows = []
    with torch.no_grad():
        for source, target in zip(EXAMPLES.sources, EXAMPLES.targets, strict=True):
            embedded = torch.cat([prompt, model.get_input_embeddings()(torch.tensor(source))])
            model(inputs_embeds=embedded[None], labels=torch.tensor([target]))
            rows.append(dict(seen))
    return {
        stack: torch.stack(
            [
                torch.stack([row[f"{stack} {index}"] for row in rows]).mean(0)
                for index in range(len(getattr(model, stack).block))
            ]
        )
        for stack in ("encoder", "decoder")
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_scores_equal_a_slow_reference(family: str, batch_size: int, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", family)
    backbone, prompt = open_folder(folder), torch.randn(3, 32)
    model = prompted_model(partial.build(backbone, everything(backbone.shape)), SoftPrompt(prompt))
    scores = importance(model, EXAMPLES, batch_size, ON_CPU, lambda batches, _: batches)
    for stack, expected in reference(folder, prompt).items():
        torch.testing.assert_close(scores[stack], expected, rtol=1e-5, atol=1e-6)


def test_a_sample_is_seeded_and_without_repetition() -> None:
    data = Encoded(RaggedRows.of([index] for index in range(100)), RaggedRows.of([[1]] * 100))

    def sample(count: int, seed: int) -> list[list[int]]:
        words = [f"schedule.importance_examples={count}", f"seed={seed}"]
        return [list(source) for source in Inputs(None, None, data, data, None).to_score(load(words)).sources]

    first = sample(30, 1)
    assert len({tuple(source) for source in first}) == 30
    assert first == sample(30, 1)
    assert first != sample(30, 2)
    assert sample(1000, 1) == [list(source) for source in data.sources]
