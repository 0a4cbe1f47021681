"""What updates are measured at: by a clock of the test's own, and in a run."""

import json
from pathlib import Path

import pytest
import torch

from fpt.devices.meter import Meter, peak_flops, rated

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("card", "dtype", "tf32", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", True, 989e12),
        ("NVIDIA H100 80GB HBM3", "float32", True, 495e12),
        ("NVIDIA H100 80GB HBM3", "float32", False, 67e12),
        ("NVIDIA H100 PCIe", "bfloat16", True, 756e12),
        ("NVIDIA A100-SXM4-80GB", "bfloat16", True, 312e12),
        ("Tesla V100-SXM2-32GB", "float32", True, 15.7e12),  # which has no TF32
        ("Tesla V100-SXM2-32GB", "bfloat16", True, None),
        ("NVIDIA L40S", "bfloat16", True, 362e12),
        ("NVIDIA L4", "bfloat16", True, 121e12),
        ("NVIDIA A10G", "bfloat16", True, None),  # nobody's A100
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bfloat16", True, None),
        ("", "float32", True, None),
    ],
)
def test_a_card_is_known_by_its_name(card: str, dtype: str, tf32: bool, peak: float | None) -> None:
    assert rated(card, dtype, tf32=tf32) == peak


def test_a_validations_time_is_not_the_updates() -> None:
    assert peak_flops(CPU, "float32", 1) is None
    meter = Meter(CPU, peak_flops=None)
    meter.begin(flops=5e9, seconds=100.0)
    assert meter.updated(102.0, 300) == 150
    meter.validated(150.0)
    assert meter.updated(154.0, 600) == 150
    assert meter.found["tokens_per_second"] == 900 / 6
    assert meter.found["share_of_peak"] is None
    meter.begin(flops=5e9, seconds=0.0)
    assert meter.found["tokens_per_second"] is None
    assert meter.updated(0.0, 300) is None


def test_the_part_of_the_peak_is_of_all_devices() -> None:
    """10 updates a second of 1 TFLOP on two H100 in bfloat16."""
    meter = Meter(CPU, peak_flops=2 * 989e12)
    meter.begin(flops=1e12, seconds=0.0)
    for number in range(1, 21):
        meter.updated(number / 10, 100)
    assert meter.found["share_of_peak"] == pytest.approx(10e12 / (2 * 989e12))


def test_a_run_says_how_fast_its_updates_were(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    for number, stage in enumerate(json.loads((finished / "result.json").read_text())["stages"], 1):
        rates = [line["tokens_per_second"] for line in lines if line["stage"] == number and "loss" in line]
        assert len(rates) == stage["updates"]
        assert rates[-1] == round(stage["tokens_per_second"]) > 0
        assert stage["share_of_peak"] is None
