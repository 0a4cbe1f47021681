"""The training loop of one stage, one prompt on one frozen model; it yields events for callers to record and show."""

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import torch

from fpt.config.schema import OptimConfig, TrainConfig
from fpt.data.batches import Share, Supply, UpdateOrder
from fpt.data.encoded import Batch, Encoded
from fpt.devices import distributed, ending
from fpt.errors import UserError
from fpt.prompts.modules import Tensors, dropped_out
from fpt.prompts.prompted import PromptedModel
from fpt.training.checkpoint import TrainState
from fpt.training.evaluation import Evaluation
from fpt.training.graphs import Graphs, NoGraphError, Recorder, largest_batch
from fpt.training.optimizer import follow, make, pack, rate, restore


@dataclass(frozen=True)
class Span:
    """The updates of a stage, which ends at the run's update number `end`; the whole run has `updates`.

    `keep_best` is set in the full model's stage, whose validation scores choose the run's prompt. After `seconds` the
    stage ends with the update or validation that is under way.
    """

    end: int
    updates: int
    keep_best: bool
    seconds: float = math.inf

    def cut(self, update: int, seconds: float) -> "Span":
        """The span, ended at `update` if its seconds are over in any process; all processes call this."""
        is_over = self.seconds < math.inf and distributed.any_process(seconds >= self.seconds)
        return replace(self, end=update) if is_over else self


@dataclass(frozen=True)
class Recipe:
    """The settings by which updates are computed."""

    config: TrainConfig  # batch sizes, and how often to validate and to save checkpoints
    optim: OptimConfig
    micro_batch: int  # the number of examples computed at once
    seed: int  # decides the order of examples, and dropout
    device: torch.device
    graphs: bool = False  # whether kernels are launched as CUDA graphs


@dataclass(frozen=True)
class Updated:
    """Update number `update` of the run is done, on `tokens` tokens, after `seconds` in this stage."""

    update: int
    seconds: float
    loss: float
    lr: float
    tokens: int


@dataclass(frozen=True)
class Validated:
    """The prompt was validated after update number `update` of the run and `seconds` in this stage."""

    update: int
    seconds: float
    evaluation: Evaluation


@dataclass(frozen=True)
class Changed:
    """An update could not be computed by the recipe; from here on another one is used, with the same gradients."""

    recipe: Recipe
    reason: str


Add = Callable[[Batch, float, torch.Tensor], None]
Event = Updated | Validated | Changed | TrainState  # a state is to be saved, so that a stopped run resumes from it


def train(
    model: PromptedModel,
    data: Encoded,
    state: TrainState,
    span: Span,
    validate: Callable[[PromptedModel], Evaluation],
    recipe: Recipe,
) -> Iterator[Event]:
    """Train the prompt from `state` to the end of the span; the last event is the state at the end.

    The state decides where to start, so that a run resumes, wherever it was stopped, as if it had not been. A state is
    also yielded before a validation, which may take long. A state that is done already yields nothing.

    Raises:
        Interrupted: the run was told to stop; its state has been yielded.
    """
    config, optim, device = recipe.config, recipe.optim, recipe.device
    optimizer = make(model.prompt.parameters(), optim)
    restore(optimizer, state.optimizer)
    kept = deepcopy(model.prompt) if optim.average else model.prompt  # the mean, which is validated and saved
    if state.mean is not None:
        kept.learn(state.mean)
    order = UpdateOrder(data, batch_size=config.batch_size, seed=recipe.seed, bucket=config.bucket)
    dropout = partial(dropped_out, model.prompt, model.width, recipe.seed)
    add = _adder(model, data, dropout, recipe)
    began = perf_counter() - state.seconds
    unread: Callable[[float], Updated] | None = None

    with ending.deferred(), Supply(data, order, dropout, for_card=device.type == "cuda") as supply:
        while not state.done:
            if not _is_due(state, span, config):
                lr = rate(optim, state.update, span.updates)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                share = supply.share(state.update, recipe.micro_batch)
                try:
                    loss, is_stopped = step(model, optimizer, share, optim, device, add)
                except (torch.OutOfMemoryError, NoGraphError) as error:
                    optimizer.zero_grad(set_to_none=True)
                    changed = _changed(recipe, error, in_step=model.in_step)
                    recipe = changed.recipe
                    del add  # frees its graphs before new ones are recorded
                    add = _adder(model, data, dropout, recipe)
                    yield changed
                    continue
                if unread:  # the loss is read only now that the device has the next update to compute
                    yield unread(perf_counter() - began)
                if optim.average:
                    follow(kept, model.prompt, optim.average)
                state = replace(state, update=state.update + 1)
                span = span.cut(state.update, perf_counter() - began)
                unread = partial(_updated, state.update, loss, lr, share.all_tokens)
                if is_stopped or _is_due(state, span, config) or state.update % config.save_every == 0:
                    seconds = perf_counter() - began
                    yield unread(seconds)
                    unread, learned, mean = None, model.prompt.learned(), kept.learned() if optim.average else None
                    state = replace(state, prompt=learned, mean=mean, optimizer=pack(optimizer), seconds=seconds)
                    yield state
                if is_stopped:
                    ending.stop()
            if _is_due(state, span, config):
                if _validates(span, config):
                    evaluation = validate(model.with_prompt(kept))
                    yield Validated(state.update, perf_counter() - began, evaluation)
                    span = span.cut(state.update, perf_counter() - began)
                    state = _judged(state, evaluation.score, kept.learned(), span, config.patience)
                else:
                    state = replace(state, judged=state.update, score=None, done=True)
                state = replace(state, seconds=perf_counter() - began)
                yield state


