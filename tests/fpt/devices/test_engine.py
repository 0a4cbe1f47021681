"""DeepSpeed computes where it is told to, and what it changes for itself is as it was when the engine lets go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from fpt.config.schema import EngineConfig
from fpt.devices.distributed import joined
from fpt.devices.engine import Engine

CONFIG, CPU = EngineConfig(name="deepspeed", dtype="float32"), torch.device("cpu")


@pytest.fixture
def own_linear(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A program's own linear(), put in place after the engine was imported."""
    original = functional.linear

    def linear(*args: Any) -> torch.Tensor:
        return original(*args)

    monkeypatch.setattr(functional, "linear", linear)
    return linear


@pytest.fixture
def sharded() -> Iterator[tuple[Engine, nn.Module]]:
    with joined(CONFIG, CPU):
        engine, body = Engine(CONFIG, CPU), nn.Linear(4, 4).requires_grad_(False)
        engine.shard(body)
        yield engine, body


def test_linear_is_what_it_was_after_sharding_and_holding(own_linear: Any, sharded: tuple[Engine, nn.Module]) -> None:
    engine, body = sharded
    assert functional.linear is own_linear
    with engine.holding(body) as (held, _):
        assert functional.linear is not own_linear
        assert held(torch.ones(1, 4)).shape == (1, 4)
    assert functional.linear is own_linear


def test_nothing_is_compiled_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    with joined(CONFIG, CPU):
        Engine(CONFIG, CPU).shard(nn.Linear(4, 4).requires_grad_(False))
    assert not list(tmp_path.glob("*/*"))


def _fail_holding(engine: Engine, body: nn.Module) -> None:
    with engine.holding(body):
        raise RuntimeError("out of memory")


def test_linear_is_what_it_was_after_a_failure(own_linear: Any, sharded: tuple[Engine, nn.Module]) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        _fail_holding(*sharded)
    assert functional.linear is own_linear


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The CUDA devices that torch and DeepSpeed are asked for, which are the CPU."""
    from deepspeed.accelerator import get_accelerator, set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    devices: list[str] = []

    class TwoCards(CPU_Accelerator):
        def device_name(self, device_index: Any = None) -> str:
            if device_index is not None:
                devices.append(f"cuda:{device_index}")
            return "cpu"

    monkeypatch.setenv("LOCAL_RANK", "0")  # an earlier run's in this process
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: devices.append(str(device)))
    before = get_accelerator()
    set_accelerator(TwoCards())
    yield devices
    set_accelerator(before)


def test_one_process_computes_on_the_card_that_was_named(asked: list[str]) -> None:
    config = EngineConfig(name="deepspeed", device="cuda:1", dtype="float32")
    with joined(CONFIG, CPU):
        engine, body = Engine(config, torch.device("cuda:1")), nn.Linear(4, 4).requires_grad_(False)
        engine.shard(body)
        with engine.holding(body):
            assert set(asked) == {"cuda:1"}
        assert asked[0] == "cuda:1"
