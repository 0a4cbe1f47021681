"""Measures once, before the first update, the importance of neurons and, if asked for, the untrained prompt's score."""

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
    stopwatch, untrained = Stopwatch(), None
    scores, seconds = _scores(setup), stopwatch.seconds
    if setup.config.train.score_untrained:
        with _full_model(setup) as model:
            untrained = setup.evaluator.validate(model).score
    if scores:
        folder.write(SCORES, save(scores))
    folder.write_json(MEASURED, {"untrained": untrained, "seconds": seconds})
    return Measured(scores, untrained, seconds)


def _full_model(setup: Setup) -> AbstractContextManager[PromptedModel]:
    """Within, the engine holds the full model with the untrained prompt."""
    return setup.opened(everything(setup.schedule.full), setup.start.prompt)


def _scores(setup: Setup) -> dict[str, Tensor]:
    """The scores of each stack whose width is reduced: from the main process's cache, or computed by all processes."""
    if not setup.schedule.scored():
        return {}
    config, engine, batch_size = setup.config, setup.engine, setup.config.train.eval_batch
    sample = importance.sample(setup.inputs.train, config.schedule.importance_examples, config.seed)
    settings = (config.engine.dtype, config.engine.quantize, engine.device.type, batch_size, config.task.name)
    decisive = (setup.inputs.backbone.fingerprint, *settings)
    key = importance.key(decisive, prompt=setup.start.identity, examples=sample)
    cache = Path(config.cache_dir).expanduser()
    scores: dict[str, Tensor] | None = distributed.broadcast_from_main(lambda: find(cache, key))
    if scores is None:
        with _full_model(setup) as model:
            with_bar = setup.progress.with_bar
            scores = importance.measure(model, sample, batch_size=batch_size, engine=engine, with_bar=with_bar)
        if distributed.is_main():
            keep(cache, key, scores)
    return {name: scores[name] for name in setup.schedule.scored()}
