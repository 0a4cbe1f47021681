"""Reads the original files of GLUE, SuperGLUE and four sentence tasks.

MPQA, MR, Subj and TREC have no canonical data set on the Hub. They circulate as the tables of Liu et al. 2022
(`label<TAB>text`, no header), the CSV of Gao et al. 2021 (`label,text`), the lines of Kim 2014 (`label text`) and
TREC's own lines (`DESC:manner How did …`).
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from fpt.errors import UserError
from fpt.tasks import fields
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.file_formats import Reader, check_names, csv_rows
from fpt.tasks.json_files import json_lines
from fpt.tasks.text_lines import NOT_UTF8, lines

BROKEN_LINES = 1000  # at most one broken line in so many is left out; GLUE's own QQP has some twenty in 364,000
IDS = ("index", "id")  # possible names of a test file's id column, whose values a submission repeats
LABELLED = ["label", "text"]  # the header that a sentence task's file may have
ENDINGS = {".tsv": "label<TAB>text", ".csv": "label,text", ".txt": "a label, a space and a text"}


def reader(name: str, records: Mapping[str, Any]) -> Reader:
    """The function that reads the files of a label task, whose row in tasks.yaml says so of its `records`."""
    if name == "multirc":
        return _multirc_file
    if records.get("format") == "sentences":
        return _sentence_file
    if records.get("format") == "glue":
        return partial(_glue_file, renamed=records.get("renamed", {}), header=records.get("header", []))
    return json_lines


def _glue_file(file: Path, faults: Faults, *, renamed: Mapping[str, str], header: list[str]) -> Iterator[PlacedRecord]:
    """Records of a GLUE table, or of the JSON lines that SuperGLUE publishes RTE in."""
    if file.suffix != ".jsonl":
        yield from _table(file, faults, renamed, header)
        return
    for where, record in json_lines(file, faults):
        yield where, {renamed.get(name, name): value for name, value in record.items()}


def _table(file: Path, faults: Faults, renamed: Mapping[str, str], header: list[str]) -> Iterator[PlacedRecord]:
    """Records of a table in which quotes are ordinary letters; a test file, without labels, has a column of ids."""
    rows: Iterator[tuple[int, list[str]]] = ((number, line.split("\t")) for number, line in lines(file, faults))
    start, names = next(rows, (1, [""]))
    if names == [""]:
        return  # nothing is in it
    has_header = not header or header[-1] in names
    if not has_header:
        rows, names = chain([(start, names)], rows), list(header)
    check_names(names, f"{file}, line 1")
    fields = [renamed.get(name, name) for name in names]
    id_field = next((name for name in IDS if name in fields and "label" not in fields), None)
    for number, cells in _whole_rows(file, rows, faults, names, has_header=has_header):
        record: Record = dict(zip(fields, cells, strict=True))
        record["id"] = record[id_field] if id_field else number - start - has_header
        if record.get("label") == "-":  # annotators did not agree
            faults.left_out[f"{file}: lines without a gold label"] += 1
        else:
            yield f"{file}, line {number}", record


def _whole_rows(
    file: Path, rows: Iterator[tuple[int, list[str]]], faults: Faults, names: list[str], *, has_header: bool
) -> Iterator[tuple[int, list[str]]]:
    """The rows with one cell per column; a few broken lines are left out and counted, many are an error."""
    count, broken = 0, []
    for number, cells in rows:
        if len(cells) == len(names):
            count += 1
            yield number, cells
        elif any(map(str.strip, cells)):
            broken.append((number, len(cells)))
    if len(broken) * BROKEN_LINES > count:
        like = f"{len(names)} as in line 1" if has_header else f"{len(names)}: {', '.join(names)}"
        for number, num_cells in broken:
            faults.add(UserError(f"{file}, line {number}: {num_cells} columns, expected {like}"))
    elif broken:
        faults.left_out[f"{file}: broken lines"] += len(broken)


def _multirc_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record for each answer of each question of each passage."""
    for where, line in json_lines(file, faults):
        with faults:
            passage, within = fields.mapping(line, "passage", where), f"{where}, passage"
            for at_question, question in fields.objects(passage, "questions", within, faults):
                for place, answer in fields.objects(question, "answers", at_question, faults):
                    index = {"paragraph": line.get("idx"), "question": question.get("idx"), "answer": answer.get("idx")}
                    values = {"question": question.get("question"), "answer": answer.get("text")}
                    yield place, {**answer, **values, "paragraph": passage.get("text"), "idx": index}


def without_markup(record: Record, where: str) -> Record:
    """MultiRC's record without the markup in its paragraph, as T5's authors prepared it."""
    paragraph = fields.text(record, "paragraph", where)
    return {**record, "paragraph": re.sub("</?b>", "", paragraph.replace("<br>", " "))}


def with_marked_spans(record: Record, where: str) -> Record:
    """WSC's text with the # pronoun # and the * noun * marked, as T5's authors prepared it."""
    text = fields.text(record, "text", where)
    spans = fields.mapping(record, "target", where) if "target" in record else record
    places = []
    for number, mark in ((1, "*"), (2, "#")):
        span = fields.text(spans, f"span{number}_text", where)
        places.append((*_span(text, spans.get(f"span{number}_index"), span, where), mark))
    for start, end, mark in sorted(places, reverse=True):
        text = f"{text[:start]}{mark} {text[start:end]} {mark}{text[end:]}"
    return {**record, "text": text}


def _span(text: str, index: Any, span: str, where: str) -> tuple[int, int]:
    """Start and end of the span at word `index`; if the text spells it otherwise, its number of words decides."""
    words = list(re.finditer(r"\S+", text))
    if not (isinstance(index, int) and 0 <= index < len(words)):
        raise UserError(f"{where}: span index {index!r} marks no word in a text of {len(words)} words")
    start, last = words[index].start(), min(index + len(span.split()), len(words)) - 1
    return start, start + len(span) if text.startswith(span, start) else words[last].end()


def _sentence_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """One record per line, a label and a text; outside .tsv and .csv files, the label is the line's first word.

    Bytes that are not UTF-8 are read as Latin-1, in which these files were published. TREC's labels have two parts, of
    which the first, coarse one is used.
    """
    index, separator = 0, "\t" if file.suffix == ".tsv" else None
    numbered = lines(file, Faults(), lenient=True)
    in_lines = ((number, number, line.split(separator, 1)) for number, line in numbered)
    for number, _, cells in csv_rows(file) if file.suffix == ".csv" else in_lines:
        if not any(map(str.strip, cells)) or (cells == LABELLED and not index):
            continue
        where = f"{file}, line {number}"
        with faults:
            if len(cells) != 2 or not cells[1].strip():
                form = ENDINGS.get(file.suffix, ENDINGS[".txt"])
                raise UserError(f"{where}: {len(cells)} columns, expected {form}")
            label, text = (_decoded(cell).strip() for cell in cells)
            yield where, {"label": label.partition(":")[0], "text": text, "idx": index}
            index += 1


def _decoded(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1") if NOT_UTF8.search(text) else text
