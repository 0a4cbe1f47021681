"""How well the embedded model answers where a text tells the rules: what it could do with a prompt that holds them.

`python -m bench.told` prints it for every task and several partial models of the encoder, by transformers' own greedy
generation, without a prompt; `--neurons` compares ways to choose which neurons are kept.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from bench.runs import table
from fpt import api
from fpt.backbones import tiny
from fpt.runs.progress import quiet_libraries
from fpt.tasks.opening import open_task
from fpt.tasks.task import Example, Task
from pretraining.lands import write_missing
from pretraining.world import records

PARTS = {  # of the encoder: the share of its blocks, and of its neurons
    "whole": (1.0, 1.0),
    "three quarters of the blocks": (0.75, 1.0),
    "half of the blocks": (0.5, 1.0),
    "a quarter of the blocks": (0.25, 1.0),
    "half of the neurons": (1.0, 0.5),
    "a quarter of the neurons": (1.0, 0.25),
    "half of both": (0.5, 0.5),
}
NEURONS = {"a half": 0.5, "a quarter": 0.25, "an eighth": 0.125}  # parts of the encoder's
CHOSEN_BY = ("activation", "output", "column", "change", "chance")
BATCH = 125


def told_examples(task: str, land: int, num: int = 500) -> tuple[Task, list[Example]]:
    """A task's validation examples, each with the rules that it takes before its source."""
    write_missing([land])
    opened = open_task(
        api.configure(f"task={task}", "task.world=customs", f"task.land={land}", "task.train_examples=1")
    )
    rules = [text for text, _ in records.told(task, "validation", num=len(opened.valid), seed=0, land=land)]
    examples = [one._replace(source=f"{text} {one.source}") for text, one in zip(rules, opened.valid, strict=True)]
    return opened, examples[:num]


