"""Where records come from: a folder with the original files, the Hub, or the generated data shipped with fpt.

Every source yields records with the Hub data set's field names, each with its place for error messages.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fpt.config.schema import HUB
from fpt.errors import UserError
from fpt.tasks.fields import Faults, PlacedRecord, Record
from fpt.tasks.file_formats import Reader

HUB_FORM = f"{HUB}OWNER/NAME:SPLIT"  # with /CONFIGURATION after the name where the data set has several
ON_HUB = re.compile(rf"{HUB}(?P<id>[^/:]+(?:/[^/:]+)?)(?:/(?P<configuration>[^/:]+))?:(?P<split>.+)")
WORLD = Path(__file__).parent / "world"  # generated tasks in their original formats: plain, and a folder for each land


class Split(NamedTuple):
    """The names that a split's file may have in a folder, and the split's name on the Hub; empty: it is not there."""

    files: tuple[str, ...]
    hub: str


@dataclass(frozen=True)
class Origin:
    """Where a task's records are."""

    hub: tuple[str, ...]  # the Hub's data set and its configuration; empty for files of the user's own
    splits: Mapping[str, Split]  # 'train', then the validation sets by name, then the test splits, called test…
    read: Reader  # records from one of the files
    generated: str | None = None  # the folder of the task's generated data
    land: int | None = None  # the land whose customs the generated data follow; None: none
    prepare: Callable[[Record, str], Record] = lambda record, _: record  # applied to every record, from whatever source
    revision: str | None = None  # of the Hub's data set
    sizes: Sequence[int | None] = (None, None)  # how many examples train and validate on the Hub, where known
    whole: bool = False  # whether a folder may have no validation file, so that a part of the training file is held out

    @property
    def tests(self) -> list[str]:
        """The names of the test splits."""
        return [name for name in self.splits if name.startswith("test")]

    @property
    def validations(self) -> list[str]:
        """The names of the validation splits."""
        return [name for name in self.splits if name not in ("train", *self.tests)]

    @property
    def files(self) -> str:
        """The files that a folder must have, as text for the user."""
        return " and ".join(self.splits[name].files[0] for name in ("train", *self.validations))

    def describe(self, data: str) -> str:
        """Where the data come from, as text for the user."""
        generated = "generated" if self.land is None else f"generated, land {self.land}"
        return {"world": generated, "hub": f"Hub {'/'.join(self.hub)}"}.get(data, data)


def records(origin: Origin, data: str, split: str, faults: Faults) -> Iterator[PlacedRecord]:
    """A split's records from `data`: 'world', 'hub', or a folder."""
    (name, *_), hub_split = origin.splits[split]
    if name.startswith(HUB):
        return _from_hub(f"{key_of(split)}={name}", *on_hub(name, split), None)
    if data != "hub":
        return origin.read(file_of(origin, data, split), faults)
    if not hub_split:
        way_out = f"give a folder with {origin.files} as task.data=DIR"
        raise UserError(f"task.data=hub: {'/'.join(origin.hub)} is not read from the Hub; {way_out}")
    return _from_hub("task.data=hub", origin.hub, hub_split, origin.revision)


def _from_hub(given: str, data_set: Sequence[str], split: str, revision: str | None) -> Iterator[PlacedRecord]:
    import datasets

    try:
        for number, record in enumerate(datasets.load_dataset(*data_set, split=split, revision=revision), 1):
            yield f"Hub {'/'.join(data_set)} {split}, record {number}", dict(record)
    except Exception as error:  # datasets, the Hub client and decoders raise many types
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]  # a second line lists configurations
        raise UserError(
            f"{given}: {'/'.join(data_set)} cannot be fetched ({said}); read files, by task.data=DIR or task.train=FILE"
        ) from None


def on_hub(name: str, split: str) -> tuple[list[str], str]:
    """The Hub's data set, with its configuration if one is given, and its split, for a split of the user's own task."""
    found = ON_HUB.fullmatch(name)
    if found is None:
        form = f"{HUB_FORM}, or {HUB}OWNER/NAME/CONFIGURATION:SPLIT"
        raise UserError(f"{key_of(split)}={name}: expected {form}")
    return [part for part in found.group("id", "configuration") if part], found["split"]


def key_of(split: str) -> str:
    """The setting that names the user's own data for a split."""
    return f"task.{split.removesuffix('ation')}"


def file_of(origin: Origin, data: str, split: str) -> Path:
    """The file that holds a split; a missing file is an error."""
    names = origin.splits[split].files
    if data == "world":
        return _generated(origin, split, f"{names[0]}.gz")
    if not origin.hub:
        file = Path(names[0]).expanduser()
        if not file.is_file():
            raise UserError(f"{key_of(split)}={names[0]}: no such file")
        return file
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise UserError(f"task.data={folder}: no such folder; give 'world', 'hub', or a folder with {origin.files}")
    for name in names:
        if (folder / name).exists():
            return folder / name
    others = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise UserError(f"task.data={folder}: has no {' or '.join(names)}; it has {others}")


def generated_folder(land: int | None) -> Path:
    """The folder of all tasks' generated data: those of a land's customs, or the plain ones."""
    return WORLD / ("plain" if land is None else f"land-{land}")


def _generated(origin: Origin, split: str, name: str) -> Path:
    folder = generated_folder(origin.land)
    if origin.generated is None:
        raise UserError(
            f"task.data=world: there are no generated data for this task; give a folder with {origin.files}"
            " as task.data=DIR, or task.data=hub"
        )
    if not (folder / origin.generated).is_dir():
        raise UserError(
            f"task.land={origin.land}: only land 0 comes with fpt; in a checkout, 'python -m pretraining.lands"
            f" {origin.land}' writes this land's data"
        )
    if not (folder / origin.generated / name).is_file():
        raise UserError(f"{split}: a land's customs are about people alone; give another split, or task.world=plain")
    return folder / origin.generated / name


def is_whole(origin: Origin, data: str) -> bool:
    """Whether a folder has no validation file, so that a part of its training file is held out."""
    if not origin.whole or data in ("world", "hub"):
        return False
    return not any((Path(data).expanduser() / name).exists() for name in origin.splits["validation"].files)
