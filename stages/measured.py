"""What is measured once, before the first update: the neurons' scores, and the untrained prompt's where asked for."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from fpt.config.run_config import RunConfig
from fpt.devices import distributed
from fpt.devices.precision import name_of
from fpt.runs.progress import Progress, Stopwatch
from fpt.runs.run import MEASURED
from fpt.runs.shared_folder import SharedFolder
from fpt.runs.tensor_cache import find, keep
from fpt.training.evaluation import Evaluator
from stages import importance
from stages.inputs import Inputs
from stages.models import Models
from stages.schedule import Schedule
from stages.selection import everything
from stages.start import Start

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


def measure(
    config: RunConfig,
    schedule: Schedule,
    inputs: Inputs,
    start: Start,
    models: Models,
    evaluator: Evaluator,
    folder: SharedFolder,
    progress: Progress,
) -> Measured:
    """Score the neurons, and the prompt that is yet to learn if asked for; read from the run folder what is there."""
    if MEASURED in folder:
        values = json.loads(folder.read(MEASURED))
        scores = load(folder.read(SCORES)) if SCORES in folder else {}
        if sorted(scores) == values["scored"]:
            return Measured(scores, values["untrained"], values["seconds"])
    stopwatch = Stopwatch()
    scores = _scores(config, schedule, inputs, start, models, progress)
    seconds = stopwatch.seconds
    untrained = None
    if config.train.score_untrained:
        with models.open(everything(inputs.backbone.shape), start.prompt) as model:
            untrained = evaluator.validate(model).score
    if scores:
        folder.write(SCORES, save(scores))
    folder.write_json(MEASURED, {"scored": sorted(scores), "untrained": untrained, "seconds": seconds})
    return Measured(scores, untrained, seconds)


def _scores(
    config: RunConfig, schedule: Schedule, inputs: Inputs, start: Start, models: Models, progress: Progress
) -> dict[str, Tensor]:
    """From the main process's cache, or computed by all together where it has none."""
    reduced = [name for name, is_reduced in schedule.reduces_width().items() if is_reduced]
    if not reduced:
        return {}
    sample = importance.sample(inputs.train, config.schedule.importance_examples, config.seed)
    batch_size, cache = config.train.eval_batch, Path(config.cache_dir).expanduser()
    key = importance.key(
        inputs.backbone.fingerprint,
        dtype=name_of(config.engine),
        quantize=config.engine.quantize,
        device=models.engine.device.type,
        batch_size=batch_size,
        task=config.task.name,
        prompt=start.identity,
        examples=sample,
    )
    scores: dict[str, Tensor] | None = distributed.broadcast_from_main(lambda: find(cache, "importance", key))
    if scores is None:
        with models.open(everything(inputs.backbone.shape), start.prompt) as model:
            scores = importance.measure(
                model, sample, batch_size=batch_size, engine=models.engine, with_bar=progress.with_bar
            )
        if distributed.is_main():
            keep(cache, "importance", key, scores)
    return {name: scores[name] for name in reduced}
