"""Measures once, before the first update, which FFN neurons matter and, if asked for, the untrained prompt's score.

Letters: B batch, L blocks, F neurons.
"""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fpt.backbones.family import num_inputs
from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import Encoded
from fpt.devices import distributed
from fpt.devices.engine import Engine
from fpt.prompts.prompted import PromptedModel, mean_weights
from fpt.runs.progress import WithBar
from fpt.runs.run import MEASURED, reading
from stages.selection import everything
from stages.setup import Setup

SCORES = "scores.safetensors"


@dataclass(frozen=True)
class Measured:
    """The neuron scores [L, F] of each stack whose width is reduced, the seconds they took, the untrained score."""

    scores: dict[str, Tensor]
    untrained: float | None
    seconds: float


def measure(setup: Setup) -> Measured:
    """Score the neurons, and the untrained prompt if asked for; or read the scores from the run folder."""
    folder = setup.folder
    if MEASURED in folder:
        values = folder.read_json(MEASURED)
        with reading(folder.path / SCORES):
            scores = load(folder.read(SCORES)) if SCORES in folder else {}
        return Measured(scores, values["untrained"], values["seconds"])
    config, reduced, scores, untrained, seconds = setup.config.train, setup.schedule.scored(), {}, None, 0.0
    if reduced or config.score_untrained:
        began = perf_counter()
        with setup.opened(everything(setup.schedule.full), setup.start.prompt) as model:
            if reduced:
                examples = setup.inputs.to_score(setup.config)
                found = importance(model, examples, config.eval_batch, setup.engine, setup.progress.with_bar)
                scores, seconds = {name: found[name] for name in reduced}, perf_counter() - began
            if config.score_untrained:
                untrained = setup.evaluator.validate(model).score
    if scores:
        folder.write(SCORES, save(scores))
    folder.write_json(MEASURED, {"untrained": untrained, "seconds": seconds})
    return Measured(scores, untrained, seconds)


@torch.no_grad()
def importance(
    model: PromptedModel, examples: Encoded, batch_size: int, engine: Engine, with_bar: WithBar
) -> dict[str, Tensor]:
    """Scores [L, F] for each stack of the full model, float32; the processes share the batches between them.

    A neuron's score is its mean absolute activation after the gate (Huang et al. 2022), first over an example's
    positions without padding, then over examples. In the stack that reads the source, the prompt's positions count from
    the block it enters; in a decoder the positions are those of the target, teacher-forced.
    """
    totals: dict[str, list[Tensor]] = {name: [] for name in model.family.row.stacks}
    first = next(iter(totals))
    weights: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in totals:
            for module in model.family.activations_of(model.body, name):
                total = torch.zeros(num_inputs(module), dtype=torch.float64, device=engine.device)
                totals[name].append(total)
                hooks.enter_context(module.register_forward_pre_hook(partial(_record, total, weights, name)))
        batches = batches_by_length(examples, batch_size)
        for indices in with_bar(in_turn(batches, distributed.rank(), distributed.size()), "neuron importance"):
            if not indices and not model.in_step:
                continue
            batch = examples.batch(indices or batches[0]).to(engine.device)
            below, rest = model.position_weights(batch)
            # A process without a batch of its own runs one with weight 0, because its shard of the model is needed.
            counts = float(bool(indices))
            weights["decoder"] = mean_weights(model.decoder_mask(batch)) * counts
            weights[first] = below * counts
            batch = replace(batch, below=model.below(batch))
            weights[first] = rest * counts
            model.decode(batch, model.encode(batch))
    means = {name: torch.stack(rows) / len(examples) for name, rows in totals.items()}
    distributed.all_reduce_sum_(list(means.values()))
    return {name: rows.float().cpu() for name, rows in means.items()}


def _record(total: Tensor, weights: dict[str, Tensor], part: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Add a batch's weighted absolute activations to the neurons' totals [F]."""
    activations = inputs[0].reshape(*weights[part].shape, -1)  # OPT's have the positions of all texts in one axis
    total += torch.einsum("bpf,bp->f", activations.float().abs(), weights[part]).double()
