"""Where records come from: the generator, a folder with the original distribution's files, or the Hub.

Each yields records in the form in which the Hub's data set gives them, with their place for error messages.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from fpt.errors import UserError, reason

Record = dict[str, Any]
Located = tuple[str, Record]  # (place, record)

WORLD_SEED = 0  # the generated data are one data set, whatever the run's seed
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what "surrogateescape" reads such bytes as
SHOWN = 3  # faults that are spelt out


@dataclass
class Omissions:
    """What is not read: lines that the distribution itself leaves out, and with `skip` records that are wrong."""

    skip: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, error: UserError) -> None:
        """Note a record that cannot be used; it is an error unless such are skipped."""
        if not self.skip:
            raise error from None
        self.faults.append(str(error))

    def __enter__(self) -> None:
        """Within, an error is such a fault."""

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> bool:
        """Go on after a fault where such are skipped."""
        if isinstance(error, UserError) and self.skip:
            self.fault(error)
            return True
        return False

    @property
    def notes(self) -> tuple[str, ...]:
        """What was not read, for people."""
        notes = [f"{what}: {count:,} left out" for what, count in self.left_out.items()]
        if self.faults:
            more = f"; and {len(self.faults) - SHOWN:,} more" if len(self.faults) > SHOWN else ""
            notes.append(f"task.on_error=skip: {len(self.faults):,} skipped: {'; '.join(self.faults[:SHOWN])}{more}")
        return tuple(notes)


Reader = Callable[[Path, Omissions], Iterator[Located]]


@dataclass(frozen=True)
class SplitNames:
    """What a split is called: in a folder (any of `files` will do), on the Hub, and by the generator.

    `read` is what reads its files where that is not what reads the others'.
    """

    files: tuple[str, ...]
    hub: str
    generated: str
    read: Reader | None = None


@dataclass(frozen=True)
class Origin:
    """Where a task's records are.

    Attributes:
        hub: the Hub's data set and its configuration; empty for files of the user's own.
        splits: 'train', then the validation sets by name.
        read: records from one of the files.
        generated: the function of `fpt.tasks.world` that makes them; None: there is none.
        prepare: what is done to every record, given its place, wherever it is from.
        revision: of the Hub's data set; None: the default.
        tests: the test splits by name; without files where there is but a generated one.
        beside: by how a file's name ends, how that of the file ends which is read with it.
    """

    hub: tuple[str, ...]
    splits: dict[str, SplitNames]
    read: Reader
    generated: str | None = None
    prepare: Callable[[Record, str], Record] = lambda record, _: record
    revision: str | None = None
    tests: dict[str, SplitNames] = field(default_factory=dict)
    beside: dict[str, str] = field(default_factory=dict)

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

    def origin(self, data: str) -> str:
        """Where `data` come from, for people."""
        return {"world": "generated", "hub": f"Hub {'/'.join(self.hub)}"}.get(data, data)


def two_splits(train: str, *validation: str) -> dict[str, SplitNames]:
    """The usual splits, called train and validation by Hub and generator; further file names are accepted too."""
    return {
        "train": SplitNames((train,), "train", "train"),
        "validation": SplitNames(validation, "validation", "validation"),
    }


def held_out(names: dict[str, tuple[str, ...]], read: Reader | None = None) -> dict[str, SplitNames]:
    """Test splits with their files; Hub and generator call them by the same names."""
    return {name: SplitNames(files, name, name, read) for name, files in names.items()}


def records(source: Origin, data: str, split: str, *, least: int, omissions: Omissions) -> Iterator[Located]:
    """A split's records from `data`: 'world' (at least so many of them), 'hub', or a folder.

    Raises:
        UserError: a missing file, a malformed record (file, line or path, and reason), or an unreachable Hub.
    """
    if data == "world":
        return _generated(source, split, least)
    if data == "hub":
        return _from_hub(source, split)
    return (source.split(split).read or source.read)(file_of(source, data, split), omissions)


def _generated(source: Origin, split: str, least: int) -> Iterator[Located]:
    from fpt.tasks.world import records as world  # here, because `python -m fpt.tasks.world` would import itself twice

    if source.generated is None:
        raise UserError(
            f"task.data=world: there is no generator for this task; give a folder with {source.files}"
            " as task.data=DIR, or task.data=hub"
        )
    name = source.split(split).generated
    # Never fewer than the whole, which is then cut: fewer examples are a part of it, not other ones.
    count = max(least, world.SIZES["train" if split == "train" else "validation"])
    for number, record in enumerate(getattr(world, source.generated)(name, num=count, seed=WORLD_SEED), 1):
        yield f"generated {name} record {number}", record


def _from_hub(source: Origin, split: str) -> Iterator[Located]:
    import datasets

    name, hub = source.split(split).hub, "/".join(source.hub)
    try:
        rows = datasets.load_dataset(*source.hub, split=name, revision=source.revision)
    except Exception as error:  # datasets and the Hub client raise many types
        raise UserError(
            f"task.data=hub: {hub} cannot be fetched ({reason(error)})."
            f" Give a folder with {source.files} as task.data=DIR{', or task.data=world' if source.generated else ''}"
        ) from None
    for number, record in enumerate(rows, 1):
        yield f"Hub {hub} {name} record {number}", dict(record)


def file_of(source: Origin, data: str, split: str) -> Path:
    """The file that has a split.

    Raises:
        UserError: no such folder, or none of the split's files in it.
    """
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise UserError(f"task.data={folder}: no such folder; give 'world', 'hub', or a folder with {source.files}")
    names = source.split(split).files
    for name in names:
        if (folder / name).exists():
            return folder / name
    found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    raise UserError(f"task.data={folder}: has no {' or '.join(names)}; it has {found}")


def files_of(source: Origin, data: str, split: str) -> list[Path]:
    """The file that has a split, and the one that is read with it if it is there.

    Raises:
        UserError: as `file_of`.
    """
    file = file_of(source, data, split)
    beside = source.beside.get(file.suffix)
    return [file, *(other for other in [file.with_suffix(beside or "")] if beside and other.is_file())]


def json_lines(file: Path, omissions: Omissions) -> Iterator[Located]:
    """One record a line."""
    for number, line in lines(file, omissions):
        if line.strip():
            where = f"{file}, line {number}"
            with omissions:
                yield where, _parse(line, where)


def json_file(file: Path) -> Record:
    """The one object of a file."""
    try:
        data = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise _unreadable(file, error) from None
    return _parse(_decode(data, str(file)), str(file))


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse columns of one name, of which but one would be read.

    Raises:
        UserError: there are such.
    """
    name, count = Counter(filter(None, names)).most_common(1)[0] if any(names) else ("", 0)
    if count > 1:
        raise UserError(f"{where}: {count} columns are called '{name}'; give each a name of its own")


