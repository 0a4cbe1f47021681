"""Reads JSON: lines of objects, an array of them, or SQuAD's format, in which questions are nested in paragraphs."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fpt.errors import UserError, reason
from fpt.tasks import fields
from fpt.tasks.faults import Faults
from fpt.tasks.fields import PlacedRecord, Record
from fpt.tasks.text_lines import lines


def json_lines(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record from each line of a JSONL file, or from each item of a JSON array."""
    filled = ((number, line) for number, line in lines(file, faults) if line.strip())
    for index, (number, line) in enumerate(filled):
        if not index and line.lstrip()[0] == "[":
            yield from _array(file, faults)
            return
        where = f"{file}, line {number}"
        with faults:
            yield where, _object(_parse(line, where), where)


def _array(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    for number, item in enumerate(_whole(file), 1):
        where = f"{file}, record {number}"
        with faults:
            yield where, _object(item, where)


def json_records(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read the records of a .json file: an array, SQuAD's format, or what others call .jsonl."""
    filled = (line.strip() for _, line in lines(file, Faults()) if line.strip())
    first, second = next(filled, ""), next(filled, "")
    is_squad = first[:1] == "{" and first[-1] + second[:1] != "}{"
    return (squad_records if is_squad else json_lines)(file, faults)


def squad_records(file: Path, faults: Faults) -> Iterator[PlacedRecord]:
    """Read a record for each question of each paragraph of each article, or for each item of a `data` without these."""
    for at_article, article in fields.objects(json_file(file), "data", str(file), faults):
        if "paragraphs" not in article:
            yield at_article, article
            continue
        for at_paragraph, paragraph in fields.objects(article, "paragraphs", at_article, faults):
            for place, asked in fields.objects(paragraph, "qas", at_paragraph, faults):
                with faults:
                    answers = {"answers": {"text": answer_texts(asked, place)}} if "answers" in asked else {}
                    yield (
                        place,
                        {"title": article.get("title"), **asked, "context": paragraph.get("context"), **answers},
                    )


def answer_texts(asked: Record, where: str) -> list[str]:
    """The texts of a question's answers, which are objects that also say where in the passage they stand."""
    return [fields.text(answer, "text", place) for place, answer in fields.objects(asked, "answers", where)]


def json_file(file: Path) -> Record:
    """Read the one JSON object of a file."""
    return _object(_whole(file), str(file))


def _whole(file: Path) -> Any:
    return _parse("\n".join(line for _, line in lines(file, Faults())), str(file))


def _parse(content: str, where: str) -> Any:
    try:
        return json.loads(content, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{where}: not JSON ({error.msg} at {place})") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not usable JSON ({reason(error)})") from None


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def unique(pairs: list[tuple[str, Any]]) -> Record:
    """A JSON object from its pairs; a key that occurs twice is refused, as only one of its values would be read."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise UserError(f"the key '{twice}' occurs twice in one object; give it once")
    return record
