"""Which FFN neurons matter: mean absolute activation on training examples, per block (Huang et al. 2022).

Letters: B batch, L blocks, F neurons.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from fpt.backbones.family import num_inputs
from fpt.data.batches import batches_by_length, in_turn
from fpt.data.encoded import IGNORED, Encoded
from fpt.devices import distributed
from fpt.devices.engine import Engine
from fpt.prompts.prompted import PromptedModel
from fpt.random_streams import drawn
from fpt.runs.progress import WithBar


def sample(data: Encoded, count: int, seed: int) -> Encoded:
    """A random sample of `count` training examples, or all where there are fewer."""
    return data.taken(drawn(len(data), count, seed, "importance"))


def key(decisive: Sequence[str | int], *, prompt: bytes, examples: Encoded) -> str:
    """Names the scores of a prompt and a sample; `decisive` is what else changes them, if only in their last bits."""
    values = [*decisive, list(examples.sources), list(examples.targets)]
    return hashlib.sha256(json.dumps(values).encode() + prompt).hexdigest()[:32]


@torch.no_grad()
def measure(
    model: PromptedModel, examples: Encoded, *, batch_size: int, engine: Engine, with_bar: WithBar
) -> dict[str, Tensor]:
    """Scores [L, F] for each stack of the full model, float32; the processes take its batches in turn.

    A neuron's score is its mean absolute activation after the gate: over an example's real positions first (in the
    stack that reads, the prompt's are among them where it has entered; a decoder's are the target's, teacher-forced),
    then over examples.
    """
    totals: dict[str, list[Tensor]] = {name: [] for name in model.family.row.stacks}
    first = next(iter(totals))
    weights: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in totals:
            for block, module in enumerate(model.family.activations_of(model.body, name)):
                total = torch.zeros(num_inputs(module), dtype=torch.float64, device=engine.device)
                totals[name].append(total)
                part = "below" if name == first and block < model.prompt.position else name
                hooks.enter_context(module.register_forward_pre_hook(partial(_record, total, weights, part)))
        batches = batches_by_length(examples, batch_size)
        for indices in with_bar(in_turn(batches, distributed.rank(), distributed.size()), "neuron importance"):
            if not indices and not engine.is_sharded:
                continue
            batch = examples.batch(indices or batches[0]).to(engine.device)
            _, mask = model.reader.inputs(batch)
            prompt = mask.new_ones(len(mask), model.prompt.length)
            counts = float(bool(indices))  # a process without a batch of its own only lends its share of the weights
            weights["decoder"] = _mean_weights(batch.labels != IGNORED) * counts
            weights["below"] = _mean_weights(mask) * counts
            weights[first] = _mean_weights(torch.cat([prompt, mask], 1)) * counts
            model.reader.decode(batch, model.encode(batch))
    means = {name: torch.stack(rows) / len(examples) for name, rows in totals.items()}
    distributed.all_reduce_sum_(list(means.values()))
    return {name: rows.float().cpu() for name, rows in means.items()}


def _record(total: Tensor, weights: dict[str, Tensor], part: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Add a batch's activations to their neurons' total [F]."""
    total += torch.einsum("bpf,bp->f", inputs[0].float().abs(), weights[part]).double()


def _mean_weights(real: Tensor) -> Tensor:
    """Weights [B, positions] that turn a sum over a batch into a sum of the examples' means."""
    return real.float() / real.sum(1, keepdim=True)
