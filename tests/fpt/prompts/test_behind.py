"""A prompt behind the source gives transformers' own loss, gradient and answers, without gradients in the source."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fpt.backbones.backbone import Backbone
from fpt.config.schema import PromptConfig
from fpt.data.encoded import IGNORED, Batch
from fpt.pricing.flops import Price
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.prompted import PromptedModel
from stages import partial as parts
from stages.importance import measure
from stages.kept_states import StatesBelow
from stages.selection import everything
from tests.conftest import ON_CPU, open_folder
from tests.families import WIDTH, embedding_of, opened, save_family
from tests.models import DATA

PROMPT = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
ALL, SUFFIX = [0, 1, 2, 3], PromptConfig(length=3, place="suffix")


@pytest.fixture(scope="module", params=["llama", "gemma3_text", "gpt2", "qwen3"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(tmp_path_factory.mktemp("families") / family, family)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> Backbone:
    return open_folder(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path, family: str) -> Any:
    return opened(folder, family)


def behind(backbone: Backbone, **more: bool) -> PromptedModel:
    body = parts.build(backbone, everything(backbone.shape))
    return PromptedModel(body, SoftPrompt(PROMPT, is_behind=True), **more)


def logits(model: Any, family: str, batch: Batch, prompt: Tensor) -> Tensor:
    """transformers' own logits of the labels of each example alone [number of labels, V]: source, prompt, target."""
    rows = []
    for source, mask, target in zip(batch.source, batch.mask, batch.labels, strict=True):
        own, said = source[mask.bool()], target[target != IGNORED]
        with embedding_of(model, family) as embedded:
            vectors = embedded(torch.cat([own, said])[None])[0]
            vectors = torch.cat([vectors[: len(own)], prompt, vectors[len(own) :]])
            rows.append(model(inputs_embeds=vectors[None]).logits[0, -len(said) - 1 : -1])
    return torch.cat(rows)


@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_loss_and_gradient_are_transformers_own(
    backbone: Backbone, theirs: Any, family: str, checkpointing: bool, is_kept: bool
) -> None:
    batch, prompt = DATA.batch(ALL), PROMPT.clone().requires_grad_()
    labels = batch.labels[batch.labels != IGNORED]
    expected = torch.nn.functional.cross_entropy(logits(theirs, family, batch, prompt), labels, reduction="sum")
    expected.backward()
    ours = behind(backbone, checkpointing=checkpointing)
    if is_kept:
        batch = replace(batch, below=ours.below(batch))
    loss = ours(batch)
    loss.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(ours.prompt.tensors["prompt"].grad, prompt.grad, rtol=1e-4, atol=1e-5)


def test_answers_are_what_transformers_finds_likeliest(backbone: Backbone, theirs: Any, family: str) -> None:
    model, batch = behind(backbone), DATA.batch(ALL)
    labels, logs = model.answer(batch, max_new_tokens=6)
    with torch.no_grad():
        likely = logits(theirs, family, replace(batch, labels=labels), PROMPT).log_softmax(-1)
    said = labels[labels != IGNORED]
    assert torch.equal(likely.argmax(-1), said)
    torch.testing.assert_close(logs[labels != IGNORED], likely.gather(1, said[:, None])[:, 0], rtol=1e-4, atol=1e-5)
    targets = torch.tensor([[30, 31, 1], [32, 1, IGNORED]])
    weighed = model.weigh(batch, targets)
    for number, target in enumerate(targets):
        alone = replace(batch, labels=target.expand(4, -1))
        with torch.no_grad():
            likely = logits(theirs, family, alone, PROMPT).log_softmax(-1)
        said = alone.labels[alone.labels != IGNORED]
        found = weighed[:, number][alone.labels != IGNORED]
        torch.testing.assert_close(found, likely.gather(1, said[:, None])[:, 0], rtol=1e-4, atol=1e-5)


def test_states_are_kept_whatever_the_padding_and_priced_as_torch_counts(backbone: Backbone, family: str) -> None:
    model, price = behind(backbone).requires_grad_(False), Price(backbone.config)
    model.body.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    kept = StatesBelow(model, DATA, 2, ON_CPU, lambda batches, _: batches).in_memory()
    assert kept.rows.shape == (sum(DATA.sources.lengths), price.kept_width(backbone.shape, SUFFIX))
    batch = replace(DATA, below=kept).batch(ALL)
    counts = []
    for run in (lambda: model.below(batch), lambda: model(batch), lambda: model(DATA.batch(ALL))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counts.append(counter.get_total_flops())
    sizes: dict[str, Any] = {"batch": 4, "source": batch.source.shape[1] + 3, "target": batch.labels.shape[1]}
    sizes |= {"prompt": SUFFIX, "below": 0}
    unread = (batch.labels.numel() - len(batch.real)) * price.head()  # of padded targets the price has logits too
    assert counts[0] == price.fixed(backbone.shape, **sizes)
    assert counts[2] == counts[0] + counts[1] == price.forward(backbone.shape, **sizes) - unread
    assert price.update(backbone.shape, **sizes, is_kept=True) == 2 * (counts[1] + unread)
    with torch.no_grad():
        torch.testing.assert_close(sum(model(DATA.batch([index])) for index in ALL), model(batch))


def test_neurons_are_scored_as_on_the_whole_sequence(backbone: Backbone, theirs: Any, family: str) -> None:
    scores = measure(behind(backbone), DATA, batch_size=4, engine=ON_CPU, with_bar=lambda batches, _: batches)
    seen, layers = [], backbone.family.activations_of(theirs, "decoder")
    hooks = [layer.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for layer in layers]
    for index in ALL:
        batch = DATA.batch([index])
        with torch.no_grad():
            logits(theirs, family, batch, PROMPT)
    for hook in hooks:
        hook.remove()
    means = [states[0, : states.shape[1] - 1].abs().mean(0) for states in seen]  # the last token is not read
    expected = torch.stack([sum(means[block :: len(layers)]) / 4 for block in range(len(layers))])
    torch.testing.assert_close(scores["decoder"], expected, rtol=1e-4, atol=1e-5)
