"""`fpt train -m key=a,b`: a run for every combination of values, each in a folder of its own."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from fpt.config import compose, overrides
from fpt.config.run_config import RunConfig
from fpt.config.schema import FolderConfig
from fpt.errors import UserError
from fpt.runs.run import Run
from stages import resolve
from stages.several.in_turn import Planned

IN_THE_NAME = ("task", "task.name", "model", "model.name", "schedule", "schedule.name", "seed")
LONGEST = 60  # the most characters of a value in a folder's name


def plan(words: Sequence[str]) -> list[Planned]:
    """Compose and check a run for every combination of the values typed."""
    swept = {word: overrides.each(word) for word in words}
    keys = {word: word.partition("=")[0].lstrip("+") for word, values in swept.items() if values}
    if "run.dir" in keys.values():
        raise UserError("run.dir: cannot be swept; with run.dir=DIR every run has a folder of its own in DIR")
    runs = []
    for values in product(*(swept[word] for word in keys)):
        chosen = dict(zip(keys, values, strict=True))
        given = [f"{keys[word]}={chosen[word]}" if word in chosen else word for word in words]
        config = resolve.for_training(compose.load(given))
        named = {keys[word]: value for word, value in chosen.items()}
        runs.append(Planned(replace(config, run=FolderConfig(dir=_folder(config, named))), named))
    return runs


def table(runs: Sequence[tuple[Planned, Run | UserError]]) -> list[dict[str, Any]]:
    """List the runs with their values, folders and scores, or with the `error` that ended them."""
    rows = []
    for planned, run in runs:
        error, result = (str(run), {}) if isinstance(run, UserError) else (None, run.result)
        outcome = {key: result.get(key) for key in ("metric", "flops", "seconds")}
        rows.append({"values": planned.values, "folder": str(planned.config.folder), **outcome, "error": error})
    return rows


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
