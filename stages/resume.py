"""Finds the state from which a run resumes, once the run folder's files and its configuration have been checked."""

from contextlib import AbstractContextManager, closing

from torch import Tensor

from fpt.backbones.shapes import Selection
from fpt.config.literal import dump
from fpt.config.run_config import RunConfig
from fpt.config.stored import differences, stored
from fpt.errors import UserError
from fpt.runs.folder import STATE, Mark, RunFolder, check_metrics, set_aside
from fpt.runs.records import STAGE, configuration, reading
from fpt.runs.run import CONFIG
from fpt.runs.shared_folder import SharedFolder
from fpt.training.checkpoint import TrainState, load_state
from stages import selection
from stages.schedule import Schedule, Stage


def state_file(stage: Stage) -> str:
    """Where a stage's latest state is kept in the run folder."""
    return f"{stage.folder}/{STATE}"


def read_state(folder: RunFolder | SharedFolder, stage: Stage) -> tuple[TrainState, Mark]:
    """A stage's latest state, and how much of metrics.jsonl had been written when it was saved."""
    name = state_file(stage)
    with reading(folder.path / name):
        return load_state(folder.read(name))


def last_state(folder: SharedFolder, schedule: Schedule) -> tuple[TrainState | None, Mark | None]:
    """The folder's latest state, given to every process, and how much of metrics.jsonl had been written by then."""

    def find(own: RunFolder) -> tuple[TrainState | None, Mark | None]:
        stage = _last_with_state(own, schedule)
        return read_state(own, stage) if stage else (None, None)

    return folder.ask(find)


def ended_early(folder: SharedFolder, schedule: Schedule) -> Schedule:
    """The schedule with the updates that stages had which are over, out of time or patience before they had all."""
    for stage in schedule.stages:
        if state_file(stage) in folder and (state := read_state(folder, stage)[0]).done:
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


def opened_folder(config: RunConfig, schedule: Schedule) -> AbstractContextManager[SharedFolder]:
    """A context with the run's folder, whose files are undamaged and of this configuration; every process enters it."""
    return closing(SharedFolder(config.folder, lambda: _open(config, schedule)))


def _open(config: RunConfig, schedule: Schedule) -> RunFolder:
    path = config.folder
    if config.resume == "never":
        set_aside(path)
    if config.resume == "must" and not (path / CONFIG).is_file():
        raise UserError(f"resume=must: there is no run in {path} to go on with; resume=auto starts one")
    folder = RunFolder(path)
    try:
        _check(config, schedule, folder)
        if CONFIG not in folder:
            folder.write(CONFIG, dump(stored(config)).encode())
    except BaseException:
        folder.close()
        raise
    return folder


def _check(config: RunConfig, schedule: Schedule, folder: RunFolder) -> None:
    """Refuse another configuration than the command's, and damaged metrics."""
    if CONFIG in folder and (wrong := differences(configuration(folder.path / CONFIG, folder.read(CONFIG)), config)):
        raise UserError(
            f"run.dir={folder.path}: holds a run with another configuration ({'; '.join(wrong)})."
            " Give another run.dir, or start over with resume=never"
        )
    if last := _last_with_state(folder, schedule):
        check_metrics(folder.path, read_state(folder, last)[1])


def _last_with_state(folder: RunFolder, schedule: Schedule) -> Stage | None:
    return next((stage for stage in reversed(schedule.stages) if state_file(stage) in folder), None)