def _updated(update: int, loss: torch.Tensor, lr: float, tokens: int, seconds: float) -> Updated:
    """The event of an update; reading its loss waits until the device has computed it."""
    value = loss.item()
    if not math.isfinite(value):
        way_out = f"try a lower optim.lr={lr}"
        if update == 1:
            way_out = "no rate has moved the prompt yet; try engine.dtype=float32, or another prompt.init"
        raise UserError(f"the loss is {value} at update {update}: {way_out}")
    return Updated(update, seconds, value, lr, tokens)


def _validates(span: Span, config: TrainConfig) -> bool:
    return span.keep_best or config.eval_partial


def _is_due(state: TrainState, span: Span, config: TrainConfig) -> bool:
    """Whether a validation is due before the next update, or the end of a stage without validations."""
    is_time = _validates(span, config) and state.update % config.eval_every == 0
    return state.judged < state.update and (is_time or state.update == span.end)


def step(
    model: PromptedModel,
    optimizer: torch.optim.Optimizer,
    share: Share,
    optim: OptimConfig,
    device: torch.device,
    add: Add | None = None,
) -> tuple[torch.Tensor, bool]:
    """One optimizer step on the mean gradient over all target tokens of an update, however its examples are batched.

    The device is not waited for, and may still be computing when this returns. `add` accumulates a batch's gradients;
    None: without CUDA graphs.

    Returns:
        the loss [1], on the device, and whether any process was told to stop.

    Raises:
        torch.OutOfMemoryError: in any process; the prompt is unchanged, so that the update can be repeated. Where
            processes run in step, only the one without memory raises it, and the others wait.
    """
    add, loss, is_short = add or partial(_add, model), torch.zeros(1, device=device), False
    is_stopped = ending.requested()
    try:
        for batch in share.batches:
            add(batch, share.tokens, loss)
    except torch.OutOfMemoryError:
        if model.in_step:
            raise
        is_short = True
    flags = torch.tensor([float(is_stopped), float(is_short)])  # on the host, as they are read there
    distributed.all_reduce_sum_([flags])
    any_stopped, any_short = flags.tolist()
    if any_short:
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise torch.OutOfMemoryError("a process has too little memory for its part of an update")
    gradients = [
        torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for parameter in model.prompt.parameters()
    ]
    distributed.all_reduce_sum_([*gradients, loss])
    torch.nn.utils.clip_grad_norm_(model.prompt.parameters(), optim.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss, any_stopped > 0


def _adder(
    model: PromptedModel,
    data: Encoded,
    dropout: Callable[[Sequence[int], int], torch.Tensor | None],
    recipe: Recipe,
) -> Add:
    """The function that accumulates a batch's gradients, with or without CUDA graphs."""
    if not recipe.graphs:
        return partial(_add, model)
    largest = largest_batch(data, recipe.micro_batch, lambda examples: dropout(examples, 0))
    return Graphs(model, largest, Recorder(recipe.device)).add


def _add(model: PromptedModel, batch: Batch, tokens: float, loss: torch.Tensor) -> None:
    """Add a batch's part to the prompt's gradients and to `loss` [1], both means over the update's `tokens`."""
    part = model(batch.to(loss.device)) / tokens
    part.backward()
    loss += part.detach()


def _changed(recipe: Recipe, error: Exception, *, in_step: bool) -> Changed:
    """The recipe to go on with after an error: without CUDA graphs, or with half the micro-batch."""
    if isinstance(error, NoGraphError):
        return Changed(replace(recipe, graphs=False), f"from here on updates are no CUDA graphs: {error}")
    count = recipe.micro_batch
    at_once = f"{count} example{'s' if count > 1 else ''} at once"
    if in_step:  # the other processes wait in the middle of the update
        raise UserError(f"out of memory with {at_once}: give a smaller train.micro_batch, and the run goes on")
    if count == 1:
        raise UserError(
            f"out of memory with {at_once}: train.activation_checkpointing=true, engine.dtype=bfloat16,"
            " engine.quantize=int8 and engine=deepspeed take less; fpt plan says which fits"
        )
    reason = f"out of memory: from here on {count // 2} examples at once, the same gradients"
    return Changed(replace(recipe, micro_batch=count // 2), reason)


def _judged(state: TrainState, score: float, prompt: Tensors, span: Span, patience: int | None) -> TrainState:
    """The state after a validation; only scores of the full model decide which prompt is best."""
    state = replace(state, score=score, judged=state.update)
    if span.keep_best and (state.best_score is None or score > state.best_score):
        state = replace(state, best_score=score, best_update=state.update, best_prompt=prompt, stale=0)
    elif span.keep_best:
        state = replace(state, stale=state.stale + 1)
    out_of_patience = patience is not None and state.stale >= patience
    return replace(state, done=state.update == span.end or out_of_patience)
