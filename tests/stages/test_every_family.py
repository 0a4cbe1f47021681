"""Every family of models computes what transformers' own does: whole and in parts, before a prompt and behind it."""

from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fpt.__main__ import main
from fpt.backbones.backbone import Backbone
from fpt.backbones.family_table import FAMILY_TABLE
from fpt.backbones.shapes import Selection
from fpt.config.schema import PromptConfig
from fpt.data.encoded import Batch
from fpt.pricing.flops import Price
from fpt.prompts.kinds import Late, Soft
from fpt.prompts.modules import LatePrompt, SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from stages import partial as parts
from stages.kept_states import states_below
from stages.selection import everything
from tests.conftest import ON_CPU, on_cpu, open_folder, quick_words
from tests.families import (
    CASES,
    COUNTED,
    REFUSED,
    WIDTH,
    data_of,
    embedding_of,
    fixtures_of,
    inputs_of,
    opened,
    part_of,
)
from tests.models import late
from tests.processes import in_processes

pytestmark = pytest.mark.dear
PROMPT = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
ALL = [0, 1, 2, 3]
TARGETS = torch.tensor([[30, 31, 1, -100], [30, 31, 32, 1], [32, 1, -100, -100], [33, -100, -100, -100]])
family, folder, backbone, theirs = fixtures_of(CASES)


def prompted(backbone: Backbone, prompt: SoftPrompt | LatePrompt, selection: Selection | None = None) -> PromptedModel:
    return prompted_model(parts.build(backbone, selection or everything(backbone.shape)), prompt)


def asked(model: Any, family: str, batch: Batch, prompt: Tensor) -> Any:
    """What transformers' own model says to a batch with the prompt before its first block."""
    given, count = inputs_of(family, batch), len(batch.source)
    vectors = prompt / WIDTH**0.5 if family == "t5gemma" else prompt  # whose stacks scale what is put in
    mask = torch.cat([torch.ones(count, len(prompt), dtype=torch.long), given.mask], 1)
    labels = given.labels
    if FAMILY_TABLE[family].reads.name != "seq2seq":
        labels = torch.cat([torch.full((count, len(prompt)), -100), labels], 1)
    with embedding_of(model, family) as embedded:
        vectors = torch.cat([vectors.expand(count, -1, -1), embedded(given.ids)], 1)
        return model(inputs_embeds=vectors, attention_mask=mask, labels=labels)


def test_loss_and_gradient_are_transformers_own(backbone: Backbone, theirs: Any, family: str) -> None:
    data = data_of(family)
    batch, prompt = data.batch(ALL), PROMPT.clone().requires_grad_()
    expected = asked(theirs, family, batch, prompt).loss * sum(map(len, data.targets))
    expected.backward()
    ours = prompted(backbone, SoftPrompt(PROMPT))
    loss = ours(batch)
    loss.backward()
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(ours.prompt.tensors["prompt"].grad, prompt.grad, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in ours.body.parameters())


def test_a_prompt_of_embeddings_is_no_worse_a_start_than_none(backbone: Backbone, theirs: Any, family: str) -> None:
    start = Soft(PromptConfig(init="labels")).initial(backbone, labels=("no", "yes"), seed=0)["prompt"]
    batch = data_of(family).batch(ALL)
    assert asked(theirs, family, batch, start).loss < asked(theirs, family, batch, start[:0]).loss + 1


def said(model: Any, family: str, batch: Batch) -> Tensor:
    """transformers' own logits of a batch's labels [number of labels, V], with the prompt."""
    with torch.no_grad():
        logits = asked(model, family, batch, PROMPT).logits
    if FAMILY_TABLE[family].reads.name == "seq2seq":
        return logits[batch.labels != -100]
    labels = inputs_of(family, batch).labels
    if FAMILY_TABLE[family].reads.name == "causal":
        return logits[:, len(PROMPT) - 1 : -1][labels != -100]
    return logits[:, len(PROMPT) :][labels != -100]


