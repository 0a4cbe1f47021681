"""GLUE's tab-separated values."""

from collections.abc import Iterator
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
    columns: dict[str, str],
    label: str,
    labels: dict[str, Any] | None = None,
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
    check_names(names, f"{file}, line 1")
    needed = (*columns.values(), *(() if test else (label,)))
    missing = next((name for name in needed if name not in names), None)
    if names != [""] and missing:
        raise UserError(f"{file}, line 1: no column '{missing}'; it has {', '.join(names)[:100]}")
    if missing:
        return
    field_columns = [(field, names.index(column)) for field, column in columns.items()]
    label_column = names.index(label) if label in names else None
    id_column = next((names.index(name) for name in IDS if test and name in names), None)
    place, first, count, broken = f"{file}, line ", 1 if header else 2, 0, []
    for number, line in rows:
        cells = line.split("\t")
        if len(cells) != len(names):
            if line.strip():
                broken.append((number, len(cells)))
            continue
        count += 1
        record: Record = {field: cells[column] for field, column in field_columns}
        record["idx"] = number - first if id_column is None else cells[id_column]
        if label_column is not None:
            value = cells[label_column]
            if value == "-":
                faults.left_out[f"{file}: lines without a gold label"] += 1
                continue
            if labels is not None and value not in labels:
                allowed = " or ".join(labels)
                faults.add(UserError(f"{place}{number}: '{label}' is {value[:100]!r}; expected {allowed}"))
                continue
            record["label"] = labels[value] if labels is not None else value
        yield f"{place}{number}", record
    if len(broken) * BROKEN_LINES > count:
        for number, num_cells in broken:
            like = f"{len(names)}: {', '.join(names)}" if header else f"{len(names)} as in line 1"
            faults.add(UserError(f"{place}{number}: {num_cells} columns, expected {like}"))
    elif broken:
        faults.left_out[f"{file}: broken lines"] += len(broken)
