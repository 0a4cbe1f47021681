"""A late prompt: made of an example's real tokens alone, put in where it is said, and nothing below it is kept."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor, nn
from torch.nn import functional

from fpt.backbones.family_table import FAMILY_TABLE
from fpt.config.schema import OptimConfig, PromptConfig
from fpt.data.batches import Share
from fpt.prompts.kinds import Late
from fpt.prompts.modules import SoftPrompt, average_pooled, drawn, dropped_out, max_pooled, pooled
from fpt.prompts.prompted import PromptedModel
from fpt.training.loop import step
from fpt.training.optimizer import make
from tests.conftest import FAMILIES, open_folder, save_checkpoint
from tests.models import BLOCKS, DATA, LENGTH, late, prompted, t5

GENERATORS = ("npg", "appg", "mppg", "none")


@pytest.mark.parametrize("outputs", [1, 2, 5, 7])
@pytest.mark.parametrize("kind", ["average", "max"])
def test_pooling_is_torchs_own_on_each_example_alone(kind: str, outputs: int) -> None:
    """Padding is not a number, so that a trace of it would show; sequences may be shorter than what is asked for."""
    lengths = torch.tensor([1, 2, 3, 5, 6, 11, 13, 23, 24])
    states = torch.randn(len(lengths), 24, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    states[torch.arange(24) >= lengths[:, None]] = torch.nan
    ours = {"average": average_pooled, "max": max_pooled}[kind](states, lengths, outputs)
    theirs = {"average": torch.nn.AdaptiveAvgPool1d, "max": torch.nn.AdaptiveMaxPool1d}[kind](outputs)
    for example, length, vectors in zip(states, lengths, ours, strict=True):
        torch.testing.assert_close(vectors, theirs(example[:length].T).T)


@pytest.mark.parametrize("kind", ["average", "max"])
def test_poolings_gradient_is_torchs_own(kind: str) -> None:
    lengths = torch.tensor([2, 9, 12])
    states = torch.randn(3, 12, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    weights = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    theirs = {"average": functional.adaptive_avg_pool1d, "max": functional.adaptive_max_pool1d}[kind]
    alone = [theirs(example[:length].T[None], 5)[0].T for example, length in zip(states, lengths, strict=True)]
    ours = {"average": average_pooled, "max": max_pooled}[kind](states, lengths, 5)
    gradients = [torch.autograd.grad((vectors * weights).sum(), states)[0] for vectors in (ours, torch.stack(alone))]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("pool", "rows"), [("first", [0]), ("last", [2]), ("mean", [0, 1, 2])])
def test_one_state_is_pooled_of_the_real_ones(pool: str, rows: list[int]) -> None:
    states = torch.randn(2, 5, 4)
    states[0, 3:] = torch.nan
    torch.testing.assert_close(pooled(states, torch.tensor([3, 5]), pool)[0], states[0, rows].mean(0))


@pytest.mark.parametrize("pool", ["first", "last", "mean"])
def test_the_naive_generator_is_two_layers_on_one_state(pool: str) -> None:
    prompt = late(generator="npg", pool=pool)
    states, mask = torch.randn(2, 7, 32), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    picked = {"first": slice(0, 1), "last": slice(3, 4), "mean": slice(0, 4)}[pool]
    weights = prompt.tensors
    hidden = (weights["down"] @ states[1, picked].mean(0) + weights["down_bias"]).clamp(min=0)
    expected = (weights["up"] @ hidden + weights["up_bias"]).reshape(LENGTH, 32)
    torch.testing.assert_close(prompt(states, mask)[1], expected)


@pytest.mark.parametrize("generator", ["appg", "mppg"])
def test_the_pooling_generators_pool_between_two_layers(generator: str) -> None:
    prompt = late(generator=generator)
    states, mask = torch.randn(2, 7, 32), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    weights = prompt.tensors
    hidden = states[1, :4] @ weights["down"].T + weights["down_bias"]
    pool = functional.adaptive_avg_pool1d if generator == "appg" else functional.adaptive_max_pool1d
    hidden = pool(hidden.T[None], LENGTH)[0].T.clamp(min=0)
    torch.testing.assert_close(prompt(states, mask)[1], hidden @ weights["up"].T + weights["up_bias"])


@pytest.mark.parametrize("generator", GENERATORS)
def test_it_starts_from_the_seed(generator: str) -> None:
    config = PromptConfig(kind="late", generator=generator, bottleneck=7, length=3)
    tensors, again, other = (drawn(Late(config).shapes(32), seed) for seed in (0, 0, 1))
    sizes = {"down": (7, 32), "down_bias": (7,), "up": (32, 7), "up_bias": (32,)}
    if generator == "npg":
        sizes |= {"up": (96, 7), "up_bias": (96,)}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == (
        {"vectors": (3, 32)} if generator == "none" else sizes
    )
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, again[name])
        assert not torch.equal(tensor, other[name])


@pytest.mark.parametrize("generator", GENERATORS)
def test_each_start_is_the_published_distribution(generator: str, checkpoint: Path) -> None:
    """The published code leaves its layers as torch makes them, and without a generator takes torch's embedding."""
    config = PromptConfig(kind="late", generator=generator, bottleneck=64, length=100, pool="mean")
    config = Late(config).resolved(FAMILY_TABLE["llama"].reads, 4)
    found = Late(config).initial(open_folder(checkpoint), labels=(), seed=0)
    torch.manual_seed(1)
    if generator == "none":
        published = {"vectors": nn.Embedding(100, 32).weight}
    else:
        down, up = nn.Linear(32, 64), nn.Linear(64, 3200 if generator == "npg" else 32)
        published = {"down": down.weight, "down_bias": down.bias, "up": up.weight, "up_bias": up.bias}
    assert found.keys() == published.keys()
    for name, tensor in found.items():
        theirs = published[name].detach()
        assert tensor.shape == theirs.shape
        assert ks_2samp(tensor.flatten(), theirs.flatten()).pvalue > 0.01, name
    uniform = Late(replace(config, init="uniform")).initial(open_folder(checkpoint), labels=(), seed=0)
    if generator == "none":
        assert ks_2samp(uniform["vectors"].flatten(), published["vectors"].detach().flatten()).pvalue < 1e-9
    else:
        assert all(torch.equal(found[name], uniform[name]) for name in found)


