"""What is measured once, before the first update: the neurons' scores, and the untrained prompt's where asked for."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from fpt.devices import distributed
from fpt.prompts.prompted import PromptedModel
from fpt.runs.progress import Stopwatch
from fpt.runs.records import MEASURED, reading
from fpt.runs.tensor_cache import find, keep
from stages import importance
from stages.selection import everything
from stages.setup import Setup

SCORES = "scores.safetensors"


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        scores: importance [L, F] of each stack whose width is reduced.
        untrained: the initial prompt's score on the full model, where it was asked for.
        seconds: what scoring the neurons took.
    """

    scores: dict[str, Tensor]
    untrained: float | None
    seconds: float


def measure(setup: Setup) -> Measured:
    """Score the neurons, and the prompt that is yet to learn if asked for; read from the run folder what is there."""
    folder = setup.folder
    if MEASURED in folder:
        values = folder.read_json(MEASURED)
        with reading(folder.path / SCORES):
            scores = load(folder.read(SCORES)) if SCORES in folder else {}
        if sorted(scores) == values["scored"]:
            return Measured(scores, values["untrained"], values["seconds"])
    stopwatch = Stopwatch()
    scores = _scores(setup)
    seconds = stopwatch.seconds
    untrained = None
    if setup.config.train.score_untrained:
        with _full_model(setup) as model:
            untrained = setup.evaluator.validate(model).score
    if scores:
        folder.write(SCORES, save(scores))
    folder.write_json(MEASURED, {"scored": sorted(scores), "untrained": untrained, "seconds": seconds})
    return Measured(scores, untrained, seconds)


def _full_model(setup: Setup) -> AbstractContextManager[PromptedModel]:
    """Within, the whole backbone is there, with the prompt that is yet to learn."""
    return setup.models.open(everything(setup.schedule.full), setup.start.prompt)


def _scores(setup: Setup) -> dict[str, Tensor]:
    """From the main process's cache, or computed by all together where it has none."""
    reduced = [name for name, is_reduced in setup.schedule.reduces_width().items() if is_reduced]
    if not reduced:
        return {}
    config, inputs, engine = setup.config, setup.inputs, setup.engine
    sample = importance.sample(inputs.train, config.schedule.importance_examples, config.seed)
    batch_size, cache = config.train.eval_batch, Path(config.cache_dir).expanduser()
    precision = (config.engine.dtype, config.engine.quantize, engine.device.type, batch_size)
    decisive = (inputs.backbone.fingerprint, *precision, config.task.name)
    key = importance.key(decisive, prompt=setup.start.identity, examples=sample)
    scores: dict[str, Tensor] | None = distributed.broadcast_from_main(lambda: find(cache, "importance", key))
    if scores is None:
        with _full_model(setup) as model:
            with_bar = setup.progress.with_bar
            scores = importance.measure(model, sample, batch_size=batch_size, engine=engine, with_bar=with_bar)
        if distributed.is_main():
            keep(cache, "importance", key, scores)
    return {name: scores[name] for name in reduced}
