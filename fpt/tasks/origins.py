"""Where records come from: a folder with the original files, the Hub, or the generated data shipped with fpt.

Every source yields records with the Hub data set's field names, each with its place for error messages.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fpt.errors import UserError, reason
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.file_formats import Reader

WORLD = Path(__file__).parent / "world"  # generated tasks in their original formats: plain, and a folder for each land


class Split(NamedTuple):
    """The names that a split's file may have in a folder, and the split's name on the Hub; empty: it is not there."""

    files: tuple[str, ...]
    hub: str


@dataclass(frozen=True)
class Origin:
    """Where a task's records are."""

    hub: tuple[str, ...]  # the Hub's data set and its configuration; empty for files of the user's own
    splits: Mapping[str, Split]  # 'train', then the validation sets by name
    read: Reader  # records from one of the files
    tests: Mapping[str, Split] = field(default_factory=dict)  # the test splits by name
    generated: str | None = None  # the folder of the task's generated data
    land: int | None = None  # the land whose customs the generated data follow; None: none
    prepare: Callable[[Record, str], Record] = lambda record, _: record  # applied to every record, from whatever source
    revision: str | None = None  # of the Hub's data set
    sizes: tuple[int | None, int | None] = (None, None)  # how many examples train and validate on the Hub, where known
    whole: tuple[str, ...] = ()  # training files that come without validation files, so that a part of them is held out

    def split(self, name: str) -> Split:
        """The training, validation or test split of that name."""
        return self.tests[name] if name in self.tests else self.splits[name]

    @property
    def is_own(self) -> bool:
        """Whether these are files of the user's, found by their path."""
        return not self.hub

    @property
    def files(self) -> str:
        """The files that a folder must have, as text for the user."""
        return " and ".join(split.files[0] for split in self.splits.values())

    def describe(self, data: str) -> str:
        """Where the data come from, as text for the user."""
        generated = "generated" if self.land is None else f"generated, land {self.land}"
        return {"world": generated, "hub": f"Hub {'/'.join(self.hub)}"}.get(data, data)


def named(files: Mapping[str, Sequence[str]], on_hub: Mapping[str, str] | None = None) -> dict[str, Split]:
    """Splits by name, from the names that their files may have, and their names on the Hub where those are others."""
    return {name: Split(tuple(names), (on_hub or {}).get(name, name)) for name, names in files.items()}


def records(origin: Origin, data: str, split: str, faults: Faults) -> Iterator[PlacedRecord]:
    """A split's records from `data`: 'world', 'hub', or a folder."""
    return _from_hub(origin, split) if data == "hub" else origin.read(file_of(origin, data, split), faults)


def _from_hub(origin: Origin, split: str) -> Iterator[PlacedRecord]:
    name, hub = origin.split(split).hub, "/".join(origin.hub)
    if not name:
        give = f"give a folder with {origin.files} as task.data=DIR"
        raise UserError(f"task.data=hub: {hub} is not read from the Hub; {give}")
    import datasets

    try:
        rows = datasets.load_dataset(*origin.hub, split=name, revision=origin.revision)
    except Exception as error:  # datasets and the Hub client raise many types
        raise UserError(
            f"task.data=hub: {hub} cannot be fetched ({reason(error)})."
            f" Give a folder with {origin.files} as task.data=DIR{', or task.data=world' if origin.generated else ''}"
        ) from None
    for number, record in enumerate(rows, 1):
        yield f"Hub {hub} {name} record {number}", dict(record)


def file_of(origin: Origin, data: str, split: str) -> Path:
    """The file that holds a split; a missing file is an error."""
    names = origin.split(split).files
    if data == "world":
        return _generated(origin) / f"{names[0]}.gz"
    if origin.is_own:
        file = Path(names[0]).expanduser()
        if not file.is_file():
            raise UserError(f"task.{split.removesuffix('ation')}={names[0]}: no such file")
        return file
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise UserError(f"task.data={folder}: no such folder; give 'world', 'hub', or a folder with {origin.files}")
    for name in names:
        if (folder / name).exists():
            return folder / name
    others = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise UserError(f"task.data={folder}: has no {' or '.join(names)}; it has {others}")


def check_own_files(origin: Origin) -> None:
    """Refuse files of the user's own that are not there."""
    for split in (*origin.splits, *origin.tests) if origin.is_own else ():
        file_of(origin, "", split)


def generated_folder(land: int | None) -> Path:
    """The folder of all tasks' generated data: those of a land's customs, or the plain ones."""
    return WORLD / ("plain" if land is None else f"land-{land}")


def _generated(origin: Origin) -> Path:
    if origin.generated is None:
        raise UserError(
            f"task.data=world: there are no generated data for this task; give a folder with {origin.files}"
            " as task.data=DIR, or task.data=hub"
        )
    folder = generated_folder(origin.land)
    if not folder.is_dir():
        raise UserError(
            f"task.land={origin.land}: only land 0 comes with fpt; in a checkout, 'python -m pretraining.lands"
            f" {origin.land}' writes this land's data"
        )
    return folder / origin.generated


def is_whole(origin: Origin, data: str) -> bool:
    """Whether the folder has a single file, of which a part must be held out for validation."""
    if not origin.whole or data in ("world", "hub"):
        return False
    held_out = origin.splits["validation"].files
    is_parted = any((Path(data).expanduser() / name).exists() for name in held_out)
    return not is_parted and file_of(origin, data, "train").name in origin.whole