def test_dropout_leaves_out_its_share_and_makes_up_for_it() -> None:
    prompt = late(generator="npg")
    assert prompt.dropout == 0.1
    assert late(generator="none").dropout == 0.0
    assert late(generator="none", dropout=0.3).dropout == 0.3
    factors = dropped_out(prompt, 1000, 0, range(40), 3)
    assert factors is not None
    assert sorted(set(factors.flatten().tolist())) == pytest.approx([0.0, 1 / 0.9])
    assert (factors == 0).float().mean().item() == pytest.approx(0.1, abs=0.003)
    alone = dropped_out(prompt, 1000, 0, [17], 3)
    assert alone is not None
    assert torch.equal(alone[0], factors[17])  # whatever else is in the batch
    for other in (dropped_out(prompt, 1000, 0, [17], 4), dropped_out(prompt, 1000, 1, [17], 3)):
        assert other is not None
        assert not torch.equal(other[0], factors[17])
    states, mask = torch.randn(2, 7, 32), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    kept = dropped_out(prompt, 32, 0, [0, 1], 0)
    assert kept is not None
    put_in, _ = prompt.joined(states, mask, mask, kept)
    torch.testing.assert_close(put_in[:, :LENGTH], prompt(states, mask) * kept)
    assert dropped_out(late(generator="npg", dropout=0.0), 32, 0, [0], 0) is None


def test_dropout_is_the_same_however_an_update_is_parted(checkpoint: Path) -> None:
    """And it is there: without it the loss is another."""
    losses, learned = [], []
    for micro_batch, dropout in ((4, 0.5), (1, 0.5), (4, 0.0)):
        model = prompted(checkpoint, late(generator="mppg", dropout=dropout))
        optimizer = make(model.prompt.parameters(), OptimConfig(name="adamw", lr=0.01))
        kept = partial(dropped_out, model.prompt, 32, 0, update=0)
        share = Share.of(DATA, [3, 1, 0, 2], micro_batch, kept)
        loss, _ = step(model, optimizer, share, OptimConfig(name="adafactor", lr=0.3), torch.device("cpu"))
        losses.append(loss.item())
        learned.append(model.prompt.tensors)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] != pytest.approx(losses[2], rel=1e-3)
    for name, tensor in learned[0].items():
        torch.testing.assert_close(tensor, learned[1][name], rtol=1e-3, atol=1e-4)


