"""The process group lasts as long as the run that wants it, however the run ends."""

import pytest
import torch
import torch.distributed as dist

from fpt.config.schema import EngineConfig
from fpt.devices.distributed import joined

CPU = torch.device("cpu")


def _fail_within(engine: EngineConfig) -> None:
    with joined(engine, CPU):
        assert dist.get_world_size() == 1
        raise RuntimeError("of this run alone")


@pytest.mark.parametrize("name", ["auto", "deepspeed"])
def test_a_run_that_fails_leaves_no_group_to_the_next(name: str) -> None:
    engine = EngineConfig(name=name)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="of this run alone"):
            _fail_within(engine)
        assert not dist.is_initialized()


def test_torch_alone_needs_no_group() -> None:
    with joined(EngineConfig(name="torch"), CPU):
        assert not dist.is_initialized()
