"""Which device a process gets; what torch sees of CUDA is stood in for."""

import pytest
import torch

from fpt.config.schema import EngineConfig
from fpt.devices.engine import open_device
from fpt.errors import UserError


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Be process 3 of 8 that torchrun started on this machine."""
    told = {"WORLD_SIZE": 8, "LOCAL_WORLD_SIZE": 8, "RANK": 3, "LOCAL_RANK": 3}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    return monkeypatch


def see(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)


def test_each_process_of_a_machine_has_its_own(eight: pytest.MonkeyPatch) -> None:
    see(eight, 8)
    assert open_device(EngineConfig()) == torch.device("cuda:3")


def test_too_few_devices_are_refused_by_every_process(eight: pytest.MonkeyPatch) -> None:
    """Also by those that would have one, or they would wait for the others."""
    see(eight, 4)
    for rank in ("0", "7"):
        eight.setenv("LOCAL_RANK", rank)
        with pytest.raises(UserError, match="LOCAL_WORLD_SIZE=8: torch sees 4 CUDA devices"):
            open_device(EngineConfig())
    see(eight, 1)
    with pytest.raises(UserError, match="torch sees 1 CUDA devices"):
        open_device(EngineConfig())


def test_one_process_of_each_machine_has_the_device_that_is_named(eight: pytest.MonkeyPatch) -> None:
    eight.setenv("LOCAL_WORLD_SIZE", "1")
    eight.setenv("LOCAL_RANK", "0")
    see(eight, 2)
    assert open_device(EngineConfig(device="cuda:1")) == torch.device("cuda:1")
    assert open_device(EngineConfig()) == torch.device("cuda:0")
