"""The built-in tasks: the rows of tasks.yaml, the original files that they are read from, and what sets some apart.

MPQA, MR, Subj and TREC have no canonical data set on the Hub. They circulate as the tables of Liu et al. 2022
(`label<TAB>text`, no header), the CSV of Gao et al. 2021 (`label,text`), the lines of Kim 2014 (`label text`) and
TREC's own lines (`DESC:manner How did …`).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from fpt.config import literal
from fpt.errors import UserError
from fpt.tasks import answers, fields, file_formats, metrics
from fpt.tasks.answers import OF_NUMBERS, label_rules, number_rules, text_rules
from fpt.tasks.fields import Faults, PlacedRecord, Record
from fpt.tasks.file_formats import Row, json_lines, lines
from fpt.tasks.metrics import SQUAD
from fpt.tasks.origins import Origin, Split
from fpt.tasks.task import Example, Golds, TaskRules, Template

TABLE: dict[str, dict[str, Any]] = literal.own_table(Path(__file__).with_name("tasks.yaml"))["tasks"]
RATINGS = (0.0, 5.0)  # STS-B's scale; T5 is trained to write its numbers in steps of 0.2
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n")
NO_ANSWER = "no answer"
NOTHING = "∅"  # the answer read from an output without words, which is always wrong
UNANSWERABLE = ("",)  # the golds of a question without an answer, as the official evaluation has it
IDS = ("index", "id")  # possible names of a test file's id column, whose values a submission repeats
CLOSED = """.?!"'"""
HIGHLIGHT = re.compile(rf"([{CLOSED}]?)\n@highlight\n")  # before each of a news article's key points
_score = partial(answers.text_scores, SQUAD, answers.AS_WRITTEN)


def _rules(name: str, row: dict[str, Any]) -> TaskRules:
    template, records = _template(row), _origin(name, row["records"])
    if "words" in row:
        return label_rules(template, words_of(row), records, row.get("metrics", ["accuracy"]))
    target = Template(row["target"])
    if name == "stsb":
        rules = number_rules(template, target, records, "pearson", RATINGS)
        return replace(rules, answer=partial(_rating, target), metrics=OF_NUMBERS)
    if name == "xsum":
        return replace(text_rules(template, target, records, "rougeL"), baseline=_first_sentence)
    rules = replace(text_rules(template, target, records, "squad_em"), metric="exact_match", score=_score)
    if name == "record":
        return replace(rules, each_gold=True)
    answer = partial(_squad_answer, target)
    return replace(rules, answer=answer, unknown=(), from_text=_squad_from_text, score=_squad_score)


def _template(row: dict[str, Any]) -> Template:
    template = Template(row["template"])
    return replace(template, spare=tuple(row.get("spare", template.fields)))


def words_of(row: dict[str, Any]) -> dict[str, str]:
    """Label words by the values that the data may have: those in files, and the Hub's numbers."""
    words = row["words"] if isinstance(row["words"], dict) else {word: word for word in row["words"]}
    of_files = {fields.as_text(value): word for value, word in words.items()}
    return of_files | {str(number): word for number, word in enumerate(words.values())}


def wordings_of(task: str) -> dict[str, tuple[Template, tuple[str, ...]]]:
    """The templates and label words that papers use for a task, by the paper's name in task.template."""
    wordings: dict[str, dict[str, Any]] = TABLE.get(task, {}).get("wordings", {})
    return {name: (_template(wording), tuple(wording["words"])) for name, wording in wordings.items()}


def _origin(name: str, row: dict[str, Any]) -> Origin:
    on_hub = row.get("on_hub", {})
    splits = {split: Split(tuple(names), on_hub.get(split, split)) for split, names in row["files"].items()}
    read = FORMATS[row.get("format", "json")]
    if row.get("format") == "glue":
        read = partial(read, renamed=row.get("renamed", {}), header=row.get("header", []))
    more: dict[str, Any] = {key: row[key] for key in ("generated", "revision", "sizes", "whole") if key in row}
    if name in PREPARED:
        more["prepare"] = PREPARED[name]
    return Origin(tuple(row["hub"]), splits, read, **more)