class Teller:
    """The embedded model's parts, asked with the rules told."""

    def __init__(self, weights: str = "embedded", chosen_by: str = "activation") -> None:
        """Of the embedded model, or of another checkpoint of its kind; the most important neurons are kept.

        These are `chosen_by` mean absolute activation (Huang et al. 2022), that times the norm of the neuron's column
        in the layer that follows (its output), that norm alone, how much the loss would change without it, to first
        order (Molchanov et al. 2017), or one draw by chance.
        """
        self._backbone = api.open_backbone(api.configure(f"model.weights={weights}").model)
        self._tokenizer = AutoTokenizer.from_pretrained(tiny.FOLDER if weights == "embedded" else weights)
        self._scores: dict[tuple[str, int, str], float] = {}
        self._importance = self._measured(told_examples("boolq", 0)[1][:BATCH], chosen_by)

    def score(self, task: str, land: int, part: str) -> float:
        """The main metric with a part of the encoder."""
        if (task, land, part) not in self._scores:
            self._scores[task, land, part] = self._score(task, land, part)
        return self._scores[task, land, part]

    def _score(self, task: str, land: int, part: str) -> float:
        return self.of_part(task, land, *PARTS[part])

    def of_part(self, task: str, land: int, depth: float, width: float) -> float:
        """The main metric with a share of the encoder's blocks and of its neurons."""
        full = self._backbone.shape
        encoder = api.Stack(round(depth * full.encoder.blocks), round(width * full.encoder.neurons))
        kept = api.choose(api.Shape(encoder, full.decoder), full, {"encoder": self._importance} if width < 1 else {})
        opened, examples = told_examples(task, land)
        answers = [opened.from_text(text) for text in self._answers(api.build(self._backbone, kept), examples)]
        score: float = opened.score(answers, examples)[opened.metric]
        return score

    @torch.no_grad()
    def _answers(self, model: Any, examples: Sequence[Example]) -> list[str]:
        texts: list[str] = []
        for at in range(0, len(examples), BATCH):
            sources = [example.source for example in examples[at : at + BATCH]]
            batch = self._tokenizer(sources, return_tensors="pt", padding=True)
            texts += self._tokenizer.batch_decode(model.generate(**batch, max_new_tokens=12, do_sample=False))
        for mark in ("<pad>", "</s>", "<extra_id_0>"):
            texts = [text.replace(mark, " ") for text in texts]
        return [" ".join(text.split()) for text in texts]

    def _measured(self, examples: Sequence[Example], chosen_by: str) -> Tensor:
        """How important every neuron of the encoder is, [L, F], by some examples."""
        model = api.build(self._backbone, api.choose(self._backbone.shape, self._backbone.shape, {}))
        found: dict[int, Tensor] = {}

        def keep(index: int, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[index] = inputs[0].abs().mean(dim=(0, 1))

        following = [block.layer[-1].DenseReluDense.wo for block in model.encoder.block]
        if chosen_by == "change":
            return self._changes(model, following, examples)
        for index, layer in enumerate(following):
            layer.register_forward_pre_hook(partial(keep, index))
        self._answers(model, examples)
        activity = torch.stack([found[index] for index in range(len(found))])
        norms = torch.stack([layer.weight.norm(dim=0) for layer in following])
        chance = torch.rand(activity.shape, generator=torch.Generator().manual_seed(0))
        return {"activation": activity, "output": activity * norms, "column": norms, "chance": chance}[chosen_by]

    @torch.enable_grad()
    def _changes(self, model: Any, following: Sequence[nn.Module], examples: Sequence[Example]) -> Tensor:
        """How much an example's loss would change without a neuron of the encoder, to first order, [L, F].

        The mean over examples of |sum over positions of activation times gradient|.
        """
        found: list[Tensor] = []
        for layer in following:
            layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
        batch = self._tokenizer([example.source for example in examples], return_tensors="pt", padding=True)
        labels = self._tokenizer([example.target for example in examples], return_tensors="pt", padding=True).input_ids
        labels[labels == self._tokenizer.pad_token_id] = -100
        embedded = model.shared(batch.input_ids).requires_grad_()
        # The padding of a batch has no part in its loss: its gradients are 0.
        loss = model(inputs_embeds=embedded, attention_mask=batch.attention_mask, labels=labels).loss
        gradients = torch.autograd.grad(loss, found)
        changes = [(state * slope).sum(1).abs().mean(0) for state, slope in zip(found, gradients, strict=True)]
        return torch.stack(changes).detach()


def told_table(teller: Teller, lands: Sequence[int], tasks: Sequence[str] = tuple(records.CASES)) -> str:
    """A row for each part, a column for each task: the mean over lands."""
    rows = [
        [part, *(f"{mean(teller.score(task, land, part) for land in lands):.1f}" for task in tasks)] for part in PARTS
    ]
    return table(("part of the encoder", *tasks), rows)


def neurons_table(weights: str, lands: Sequence[int], tasks: Sequence[str]) -> str:
    """A row for each way to choose neurons and number of them, a column for each task: the mean over lands."""
    rows = []
    for way in CHOSEN_BY:
        teller = Teller(weights, way)
        for part, width in NEURONS.items():
            scores = [mean(teller.of_part(task, land, 1.0, width) for land in lands) for task in tasks]
            rows.append([way, part, *(f"{score:.1f}" for score in scores)])
    return table(("neurons chosen by", "kept", *tasks), rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.told", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lands", type=int, nargs="+", default=[1])
    parser.add_argument("--weights", default="embedded", help="a checkpoint folder (default: the embedded model)")
    parser.add_argument("--tasks", nargs="+", default=list(records.CASES), choices=list(records.CASES))
    parser.add_argument("--neurons", action="store_true", help="compare ways to choose neurons")
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    if options.neurons:
        print(neurons_table(options.weights, options.lands, options.tasks), end="")
        return
    print(told_table(Teller(options.weights), options.lands, options.tasks), end="")


if __name__ == "__main__":
    main()
