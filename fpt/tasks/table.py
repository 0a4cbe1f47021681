"""The table of built-in tasks in tasks.yaml: their texts, their label words, and where their records are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fpt.config import literal
from fpt.tasks import origins
from fpt.tasks.file_formats import Reader
from fpt.tasks.origins import Origin
from fpt.tasks.task import Template

TABLE: dict[str, dict[str, Any]] = literal.own_table(Path(__file__).with_name("tasks.yaml"))["tasks"]


def template_of(row: dict[str, Any]) -> Template:
    """The template of a task's row, or of one of its wordings."""
    template = Template(row["template"])
    return replace(template, spare=tuple(row.get("spare", template.fields)))


def wordings_of(task: str) -> dict[str, tuple[Template, tuple[str, ...]]]:
    """The templates and label words that papers use for a task, by the paper's name in task.template."""
    wordings: dict[str, dict[str, Any]] = TABLE.get(task, {}).get("wordings", {})
    return {name: (template_of(wording), tuple(wording["words"])) for name, wording in wordings.items()}


def words_of(row: dict[str, Any]) -> dict[Any, str]:
    """Label words by the values that the data may have."""
    numbered, named = row.get("numbered", []), row.get("named", [])
    as_text = {str(number): word for number, word in enumerate(numbered)}
    return dict(enumerate(numbered or named)) | as_text | {word: word for word in named} | row.get("words", {})


def origin_of(row: dict[str, Any], read: Reader, **more: Any) -> Origin:
    """Where the records of a task's row are, and how they are read."""
    records: dict[str, Any] = row["records"]
    splits = origins.named(records["files"], records.get("on_hub"))
    tests = {name: splits.pop(name) for name in records["files"] if name.startswith("test")}
    more |= {key: records[key] for key in ("generated", "revision") if key in records}
    more |= {key: tuple(records[key]) for key in ("sizes", "whole") if key in records}
    return Origin(tuple(records["hub"]), splits, read, tests, **more)
