"""The optimizer's packed state goes on as if nothing had happened."""

import pytest
import torch
from torch import nn

from fpt.config import OptimConfig
from fpt.optim import make, pack, restore


def step(parameter: nn.Parameter, optimizer: torch.optim.Optimizer, index: int) -> None:
    parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    optimizer.step()


@pytest.mark.parametrize("stop", [0, 1, 3])
def test_restored_goes_on_bit_for_bit(stop: int) -> None:
    whole = nn.Parameter(torch.zeros(4, 6))
    optimizer = make([whole], OptimConfig())
    state, middle = pack(optimizer), whole.detach().clone()
    for index in range(5):
        step(whole, optimizer, index)
        if index + 1 == stop:
            state, middle = pack(optimizer), whole.detach().clone()
    again = nn.Parameter(middle)
    optimizer = make([again], OptimConfig())
    restore(optimizer, state)
    for index in range(stop, 5):
        step(again, optimizer, index)
    assert torch.equal(again, whole)


def test_the_first_step_is_adafactors() -> None:
    """With a fresh state the update is lr times the factored-normalised gradient, clipped to RMS 1 (Shazeer, Stern)."""
    parameter, gradient = nn.Parameter(torch.zeros(3, 5)), torch.randn(3, 5)
    optimizer = make([parameter], OptimConfig(lr=0.3, weight_decay=0.0))
    parameter.grad = gradient.clone()
    optimizer.step()
    square = gradient**2 + 1e-30
    rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
    update = gradient / (rows * columns / rows.mean()).sqrt()
    update = update / max(1.0, update.square().mean().sqrt().item())
    torch.testing.assert_close(parameter.detach(), -0.3 * update)