def test_before_the_first_block_it_is_an_input_prompt(checkpoint: Path) -> None:
    prompt, batch = late(0, generator="none"), DATA.batch([0, 1, 2, 3])
    soft = prompted(checkpoint, SoftPrompt(prompt.tensors["vectors"]))
    model = prompted(checkpoint, prompt)
    losses = [late_or_soft(batch) for late_or_soft in (model, soft)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    assert torch.equal(prompt.tensors["vectors"].grad, soft.prompt.tensors["prompt"].grad)


@pytest.mark.dear
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_run_in_two_parts_are_the_encoder(family: str, tmp_path: Path) -> None:
    model = prompted(save_checkpoint(tmp_path / "model", family), late()).body
    batch = DATA.batch([0, 1, 2, 3])
    states = embedded = model.get_input_embeddings()(batch.source)
    for part in ((0, 2), (2, None)):
        states = t5.through(model, states, t5.arguments(model, states, batch.mask), *part)
    expected = model.encoder(inputs_embeds=embedded, attention_mask=batch.mask).last_hidden_state
    assert torch.equal(model.encoder.final_layer_norm(states), expected)


def biases(model: PromptedModel, indices: list[int]) -> list[Tensor]:
    """The position bias with which each encoder block is called."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, __, named: seen.append(named["position_bias"]), with_kwargs=True)
        for block in t5.blocks_of(model.body, "encoder")
    ]
    model.encode(DATA.batch(indices))
    for hook in hooks:
        hook.remove()
    return seen


def test_the_real_tokens_biases_are_unchanged(checkpoint: Path) -> None:
    called_with = biases(prompted(checkpoint, late(3)), [0, 1])
    size = 13
    assert [bias.shape[-1] for bias in called_with] == [size] * 3 + [size + LENGTH] * 3
    for bias in called_with:
        assert torch.equal(bias[..., -size:, -size:], called_with[0])
    assert called_with[0].unique().numel() > 8


@pytest.mark.parametrize("generator", GENERATORS)
def test_nothing_below_requires_a_gradient_or_is_kept(checkpoint: Path, generator: str) -> None:
    """The blocks below leave no tensor behind; those above keep as many for each block, all of them the longer."""
    model = prompted(checkpoint, late(3, generator=generator))
    blocks, kept, counts = t5.blocks_of(model.body, "encoder"), list[Tensor](), list[tuple[bool, int]]()
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: counts.append((output[0].requires_grad, len(kept))))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss = model(DATA.batch([0, 1, 2, 3]))
    assert [needs for needs, _ in counts] == [False] * 3 + [True] * 3
    assert [number for _, number in counts[:3]] == [0] * 3
    assert counts[5][1] - counts[4][1] == counts[4][1] - counts[3][1] > 0
    loss.backward()
    assert all(parameter.grad is None for parameter in model.body.parameters())
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in model.prompt.tensors.values())


@pytest.mark.dear
def test_the_deeper_it_enters_the_less_is_kept(checkpoint: Path) -> None:
    def bytes_kept(position: int) -> int:
        model, kept = prompted(checkpoint, late(position)), dict[int, int]()

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(DATA.batch([0, 1, 2, 3]))
        assert loss.requires_grad
        return sum(kept.values())

    sizes = [bytes_kept(position) for position in range(BLOCKS + 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == BLOCKS + 1


@pytest.mark.dear
@pytest.mark.parametrize(
    ("generator", "position"), [("npg", 0), ("npg", 3), ("appg", 3), ("mppg", 3), ("none", 3), ("npg", BLOCKS)]
)
def test_padding_changes_nothing(checkpoint: Path, generator: str, position: int) -> None:
    model = prompted(checkpoint, late(position, generator=generator))
    with torch.no_grad():
        together = model(DATA.batch([0, 1, 2, 3]))
        torch.testing.assert_close(sum(model(DATA.batch([index])) for index in range(4)), together)
    outputs = model.generate(DATA.batch([0, 1, 2, 3]), max_new_tokens=5)
    labels, logs = model.answer(DATA.batch([0, 1, 2, 3]), max_new_tokens=5)
    for index in range(4):
        alone = model.generate(DATA.batch([index]), max_new_tokens=5)[0]
        assert outputs[index][: len(alone)].tolist() == alone.tolist()
        of_one, log = model.answer(DATA.batch([index]), max_new_tokens=5)
        width = of_one.shape[1]
        assert torch.equal(labels[index, :width], of_one[0])
        torch.testing.assert_close(logs[index, :width], log[0], rtol=1e-4, atol=1e-5)


def test_examples_get_vectors_of_their_own(checkpoint: Path) -> None:
    for generator in GENERATORS:
        model = prompted(checkpoint, late(3, generator=generator))
        batch = DATA.batch([0, 3])
        vectors = model.prompt(model.below(batch), batch.mask)
        assert torch.equal(vectors[0], vectors[1]) == (generator == "none")


@pytest.mark.parametrize("generator", GENERATORS)
def test_it_stays_in_float32_under_a_bfloat16_model(checkpoint: Path, generator: str) -> None:
    model = prompted(checkpoint, late(3, generator=generator), dtype="bfloat16")
    batch = DATA.batch([0, 1])
    assert model.encode(batch)[0].dtype == torch.bfloat16
    model(batch).backward()
    assert all(tensor.dtype == tensor.grad.dtype == torch.float32 for tensor in model.prompt.tensors.values())


@pytest.mark.dear
@pytest.mark.parametrize("generator", GENERATORS)
def test_checkpointing_changes_no_loss_and_no_gradient(checkpoint: Path, generator: str) -> None:
    plain, less = (prompted(checkpoint, late(3, generator=generator), checkpointing=on) for on in (False, True))
    losses = [model(DATA.batch([0, 1, 2, 3])) for model in (plain, less)]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for name, tensor in plain.prompt.tensors.items():
        assert torch.equal(tensor.grad, less.prompt.tensors[name].grad)
