"""Several runs, one after the other: finished ones are read, missing ones are run, and stopped ones are resumed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fpt.config.run_config import RunConfig
from fpt.config.stored import differences
from fpt.devices.processes import is_worker
from fpt.errors import UserError
from fpt.runs.run import CONFIG, RESULT, Run, open_run


@dataclass(frozen=True)
class Planned:
    """One run of several, and the values by key in which it differs from the others."""

    config: RunConfig
    values: dict[str, str]

    @property
    def label(self) -> str:
        """The values in words for the user."""
        return " ".join(f"{key}={value}" for key, value in self.values.items()) or "the run"


def _check_all(plans: Sequence[Planned], check: Callable[[RunConfig], object]) -> None:
    if is_worker():
        raise UserError("several runs start their processes themselves; give engine.processes=N in place of a launcher")
    taken: dict[str, Planned] = {}
    for planned in plans:
        folder = str(planned.config.folder)
        first = taken.setdefault(folder, planned)
        if first is not planned:
            raise UserError(f"{first.label} and {planned.label} would share the folder {folder}; give run.dir=DIR")
        if not finished(planned.config):
            check(planned.config)


def finished(config: RunConfig) -> Run | None:
    """Open the run if it is finished, else None; whether its data have changed since is not checked."""
    folder = config.folder
    if config.resume == "never" or not (folder / CONFIG).is_file():
        return None
    run = open_run(folder)
    if not run.is_finished:
        return None
    if wrong := differences(run.settings, config):
        raise UserError(
            f"{folder}: holds a run with another configuration ({'; '.join(wrong)})."
            " Give run.dir=DIR, in which every run gets a folder of its own, or start all over with resume=never"
        )
    run.read(RESULT)
    return run


def run_all(
    plans: Sequence[Planned],
    check: Callable[[RunConfig], object],
    train: Callable[[RunConfig], object],
    say: Callable[[str], None],
) -> Iterator[tuple[Planned, Run | UserError]]:
    """Train the runs that are not finished yet; yields each run, or the error that ended it.

    All are checked before the first begins, so that none fails later for a reason that could be known now.
    """
    _check_all(plans, check)
    for number, planned in enumerate(plans, 1):
        where = f"run {number} of {len(plans)}: {planned.label}"
        try:
            if run := finished(planned.config):
                say(f"{where}: finished, in {planned.config.folder}")
            else:
                say(f"{where}, in {planned.config.folder}")
                train(planned.config)
                run = open_run(planned.config.folder)
            yield planned, run
        except UserError as error:
            yield planned, error
