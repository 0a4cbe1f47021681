"""Reads the command line's overrides, `key=value`: texts and label words as typed, all other values as YAML."""

from dataclasses import dataclass
from typing import Any

import yaml

from fpt.config import literal
from fpt.config.keys import GROUPS, hint, is_text, settings
from fpt.errors import UserError, reason

LABELS = "task.labels"
LABEL_FORMS = "write 'task.labels={0: no, 1: yes}', or 'task.labels=[no, yes]' where the words are the target's values"


@dataclass(frozen=True)
class Override:
    """A setting that was typed."""

    word: str  # what was typed
    key: str  # a key of the schema, or a group
    value: Any


def parse(word: str) -> Override:
    """Read an override; one of an unknown key, or with several values, is refused."""
    word = word.removeprefix("+")  # with which Hydra adds a key; here every key is there
    key, is_given, text = word.partition("=")
    if not is_given:
        raise UserError(f"{word}: not an override; write key=value, for example task=boolq")
    if key == "prompt.kind":
        raise UserError(f"{word}: write prompt={text}, which brings its length and optimizer too")
    if not (key in settings() or key in GROUPS):
        raise UserError(f"{word}: unknown key '{key}'.{hint(key) or ' See fpt train --help.'}")
    if not is_text(key) and each(word):
        raise UserError(f"{word}: has several values at once; fpt train -m runs all combinations, one after the other")
    if text == "???" or ("???" in text and not is_text(key)):  # Hydra's mark of a value that must be given
        raise UserError(f"{word}: ??? stands for a value that is not given yet; give one")
    return Override(word, key, _value(word, key, text))


def each(word: str) -> list[str]:
    """The values of an override with several, as typed between commas; empty if it has only one."""
    key, _, text = word.partition("=")
    try:
        nodes = yaml.compose(f"[{text}]", Loader=yaml.BaseLoader).value
    except (yaml.YAMLError, RecursionError):
        return []
    values = [text[node.start_mark.index - 1 : node.end_mark.index - 1] for node in nodes]
    is_verbatim = key in settings() and settings()[key].metadata.get("verbatim")
    if len(values) < 2 or (is_verbatim and not all(value[:1] in ("'", '"') for value in values)):
        return []
    return values


def _value(word: str, key: str, text: str) -> Any:
    if text.strip() == "null" and key in settings():
        return None
    if key == LABELS:
        return literal.texts(text, LABELS, f"are no label words; {LABEL_FORMS}")
    if is_text(key) or key not in settings() or "choices" in settings()[key].metadata:
        return _unquoted(text)  # of a choice too: YAML reads off as false
    try:
        value = literal.parse(literal.spaced(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{word[:40]}: cannot be read as YAML ({reason(error)})") from None
    return "" if value is None else value  # only `null` is null, and not a shell's empty variable


def _unquoted(text: str) -> str:
    """A typed text without the quotes around it; a text with more of these quotes is left as it is."""
    inner = text[1:-1]
    return inner if text[:1] in ("'", '"') and text == f"{text[0]}{inner}{text[0]}" and text[0] not in inner else text