def test_answers_are_what_transformers_finds_likeliest(backbone: Backbone, theirs: Any, family: str) -> None:
    model, data = prompted(backbone, SoftPrompt(PROMPT)), data_of(family)
    if FAMILY_TABLE[family].reads.name == "mask":
        words = torch.tensor([[30], [31], [32], [33]])
        logs = model.target_log_probs(data.batch(ALL), words)[..., 0]
        expected = said(theirs, family, data.batch(ALL)).log_softmax(-1)[:, words[:, 0]]
        torch.testing.assert_close(logs, expected, rtol=1e-4, atol=1e-5)
        return
    labels, logs = model.answer(data.batch(ALL), max_new_tokens=6)
    ids = model.generate(data.batch(ALL), max_new_tokens=6)[:, 1:]
    assert torch.equal(ids[labels != -100], labels[labels != -100])
    logits = said(theirs, family, replace(data.batch(ALL), labels=labels))
    assert torch.equal(logits.argmax(-1), labels[labels != -100])
    expected = logits.log_softmax(-1).gather(1, labels[labels != -100][:, None])[:, 0]
    torch.testing.assert_close(logs[labels != -100], expected, rtol=1e-4, atol=1e-5)
    log_probs = model.target_log_probs(data.batch(ALL), TARGETS).sum(2)
    for index, (number, target) in product(ALL, enumerate(TARGETS)):
        alone = replace(data.batch([index]), labels=target[target != -100][None])
        expected = asked(theirs, family, alone, PROMPT).loss * alone.labels.numel()
        torch.testing.assert_close(-log_probs[index, number], expected, rtol=1e-4, atol=1e-4)


def test_pefts_prompt_is_ours_where_it_is_exported(theirs: Any, folder: Path, family: str) -> None:
    if FAMILY_TABLE[family].no_peft:
        return
    given = inputs_of(family, data_of(family).batch(ALL))
    config = PromptTuningConfig(
        task_type={"seq2seq": TaskType.SEQ_2_SEQ_LM, "causal": TaskType.CAUSAL_LM}[FAMILY_TABLE[family].reads.name],
        num_virtual_tokens=len(PROMPT),
        num_transformer_submodules=1,
        tokenizer_name_or_path=str(folder),
    )
    model = get_peft_model(opened(folder, family), config).eval()
    model.prompt_encoder["default"].embedding.weight.data.copy_(PROMPT)
    with torch.no_grad():
        found = model(input_ids=given.ids, attention_mask=given.mask, labels=given.labels).logits
        expected = asked(theirs, family, data_of(family).batch(ALL), PROMPT).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def logits(model: Any, family: str) -> Tensor:
    """By transformers' own forward, of real positions."""
    given = inputs_of(family, data_of(family).batch(ALL))
    with torch.no_grad():
        found = model(input_ids=given.ids, attention_mask=given.mask, labels=given.labels).logits
    return found[given.labels != -100] if FAMILY_TABLE[family].reads.name == "seq2seq" else found[given.mask.bool()]


