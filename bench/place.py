"""Where the steps of a card's first hour run, and models with random weights there."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from bench.clock import now
from bench.synthetic import PROMPT, Lengths, examples
from fpt.backbones.backbone import family_of, read_config
from fpt.backbones.location import config_values
from fpt.backbones.precision import Linear, layers_of
from fpt.backbones.shapes import Shape, Stack, read_shape
from fpt.config import compose
from fpt.config.schema import OptimConfig
from fpt.data.batches import Share
from fpt.data.encoded import Encoded
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.training.graphs import Graphs, Recorder, largest_batch
from fpt.training.loop import step
from fpt.training.optimizer import make
from stages.selection import everything

Found = dict[str, Any]
OPTIM = OptimConfig(name="adafactor", lr=0.3)
TURNS, AT_ONCE = 3, 3  # of what is timed on a card, and updates in each
PRECISIONS = {
    "float32": (torch.float32, "highest"),
    "tf32": (torch.float32, "high"),
    "bfloat16": (torch.bfloat16, "high"),
}


@dataclass(frozen=True)
class Place:
    """Where the steps run, and how large they are there."""

    device: torch.device

    @property
    def is_card(self) -> bool:
        """Whether this is what the script is for."""
        return self.device.type == "cuda"

    @property
    def models(self) -> dict[str, Shape | None]:
        """The models to update, by name; None: the whole."""
        tiny = Shape(Stack(2, 64), Stack(2, 64))
        return {"t5-large": None, "t5-xl": None} if self.is_card else {"t5-small": tiny}

    def examples(self, lengths: Lengths, count: int, seed: int = 0) -> Encoded:
        """Examples of such lengths, padded as a run has them here."""
        data = examples(lengths, count, seed)
        return data.for_card(PROMPT) if self.is_card else data

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.is_card:
            torch.cuda.synchronize()

    def peak(self) -> int | None:
        """The most bytes that tensors took since the last question; None: not known of a CPU."""
        if not self.is_card:
            return None
        most = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return most

    def seconds(self, run: Callable[[], Any], times: int) -> float:
        """Of one call, in the median of several turns of so many calls, after one call that does not count."""
        run()
        return median(self._turn(run, times) for _ in range(TURNS if self.is_card else 1))

    def seconds_once(self, run: Callable[[], Any]) -> float:
        """Of one call, the first too."""
        return self._turn(run, 1)

    def _turn(self, run: Callable[[], Any], times: int) -> float:
        self.wait()
        start = now()
        for _ in range(times):
            run()
        self.wait()
        return (now() - start) / times


def random_model(
    place: Place, name: str, shape: Shape | None, dtype: torch.dtype, quantize: str = "none"
) -> PromptedModel:
    """A model of this name with random weights on the device, whole or a part of its shape, and a prompt."""
    values, where = config_values(compose.load([f"model={name}"]).model)
    config = read_config(values, where)
    family = family_of(config)
    shape = shape or read_shape(values, where)
    body = family.skeleton(config, shape).to(dtype)
    tensors = [names for names, _ in family.sources(everything(shape), body)]
    body = body.to_empty(device=place.device)
    for first, *others in tensors:  # moving from the meta device has parted what is tied
        for owner, _, leaf in (name.rpartition(".") for name in others):
            setattr(body.get_submodule(owner), leaf, body.get_parameter(first))
    random = torch.Generator(place.device).manual_seed(0)
    for parameter in body.parameters():
        parameter.normal_(std=parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1, generator=random)
    if quantize != "none":
        layers = set(layers_of(family, body))
        for path, module in list(body.named_modules()):
            if module in layers:
                body.set_submodule(path, Linear(module, quantize, dtype))
    vectors = torch.randn(PROMPT, body.config.d_model, generator=torch.Generator().manual_seed(0))
    return prompted_model(body, SoftPrompt(vectors)).to(place.device)


def updater(
    place: Place,
    model: PromptedModel,
    data: Encoded,
    size: int,
    micro_batch: int | None = None,
    *,
    graphs: bool = True,
) -> Callable[[], object]:
    """Makes an update of the first `size` examples; on a card as a run does it, with `graphs` unless told otherwise."""
    optimizer = make(model.prompt.parameters(), OPTIM)
    share = Share.of(data, list(range(size)), micro_batch)
    share = share.pinned() if place.is_card else share
    add = graphs_of(place, model, data, micro_batch or size).add if graphs and place.is_card else None
    return lambda: step(model, optimizer, share, OPTIM, place.device, add=add)


def graphs_of(place: Place, model: PromptedModel, data: Encoded, at_once: int) -> Graphs:
    """Those of a model's updates on batches of up to so many of these examples."""
    return Graphs(model, largest_batch(data, at_once, lambda _: None), Recorder(place.device))


def updates(
    place: Place, model: PromptedModel, data: Encoded, size: int, micro_batch: int | None = None, *, graphs: bool = True
) -> float:
    """Seconds of an update of the first `size` examples."""
    return place.seconds(updater(place, model, data, size, micro_batch, graphs=graphs), AT_ONCE)
