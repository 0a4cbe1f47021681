"""Prompt and frozen model together give transformers' loss, PEFT's logits, and a gradient for the prompt alone."""

import gc
import weakref
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from torch.nn.functional import rms_norm
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForSeq2SeqLM

from fpt.config.schema import OptimConfig, PromptConfig
from fpt.data.batches import Share
from fpt.data.encoded import IGNORED, Encoded, RaggedRows
from fpt.prompts.kinds import Late
from fpt.prompts.modules import MixedPrompt, Prompt, SoftPrompt, drawn
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.training.loop import step
from fpt.training.optimizer import make
from stages import partial
from stages.selection import everything
from tests.conftest import FAMILIES, on_cpu, open_folder, save_checkpoint

DATA = Encoded(
    sources=RaggedRows.of([[5, 6, 7, 1], [8, 9, 10, 11, 12, 13, 14, 1], [15, 1], [16, 17, 18, 19, 20, 1]]),
    targets=RaggedRows.of([[1100, 30, 1], [1100, 1], [1100, 31, 32, 33, 1], [1100, 34, 1]]),
)
GENERATORS = ("npg", "mppg", "none")
PROMPT = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


def prompted(folder: Path, dtype: str = "float32", **more: bool) -> PromptedModel:
    backbone = open_folder(folder)
    body = partial.build(backbone, everything(backbone.shape), on_cpu(dtype=dtype))
    return prompted_model(body, SoftPrompt(PROMPT), **more)


def embedded(model: Any, indices: list[int]) -> dict[str, torch.Tensor]:
    """What transformers needs to see the prompt before the source."""
    batch = DATA.batch(indices)
    vectors = torch.cat([PROMPT.expand(len(indices), -1, -1), model.get_input_embeddings()(batch.source)], 1)
    mask = torch.cat([torch.ones(len(indices), len(PROMPT), dtype=torch.long), batch.mask], 1)
    return {"inputs_embeds": vectors, "attention_mask": mask}


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_transformers_own(family: str, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", family)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    batch = DATA.batch([0, 1, 2, 3])
    tokens = sum(map(len, DATA.targets))
    with torch.no_grad():
        expected = theirs(**embedded(theirs, [0, 1, 2, 3]), labels=batch.labels).loss
        torch.testing.assert_close(prompted(folder)(batch) / tokens, expected)


@pytest.mark.dear
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_transformers_own(family: str, tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "model", family)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    model = prompted(folder)
    for index in range(4):  # one by one and without a cache, which transformers cannot size for a deep decoder
        expected = theirs.generate(**embedded(theirs, [index]), max_new_tokens=6, do_sample=False, use_cache=False)
        assert torch.equal(model.generate(DATA.batch([index]), max_new_tokens=6), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_targets_weigh_what_transformers_losses_say(family: str, tmp_path: Path) -> None:
    """Of each source alone with each target alone, token by token; in a batch, and whatever its own labels are."""
    folder = save_checkpoint(tmp_path / "model", family)
    theirs = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    targets = [[1100, 30, 1], [1100, 31, 32, 33, 1]]
    logs = prompted(folder).target_log_probs(
        DATA.batch([0, 1, 2, 3]), torch.tensor([targets[0] + [IGNORED] * 2, targets[1]])
    )
    assert logs.shape == (4, 2, 5)
    assert not logs[:, 0, 3:].any()
    for index, number in product(range(4), range(2)):
        ids = torch.tensor([targets[number]])
        with torch.no_grad():
            wanted = theirs(**embedded(theirs, [index]), labels=ids).logits[0].log_softmax(-1).gather(1, ids.T)[:, 0]
        torch.testing.assert_close(logs[index, number, : len(wanted)], wanted, rtol=1e-4, atol=1e-4)


def test_padding_changes_no_output(checkpoint: Path) -> None:
    model = prompted(checkpoint)
    together = model.generate(DATA.batch([0, 1, 2, 3]), max_new_tokens=5)
    for index in range(4):
        alone = model.generate(DATA.batch([index]), max_new_tokens=5)[0]
        assert together[index][: len(alone)].tolist() == alone.tolist()


def test_logits_equal_pefts_prompt_tuning(checkpoint: Path) -> None:
    base = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32)
    config = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        num_virtual_tokens=3,
        num_transformer_submodules=1,
        tokenizer_name_or_path=str(checkpoint),
    )
    theirs = get_peft_model(base, config).eval()
    theirs.prompt_encoder["default"].embedding.weight.data.copy_(PROMPT)
    batch = DATA.batch([0, 1, 2, 3])
    with torch.no_grad():
        loss = theirs(input_ids=batch.source, attention_mask=batch.mask, labels=batch.labels).loss
        torch.testing.assert_close(prompted(checkpoint)(batch) / sum(map(len, DATA.targets)), loss)


