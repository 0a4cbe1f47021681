"""What the verbs do, for Python: configure, train, score and predict; and the parts to build with.

Paths are those of run folders. Progress goes to standard error. What is wrong with the input raises `UserError`, a
`ValueError` with one clear line. The libraries' warnings about our use of them are not shown; those of the program that
calls us are.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from fpt.backbones.backbone import Backbone, open_backbone
from fpt.backbones.shapes import Selection, Shape, Stack
from fpt.config import compose
from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices import processes
from fpt.devices.engine import Engine
from fpt.errors import UserError
from fpt.prompts.modules import LatePrompt, SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from fpt.runs.progress import Progress
from fpt.runs.run import Run, open_run
from fpt.tasks.catalogue import with_split
from fpt.tasks.opening import open_task
from fpt.training.prediction import Prediction, Predictor
from stages import partial, resolve, schedule
from stages.planning.decide import described
from stages.run import run as run_stages
from stages.selection import choose
from stages.using import learned

__all__ = [
    "Backbone",
    "LatePrompt",
    "Prediction",
    "Predictor",
    "PromptedModel",
    "Run",
    "RunConfig",
    "Selection",
    "Shape",
    "SoftPrompt",
    "Stack",
    "UserError",
    "build",
    "choose",
    "configure",
    "open_backbone",
    "open_run",
    "plan",
    "predictor",
    "prompted_model",
    "score",
    "train",
]


def configure(*overrides: str) -> RunConfig:
    """The configuration that `fpt train` would have with these overrides, checked."""
    return compose.load(overrides)


def plan(config: RunConfig) -> dict[str, Any]:
    """What every stage will cost, as `fpt plan --json` prints it."""
    config = resolve.for_plan(config)
    return described(config, schedule.of(config))


def train(config: RunConfig) -> Run:
    """Train the prompt through the schedule's stages, or go on with a run that was stopped, in this process."""
    config = resolve.for_training(processes.alone(config))
    with warnings.catch_warnings(action="ignore"):
        run_stages(config, schedule.of(config), lambda: open_task(config), Progress())
        return open_run(config.folder)


def score(path: str | Path, *overrides: str, split: str | None = None, stage: int | None = None) -> dict[str, Any]:
    """What a finished run's prompt scores on a split of its task, or of another by override: `fpt eval`'s JSON.

    The split is train, a validation split or a test split; None: the run's validation split. With a `stage` it is that
    stage's prompt, on its partial PLM; None: the best prompt, on the last stage's model.
    """
    run = open_run(path)
    config = with_split(_settings(run, overrides), split)
    with warnings.catch_warnings(action="ignore"):
        prompt = learned.from_run(run, stage)
        return learned.evaluate(config, lambda: open_task(config), split, prompt, Progress())[0]


def build(
    backbone: Backbone, selection: Selection, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Any:
    """The frozen model made of the kept blocks and neurons, in eval mode."""
    engine = EngineConfig(name="torch", dtype=str(dtype).removeprefix("torch."))
    return partial.build(backbone, selection, Engine(engine, torch.device(device)))


@contextmanager
def predictor(
    path: str | Path, *overrides: str, stage: int | None = None, max_new_tokens: int | None = None
) -> Iterator[Predictor]:
    """Within, a finished run's prompt answers lists of texts.

    Arguments are `score`'s, and `fpt predict`'s options.
    """
    run = open_run(path)
    prompt = learned.from_run(run, stage)
    prompts = {"": (_settings(run, overrides), prompt)}
    opened = learned.predictor(prompts, max_new_tokens=max_new_tokens)
    with ExitStack() as stack:
        with warnings.catch_warnings(action="ignore"):
            answer = stack.enter_context(opened)
        yield answer


def _settings(run: Run, overrides: tuple[str, ...]) -> RunConfig:
    return processes.alone(compose.load(overrides, base=run.config))
