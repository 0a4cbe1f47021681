"""Every family of models computes what transformers' own does: whole and in parts, before a prompt and behind it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fpt.__main__ import main
from fpt.backbones.backbone import Backbone
from fpt.backbones.rows import ROWS
from fpt.backbones.shapes import Selection
from fpt.data.encoded import Batch
from fpt.pricing.flops import Price
from fpt.prompts.modules import LatePrompt, SoftPrompt
from fpt.prompts.prompted import PromptedModel
from stages import partial
from stages.selection import everything
from tests.conftest import open_folder, quick_words, stopped_after
from tests.families import CASES, WIDTH, opened, part_of, save_family
from tests.models import DATA, late, same

PROMPT = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
ALL = [0, 1, 2, 3]
MORE: dict[str, list[str]] = {}  # settings that a family's runs need


@pytest.fixture(scope="module", params=CASES)
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


def prompted(backbone: Backbone, prompt: SoftPrompt | LatePrompt, selection: Selection | None = None) -> PromptedModel:
    return PromptedModel(partial.build(backbone, selection or everything(backbone.shape)), prompt)


def asked(model: Any, family: str, batch: Batch, prompt: Tensor) -> dict[str, Tensor]:
    """What transformers' own forward needs to see the prompt before the source, as the first block is to have it."""
    embedded = model.get_input_embeddings()(batch.source)
    vectors = prompt / WIDTH**0.5 if family == "t5gemma" else prompt  # whose stacks scale what is put in
    mask = torch.cat([torch.ones(len(embedded), len(prompt), dtype=torch.long), batch.mask], 1)
    vectors = torch.cat([vectors.expand(len(embedded), -1, -1), embedded], 1)
    return {"inputs_embeds": vectors, "attention_mask": mask, "labels": batch.labels}


def test_loss_and_gradient_are_transformers_own(backbone: Backbone, theirs: Any, family: str) -> None:
    batch, prompt = DATA.batch(ALL), PROMPT.clone().requires_grad_()
    expected = theirs(**asked(theirs, family, batch, prompt)).loss * sum(map(len, DATA.targets))
    expected.backward()
    ours = prompted(backbone, SoftPrompt(PROMPT))
    loss = ours(batch)
    loss.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(ours.prompt.tensors["prompt"].grad, prompt.grad, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in ours.body.parameters())


def logits(model: Any, batch: Batch) -> Tensor:
    """Of the labels' positions, by transformers' own forward."""
    with torch.no_grad():
        found = model(input_ids=batch.source, attention_mask=batch.mask, labels=batch.labels).logits
    return found[batch.labels != -100]


def test_a_saved_partial_opens_in_transformers(backbone: Backbone, theirs: Any, family: str, tmp_path: Path) -> None:
    kept, batch = part_of(backbone.shape), DATA.batch(ALL)
    model = partial.build(backbone, kept)
    partial.save(model, backbone, tmp_path / "saved")
    again = opened(tmp_path / "saved", family)
    torch.testing.assert_close(logits(again, batch), logits(model, batch), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(theirs, batch), logits(model, batch), atol=1e-2)
    saved = open_folder(tmp_path / "saved")
    assert saved.shape == partial.shape_of(kept, backbone.shape)


def test_the_kept_neurons_alone_are_read(backbone: Backbone, theirs: Any) -> None:
    """A part is the whole whose other neurons give nothing, and whose other blocks are not run."""
    kept, batch, row = part_of(backbone.shape), DATA.batch(ALL), backbone.family.row
    blocks = {name: list(range(size.blocks)) for name, size in backbone.shape.items()}
    for name in kept:
        for index, block in enumerate(backbone.family.blocks_of(theirs, name)):
            blocks[name][index] = block
    hooks = []

    def skip(_: Any, given: tuple[Tensor], output: Any) -> Any:
        return (given[0], *output[1:]) if isinstance(output, tuple) else given[0]

    for name, selection in kept.items():
        for index, block in enumerate(blocks[name]):
            if index not in selection.blocks:
                hooks.append(block.register_forward_hook(skip))
                continue
            neurons = list(selection.neurons[selection.blocks.index(index)])
            layer = block.get_submodule(f"{row.stacks[name].ffn.module}.{row.stacks[name].ffn.out}")

            def only(_: Any, given: tuple[Tensor], neurons: list[int] = neurons) -> tuple[Tensor]:
                left = torch.zeros_like(given[0])
                left[..., neurons] = given[0][..., neurons]
                return (left,)

            hooks.append(layer.register_forward_pre_hook(only))
    expected = logits(theirs, batch)
    for hook in hooks:
        hook.remove()
    model = partial.build(backbone, kept)
    torch.testing.assert_close(logits(model, batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("generator", ["npg", "mppg"])
def test_a_late_prompt_takes_no_notice_of_padding(backbone: Backbone, generator: str) -> None:
    model = prompted(backbone, late(2, generator=generator))
    with torch.no_grad():
        together = model(DATA.batch(ALL))
        torch.testing.assert_close(sum(model(DATA.batch([index])) for index in ALL), together)
        below = DATA.batch(ALL)
        kept = model.below(below)
    labels, logs = model.answer(DATA.batch(ALL), max_new_tokens=5)
    for index in ALL:
        of_one, log = model.answer(DATA.batch([index]), max_new_tokens=5)
        width = of_one.shape[1]
        assert torch.equal(labels[index, :width], of_one[0])
        torch.testing.assert_close(logs[index, :width], log[0], rtol=1e-4, atol=1e-5)
    assert kept.shape[-1] == WIDTH


def test_its_price_is_torchs_count(backbone: Backbone, folder: Path, family: str) -> None:
    model, price, batch = opened(folder, family), Price(backbone.config), DATA.batch(ALL)
    model.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    given = asked(model, family, batch, PROMPT)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**given)
    source, target = given["inputs_embeds"].shape[1], batch.labels.shape[1]
    assert price.forward(backbone.shape, batch=4, source=source, target=target) == counter.get_total_flops()
    body = partial.build(backbone, everything(backbone.shape))
    assert price.parameters(backbone.shape) == sum(parameter.numel() for parameter in body.parameters())


@pytest.mark.trains
def test_a_run_that_was_stopped_ends_as_one_that_was_not(folder: Path, boolq: Path, tmp_path: Path) -> None:
    def words(name: str) -> list[str]:
        small = [
            "train.updates=6",
            "train.eval_every=3",
            "task.valid_examples=6",
            "schedule=cr-half",
            "prompt.length=3",
        ]
        return [*quick_words(folder, boolq, tmp_path / name), *small, *MORE.get(folder.name, [])]

    assert main(["train", *words("whole")]) == 0
    with stopped_after(4):  # in the second stage, past a state
        main(["train", *words("stopped")])
    assert main(["train", *words("stopped")]) == 0
    assert same(tmp_path / "whole", tmp_path / "stopped")


def test_there_is_a_case_of_every_family() -> None:
    assert set(CASES) | {"t5"} == set(ROWS)
