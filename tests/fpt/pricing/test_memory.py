"""The bytes counted without weights are those that torch's profiler sees a real update allocate."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import T5Config

from bench.records import RESULTS
from bench.synthetic import LENGTHS, examples
from bench.synthetic import PROMPT as VECTORS
from fpt.backbones.backbone import read_config
from fpt.backbones.location import config_values
from fpt.backbones.precision import compute_states_in_float32
from fpt.backbones.shapes import Shape, Stack, read_shape
from fpt.config import compose
from fpt.config.schema import EngineConfig, PromptConfig
from fpt.data.encoded import Batch
from fpt.pricing.flops import Price, price_of
from fpt.pricing.memory import GAPS, has_graphs, need, weights
from fpt.prompts.kinds import Late
from fpt.prompts.modules import SoftPrompt, drawn
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from tests.models import t5

SMALL = {"model_type": "t5", "d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 160, "num_layers": 6}
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
KINDS = {
    "relu, tied": {**SMALL, "vocab_size": 500},
    "gated, untied": {**SMALL, **GATED, "vocab_size": 4000},
}
PROMPT = 5
ON_CPU: dict[str, Any] = {"name": "torch", "device": "cpu"}


def config_of(kind: str) -> T5Config:
    return t5.read_config(KINDS[kind], kind)


def real(config: T5Config, shape: Shape, dtype: torch.dtype, *, checkpointing: bool) -> PromptedModel:
    body = t5.skeleton(config, shape).to(dtype).to_empty(device="cpu")
    for parameter in body.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    if dtype is torch.bfloat16:  # as on a CPU
        compute_states_in_float32(body)
    return prompted_model(body, SoftPrompt(torch.randn(PROMPT, config.d_model)), checkpointing=checkpointing)


def batch_of(batch: int, source: int, target: int) -> Batch:
    mask = torch.ones(batch, source - PROMPT, dtype=torch.long)
    mask[1:, -1] = 0
    return Batch(torch.full_like(mask, 7), mask, torch.full((batch, target), 8))


def allocated(model: PromptedModel, batch: Batch) -> int:
    """The most bytes at once, beside what was there before, by the profiler's own events."""
    model(batch).backward()
    model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        model(batch).backward()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


SHAPES = {
    "full": Shape(Stack(6, 160), Stack(6, 160)),
    "encoder reduced": Shape(Stack(2, 40), Stack(6, 160)),
    "one block": Shape(Stack(1, 160), Stack(1, 160)),
}


