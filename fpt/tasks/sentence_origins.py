"""Where MPQA's, MR's, Subj's and TREC's records are: in the files that people have of them, a label and a text a line.

Such are the tables that Liu et al. 2022 read (`label<TAB>text`, no header), the CSV of Gao et al. 2021 (`label,text`),
the lines of Kim 2014 (`label text`) and TREC's own (`DESC:manner How did …`). They have no one home on the Hub.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from fpt.errors import UserError
from fpt.tasks import origins
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.file_formats import NOT_UTF8, csv_rows, lines
from fpt.tasks.origins import Origin

HEADER = ["label", "text"]  # what a first row may say
ENDINGS = (".tsv", ".csv", ".txt")


def sentences(
    name: str,
    *,
    train: tuple[str, ...] = (),
    test: tuple[str, ...] = (),
    whole: tuple[str, ...] = (),
    prepare: Callable[[Record, str], Record] = lambda record, _: record,
) -> Origin:
    """An origin of such files: train, dev and test with any of the endings, and those of other names.

    `whole` are files that are not parted; without another to validate on, a part of them is for that.
    """
    held_out = (*_named("test"), *test)
    splits = origins.named(train=(*_named("train"), *train, *whole), validation=(*_named("dev"), *held_out))
    tests = origins.named(test=held_out)
    return Origin((name,), splits, read_labelled, prepare=prepare, tests=tests, on_hub=False, whole=whole)


def _named(split: str) -> tuple[str, ...]:
    return tuple(split + ending for ending in ENDINGS)


def read_labelled(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """A record a line, of a label and a text; TSV and CSV by their names, else the label is the line's first word."""
    rows = csv_rows(file) if file.suffix == ".csv" else _rows(file, "\t" if file.suffix == ".tsv" else None)
    index = 0
    for number, cells in rows:
        where = f"{file}, line {number}"
        if cells == HEADER and not index:
            continue
        if len(cells) != 2 or not cells[1].strip():
            form = {".tsv": "label<TAB>text", ".csv": "label,text"}.get(file.suffix, "a label, a space and a text")
            faults.add(UserError(f"{where}: {len(cells)} columns, expected {form}"))
            continue
        label, text = map(_decoded, cells)
        yield where, {"label": label.strip(), "text": text.strip(), "idx": index}
        index += 1


def _rows(file: Path, separator: str | None) -> Iterator[tuple[int, list[str]]]:
    for number, line in lines(file, Faults(), errors="surrogateescape"):
        if line.strip():
            yield number, line.split(separator, 1) if separator else line.strip().split(None, 1)


def _decoded(text: str) -> str:
    """The text; in Latin-1, as these were published, where it is not UTF-8."""
    if text.isascii() or not NOT_UTF8.search(text):
        return text
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def coarse(record: Record, _: str) -> Record:
    """TREC's record with the first part of its label, of which there are six."""
    return {**record, "label": record["label"].partition(":")[0]}
