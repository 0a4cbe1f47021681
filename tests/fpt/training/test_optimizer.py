"""The optimizer's packed state goes on as if nothing had happened."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from fpt.config.schema import OptimConfig
from fpt.training.optimizer import make, pack, rate, restore


def step(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer, index: int) -> None:
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    optimizer.step()


@pytest.mark.parametrize("stop", [0, 1, 3])
@pytest.mark.parametrize(("name", "momentum"), [("adafactor", None), ("adafactor", 0.9), ("adamw", None)])
@pytest.mark.parametrize("sizes", [[(4, 6)], [(4, 6), (4,), (3, 4)]], ids=["one tensor", "several"])
def test_restored_goes_on_bit_for_bit(
    sizes: list[tuple[int, ...]], name: str, momentum: float | None, stop: int
) -> None:
    def copied(tensors: list[nn.Parameter]) -> list[nn.Parameter]:
        return [nn.Parameter(tensor.detach().clone()) for tensor in tensors]

    config = OptimConfig(name=name, lr=0.1, momentum=momentum)
    whole = [nn.Parameter(torch.zeros(size)) for size in sizes]
    optimizer = make(whole, config)
    state, middle = pack(optimizer), copied(whole)
    for index in range(5):
        step(whole, optimizer, index)
        if index + 1 == stop:
            state, middle = pack(optimizer), copied(whole)
    optimizer = make(middle, config)
    restore(optimizer, state)
    for index in range(stop, 5):
        step(middle, optimizer, index)
    assert all(torch.equal(*pair) for pair in zip(middle, whole, strict=True))


@pytest.mark.parametrize(("momentum", "beta1"), [(None, 0.9), (0.0, 0.0), (0.5, 0.5)])
def test_decay_is_for_layers_and_not_for_their_biases(momentum: float | None, beta1: float) -> None:
    """Both groups are one AdamW, as the published code has it."""
    layer = nn.Linear(6, 4)
    theirs = deepcopy(layer)
    groups = [{"params": [theirs.weight], "weight_decay": 0.5}, {"params": [theirs.bias], "weight_decay": 0.0}]
    published = torch.optim.AdamW(groups, lr=0.1, betas=(beta1, 0.999))
    optimizer = make(layer.parameters(), OptimConfig(name="adamw", lr=0.1, weight_decay=0.5, momentum=momentum))
    for index in range(4):
        step(list(layer.parameters()), optimizer, index)
        step(list(theirs.parameters()), published, index)
    assert torch.equal(layer.weight, theirs.weight)
    assert torch.equal(layer.bias, theirs.bias)


def test_the_learning_rate_is_a_function_of_the_update() -> None:
    config = OptimConfig(lr=2.0, schedule="linear", warmup=0.2)
    rates = [rate(config, update, 20) for update in range(20)]
    assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    assert rates[4:] == pytest.approx([2.0 * (16 - index) / 16 for index in range(16)])
    assert [rate(OptimConfig(lr=0.3, schedule="constant"), update, 20) for update in range(20)] == [0.3] * 20
    assert rate(OptimConfig(lr=1.0, warmup=1.0, schedule="linear"), 19, 20) == 1.0


@pytest.mark.parametrize(("momentum", "share"), [(None, 1.0), (0.0, 1.0), (0.9, 0.1)])
def test_the_first_step_is_adafactors(momentum: float | None, share: float) -> None:
    """With a fresh state the update is lr times the factored-normalised gradient, clipped to RMS 1 (Shazeer, Stern).

    With momentum it is the new one's share of a mean that began with 0.
    """
    parameter, gradient = nn.Parameter(torch.zeros(3, 5)), torch.randn(3, 5)
    optimizer = make([parameter], OptimConfig(name="adafactor", lr=0.3, weight_decay=0.0, momentum=momentum))
    parameter.grad = gradient.clone()
    optimizer.step()
    square = gradient**2 + 1e-30
    rows, columns = square.mean(1, keepdim=True), square.mean(0, keepdim=True)
    update = gradient / (rows * columns / rows.mean()).sqrt()
    update = update / max(1.0, update.square().mean().sqrt().item())
    torch.testing.assert_close(parameter.detach(), -0.3 * share * update)
