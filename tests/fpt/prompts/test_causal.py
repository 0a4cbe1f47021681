"""What follows a cache is what one whole pass says, whatever the padding, and the source is read once."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from fpt.data.encoded import IGNORED, Encoded, RaggedRows
from fpt.pricing.flops import Price
from fpt.prompts.causal import CachedBlocks, padded_in_front
from fpt.prompts.modules import MixedPrompt, SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from stages import partial
from stages.selection import everything
from tests.conftest import open_folder
from tests.families import WIDTH, data_of, save_family

ALL = [0, 1, 2, 3]


def vectors(length: int, *, scale: float = 1.0) -> Tensor:
    return torch.randn(length, WIDTH, generator=torch.Generator().manual_seed(length)) * scale


def model_of(folder: Path, family: str, prompt: SoftPrompt | MixedPrompt) -> PromptedModel:
    backbone = open_folder(save_family(folder, family))
    return prompted_model(partial.build(backbone, everything(backbone.shape)), prompt)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma3_text"])
def test_states_behind_a_cache_and_their_gradient_are_those_of_a_whole_pass(tmp_path: Path, family: str) -> None:
    model, batch = model_of(tmp_path / family, family, SoftPrompt(vectors(3))), data_of(family).batch(ALL)
    words, body, more = model.family, model.body, 5
    blocks = CachedBlocks(model, batch.mask, more, cache := DynamicCache())
    ids = padded_in_front(batch.source, batch.mask)
    with torch.no_grad():
        embedded = blocks.embedded(ids)
        blocks.read(embedded)
    sees = torch.ones(more, more, dtype=torch.bool).tril()
    given = [vectors(more, scale=0.5).requires_grad_() for _ in range(2)]
    found = blocks.read(given[0].expand(4, -1, -1), sees)
    (found**2).sum().backward()
    assert cache.get_seq_length() == ids.shape[1]  # nothing was added
    wanted = []
    for row, mask in zip(embedded, batch.mask, strict=True):
        states = torch.cat([row[len(mask) - mask.sum() :], given[1]])[None]
        whole = words.arguments(body, states, torch.ones(1, states.shape[1], dtype=torch.long))
        wanted.append(words.through(body, states, whole, 0, None)[:, -more:])
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-4, atol=1e-5)
    (torch.cat(wanted) ** 2).sum().backward()
    torch.testing.assert_close(given[0].grad, given[1].grad, rtol=1e-3, atol=1e-3)


def test_choosing_among_six_labels_reads_the_source_as_often_as_among_two(tmp_path: Path) -> None:
    model = model_of(tmp_path / "llama", "llama", SoftPrompt(vectors(20)))
    model.requires_grad_(False)  # or the counter stumbles over its views
    model.body.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    data = Encoded(RaggedRows.of([[5 + place for place in range(20)]]), RaggedRows.of([[30, 1]]))
    labels = torch.tensor([[30, 1, -100], [31, 32, 1], [33, 1, -100], [34, 35, 1], [36, 1, -100], [37, 38, 1]])
    flops, priced, price, shape = [], [], Price(model.body.config), open_folder(tmp_path / "llama").shape
    for count in (2, 6):
        with FlopCounterMode(display=False) as counter:
            model.target_log_probs(data.batch([0]), labels[:count])
        flops.append(counter.get_total_flops())
        tokens = int((labels[:count] != IGNORED).sum())
        priced.append(price.forward(shape, source=40, target=1 + tokens - count))
    assert flops[1] < 1.3 * flops[0]
    assert flops == pytest.approx(priced, rel=0.05)


def test_many_labels_follow_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = model_of(tmp_path / "llama", "llama", SoftPrompt(vectors(3))), data_of("llama").batch(ALL)
    labels = torch.tensor([[30, 1, -100], [31, 32, 1], [31, 34, 1], [30, 35, 1], [36, -100, -100]])
    together = model.target_log_probs(batch, labels)
    monkeypatch.setattr("fpt.prompts.causal.TARGETS_AT_ONCE", 2)
    torch.testing.assert_close(model.target_log_probs(batch, labels), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gemma3_text", "bert"])
def test_prompts_of_unlike_lengths_in_a_batch_answer_as_alone(tmp_path: Path, family: str) -> None:
    """The shorter is padded before its vectors, and its source behind: padding on both sides of what is read."""
    prompts, of_rows = [SoftPrompt(vectors(5)), SoftPrompt(vectors(2))], [0, 1, 1, 0]
    model = model_of(tmp_path / family, family, MixedPrompt([prompts[own] for own in of_rows]))
    data, words = data_of(family), torch.tensor([[30], [32]])
    writes = model.family.row.reads.writes
    targets = torch.tensor([[30, 31, 1], [32, 1, -100]]) if writes else words

    def answers(model: PromptedModel, indices: list[int]) -> list[Tensor]:
        log_probs = model.target_log_probs(data.batch(indices), targets)
        return [log_probs, *(model.answer(data.batch(indices), max_new_tokens=5) if writes else ())]

    together = answers(model, ALL)
    for index, own in enumerate(of_rows):
        for found, (wanted,) in zip(together, answers(model.with_prompt(prompts[own]), [index]), strict=True):
            torch.testing.assert_close(found[index, : len(wanted)], wanted, rtol=1e-4, atol=1e-4)
