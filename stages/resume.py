"""Where a run goes on: the run folder's last state, checked against the configuration and the recorded hashes."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from fpt.backbones.shapes import Selection
from fpt.config.literal import dump
from fpt.config.run_config import RunConfig
from fpt.config.stored import differences, stored
from fpt.errors import UserError
from fpt.runs.folder import METRICS, STATE, Mark, RunFolder, metrics_problem, set_aside
from fpt.runs.records import RESULT, STAGE, configuration, reading
from fpt.runs.run import CONFIG, PREDICTIONS, PROMPT, TEST_PREDICTIONS
from fpt.runs.shared_folder import SharedFolder
from fpt.training.checkpoint import TrainState, dump_state, load_state
from stages import selection
from stages.schedule import Schedule, Stage

OUTCOMES = (RESULT, PREDICTIONS, TEST_PREDICTIONS, PROMPT)


def state_file(stage: Stage) -> str:
    """Where a stage's latest state is kept in the run folder."""
    return f"{_folder(stage)}{STATE}"


@contextmanager
def opened_folder(config: RunConfig, schedule: Schedule) -> Iterator[SharedFolder]:
    """Within, the run has its folder, whose files are whole and of this configuration; every process enters."""
    folder = SharedFolder(config.folder, lambda: _open(config, schedule))
    try:
        yield folder
    finally:
        folder.close()


def _open(config: RunConfig, schedule: Schedule) -> RunFolder:
    path = config.folder
    if config.resume == "never":
        set_aside(path)
    if config.resume == "must" and not (path / CONFIG).is_file():
        raise UserError(f"resume=must: there is no run in {path} to go on with; resume=auto starts one")
    folder = RunFolder(path)
    try:
        damaged = _damaged(folder, schedule)
        if damaged and config.resume != "repair":
            name, problem = next(iter(damaged.items()))
            raise UserError(
                f"{path / name}: {problem}. The last good state is {_last_good(folder, schedule, damaged)}:"
                " go on from it with resume=repair, or start over with resume=never"
            )
        if CONFIG in folder and CONFIG not in damaged:
            _check_same(config, folder)
        if damaged:
            _drop(folder, schedule, damaged)
        if METRICS in damaged:
            _forget_metrics(folder, schedule)
        if CONFIG not in folder:
            folder.write(CONFIG, dump(stored(config)).encode())
    except BaseException:
        folder.close()
        raise
    return folder


def last_state(folder: SharedFolder, schedule: Schedule) -> tuple[TrainState | None, Mark | None]:
    """The latest state in the folder, in every process, and how much of metrics.jsonl it has seen."""

    def find(own: RunFolder) -> tuple[TrainState | None, Mark | None]:
        for stage in reversed(schedule.stages):
            if state_file(stage) in own:
                state, mark = _state_and_mark(own, stage)
                return state, None if metrics_problem(own.path, mark) else mark  # damaged, and to be repaired
        return None, None

    found: tuple[TrainState | None, Mark | None] = folder.ask(find)
    return found


def read_state(folder: RunFolder | SharedFolder, stage: Stage) -> TrainState:
    """A stage's latest state."""
    return _state_and_mark(folder, stage)[0]


def _state_and_mark(folder: RunFolder | SharedFolder, stage: Stage) -> tuple[TrainState, Mark]:
    name = state_file(stage)
    with reading(folder.path / name):
        return load_state(folder.read(name))


def is_over(stage: Stage, state: TrainState) -> bool:
    """Whether the state lies past the stage, or in it with nothing left to do (it ran out of patience)."""
    if state.update < stage.end:
        return state.done and state.update > stage.first_update
    return state.update > stage.end or state.judged == stage.end


def selection_of(stage: Stage, folder: SharedFolder, schedule: Schedule, scores: dict[str, Tensor]) -> Selection:
    """What the stage keeps: chosen once, then read from the run folder."""
    name, row = f"{_folder(stage)}selection.safetensors", f"{_folder(stage)}{STAGE}"
    if name not in folder or row not in folder:
        chosen = selection.choose(stage.shape, schedule.full, scores, layer=schedule.block)
        blocks = {f"{stack}_blocks": kept.blocks for stack, kept in chosen.items()}
        span = {"first_update": stage.first_update, "updates": stage.updates}
        folder.write(name, selection.dump(chosen))
        folder.write_json(row, {"index": stage.index, **stage.sizes, **blocks, **span})
    with reading(folder.path / name):
        return selection.load(folder.read(name))


def _check_same(config: RunConfig, folder: RunFolder) -> None:
    if wrong := differences(configuration(folder.path / CONFIG, folder.read(CONFIG)), config):
        raise UserError(
            f"run.dir={folder.path}: holds a run with another configuration ({'; '.join(wrong)})."
            " Give another run.dir, or start over with resume=never"
        )


def _damaged(folder: RunFolder, schedule: Schedule) -> dict[str, str]:
    """Every file that is missing or not what was written, with the reason."""
    damaged = {name: problem for name in folder.names() if (problem := folder.problem(name))}
    good = _last_good_stage(folder, schedule, damaged)
    if good:
        _, mark = _state_and_mark(folder, good)
        if problem := metrics_problem(folder.path, mark):
            damaged[METRICS] = problem
    return damaged


def _first_bad(schedule: Schedule, damaged: dict[str, str]) -> int:
    """The number of the first stage with a damaged file; past the last where there is none."""
    bad = [stage.index for stage in schedule.stages if any(name.startswith(_folder(stage)) for name in damaged)]
    return min(bad, default=len(schedule.stages) + 1)


def _last_good_stage(folder: RunFolder, schedule: Schedule, damaged: dict[str, str]) -> Stage | None:
    """The last stage with a state, before any stage with a damaged file."""
    before = schedule.stages[: _first_bad(schedule, damaged) - 1]
    return next((stage for stage in reversed(before) if state_file(stage) in folder), None)


def _last_good(folder: RunFolder, schedule: Schedule, damaged: dict[str, str]) -> str:
    stage = _last_good_stage(folder, schedule, damaged)
    return f"update {read_state(folder, stage).update}, in stage {stage.index}" if stage else "the start of the run"


def _drop(folder: RunFolder, schedule: Schedule, damaged: dict[str, str]) -> None:
    """Remove what is damaged, the stages from the first damaged one on, and the results that rest on them."""
    lost = [_folder(stage) for stage in schedule.stages if stage.index >= _first_bad(schedule, damaged)]
    for name in folder.names():
        if name in damaged or name in OUTCOMES or name.startswith(tuple(lost)):
            folder.forget(name)


def _forget_metrics(folder: RunFolder, schedule: Schedule) -> None:
    """Have the last state go on with an empty metrics.jsonl; else every later use would find it damaged again."""
    if stage := _last_good_stage(folder, schedule, {}):
        folder.write(state_file(stage), dump_state(read_state(folder, stage), folder.forget_metrics()))


def _folder(stage: Stage) -> str:
    return f"stages/{stage.name}/"
