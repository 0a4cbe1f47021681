"""Which FFN neurons matter: mean absolute activation on training examples, per block (Huang et al. 2022).

Letters: B batch, L blocks, F neurons.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from fpt.backbones.family import num_inputs
from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import Encoded
from fpt.devices import distributed
from fpt.devices.engine import Engine
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import mean_weights
from fpt.random_streams import drawn
from fpt.runs.progress import WithBar


def sample(data: Encoded, count: int, seed: int) -> Encoded:
    """A random sample of `count` training examples, or all of them if there are fewer."""
    return data.taken(drawn(len(data), count, seed, "importance"))


def key(decisive: Sequence[str | int], *, prompt: bytes, examples: Encoded) -> str:
    """The cache key of a prompt's scores on a sample; `decisive` is all else that can change even their last bits."""
    values = [*decisive, list(examples.sources), list(examples.targets)]
    return hashlib.sha256(json.dumps(values).encode() + prompt).hexdigest()[:32]


@torch.no_grad()
def measure(
    model: PromptedModel, examples: Encoded, *, batch_size: int, engine: Engine, with_bar: WithBar
) -> dict[str, Tensor]:
    """Scores [L, F] for each stack of the full model, float32; the processes share the batches between them.

    A neuron's score is its mean absolute activation after the gate, first over an example's positions without padding,
    then over examples. In the stack that reads the source, the prompt's positions count from the block it enters; in a
    decoder the positions are those of the target, teacher-forced.
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
            below, rest = model.reader.position_weights(batch)
            # A process without a batch of its own runs one with weight 0, because its shard of the model is needed.
            counts = float(bool(indices))
            weights["decoder"] = mean_weights(model.reader.decoder_mask(batch)) * counts
            weights[first] = below * counts
            batch = replace(batch, below=model.below(batch))
            weights[first] = rest * counts
            model.reader.decode(batch, model.encode(batch))
    means = {name: torch.stack(rows) / len(examples) for name, rows in totals.items()}
    distributed.all_reduce_sum_(list(means.values()))
    return {name: rows.float().cpu() for name, rows in means.items()}


def _record(total: Tensor, weights: dict[str, Tensor], part: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Add a batch's weighted absolute activations to the neurons' totals [F]."""
    activations = inputs[0].reshape(*weights[part].shape, -1)  # OPT's have the positions of all texts in one axis
    total += torch.einsum("bpf,bp->f", activations.float().abs(), weights[part]).double()