def _rating(target: Template, record: Record, where: str) -> tuple[str, Golds]:
    value = float(answers.number_answer(target, RATINGS, record, where)[0])
    # The files have three decimals, and the Hub's float32 values are rounded back to them.
    return f"{round(value * 5) / 5:.1f}", (str(round(value, 3)),)


def _first_sentence(_: Sequence[Example], valid: Sequence[Example]) -> tuple[str, list[str]]:
    documents = (example.source[slice(*example.spare)].strip() for example in valid)
    return "first sentence", [SENTENCE_END.split(document, maxsplit=1)[0] for document in documents]


def _squad_answer(target: Template, record: Record, where: str) -> tuple[str, Golds]:
    golds = tuple(filter(metrics.normalise, target.texts_of(record, where))) or UNANSWERABLE
    return golds[0] or NO_ANSWER, golds


def _squad_from_text(text: str) -> str:
    """The answer in an output: empty if it says that there is no answer, NOTHING if it has no words."""
    words = metrics.normalise(text)
    return "" if words == NO_ANSWER else text.strip() if words else NOTHING


def _squad_score(said: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
    scores = _score(said, examples)
    for name, wanted in (("has_answer", False), ("no_answer", True)):
        pairs = zip(said, examples, strict=True)
        right = [answers.correct(SQUAD, *pair) for pair in pairs if (pair[1].golds == UNANSWERABLE) == wanted]
        if right:
            scores[f"{name}_exact_match"] = 100 * fmean(right)
    return scores


def _glue_file(file: Path, faults: Faults, *, renamed: Mapping[str, str], header: list[str]) -> Iterator[PlacedRecord]:
    """Records of a GLUE table, or of the JSON lines that SuperGLUE publishes RTE in.

    A test file's column of ids names its records; those of other tables are numbered, as on the Hub.
    """
    columns = _unless_in_file(file_formats.tsv_rows(file), header)
    for number, (where, row) in enumerate(file_formats.read(file, faults, columns)):
        record = {renamed.get(name, name): value for name, value in row.items()}
        own_id = next((record[name] for name in IDS if name in record and "label" not in record), number)
        yield where, record if "idx" in record else {**record, "id": own_id}


def _unless_in_file(rows: Iterator[Row], columns: Sequence[str]) -> Sequence[str] | None:
    """The names of a table's columns, if the first row is no header that has one of them."""
    _, _, first = next(rows, (1, 1, []))
    return None if set(first) & set(columns) else columns


def _sentence_file(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """One record per line, a label and a text; TREC's labels have two parts, of which the first, coarse one is used."""
    columns = _unless_in_file(_sentence_rows(file), ("label", "text"))
    for index, (where, record) in enumerate(file_formats.table(file, faults, _sentence_rows, columns)):
        yield where, {**record, "label": record["label"].partition(":")[0], "idx": index}


def _sentence_rows(file: Path) -> Iterator[Row]:
    """A label and a text from each line; outside .tsv and .csv files, the label is the line's first word.

    Bytes that are not UTF-8 are read as Latin-1, in which these files were published.
    """
    separator = "\t" if file.suffix == ".tsv" else None
    of_lines = ((number, number, line.strip().split(separator, 1)) for number, line in lines(file))
    for first, last, cells in file_formats.csv_rows(file) if file.suffix == ".csv" else of_lines:
        yield first, last, [text for cell in cells if (text := _decoded(cell).strip())]


def _decoded(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("latin-1") if file_formats.NOT_UTF8.search(text) else text


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
                    answers = file_formats.answer_texts(query, place) if "answers" in query else []
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
    "squad": file_formats.squad_records,
}
# What is made of the records of a task, by its name, whether they come from files or from the Hub.
PREPARED = {"multirc": _without_markup, "wsc": _with_marked_spans, "record": _in_one_text_each}
RULES = {name: _rules(name, row) for name, row in TABLE.items()}