def lines(file: Path, omissions: Omissions, errors: str = "strict") -> Iterator[tuple[int, str]]:
    """Every line with its number, read one by one; a line that is not UTF-8 is a fault, unless `errors` is lenient."""
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                try:
                    decoded = line.decode("utf-8", errors)
                except UnicodeDecodeError as error:
                    omissions.fault(_not_utf8(f"{file}, line {number}", error))
                else:
                    yield number, decoded.removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise _unreadable(file, error) from None


def texts_of(record: Record, names: Iterable[str], where: str) -> dict[str, str]:
    """The texts in a record's fields."""
    return {name: text(record, name, where) for name in names}


def text(record: Record, name: str, where: str) -> str:
    """The text in a record's field."""
    value = record.get(name)
    if not isinstance(value, str):
        value = str(_field(record, name, where, str, "a text"))
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{where}: '{name}' holds half of a surrogate pair, which is no character")
    return value


def texts(record: Record, name: str, where: str) -> list[str]:
    """The texts in a record's list."""
    items = {f"{name}[{number}]": item for number, item in enumerate(_field(record, name, where, list, "a list"))}
    return [text(items, key, where) for key in items]


def objects(record: Record, name: str, where: str, omissions: Omissions | None = None) -> Iterator[Located]:
    """The objects in a record's list, each with its place; without `omissions` none of them may be wrong."""
    omissions = omissions or Omissions()
    items: list[Any] = []
    with omissions:
        items = _field(record, name, where, list, "a list")
    for number, item in enumerate(items):
        place = f"{where}{'.' if where.endswith(']') else ', '}{name}[{number}]"
        if isinstance(item, dict):
            yield place, item
        else:
            omissions.fault(UserError(f"{place}: expected an object, got {type(item).__name__}"))


def mapping(record: Record, name: str, where: str) -> Record:
    """The object in a record's field."""
    value: Record = _field(record, name, where, dict, "an object")
    return value


def _field(record: Record, name: str, where: str, kind: type, expected: str) -> Any:
    if not isinstance(record.get(name), kind):
        if name in record:
            raise UserError(f"{where}: '{name}' is {record[name]!r:.100}; expected {expected}")
        others = f". There are {', '.join(map(str, record))[:100]}" if record else ""
        raise UserError(f"{where}: '{name}' is missing; expected {expected}{others}")
    return record[name]


def _unreadable(file: Path, error: OSError) -> UserError:
    return UserError(f"{file}: cannot be read ({error.strerror})")


def _decode(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from None


def _not_utf8(where: str, error: UnicodeDecodeError) -> UserError:
    return UserError(f"{where}: not UTF-8 (byte {error.start}: {error.reason}); save the file as UTF-8")


def _parse(content: str, where: str) -> Record:
    try:
        record = json.loads(content, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: not JSON ({error.msg} at {place})") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not usable JSON ({reason(error)})") from None
    if not isinstance(record, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(record).__name__}")
    return record


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise UserError(f"the key '{twice}' occurs twice in one object; give it once")
    return record
