"""Which FFN neurons matter: mean absolute activation on training examples, per block (Huang et al. 2022).

Letters: B batch, L blocks, F neurons.
"""

import hashlib
import json
from collections.abc import Callable

import torch
from torch import Tensor

from fpt.backbones import t5
from fpt.backbones.family import STACKS
from fpt.data import IGNORED, Encoded, Rows, batches_by_length
from fpt.prompts.prompted import PromptedModel
from fpt.streams import stream
from fpt.tracking import Watch


def sample(data: Encoded, count: int, seed: int) -> Encoded:
    """`count` training examples, or all where there are fewer."""
    picked = sorted(torch.randperm(len(data), generator=stream(seed, "importance"))[:count].tolist())
    sources, targets = (Rows.of(rows[index] for index in picked) for rows in (data.sources, data.targets))
    return Encoded(sources, targets, pad=data.pad)


def key(
    fingerprint: str, *, dtype: str, device: str, batch_size: int, task: str, prompt: Tensor, examples: Encoded
) -> str:
    """Names the scores of one model, task, prompt and sample, and of what changes their last bits."""
    about = [fingerprint, dtype, device, batch_size, task, list(examples.sources), list(examples.targets)]
    digest = hashlib.sha256(json.dumps(about).encode())
    digest.update(prompt.numpy().tobytes())
    return digest.hexdigest()[:32]


@torch.no_grad()
def measure(
    model: PromptedModel, examples: Encoded, *, batch_size: int, device: torch.device, watch: Watch
) -> dict[str, Tensor]:
    """Scores [L, F] for each stack of the full model, float32.

    A neuron's score is its mean absolute activation after the gate: over an example's real positions first (the
    encoder's include the prompt's, the decoder's are the target's, teacher-forced), then over examples.
    """
    totals: dict[str, list[Tensor]] = {name: [] for name in STACKS}
    weights: dict[str, Tensor] = {}

    def record(stack: str, block: int) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            score = torch.einsum("bpf,bp->f", inputs[0].float().abs(), weights[stack]).double()
            if block == len(totals[stack]):
                totals[stack].append(score)
            else:
                totals[stack][block] += score

        return hook

    hooks = [
        module.register_forward_pre_hook(record(stack, block))
        for stack in STACKS
        for block, module in enumerate(t5.activations_of(model.body, stack))
    ]
    try:
        for indices in watch(batches_by_length(examples, batch_size), "neuron importance"):
            batch = examples.batch(indices).to(device)
            prompt = batch.mask.new_ones(len(indices), model.prompt.vectors.shape[0])
            weights["encoder"] = _mean_weights(torch.cat([prompt, batch.mask], 1))
            weights["decoder"] = _mean_weights(batch.labels != IGNORED)
            model.decode(batch, *model.encode(batch))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (torch.stack(rows) / len(examples)).float().cpu() for name, rows in totals.items()}


def _mean_weights(real: Tensor) -> Tensor:
    """Weights [B, positions] that turn a sum over a batch into a sum of the examples' means."""
    return real.float() / real.sum(1, keepdim=True)
