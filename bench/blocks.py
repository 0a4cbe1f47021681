"""Which half of the reading stack's blocks to keep: `python -m bench.blocks RUN` for a finished run's task and prompts.

Every half is scored by the training loss that it leaves with a prompt, with the run's own as it started and with the
one that it ended with; beside them stand the paper's choice (spread evenly), that of block influence (one minus the
cosine of a block's input and output, Men et al. 2024, arXiv 2403.03853), and that of leaving out, one block at a time,
what leaves the lowest loss.
"""

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.runs import table
from fpt.backbones.shapes import Selection, StackSelection
from fpt.prompts.files import initial
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.soft import TENSOR
from fpt.runs.progress import Progress, quiet_libraries
from fpt.runs.run import open_run
from fpt.tasks.opening import open_task
from stages import partial
from stages.importance import sample
from stages.inputs import open_inputs
from stages.selection import evenly

EXAMPLES, AT_ONCE = 256, 64


class Scored:
    """Halves of one model, by the loss on a sample of the run's training examples."""

    def __init__(self, folder: Path) -> None:
        """Of a finished run."""
        config = open_run(folder).config
        inputs = open_inputs(config, open_task(config), Progress())
        data = sample(inputs.train, EXAMPLES, config.seed)
        self._backbone, self._stack = inputs.backbone, next(iter(inputs.backbone.shape))
        self._batches = [data.batch(range(start, start + AT_ONCE)) for start in range(0, len(data), AT_ONCE)]
        self.blocks = self._backbone.shape.source.blocks
        self.prompts = {
            "as it started": initial(config.prompt, inputs.backbone, labels=inputs.task.labels, seed=config.seed)[
                TENSOR
            ],
            "as it ended": load_file(folder / "prompt.safetensors")[TENSOR],
        }

    def _model(self, kept: tuple[int, ...], prompt: Tensor) -> PromptedModel:
        whole = self._backbone.shape
        stacks = {name: StackSelection(tuple(range(size.blocks))) for name, size in whole.items()}
        selection = Selection(**{**stacks, self._stack: StackSelection(kept)})
        return PromptedModel(partial.build(self._backbone, selection), SoftPrompt(prompt))

    @torch.no_grad()
    def loss(self, kept: tuple[int, ...], prompt: Tensor) -> float:
        """Per example."""
        model = self._model(kept, prompt)
        return sum(float(model(batch)) for batch in self._batches) / EXAMPLES

    @torch.no_grad()
    def influences(self, prompt: Tensor) -> list[float]:
        """Of each block."""
        model, found = self._model(tuple(range(self.blocks)), prompt), []

        def record(_: nn.Module, inputs: Any, outputs: Any) -> None:
            found.append(1 - torch.cosine_similarity(inputs[0], outputs[0], dim=-1).mean().item())

        for block in model.family.blocks_of(model.body, self._stack):
            block.register_forward_hook(record)
        model.encode(self._batches[0])
        return found

    def choices(self, prompt: Tensor) -> dict[str, tuple[int, ...]]:
        """What each way keeps."""
        influences, kept = self.influences(prompt), tuple(range(self.blocks))
        most = sorted(range(self.blocks), key=lambda block: -influences[block])[: self.blocks // 2]
        while len(kept) > self.blocks // 2:
            less = [tuple(block for block in kept if block != left) for left in kept]
            kept = min(less, key=lambda some: self.loss(some, prompt))
        return {"evenly": evenly(len(kept), self.blocks), "influence": tuple(sorted(most)), "loss": kept}


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.blocks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the folder of a finished run with a soft prompt")
    options = parser.parse_args()
    quiet_libraries()
    scored = Scored(options.run)
    losses = {
        name: {kept: scored.loss(kept, prompt) for kept in combinations(range(scored.blocks), scored.blocks // 2)}
        for name, prompt in scored.prompts.items()
    }
    rows = []
    for name, prompt in scored.prompts.items():
        ranked = sorted(losses[name], key=losses[name].__getitem__)
        for way, kept in {**scored.choices(prompt), "best of all": ranked[0]}.items():
            cells = [
                f"{losses[one][kept]:.2f} ({1 + sorted(losses[one].values()).index(losses[one][kept])})"
                for one in losses
            ]
            rows.append([name, way, " ".join(map(str, kept)), *cells])
    columns = ("prompt", "chosen by", "blocks kept", *(f"loss (rank) with the prompt {name}" for name in losses))
    print(table(columns, rows), end="")


if __name__ == "__main__":
    main()
