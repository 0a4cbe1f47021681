"""A prompt behind the source gives transformers' own loss, gradient and answers, without gradients in the source."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fpt.backbones.backbone import FAMILIES, Backbone
from fpt.backbones.family_table import FAMILY_TABLE
from fpt.config.schema import PromptConfig
from fpt.data.encoded import IGNORED, Batch
from fpt.pricing.flops import Price
from fpt.prompts.modules import MixedPrompt, SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.training.evaluation import KeptSources
from stages import partial as parts
from stages.kept_states import states_below
from stages.measured import importance
from stages.selection import everything
from tests.conftest import ON_CPU
from tests.families import CASES, COUNTED, WIDTH, embedding_of, fixtures_of
from tests.models import DATA

PROMPT = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
ALL, SUFFIX = [0, 1, 2, 3], PromptConfig(length=3, place="suffix")
family, folder, backbone, theirs = fixtures_of([name for name in CASES if FAMILY_TABLE[name].reads.writes])


def behind(backbone: Backbone, **more: bool) -> PromptedModel:
    body = parts.build(backbone, everything(backbone.shape))
    return prompted_model(body, SoftPrompt(PROMPT, is_behind=True), **more)


def logits(model: Any, family: str, batch: Batch, prompt: Tensor) -> Tensor:
    """transformers' own logits of the labels of each example alone [number of labels, V]: source, prompt, target."""
    rows, row = [], FAMILY_TABLE[family]
    for source, mask, target in zip(batch.source, batch.mask, batch.labels, strict=True):
        own, said = source[mask.bool()], target[target != IGNORED]
        if row.reads.name == "seq2seq":
            start = torch.tensor([FAMILIES[family].start_token(model.config)])
            vectors = model.get_submodule(row.last.module).embed_tokens(torch.cat([start, said[:-1]]))
            vectors = torch.cat([prompt / WIDTH**0.5 if row.scales_inputs else prompt, vectors])
            rows.append(model(input_ids=own[None], decoder_inputs_embeds=vectors[None]).logits[0, len(prompt) :])
            continue
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
    log_probs = model.target_log_probs(batch, targets)
    for number, target in enumerate(targets):
        alone = replace(batch, labels=target.expand(4, -1))
        with torch.no_grad():
            likely = logits(theirs, family, alone, PROMPT).log_softmax(-1)
        said = alone.labels[alone.labels != IGNORED]
        found = log_probs[:, number][alone.labels != IGNORED]
        torch.testing.assert_close(found, likely.gather(1, said[:, None])[:, 0], rtol=1e-4, atol=1e-5)


@COUNTED
def test_states_are_kept_whatever_the_padding_and_priced_as_torch_counts(backbone: Backbone, family: str) -> None:
    model, price = behind(backbone).requires_grad_(False), Price(backbone.config)
    model.body.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    kept = states_below(model, DATA, 2, ON_CPU, lambda batches, _: batches)
    assert kept.rows.shape == (sum(DATA.sources.lengths), price.kept_width(backbone.shape, SUFFIX))
    batch = replace(DATA, below=kept).batch(ALL)
    counts = []
    for run in (lambda: model.below(batch), lambda: model(batch), lambda: model(DATA.batch(ALL))):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run()
        counts.append(counter.get_total_flops())
    sizes: dict[str, Any] = {"source": batch.source.shape[1] + 3, "target": batch.labels.shape[1]}
    sizes |= {"prompt": SUFFIX, "below": 0}
    unread = (batch.labels.numel() - len(batch.real)) * price.head()  # of padded targets the price has logits too
    assert counts[0] == 4 * price.fixed(backbone.shape, **sizes)
    assert counts[2] == counts[0] + counts[1] == 4 * price.forward(backbone.shape, **sizes) - unread
    once = 0  # the decoder's keys and values of the encoder's output
    if len(backbone.shape) > 1:
        keys = math.prod(backbone.family.row.key_heads_in(backbone.config))
        once = batch.source.numel() * backbone.shape.decoder.blocks * 2 * (2 * WIDTH * keys)
    assert 4 * price.update(backbone.shape, **sizes, is_kept=True) == 2 * (counts[1] + unread) - once
    with torch.no_grad():
        torch.testing.assert_close(sum(model(DATA.batch([index])) for index in ALL), model(batch))


