"""GLUE's tab-separated values."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fpt.errors import UserError
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.file_formats import check_names, lines

BROKEN_LINES = 1000  # up to one line in so many is left out; GLUE's own QQP has some twenty in 364,000
IDS = ("index", "id")  # what a test file calls the column whose values a submission gives back


def table(
    file: Path,
    faults: Faults,
    *,
    columns: Mapping[str, str],
    label: str,
    labels: Mapping[str, Any] | None = None,
    header: tuple[str, ...] = (),
    test: bool = False,
) -> Iterator[PlacedRecord]:
    """Records whose quotes are not special; `label` '-' means that annotators did not agree.

    Args:
        file: the first line names the columns.
        faults: takes up lines that are left out, and labels that are wrong.
        columns: the column for each field of the record.
        label: the column with the label.
        labels: the values in that column, to the record's; None: as they stand.
        header: the columns' names where no line names them.
        test: the label's column may be missing, and a column of IDS names the records.
    """
    rows = lines(file, faults)
    names = list(header) or next(rows, (1, ""))[1].split("\t")
    if names == [""]:
        return  # nothing is in it
    check_names(names, f"{file}, line 1")
    needed = (*columns.values(), *(() if test else (label,)))
    if missing := next((name for name in needed if name not in names), None):
        raise UserError(f"{file}, line 1: no column '{missing}'; it has {', '.join(names)[:100]}")
    id_column = next((name for name in IDS if test and name in names), None)
    first = 1 if header else 2
    for number, cells in _whole_rows(file, rows, faults, names, has_header=not header):
        record: Record = {field: cells[column] for field, column in columns.items()}
        record["idx"] = cells[id_column] if id_column else number - first
        value = cells.get(label)
        if value == "-":
            faults.left_out[f"{file}: lines without a gold label"] += 1
        elif value is not None and labels is not None and value not in labels:
            allowed = " or ".join(labels)
            faults.add(UserError(f"{file}, line {number}: '{label}' is {value[:100]!r}; expected {allowed}"))
        else:
            if value is not None:
                record["label"] = labels[value] if labels is not None else value
            yield f"{file}, line {number}", record


def _whole_rows(
    file: Path, rows: Iterator[tuple[int, str]], faults: Faults, names: list[str], *, has_header: bool
) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row's number and cells by column; broken lines are left out where they are few, and faults else."""
    count, broken = 0, []
    for number, line in rows:
        cells = line.split("\t")
        if len(cells) == len(names):
            count += 1
            yield number, dict(zip(names, cells, strict=True))
        elif line.strip():
            broken.append((number, len(cells)))
    if len(broken) * BROKEN_LINES > count:
        like = f"{len(names)} as in line 1" if has_header else f"{len(names)}: {', '.join(names)}"
        for number, num_cells in broken:
            faults.add(UserError(f"{file}, line {number}: {num_cells} columns, expected {like}"))
    elif broken:
        faults.left_out[f"{file}: broken lines"] += len(broken)
