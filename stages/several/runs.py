"""Several runs, such as all combinations of values: each in a folder of its own, one after the other."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from fpt.config import compose, overrides
from fpt.config.run_config import RunConfig
from fpt.config.schema import FolderConfig
from fpt.config.stored import differences
from fpt.devices.processes import is_worker
from fpt.errors import UserError
from fpt.runs.run import CONFIG, RESULT, Run, open_run
from stages import resolve

IN_THE_NAME = ("task", "task.name", "model", "model.name", "schedule", "schedule.name", "seed")
LONGEST = 60  # the most characters of a value in a folder's name


@dataclass(frozen=True)
class Planned:
    """One run of several."""

    words: tuple[str, ...]  # the overrides that say all of it
    config: RunConfig  # what they make
    values: Mapping[str, str]  # the values by key in which it differs from the others

    @property
    def label(self) -> str:
        """The values in words for the user."""
        return " ".join(f"{key}={value}" for key, value in self.values.items()) or "the run"


def combinations(words: Sequence[str]) -> list[Planned]:
    """Compose and check a run for every combination of the values typed, as `fpt train -m key=a,b` does."""
    swept = {word: each for word in words if (each := overrides.each(word))}
    keys = [word.removeprefix("+").partition("=")[0] for word in swept]
    if "run.dir" in keys:
        raise UserError("run.dir: cannot be swept; with run.dir=DIR every run has a folder of its own in DIR")
    runs = []
    for chosen in product(*swept.values()):
        values = dict(zip(keys, chosen, strict=True))
        given = [word for word in words if word not in swept] + [f"{key}={value}" for key, value in values.items()]
        config = resolve.for_training(compose.load(given))
        folder = _folder(config, values)
        runs.append(Planned((*given, f"run.dir={folder}"), replace(config, run=FolderConfig(dir=folder)), values))
    return runs


def _folder(config: RunConfig, values: Mapping[str, str]) -> str:
    """Name a run's folder: the default name plus the swept values that it lacks; in run.dir=DIR, all swept values."""
    named = {key: value for key, value in values.items() if config.run.dir or key not in IN_THE_NAME}
    parts = [f"{key}={_short(value)}" for key, value in named.items()]
    if config.run.dir:
        return f"{config.run.dir}/{'-'.join(parts)}"
    return "-".join((str(config.folder), *parts))


def _short(value: str) -> str:
    """Write a value as part of a folder's name, with a hash if characters had to be replaced or cut."""
    clean = re.sub(r"[^\w.+]+", "_", value)
    if clean == value and len(clean) <= LONGEST:
        return value
    return f"{clean[:LONGEST].strip('_')}~{hashlib.sha256(value.encode()).hexdigest()[:6]}"


def run_all(
    plans: Sequence[Planned],
    check: Callable[[RunConfig], object],
    train: Callable[[Planned], object],
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
                train(planned)
                run = open_run(planned.config.folder)
            yield planned, run
        except UserError as error:
            yield planned, error


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