@pytest.mark.dear
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize(
    ("kind", "shape", "sizes", "dtype"),
    [
        ("gated, untied", "full", (1, 150, 5), "float32"),
        ("gated, untied", "full", (4, 128, 10), "float32"),
        ("gated, untied", "full", (4, 128, 10), "bfloat16"),
        ("gated, untied", "encoder reduced", (6, 40, 60), "float32"),
        ("gated, untied", "encoder reduced", (3, 90, 10), "bfloat16"),
        ("gated, untied", "one block", (4, 100, 10), "float32"),
        ("relu, tied", "full", (3, 90, 8), "float32"),
        ("relu, tied", "encoder reduced", (4, 128, 10), "bfloat16"),
    ],
)
def test_activations_are_what_the_profiler_sees(
    kind: str, shape: str, sizes: tuple[int, int, int], dtype: str, checkpointing: bool
) -> None:
    config = config_of(kind)
    engine, prompt = EngineConfig(**ON_CPU, dtype=dtype), PromptConfig(length=PROMPT)
    needed = need(price_of(config), SHAPES[shape], engine, sizes, prompt=prompt, checkpointing=checkpointing)
    model = real(config, SHAPES[shape], getattr(torch, dtype), checkpointing=checkpointing)
    assert needed.activations == pytest.approx(allocated(model, batch_of(*sizes)), rel=0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_parameters(kind: str) -> None:
    config, shape = config_of(kind), SHAPES["encoder reduced"]
    engine = EngineConfig(**ON_CPU, dtype="bfloat16")
    assert weights(Price(config), shape, engine) == 2 * Price(config).parameters(shape)


def test_shared_weights_are_a_share_and_what_is_gathered() -> None:
    config = t5.read_config({**KINDS["gated, untied"], "d_model": 4096, "d_ff": 10240}, "wide")
    shape, price = Shape(Stack(24, 10240), Stack(24, 10240)), price_of(config)

    def held(**values: Any) -> int:
        return weights(price, shape, EngineConfig(device="cpu", dtype="float32", **values))

    whole, shared, many, away = (
        held(**values)
        for values in (
            {"name": "torch"},
            {"name": "deepspeed", "processes": 8},
            {"name": "deepspeed", "processes": 64},
            {"name": "deepspeed", "processes": 8, "offload": "cpu"},
        )
    )
    assert whole > shared > many > away
    assert shared - away == pytest.approx(whole / 8, rel=0.01)


@pytest.mark.dear
@pytest.mark.parametrize("generator", ["npg", "appg", "mppg", "none"])
@pytest.mark.parametrize(("below", "dtype"), [(2, "bfloat16"), (5, "float32")])
def test_nothing_below_a_late_prompt_is_counted(generator: str, below: int, dtype: str) -> None:
    config, shape, engine = config_of("gated, untied"), SHAPES["full"], EngineConfig(**ON_CPU, dtype=dtype)
    prompt = PromptConfig(kind="late", length=PROMPT, generator=generator, bottleneck=32)
    sizes, price = (4, 128, 10), price_of(config)
    needed = need(price, shape, engine, sizes, prompt=prompt, below=below, checkpointing=False)
    model = real(config, shape, getattr(torch, dtype), checkpointing=False)
    model = model.with_prompt(Late(prompt).build(drawn(Late(prompt).shapes(64), 0), below))
    assert needed.activations == pytest.approx(allocated(model, batch_of(*sizes)), rel=0.15)
    soft = need(price, shape, engine, sizes, prompt=PromptConfig(length=PROMPT), checkpointing=False)
    assert needed.activations < soft.activations


@pytest.mark.dear
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
def test_before_a_prompt_behind_it_nothing_of_the_source_is_counted_twice(checkpointing: bool) -> None:
    config, shape, sizes = config_of("gated, untied"), SHAPES["full"], (4, 128, 10)
    price, engine = price_of(config), EngineConfig(**ON_CPU, dtype="float32")
    before, behind = (
        need(price, shape, engine, sizes, prompt=PromptConfig(length=PROMPT, place=place), checkpointing=checkpointing)
        for place in ("prefix", "suffix")
    )
    body = real(config, shape, torch.float32, checkpointing=checkpointing).body
    model = prompted_model(body, SoftPrompt(torch.randn(PROMPT, config.d_model), is_behind=True))
    assert behind.activations == pytest.approx(allocated(model, batch_of(*sizes)), rel=0.1)
    assert behind.activations < 0.6 * before.activations


H100, H200 = (
    [json.loads(line) for line in (RESULTS / f"{card}.jsonl").read_text().splitlines()] for card in ("h100", "h200")
)


@pytest.mark.parametrize("row", [row for row in H100 if row.get("changed") == "none"])
def test_what_a_card_allocated_is_what_is_planned(row: dict[str, Any]) -> None:
    """`make accept` on an H100, T5-Large and T5-XL in bfloat16; what is not counted there is 0.2 to 0.4 GB."""
    values, where = config_values(compose.load([f"model={row['model']}"]).model)
    source, target = map(max, zip(*examples(LENGTHS[row["task"]], 32).lengths, strict=True))
    needed = need(
        price_of(read_config(values, where)),
        read_shape(values, where),
        EngineConfig(name="torch", device="cuda", dtype="bfloat16", graphs=False),
        (32, source + VECTORS, target),
        prompt=PromptConfig(length=VECTORS),
        checkpointing=False,
    )
    assert 0 < row["peak_bytes"] - needed.total < 0.06 * needed.total


GRAPHS = [row for row in H200 if row["step"] == "graphs"]


@pytest.mark.parametrize(("plain", "row"), zip(GRAPHS[::2], GRAPHS[1::2], strict=True))
def test_what_a_card_held_for_graphs_is_what_is_planned(plain: dict[str, Any], row: dict[str, Any]) -> None:
    """`make accept` on an H200: what torch kept for graphs of 8 to 20 sizes, the largest first, beside the weights."""
    assert [(one["model"], one["task"]) for one in (plain, row)] == [(row["model"], row["task"])] * 2
    assert (plain["started"], row["started"]) == ("one by one", "graphs")
    values, where = config_values(compose.load([f"model={row['model']}"]).model)
    source, target = map(max, zip(*examples(LENGTHS[row["task"]], 50 * 32).lengths, strict=True))
    needed = need(
        price_of(read_config(values, where)),
        read_shape(values, where),
        EngineConfig(name="torch", device="cuda", dtype="bfloat16"),
        (32, source + VECTORS, -(-target // 8) * 8),
        prompt=PromptConfig(length=VECTORS),
        checkpointing=False,
    )
    assert needed.weights + needed.activations < row["reserved_bytes"] < 1.12 * needed.total
    for_graphs = row["reserved_bytes"] - plain["reserved_bytes"]  # which holds the weights, and what is left of others
    assert 0.9 < for_graphs / (needed.activations + needed.rest) < 1.08


@pytest.mark.parametrize(
    ("words", "checkpointing", "has"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"graphs": False}, False, False),
        ({"name": "deepspeed"}, False, False),
        ({"quantize": "nf4"}, False, False),
        ({"device": "cpu"}, False, False),
    ],
)
def test_updates_are_graphs_where_there_are_kernels_to_wait_for(
    words: dict[str, Any], checkpointing: bool, has: bool
) -> None:
    engine = EngineConfig(**{"name": "torch", "device": "cuda", "dtype": "bfloat16", **words})
    assert has_graphs(engine, checkpointing=checkpointing) is has
    price, shape, prompt = price_of(config_of("gated, untied")), SHAPES["full"], PromptConfig(length=PROMPT)
    whole, plain = (
        need(price, shape, one, (8, 128, 8), prompt=prompt, checkpointing=checkpointing)
        for one in (engine, replace(engine, graphs=False))
    )
    assert whole.total - plain.total == int(GAPS * plain.activations) * has