def test_a_saved_partial_opens_in_transformers(backbone: Backbone, theirs: Any, family: str, tmp_path: Path) -> None:
    kept = part_of(backbone.shape)
    model = parts.build(backbone, kept)
    parts.save(model, backbone, tmp_path / "saved")
    again = opened(tmp_path / "saved", family)
    torch.testing.assert_close(logits(again, family), logits(model, family), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(logits(theirs, family), logits(model, family), atol=1e-2)
    saved = open_folder(tmp_path / "saved")
    assert saved.shape == parts.shape_of(kept, backbone.shape)


def test_the_kept_neurons_alone_are_read(backbone: Backbone, theirs: Any, family: str) -> None:
    """A part is the whole whose other neurons give nothing, and whose other blocks are not run."""
    kept, row = part_of(backbone.shape), backbone.family.row
    blocks: dict[str, list[Any]] = {name: list(range(size.blocks)) for name, size in backbone.shape.items()}
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
            layer = block.get_submodule(f"{row.stacks[name].ffn.module}.{row.stacks[name].ffn.out}".lstrip("."))

            def only(_: Any, given: tuple[Tensor], neurons: list[int] = neurons) -> tuple[Tensor]:
                left = torch.zeros_like(given[0])
                left[..., neurons] = given[0][..., neurons]
                return (left,)

            hooks.append(layer.register_forward_pre_hook(only))
    expected = logits(theirs, family)
    for hook in hooks:
        hook.remove()
    model = parts.build(backbone, kept)
    torch.testing.assert_close(logits(model, family), expected, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_a_cpu_computes_all_but_products_in_float32(backbone: Backbone, family: str) -> None:
    batch, gradients = data_of(family).batch(ALL), []
    for dtype in ("float32", "bfloat16"):
        with parts.opened(backbone, everything(backbone.shape), on_cpu(dtype=dtype), SoftPrompt(PROMPT)) as model:
            assert model.encode(batch)[0].dtype == torch.float32
            model(batch).backward()
            gradients.append(model.prompt.tensors["prompt"].grad.flatten())
    assert 0.998 < torch.cosine_similarity(*gradients, dim=0) < 1


@pytest.mark.parametrize("generator", ["npg", "mppg"])
def test_a_late_prompt_takes_no_notice_of_padding(backbone: Backbone, generator: str, family: str) -> None:
    model, data = prompted(backbone, late(2, generator=generator)), data_of(family)
    with torch.no_grad():
        together = model(data.batch(ALL))
        torch.testing.assert_close(sum(model(data.batch([index])) for index in ALL), together)
    kept = states_below(model, data, 2, ON_CPU, lambda batches, _: batches)
    with torch.no_grad():
        torch.testing.assert_close(model(replace(data, below=kept).batch(ALL)), together)
    if FAMILY_TABLE[family].reads.name == "mask":
        return
    labels, logs = model.answer(data.batch(ALL), max_new_tokens=5)
    told = replace(data.batch(ALL), labels=labels)
    with torch.no_grad():  # what was generated, with caches, is what a pass without finds likeliest
        states = model.decode(told, model.encode(told))[labels != -100]
    assert torch.equal(model.logits(states).argmax(-1), labels[labels != -100])
    log_probs = model.target_log_probs(data.batch(ALL), TARGETS)
    for index in ALL:
        torch.testing.assert_close(
            model.target_log_probs(data.batch([index]), TARGETS)[0], log_probs[index], rtol=1e-4, atol=1e-4
        )
        for target, logs_of_one in zip(TARGETS, log_probs[index], strict=True):
            with torch.no_grad():
                loss = model(replace(data.batch([index]), labels=target[target != -100][None]))
            torch.testing.assert_close(-logs_of_one.sum(), loss, rtol=1e-4, atol=1e-4)
        of_one, log = model.answer(data.batch([index]), max_new_tokens=5)
        width = of_one.shape[1]
        assert torch.equal(labels[index, :width], of_one[0])
        torch.testing.assert_close(logs[index, :width], log[0], rtol=1e-4, atol=1e-5)


def test_sources_get_vectors_of_their_own(backbone: Backbone, family: str) -> None:
    """Also where they begin alike, as behind a token that a tokenizer puts first."""
    pool = Late(PromptConfig(kind="late")).resolved(FAMILY_TABLE[family].reads, 4).pool
    model, batch = prompted(backbone, late(2, pool=pool)), data_of(family).batch(ALL)
    batch.source[:, 0] = 2
    vectors = model.prompt(model.below(batch)[:, : batch.source.shape[1]], batch.mask)
    assert vectors.std(0).mean() > 1e-3 * vectors.std()


@COUNTED
def test_its_price_is_torchs_count(backbone: Backbone, folder: Path, family: str) -> None:
    model, price, batch = opened(folder, family), Price(backbone.config), data_of(family).batch(ALL)
    model.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        asked(model, family, batch, PROMPT)
    source, target = batch.source.shape[1] + len(PROMPT), batch.labels.shape[1]
    priced = 4 * price.forward(backbone.shape, source=source, target=target)
    if (
        FAMILY_TABLE[family].reads.name != "seq2seq"
    ):  # transformers has logits of every position, and of the last token's
        positions = source + len(inputs_of(family, batch).ids[0]) - batch.source.shape[1]
        whole = 4 * price.below(backbone.shape, source=positions, target=1, blocks=4)
        read = 4 * price.below(backbone.shape, source=source, target=target, blocks=4)
        priced += whole - read + 4 * (positions - FAMILY_TABLE[family].reads.answered(target)) * price.head()
    assert priced == counter.get_total_flops()
    body = parts.build(backbone, everything(backbone.shape))
    assert price.parameters(backbone.shape) == sum(parameter.numel() for parameter in body.parameters())


@pytest.mark.slow
def test_two_processes_under_zero_3_give_the_prompt_of_one(
    family: str, folder: Path, boolq: Path, tmp_path: Path
) -> None:
    # From ±1/sqrt(d_model) steps this long double any rounding, so the prompt starts from embeddings.
    small = ["optim.lr=0.01", "prompt.init=vocab", "train.updates=4", "train.eval_every=4", "task.valid_examples=4"]
    stages = "schedule.stages=[{depth: 0.5, width: 0.5, share: 0.5}, {share: 0.5}]"
    place = ["prompt.place=suffix", "prompt.cache=memory"] if family in ("qwen3", "mt5") else []
    runs = [tmp_path / name / "run" for name in ("torch", "deepspeed")]
    for run, engine in zip(runs, ("torch", "deepspeed"), strict=True):
        words = [*quick_words(folder, boolq, run), *small, *place, stages, f"engine={engine}"]
        if engine == "torch":
            assert main(["train", *words]) == 0
        else:
            in_processes(2, partial(main, ["train", *words]), tmp_path / "processes")
    found, wanted = (load_file(run / "prompt.safetensors")["prompt"] for run in runs[::-1])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (runs[0] / "predictions.jsonl").read_text() == (runs[1] / "predictions.jsonl").read_text()


def test_there_is_a_case_of_every_family() -> None:
    assert set(CASES) | REFUSED | {"t5"} == set(FAMILY_TABLE)
