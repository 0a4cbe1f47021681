"""The measured peak sees what was held in between, and not what was before."""

import pytest
import torch

from fpt.devices.peak import PROCESS, PeakMemory

SIZE = 64 * 2**20


@pytest.mark.skipif(not (PROCESS / "clear_refs").exists(), reason="Linux only")
def test_a_peak_is_what_was_held_since_the_beginning() -> None:
    meter = PeakMemory(torch.device("cpu"))
    before = torch.ones(4 * SIZE, dtype=torch.uint8)
    del before
    meter.begin()
    idle = meter.bytes
    assert idle < 2 * SIZE
    held = torch.ones(SIZE, dtype=torch.uint8)
    del held
    assert idle + 0.9 * SIZE < meter.bytes < idle + 2 * SIZE