def test_neurons_are_scored_as_on_the_whole_sequence(backbone: Backbone, theirs: Any, family: str) -> None:
    scores = importance(behind(backbone), DATA, 4, ON_CPU, lambda batches, _: batches)
    seen = {name: [] for name in backbone.shape}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, given, name=name: seen[name].append(given[0].view(1, -1, given[0].shape[-1]))
        )
        for name in backbone.shape
        for layer in backbone.family.activations_of(theirs, name)
    ]
    for index in ALL:
        batch = DATA.batch([index])
        with torch.no_grad():
            logits(theirs, family, batch, PROMPT)
    for hook in hooks:
        hook.remove()
    last = -1 if len(backbone.shape) == 1 else None  # a causal model's last token is not read
    for name, size in backbone.shape.items():
        means = [states[0, :last].abs().mean(0) for states in seen[name]]
        expected = torch.stack([sum(means[block :: size.blocks]) / 4 for block in range(size.blocks)])
        torch.testing.assert_close(scores[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("room", "reads"), [(10**9, 1), (0, 3)])
def test_validations_read_a_source_once_where_there_is_room(backbone: Backbone, room: int, reads: int) -> None:
    """And answer as they do without, to the last bit."""
    model, batch, targets = behind(backbone), DATA.batch(ALL), torch.tensor([[30, 31, 1], [32, 1, IGNORED]])
    first, seen = backbone.family.blocks_of(model.body, next(iter(backbone.shape)))[0], list[bool]()
    kept = KeptSources(room)
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:2] == batch.source.shape))
    found = [model.target_log_probs(kept.with_states(model, batch, "task", ALL), targets) for _ in range(2)]
    said = model.generate(kept.with_states(model, batch, "task", ALL), max_new_tokens=6)
    hook.remove()
    assert sum(seen) == reads
    assert all(torch.equal(one, model.target_log_probs(batch, targets)) for one in found)
    assert torch.equal(said, model.generate(batch, max_new_tokens=6))


def test_several_prompts_read_a_source_once(backbone: Backbone) -> None:
    """And answer as each does alone, generating or choosing."""
    prompts = [SoftPrompt(PROMPT * factor, is_behind=True) for factor in (1, 2)]
    model, rows, of_rows = behind(backbone), [0, 1, 0, 2, 1], [0, 0, 1, 1, 1]
    mixed, targets = (
        model.with_prompt(MixedPrompt([prompts[own] for own in of_rows])),
        torch.tensor([[30, 31, 1], [32, 1, -100]]),
    )
    sizes: list[tuple[int, ...]] = []
    first = backbone.family.blocks_of(model.body, next(iter(backbone.shape)))[0]
    hook = first.register_forward_pre_hook(lambda _, given: sizes.append(tuple(given[0].shape[:2])))
    batch = mixed.read_once(DATA.batch(rows))
    hook.remove()
    assert sizes == [(3, batch.source.shape[1])]
    labels, logs = mixed.answer(batch, max_new_tokens=4)
    log_probs = mixed.target_log_probs(batch, targets)
    for index, (row, own) in enumerate(zip(rows, of_rows, strict=True)):
        alone, one = model.with_prompt(prompts[own]), DATA.batch([row])
        found, log = alone.answer(one, max_new_tokens=4)
        assert torch.equal(labels[index, : found.shape[1]], found[0])
        torch.testing.assert_close(logs[index, : found.shape[1]], log[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(log_probs[index], alone.target_log_probs(one, targets)[0], rtol=1e-4, atol=1e-4)