def test_only_the_prompt_gets_a_gradient_and_moves(checkpoint: Path) -> None:
    model = prompted(checkpoint)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = make([model.prompt.tensors["prompt"]], OptimConfig(name="adafactor", lr=0.3))
    step(model, optimizer, Share.of(DATA, [0, 1, 2, 3]), OptimConfig(name="adafactor", lr=0.3), torch.device("cpu"))
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert moved == ["prompt.prompt"]


@pytest.mark.dear
@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_gradient_does_not_depend_on_the_micro_batches(checkpoint: Path, size: int) -> None:
    """Targets differ in length, so a mean of the micro-batches' means would not pass."""
    prompts = []
    for micro_batch in (None, size):
        model = prompted(checkpoint)
        config = OptimConfig(name="adafactor", lr=0.01)
        optimizer = make([model.prompt.tensors["prompt"]], config)
        share = Share.of(DATA, [3, 1, 0, 2], micro_batch)
        loss, _ = step(model, optimizer, share, config, torch.device("cpu"))
        prompts.append((loss.item(), model.prompt.tensors["prompt"].detach()))
    assert prompts[0][0] == pytest.approx(prompts[1][0], rel=1e-5)
    torch.testing.assert_close(prompts[0][1], prompts[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [None, 1, 3])
def test_weighted_examples_have_torchs_own_weighted_loss_and_gradient(
    checkpoint: Path, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classes, whose targets have no token in common, so that torch's weights of tokens are theirs."""
    weights, order = [3.0, 0.5, 0.5, 3.0], [3, 1, 0, 2]
    own = replace(
        DATA, targets=RaggedRows.of([[30, 31], [40], [41, 42, 43, 40], [31]]), weights=np.array(weights, np.float32)
    )
    theirs = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    of_tokens = torch.ones(theirs.config.vocab_size)
    of_tokens[30:40], of_tokens[40:50] = 3.0, 0.5
    inputs, labels = embedded(theirs, order), own.batch(order).labels
    inputs["inputs_embeds"].requires_grad_()
    logits = theirs(**inputs, labels=labels).logits
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), of_tokens)
    (gradient,) = torch.autograd.grad(expected, inputs["inputs_embeds"])
    for at_once in (1024, 2):  # the second computes the logits in parts
        monkeypatch.setattr("fpt.prompts.prompted.LOGITS_AT_ONCE", at_once)
        model = prompted(checkpoint)
        share, optim = Share.of(own, order, micro_batch), OptimConfig(clip=1e9)
        loss, _ = step(model, torch.optim.SGD(model.prompt.parameters(), 1.0), share, optim, torch.device("cpu"))
        torch.testing.assert_close(loss[0], expected.detach())
        moved = PROMPT - model.prompt.tensors["prompt"].detach()
        torch.testing.assert_close(moved, gradient[:, : len(PROMPT)].sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.dear
@pytest.mark.parametrize("name", ["adafactor", "adamw"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_update_asks_the_device_nothing(checkpoint: Path, name: str, checkpointing: bool) -> None:
    """The meta device has no values to answer with; a card would have to finish its work first, and then be idle."""
    optim = OptimConfig(name=name, lr=0.3)
    model = prompted(checkpoint, checkpointing=checkpointing).to("meta")
    optimizer = make(model.prompt.parameters(), optim)
    for _ in range(2):
        loss, is_told = step(model, optimizer, Share.of(DATA, [0, 1, 2, 3], 3), optim, torch.device("meta"))
    assert (loss.device.type, is_told) == ("meta", False)
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


def test_a_cards_padding_leaves_the_loss_and_its_gradient_as_they_are(checkpoint: Path) -> None:
    gradients = []
    for data in (DATA, DATA.for_card(len(PROMPT))):
        model = prompted(checkpoint)
        loss = model(data.batch([0, 1, 2, 3]))
        loss.backward()
        gradients.append((loss.detach(), model.prompt.tensors["prompt"].grad))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_the_prompt_stays_in_float32_under_a_bfloat16_model(checkpoint: Path) -> None:
    model = prompted(checkpoint, "bfloat16")
    model(DATA.batch([0, 1])).backward()
    assert model.prompt.tensors["prompt"].dtype == model.prompt.tensors["prompt"].grad.dtype == torch.float32


def bytes_kept(model: PromptedModel) -> tuple[torch.Tensor, int]:
    """A loss, and the bytes that the way back keeps, as autograd itself tells."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(DATA.batch([0, 1, 2, 3]))
    return loss, sum(kept.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_checkpointing_changes_nothing_but_memory(checkpoint: Path, dtype: str) -> None:
    plain, less = prompted(checkpoint, dtype), prompted(checkpoint, dtype, checkpointing=True)
    (loss, kept), (same_loss, fewer) = bytes_kept(plain), bytes_kept(less)
    loss.backward()
    same_loss.backward()
    assert torch.equal(loss, same_loss)
    assert torch.equal(plain.prompt.tensors["prompt"].grad, less.prompt.tensors["prompt"].grad)
    assert fewer < kept / 2
    outputs = [model.generate(DATA.batch([0, 1, 2, 3]), max_new_tokens=5) for model in (plain, less)]
    assert torch.equal(*outputs)


def test_a_checkpointed_model_is_freed_when_it_is_dropped(checkpoint: Path) -> None:
    """The next stage's weights are read right after; waiting for the garbage collector would hold both."""
    model = prompted(checkpoint, checkpointing=True)
    model(DATA.batch([0, 1])).backward()
    block = weakref.ref(model.body.encoder.block[0])
    gc.disable()
    try:
        del model
        assert block() is None
    finally:
        gc.enable()


def test_blocks_share_one_bias_for_the_way_back(tmp_path: Path) -> None:
    """Of [B, heads, P+S, P+S] numbers, which a block of its own each would be most of what the encoder keeps."""
    model = prompted(save_checkpoint(tmp_path / "model", "T5 1.1"))
    batch = DATA.batch([0, 1, 2, 3])
    length = len(PROMPT) + batch.source.shape[1]
    kept: dict[int, tuple[int, ...]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tuple(tensor.shape)
        alive.append(tensor)  # or another would take its place in memory
        return tensor

    alive: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    assert len(model.body.encoder.block) > 2
    squares = [shape for shape in kept.values() if shape[-2:] == (length, length)]
    assert squares == [(4, 4, length, length)]
    crossed = [shape for shape in kept.values() if shape[-2:] == (batch.labels.shape[1], length)]
    assert len(crossed) == 1


class Called(TorchFunctionMode):
    """Counts calls of torch's functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["T5 1.1", "mT5"])
def test_a_norm_is_one_kernel_on_a_card_and_the_librarys_own_on_a_cpu(tmp_path: Path, kind: str) -> None:
    model = prompted(save_checkpoint(tmp_path / "model", kind))
    norms = [module for module in model.body.modules() if hasattr(module, "variance_epsilon")]
    states = torch.randn(3, 7, 32, generator=torch.Generator().manual_seed(2))
    for dtype in (torch.float32, torch.bfloat16):
        one = norms[0].to(dtype)
        fused = rms_norm(states.to(dtype), (32,), one.weight, one.variance_epsilon)
        torch.testing.assert_close(fused, one(states.to(dtype)))
    model.body.float()
    for device, is_one in (("cpu", False), ("meta", True)):  # meta stands in for a card
        with Called() as called:
            model.to(device)(DATA.batch([0, 1]).to(device))
        assert called.counts["rms_norm"] == len(norms) * is_one
        assert called.counts["rsqrt"] == len(norms) * (not is_one)


def test_the_decoders_mask_is_made_once_for_all_blocks(tmp_path: Path) -> None:
    made = []
    for blocks in (1, 3):
        model = prompted(save_checkpoint(tmp_path / str(blocks), "T5 1.1", sizes={"num_decoder_layers": blocks}))
        with Called() as called:
            model(DATA.batch([0, 1]))
        made.append([called.counts[name] for name in ("arange", "where", "tril")])
    assert made[0] == made[1]


def test_an_output_that_has_ended_leaves_the_batch(tmp_path: Path) -> None:
    """Its rows are not computed on, and nobody's output changes."""
    model = prompted(save_checkpoint(tmp_path / "model", "T5 1.1"))
    model.body.config.eos_token_id = -1  # which is never said
    going_on = model.generate(DATA.batch([0, 1, 2, 3]), max_new_tokens=6)
    said = [set(row[1:].tolist()) for row in going_on]
    word = next(iter(said[0] - said[1] - said[2] - said[3]))
    end = going_on[0].tolist().index(word)
    assert end < 6
    model.body.config.eos_token_id = word
    rows: list[int] = []
    hook = model.body.decoder.embed_tokens.register_forward_hook(lambda *call: rows.append(len(call[1][0])))
    ended = model.generate(DATA.batch([0, 1, 2, 3]), max_new_tokens=6)
    hook.remove()
    assert torch.equal(ended[1:], going_on[1:])
    assert ended[0].tolist() == [*going_on[0, : end + 1].tolist(), *[0] * (6 - end)]
    assert rows == [4] * end + [3] * (6 - end)


def test_logits_of_many_targets_are_never_there_at_once(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss and the prompt's gradient are those of all together."""
    model, batch = prompted(checkpoint), DATA.batch([0, 1, 2, 3])
    whole = model(batch)
    whole.backward()
    vectors = model.prompt.tensors["prompt"]
    gradient, vectors.grad = vectors.grad, None
    monkeypatch.setattr("fpt.prompts.prompted.LOGITS_AT_ONCE", 3)
    rows: list[int] = []
    model.body.lm_head.register_forward_hook(lambda *call: rows.append(len(call[2])))
    parts = model(batch)
    parts.backward()
    assert rows == [3, 3, 3, 3, 1, 1, 3, 3, 3, 3]  # forward, and once more on the way back
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(vectors.grad, gradient)


@pytest.mark.parametrize("kind", ["soft", "late"])
def test_rows_of_a_batch_may_have_prompts_of_their_own(checkpoint: Path, kind: str) -> None:
    """Of unlike lengths and generators, so long as they enter at one place: each row as with its prompt alone."""
    random = torch.Generator().manual_seed(1)
    prompts: list[Prompt] = [SoftPrompt(torch.randn(length, 32, generator=random)) for length in (5, 2, 3)]
    if kind == "late":
        makers = [Late(PromptConfig(kind="late", length=3 + at, generator=name)) for at, name in enumerate(GENERATORS)]
        prompts = [maker.build(drawn(maker.shapes(32), seed=at), 3) for at, maker in enumerate(makers)]
    of_rows, batch, model = [0, 1, 2, 0], DATA.batch([0, 1, 2, 3]), prompted(checkpoint)
    mixed = model.with_prompt(MixedPrompt([prompts[own] for own in of_rows]))
    ids, logs = mixed.answer(batch, max_new_tokens=6)
    losses = []
    for row, own in enumerate(of_rows):
        alone = model.with_prompt(prompts[own])
        wanted, values = alone.answer(DATA.batch([row]), max_new_tokens=6)
        assert torch.equal(ids[row, : wanted.shape[1]], wanted[0])
        torch.testing.assert_close(logs[row, : wanted.shape[1]], values[0], rtol=1e-4, atol=1e-4)
        losses.append(alone(DATA.batch([row])).item())
    assert mixed(batch).item() == pytest.approx(sum(losses), rel=1e-5)
    turned = model.with_prompt(MixedPrompt([prompts[own] for own in (1, 0, 0, 2)]))
    assert turned(batch).item() != pytest.approx(sum(losses), rel=1e-5)
