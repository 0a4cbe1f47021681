"""Prices are torch's own count, and the ratios are the papers'."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from bench.paper_flops import PARTIAL, SCHEDULE, ratios
from fpt.backbones.shapes import Shape, Stack
from fpt.config.compose import load
from fpt.pricing.flops import Price
from stages import schedule
from stages.planning.decide import described
from tests.families import COUNTED
from tests.models import t5


@pytest.mark.dear
@pytest.mark.parametrize("preset", SCHEDULE)
def test_ratios_are_the_papers_within_three_points(preset: str) -> None:
    whole, stages = ratios(preset)
    assert whole == pytest.approx(SCHEDULE[preset], abs=3)
    for ours, paper in zip(stages, PARTIAL.get(preset, ()), strict=False):
        assert ours == pytest.approx(paper, abs=3)


SMALL = {"d_model": 64, "d_ff": 96, "d_kv": 16, "num_heads": 4, "vocab_size": 500, "decoder_start_token_id": 0}
KINDS = {
    "relu, tied": ({"num_layers": 5, "num_decoder_layers": 2}, 0),
    "gated, untied": (
        {"num_layers": 3, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        500 * 64,
    ),
}


def count(model: T5ForConditionalGeneration) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_embeds=torch.randn(3, 37, 64), decoder_input_ids=torch.ones(3, 9, dtype=torch.long))
    return counter.get_total_flops()


@COUNTED
@pytest.mark.parametrize("kind", KINDS)
def test_price_is_torchs_count_of_transformers_own_model(kind: str) -> None:
    values, head = KINDS[kind]
    config = T5Config(**SMALL, **values, dropout_rate=0.0)
    model = T5ForConditionalGeneration(config).eval().requires_grad_(False)
    model.set_attn_implementation("eager")  # the counter does not see into the CPU's fused attention
    price, shape = Price(config), Shape(Stack(config.num_layers, 96), Stack(config.num_decoder_layers, 96))
    assert 3 * price.forward(shape, source=37, target=9) == count(model)
    assert price.parameters(shape) == sum(parameter.numel() for parameter in model.parameters()) + head


def test_an_updates_price_is_near_torchs_count_of_both_passes() -> None:
    """Twice the forward pass leaves out that attention's products cost twice theirs on the way back."""
    values = load(["model=t5-large"]).model.config
    assert values is not None
    config = t5.read_config(values, "t5-large")
    shape = Shape(Stack(2, 2816), Stack(2, 2816))
    model = t5.skeleton(config, shape)
    source = torch.empty(1, 512, 1024, device="meta", requires_grad=True)
    target = torch.ones(1, 200, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=source, decoder_input_ids=target, use_cache=False).logits.sum().backward()
    priced = Price(config).update(shape, source=512, target=200)
    assert 0.9 < priced / counter.get_total_flops() <= 1


def test_a_partial_plan_reads_no_weights_and_sums_up() -> None:
    config = load(["model=t5-xxl", "schedule=cr", "task=xsum", "engine.dtype=bfloat16"])
    plan = described(config, schedule.of(config))
    assert plan["flops"] == sum(row["flops"] for row in plan["stages"]) + plan["flops_importance"]
    assert plan["flops_ratio"] == plan["flops"] / plan["flops_pt"]
    assert plan["stages"][-1]["flops_ratio"] == 1
    assert plan["stages"][-1]["parameters"] == pytest.approx(11.1e9, rel=0.02)  # T5-XXL 1.1 has 11.1 billion
    assert all(row["weight_bytes"] == 2 * row["parameters"] for row in plan["stages"])
