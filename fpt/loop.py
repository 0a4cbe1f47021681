"""The training loop of one stage: one prompt on one frozen model."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from fpt.checkpoint import TrainState
from fpt.config import OptimConfig, TrainConfig
from fpt.data import Encoded, Order
from fpt.errors import UserError
from fpt.optim import make, pack, restore
from fpt.prompts.prompted import PromptedModel
from fpt.tracking import Stopwatch


@dataclass(frozen=True)
class Span:
    """The updates a stage covers: up to `end`; `keep_best` in the full model's stage."""

    end: int
    keep_best: bool


@dataclass(frozen=True)
class Hooks:
    """What the loop tells the outside: each update's loss, each validation, each state worth saving."""

    updated: Callable[[int, float], None]
    validate: Callable[[int, float], float]
    save: Callable[[TrainState], None]


def train(
    model: PromptedModel,
    data: Encoded,
    state: TrainState,
    span: Span,
    hooks: Hooks,
    *,
    config: TrainConfig,
    optim: OptimConfig,
    seed: int,
    device: torch.device,
) -> TrainState:
    """Train the prompt from `state` to the end of the span; the state at the end is saved and returned.

    The state decides where to start, so a run that was stopped anywhere goes on as if it had not been.

    Raises:
        UserError: the loss is no longer a number.
    """
    assert not isinstance(config.micro_batch, str)
    prompt = model.prompt.vectors
    optimizer = make(prompt, optim)
    restore(optimizer, state.optimizer)
    order = Order(data, batch_size=config.batch_size, seed=seed)
    before, watch = state.seconds, Stopwatch()
    while not state.done:
        loss = step(model, optimizer, data, order.micro_batches(state.update, config.micro_batch), optim, device)
        if not math.isfinite(loss):
            raise UserError(f"the loss is {loss} at update {state.update + 1}: try a lower optim.lr={optim.lr}")
        state = replace(state, update=state.update + 1)
        hooks.updated(state.update, loss)
        if state.update % config.eval_every == 0 or state.update == span.end:
            score = hooks.validate(state.update, loss)
            state = _judged(state, score, prompt.detach(), span.keep_best)
        out_of_patience = config.patience is not None and state.stale >= config.patience
        state = replace(state, seconds=before + watch.seconds, done=state.update == span.end or out_of_patience)
        if state.done or state.update % config.save_every == 0:
            state = replace(state, prompt=prompt.detach().cpu().clone(), optimizer=pack(optimizer))
            hooks.save(state)
    return state


def step(
    model: PromptedModel,
    optimizer: torch.optim.Optimizer,
    data: Encoded,
    micro_batches: list[list[int]],
    optim: OptimConfig,
    device: torch.device,
) -> float:
    """One step on the mean gradient over all target tokens of the batch, whatever the micro-batches."""
    tokens = sum(len(data.targets[index]) for indices in micro_batches for index in indices)
    total = torch.zeros((), device=device)
    for indices in micro_batches:
        loss = model(data.batch(indices).to(device)) / tokens
        loss.backward()
        total += loss.detach()
    torch.nn.utils.clip_grad_norm_(model.prompt.parameters(), optim.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total.item()


def _judged(state: TrainState, score: float, prompt: torch.Tensor, keep_best: bool) -> TrainState:
    """The state after a validation; only the full model's scores decide which prompt is best."""
    if not keep_best:
        return replace(state, score=score)
    changes: dict[str, Any] = {"score": score, "stale": state.stale + 1}
    if state.best_score is None or score > state.best_score:
        best = prompt.cpu().clone()
        changes |= {"best_score": score, "best_update": state.update, "best_prompt": best, "stale": 0}
    return replace(state, **changes)
