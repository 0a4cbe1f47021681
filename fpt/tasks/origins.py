"""Where records come from: a folder with the original distribution's files, or the Hub; generated ones are shipped.

Each yields records in the form in which the Hub's data set gives them, with their place for error messages.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fpt.errors import UserError, reason
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.file_formats import Reader

WORLD = Path(__file__).parent / "world"  # generated tasks in their original formats: plain, and a folder for each land


@dataclass(frozen=True)
class SplitNames:
    """What a split is called: in a folder (any of `files` will do), and on the Hub (empty: it is not there).

    `read` is what reads its files where that is not what reads the others'.
    """

    files: tuple[str, ...]
    hub: str
    read: Reader | None = None


@dataclass(frozen=True)
class Origin:
    """Where a task's records are.

    Attributes:
        hub: the Hub's data set and its configuration; empty for files of the user's own.
        splits: 'train', then the validation sets by name.
        read: records from one of the files.
        generated: the folder of the task's generated data; None: there are none.
        land: whose customs hold in generated data; None: no land's.
        prepare: what is done to every record, given its place, wherever it is from.
        revision: of the Hub's data set; None: the default.
        sizes: the numbers of training and of validation examples on the Hub; None: not known.
        tests: the test splits by name.
        on_hub: whether it can be had from the Hub.
        whole: training files that no validation files belong to, so that a part of them is for that.
    """

    hub: tuple[str, ...]
    splits: dict[str, SplitNames]
    read: Reader
    generated: str | None = None
    land: int | None = None
    prepare: Callable[[Record, str], Record] = lambda record, _: record
    revision: str | None = None
    sizes: tuple[int | None, int | None] = (None, None)
    tests: dict[str, SplitNames] = field(default_factory=dict)
    on_hub: bool = True
    whole: tuple[str, ...] = ()

    def split(self, name: str) -> SplitNames:
        """A split, of whatever kind."""
        return self.tests[name] if name in self.tests else self.splits[name]

    @property
    def is_own(self) -> bool:
        """Whether these are files of the user's, found by their path."""
        return not self.hub

    @property
    def files(self) -> str:
        """What a folder must have, for people."""
        return " and ".join(split.files[0] for split in self.splits.values())

    def describe(self, data: str) -> str:
        """Where `data` come from, for people."""
        generated = "generated" if self.land is None else f"generated, land {self.land}"
        return {"world": generated, "hub": f"Hub {'/'.join(self.hub)}"}.get(data, data)


def named(read: Reader | None = None, /, **files: tuple[str, ...]) -> dict[str, SplitNames]:
    """Splits with their files; the Hub calls them by the same names."""
    return {name: SplitNames(names, name, read) for name, names in files.items()}


def records(origin: Origin, data: str, split: str, faults: Faults) -> Iterator[PlacedRecord]:
    """A split's records from `data`: 'world', 'hub', or a folder."""
    if data == "hub":
        return _from_hub(origin, split)
    return (origin.split(split).read or origin.read)(file_of(origin, data, split), faults)


def _from_hub(origin: Origin, split: str) -> Iterator[PlacedRecord]:
    if not origin.on_hub:
        raise UserError(
            f"task.data=hub: {origin.hub[0]} is not read from the Hub; give a folder with {origin.files} as"
            " task.data=DIR"
        )
    import datasets

    name, hub = origin.split(split).hub, "/".join(origin.hub)
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
    """The file that has a split."""
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
    """The folder of all tasks' generated data: under a land's customs, or plain reading."""
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
    """Whether the folder has one file for training and validation together."""
    if not origin.whole or data in ("world", "hub"):
        return False
    folder = Path(data).expanduser()
    held_out = origin.splits["validation"].files
    return file_of(origin, data, "train").name in origin.whole and not any(
        (folder / name).exists() for name in held_out
    )
