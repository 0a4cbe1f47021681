"""Where GLUE's and SuperGLUE's records are, and how they are read from the benchmarks' own files."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fpt.errors import UserError
from fpt.tasks import fields, file_formats, origins
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.file_formats import Reader, check_names, lines
from fpt.tasks.origins import Origin, SplitNames

BROKEN_LINES = 1000  # up to one line in so many is left out; GLUE's own QQP has some twenty in 364,000
IDS = ("index", "id")  # what a test file calls the column whose values a submission gives back
TEST_TABLE = {"test": ("test.tsv",)}
TABLES = origins.named(train=("train.tsv",), validation=("dev.tsv",))
LINES = origins.named(train=("train.jsonl",), validation=("val.jsonl",))


def glue(
    name: str,
    sizes: tuple[int, int],
    columns: Mapping[str, str],
    label: str,
    values: Sequence[str] = (),
    *,
    header: tuple[str, ...] = (),
    splits: dict[str, SplitNames] = TABLES,
    tests: Mapping[str, tuple[str, ...]] = TEST_TABLE,
    **more: Any,
) -> Origin:
    """An origin of GLUE's, with its numbers of training and validation examples.

    `values` in the column `label` are 0, 1 … on the Hub, and without them as they stand.
    """
    labels = {value: number for number, value in enumerate(values)}
    read = partial(_glue_file, columns=columns, label=label, labels=labels or None)
    held_out = origins.named(partial(read, test=True), **tests)
    read = partial(read, header=header)
    return Origin(("nyu-mll/glue", name), splits, read, sizes=sizes, tests=held_out, **more)


def _glue_file(file: Path, faults: Faults, **form: Any) -> Iterator[PlacedRecord]:
    """GLUE's table, or the lines in which SuperGLUE has RTE."""
    return file_formats.json_lines(file, faults) if file.suffix == ".jsonl" else _table(file, faults, **form)


def _table(
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

    `columns` has the column for each field of the record, `labels` the record's for each value in the column `label`
    (None: as they stand), and `header` the columns' names where no first line has them. In a `test` file the label's
    column may be missing, and a column of IDS names the records. Lines that are left out, and wrong labels, go to
    `faults`.
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


def super_glue(
    name: str,
    sizes: tuple[int | None, int],
    read: Reader = file_formats.json_lines,
    *,
    read_test: Reader | None = None,
    **more: Any,
) -> Origin:
    """An origin of SuperGLUE's."""
    tests = origins.named(read_test, test=("test.jsonl",))
    return Origin(("aps/super_glue", name), LINES, read, sizes=sizes, tests=tests, **more)


def same(*names: str) -> dict[str, str]:
    """Columns that are called as their fields are."""
    return {name: name for name in names}


def multirc_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """A record for each answer of each question of each passage."""
    for where, line in file_formats.json_lines(file, faults):
        with faults:
            passage, within = fields.mapping(line, "passage", where), f"{where}, passage"
            for at_question, question in fields.objects(passage, "questions", within, faults):
                for place, answer in fields.objects(question, "answers", at_question, faults):
                    index = {"paragraph": line.get("idx"), "question": question.get("idx"), "answer": answer.get("idx")}
                    values = {"question": question.get("question"), "answer": answer.get("text")}
                    yield place, {**answer, **values, "paragraph": passage.get("text"), "idx": index}


def with_glues_names(record: Record, _: str) -> Record:
    """RTE's pair under GLUE's names, where it is SuperGLUE's."""
    other = {"premise": "sentence1", "hypothesis": "sentence2"}
    return {other.get(name, name): value for name, value in record.items()}


def without_markup(record: Record, where: str) -> Record:
    """MultiRC's paragraph without its markup, as T5 has it."""
    paragraph = fields.text(record, "paragraph", where)
    return {**record, "paragraph": re.sub("</?b>", "", paragraph.replace("<br>", " "))}


def with_marked_spans(record: Record, where: str) -> Record:
    """WSC's text with its two spans marked, # the pronoun # and * the noun *, as T5 has it."""
    text = fields.text(record, "text", where)
    spans = fields.mapping(record, "target", where) if "target" in record else record
    places = [
        (*_span(text, spans.get(f"span{number}_index"), fields.text(spans, f"span{number}_text", where), where), mark)
        for number, mark in ((1, "*"), (2, "#"))
    ]
    for start, end, mark in sorted(places, reverse=True):
        text = f"{text[:start]}{mark} {text[start:end]} {mark}{text[end:]}"
    return {**record, "text": text}


def _span(text: str, index: Any, span: str, where: str) -> tuple[int, int]:
    """Start and end of a span at word number `index`; by its number of words where the text spells it otherwise."""
    words = list(re.finditer(r"\S+", text))
    if not (isinstance(index, int) and 0 <= index < len(words)):
        raise UserError(f"{where}: span index {index!r} marks no word in a text of {len(words)} words")
    start = words[index].start()
    if text.startswith(span, start):
        return start, start + len(span)
    return start, words[min(index + len(span.split()), len(words)) - 1].end()
