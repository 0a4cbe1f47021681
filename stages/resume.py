"""Opens the run folder of a configuration, and finds the states from which its stages go on."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from torch import Tensor

from fpt.backbones.shapes import Selection
from fpt.config.literal import dump
from fpt.config.run_config import RunConfig
from fpt.config.stored import differences, stored
from fpt.devices import distributed
from fpt.errors import UserError
from fpt.runs.folder import STATE, check_metrics, set_aside
from fpt.runs.run import CONFIG, STAGE, configuration, reading
from fpt.runs.shared_folder import SharedFolder
from fpt.training.checkpoint import TrainState, load_state
from stages import selection
from stages.schedule import Schedule, Stage

Mark = dict[str, Any]  # the length and hash of metrics.jsonl when a state was saved


@contextmanager
def opened_folder(config: RunConfig) -> Iterator[SharedFolder]:
    """A context with the run's folder, whose files are undamaged and of this configuration; every process enters it."""
    distributed.broadcast_from_main(lambda: _make_way(config))
    with closing(SharedFolder(config.folder)) as folder:
        if CONFIG not in folder:
            folder.write(CONFIG, dump(stored(config)).encode())
        if wrong := differences(configuration(folder.path / CONFIG, folder.read(CONFIG)), config):
            raise UserError(
                f"run.dir={folder.path}: holds a run with another configuration ({'; '.join(wrong)})."
                " Give another run.dir, or start over with resume=never"
            )
        yield folder


def _make_way(config: RunConfig) -> None:
    """Do what `resume` asks with a run that is in the folder already."""
    if config.resume == "never":
        set_aside(config.folder)
    if config.resume == "must" and not (config.folder / CONFIG).is_file():
        raise UserError(f"resume=must: there is no run in {config.folder} to go on with; resume=auto starts one")


def saved_states(folder: SharedFolder, schedule: Schedule) -> tuple[list[TrainState], Mark | None]:
    """The latest state of each stage that has one, and the last one's mark in metrics.jsonl, checked up to there."""
    states: list[TrainState] = []
    mark: Mark | None = None
    for name in filter(folder.__contains__, map(state_file, schedule.stages)):
        with reading(folder.path / name):
            state, mark = load_state(folder.read(name))
        states.append(state)
    if mark:
        distributed.broadcast_from_main(partial(check_metrics, folder.path, mark))
    return states, mark


def state_file(stage: Stage) -> str:
    """Where a stage's latest state is kept in the run folder."""
    return f"{stage.folder}/{STATE}"


def ended_early(schedule: Schedule, states: Sequence[TrainState]) -> Schedule:
    """The schedule with the updates that stages had which are over, out of time or patience before they had all."""
    for stage, state in zip(schedule.stages, states, strict=False):
        if state.done:
            schedule = schedule.ended_at(stage.index, state.update)
    return schedule


def stages_left(schedule: Schedule, state: TrainState) -> list[Stage]:
    """The stages that a run in this state still has to go through; always the last, even when its training is done."""
    here = state.update, state.done  # after its last update a stage may have a validation left
    return [stage for stage in schedule.stages if here < (stage.end, True) or stage is schedule.last]


def selection_of(stage: Stage, folder: SharedFolder, schedule: Schedule, scores: dict[str, Tensor]) -> Selection:
    """The blocks and neurons that a stage keeps: chosen once, then read from the run folder."""
    name, row = f"{stage.folder}/selection.safetensors", f"{stage.folder}/{STAGE}"
    if name not in folder or row not in folder:
        chosen = selection.choose(stage.shape, schedule.full, scores, layer=schedule.block, rule=schedule.keeps)
        blocks = {f"{stack}_blocks": kept.blocks for stack, kept in chosen.items()}
        span = {"first_update": stage.first_update, "updates": stage.updates}
        folder.write(name, selection.dump(chosen))
        folder.write_json(row, {"index": stage.index, **stage.sizes, **blocks, **span})
    with reading(folder.path / name):
        return selection.load(folder.read(name))
