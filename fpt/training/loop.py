"""The training loop of one stage: one prompt on one frozen model."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from fpt.config.schema import OptimConfig, TrainConfig
from fpt.data.batches import UpdateOrder, micro_batches
from fpt.data.encoded import Encoded
from fpt.devices import distributed, interrupts
from fpt.errors import UserError
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import Stopwatch
from fpt.training.checkpoint import Tensors, TrainState
from fpt.training.optimizer import make, pack, rate, restore


@dataclass(frozen=True)
class Span:
    """The updates a stage covers: up to `end` of the run's `updates`; `keep_best` in the full model's stage."""

    end: int
    updates: int
    keep_best: bool


@dataclass(frozen=True)
class Hooks:
    """What the loop tells the outside: each update's loss, each validation, each state worth saving.

    Of updates and validations it tells the update and the seconds in this stage; a validation gives the score.
    """

    updated: Callable[[int, float, float], None]
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

    The state decides where to start, so a run that was stopped anywhere goes on as if it had not been. It is saved
    before a validation too, which may take long.

    Raises:
        UserError: the loss is no longer a number.
        Interrupted: the run was told to stop; its state is saved.
    """
    assert not isinstance(config.micro_batch, str)
    optimizer = make(model.prompt.parameters(), optim)
    restore(optimizer, state.optimizer)
    order = UpdateOrder(data, batch_size=config.batch_size, seed=seed)
    before, stopwatch = state.seconds, Stopwatch()

    def is_due() -> bool:
        return state.judged < state.update and (state.update % config.eval_every == 0 or state.update == span.end)

    def saved() -> TrainState:
        reached = replace(
            state,
            prompt=model.learned(),
            optimizer=pack(optimizer),
            seconds=before + stopwatch.seconds,
        )
        hooks.save(reached)
        return reached

    with interrupts.deferred():
        while not state.done:
            if not is_due():
                for group in optimizer.param_groups:
                    group["lr"] = rate(optim, state.update, span.updates)
                loss, is_told = step(
                    model, optimizer, data, order.indices(state.update), config.micro_batch, optim, device
                )
                if not math.isfinite(loss):
                    raise UserError(f"the loss is {loss} at update {state.update + 1}: try a lower optim.lr={optim.lr}")
                state = replace(state, update=state.update + 1)
                hooks.updated(state.update, loss, before + stopwatch.seconds)
                if is_told or is_due() or state.update % config.save_every == 0:
                    state = saved()
                if is_told:
                    interrupts.stop()
            if is_due():
                score = hooks.validate(state.update, before + stopwatch.seconds)
                state = _judged(state, score, model.learned(), span.keep_best)
                out_of_patience = config.patience is not None and state.stale >= config.patience
                state = replace(state, done=state.update == span.end or out_of_patience)
                state = saved()
    return state


def step(
    model: PromptedModel,
    optimizer: torch.optim.Optimizer,
    data: Encoded,
    indices: list[int],
    micro_batch: int | None,
    optim: OptimConfig,
    device: torch.device,
) -> tuple[float, bool]:
    """One step on the mean gradient over all target tokens of the examples, however these are parted.

    Returns:
        the loss, and whether any process was told to stop.
    """
    tokens = sum(len(data.targets[index]) for index in indices)
    loss, told = torch.zeros(1, device=device), torch.tensor([float(interrupts.requested())], device=device)
    for part in micro_batches(indices, micro_batch, process=distributed.rank(), processes=distributed.size()):
        batch = data.batch(part) if part else data.batch(indices[:1]).unlabelled()
        share = model(batch.to(device)) / tokens
        share.backward()
        loss += share.detach()
    gradients = [parameter.grad for parameter in model.prompt.parameters() if parameter.grad is not None]
    distributed.all_reduce_sum_([*gradients, loss, told])
    torch.nn.utils.clip_grad_norm_(model.prompt.parameters(), optim.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.item(), told.item() > 0


def _judged(state: TrainState, score: float, prompt: Tensors, keep_best: bool) -> TrainState:
    """The state after a validation; only the full model's scores decide which prompt is best."""
    state = replace(state, score=score, judged=state.update)
    if not keep_best:
        return state
    changes: dict[str, Any] = {"stale": state.stale + 1}
    if state.best_score is None or score > state.best_score:
        changes |= {"best_score": score, "best_update": state.update, "best_prompt": prompt, "stale": 0}
    return replace(state, **changes)
