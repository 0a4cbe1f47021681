"""Reads the original files of the built-in tasks, and prepares their records as T5's authors did.

MPQA, MR, Subj and TREC have no canonical data set on the Hub. They circulate as the tables of Liu et al. 2022
(`label<TAB>text`, no header), the CSV of Gao et al. 2021 (`label,text`), the lines of Kim 2014 (`label text`) and
TREC's own lines (`DESC:manner How did …`).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fpt.errors import UserError
from fpt.tasks import fields
from fpt.tasks.fields import Faults, PlacedRecord, Record
from fpt.tasks.file_formats import (
    NOT_UTF8,
    Row,
    answer_texts,
    csv_rows,
    json_lines,
    lines,
    read,
    squad_records,
    table,
    tsv_rows,
)

IDS = ("index", "id")  # possible names of a test file's id column, whose values a submission repeats
LABELLED = ("label", "text")  # the columns of a sentence task's file
CLOSED = """.?!"'"""
HIGHLIGHT = re.compile(rf"([{CLOSED}]?)\n@highlight\n")  # before each of a news article's key points


def _glue_file(
    file: Path, faults: Faults, *, renamed: Mapping[str, str], header: Sequence[str]
) -> Iterator[PlacedRecord]:
    """Records of a GLUE table, or of the JSON lines that SuperGLUE publishes RTE in.

    A test file's column of ids names its records; those of other tables are numbered, as on the Hub.
    """
    for number, (where, row) in enumerate(read(file, faults, _unless_in_file(tsv_rows(file), header))):
        record = {renamed.get(name, name): value for name, value in row.items()}
        own_id = next((record[name] for name in IDS if name in record and "label" not in record), number)
        yield where, record if "idx" in record else {**record, "id": own_id}


def _unless_in_file(rows: Iterator[Row], columns: Sequence[str]) -> Sequence[str] | None:
    """The names of a table's columns, if the first row is no header that has one of them."""
    _, _, first = next(rows, (1, 1, []))
    return None if set(first) & set(columns) else columns


def _sentence_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """One record per line, a label and a text; TREC's labels have two parts, of which the first, coarse one is used."""
    columns = _unless_in_file(_sentence_rows(file), LABELLED)
    for index, (where, record) in enumerate(table(file, faults, _sentence_rows, columns)):
        yield where, {**record, "label": record["label"].partition(":")[0], "idx": index}


def _sentence_rows(file: Path) -> Iterator[Row]:
    """A label and a text from each line; outside .tsv and .csv files, the label is the line's first word.

    Bytes that are not UTF-8 are read as Latin-1, in which these files were published.
    """
    separator = "\t" if file.suffix == ".tsv" else None
    of_lines = ((number, number, line.strip().split(separator, 1)) for number, line in lines(file))
    for first, last, cells in csv_rows(file) if file.suffix == ".csv" else of_lines:
        yield first, last, [text for cell in cells if (text := _decoded(cell).strip())]


def _decoded(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1") if NOT_UTF8.search(text) else text


def _multirc_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record for each answer of each question of each passage."""
    for where, line in json_lines(file, faults):
        with faults:
            paragraph = fields.text(line, "passage.text", where)
            for at_question, question in fields.objects(line, "passage.questions", where, faults):
                for place, answer in fields.objects(question, "answers", at_question, faults):
                    index = {"paragraph": line.get("idx"), "question": question.get("idx"), "answer": answer.get("idx")}
                    values = {"question": question.get("question"), "answer": answer.get("text")}
                    yield place, {**answer, **values, "paragraph": paragraph, "idx": index}


def _record_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record for each query of each passage; those of a test file have no answers."""
    for where, line in json_lines(file, faults):
        with faults:
            text = fields.text(line, "passage.text", where)
            spans = fields.objects(line, "passage.entities", where)
            entities = list(dict.fromkeys(_entity(text, entity, place) for place, entity in spans))
            for place, query in fields.objects(line, "qas", where, faults):
                with faults:
                    answers = answer_texts(query, place) if "answers" in query else []
                    index = {"passage": line.get("idx"), "query": query.get("idx")}
                    yield place, {**query, "passage": text, "entities": entities, "answers": answers, "idx": index}


def _entity(text: str, entity: Record, place: str) -> str:
    """The text that an entity's start and end mark; the end is the index of its last letter."""
    start, end = entity.get("start"), entity.get("end")
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end < len(text)):
        raise UserError(f"{place}: start {start!r} and end {end!r} mark nothing in a text of {len(text)} letters")
    return text[start : end + 1]


def _without_markup(record: Record, where: str) -> Record:
    """MultiRC's record without the markup in its paragraph, as T5's authors prepared it."""
    paragraph = fields.text(record, "paragraph", where)
    return {**record, "paragraph": re.sub("</?b>", "", paragraph.replace("<br>", " "))}


def _with_marked_spans(record: Record, where: str) -> Record:
    """WSC's text with the # pronoun # and the * noun * marked, as T5's authors prepared it."""
    text, spans = fields.text(record, "text", where), "target." if "target" in record else ""
    places = []
    for number, mark in ((1, "*"), (2, "#")):
        span = fields.text(record, f"{spans}span{number}_text", where)
        places.append((*_span(text, fields.at(record, f"{spans}span{number}_index"), span, where), mark))
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


def _in_one_text_each(record: Record, where: str) -> Record:
    """ReCoRD's record with its entities as one text, and the passage's highlights as sentences, as T5's authors do.

    The last highlight gets a full stop too, as in the data readers of the published FPT code.
    """
    entities, passage = fields.texts(record, "entities", where), fields.text(record, "passage", where)
    text = HIGHLIGHT.sub(lambda line: f"{line[1]} " if line[1] else ". ", passage)
    end = "." if text and text[-1] not in CLOSED else ""
    return {**record, "entities": ", ".join(entities), "passage": text + end}


FORMATS: dict[str, Callable[..., Iterator[PlacedRecord]]] = {  # readers by `format` in tasks.yaml
    "json": json_lines,
    "glue": _glue_file,
    "sentences": _sentence_file,
    "multirc": _multirc_file,
    "record": _record_file,
    "squad": squad_records,
}
# What is made of the records of a task, by its name, whether they come from files or from the Hub.
PREPARED = {"multirc": _without_markup, "wsc": _with_marked_spans, "record": _in_one_text_each}
