"""Reads label words as typed or in a file, `{value: word, …}` or `[word, …]`; all values and words are texts.

YAML and Hydra cannot read them: YAML takes `no` for false and `1.50` for 1.5, and Hydra's grammar has no `正面`.
"""

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fpt.config.schema import place
from fpt.errors import UserError, reason

LABELS, LABELS_FILE = "task.labels", "task.labels_file"

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_ENDS = r"\s*(?:,\s*|$)"
_PAIR = re.compile(rf"({_QUOTED}|(?:\\.|[^:\\])+?)\s*:\s*({_QUOTED}|(?:\\.|[^,\\])+?){_ENDS}")
_ITEM = re.compile(rf"({_QUOTED}|(?:\\.|[^,\\])+?){_ENDS}")
_ESCAPED = re.compile(r"\\([\\'\"(){}\[\]:=, ])")
_TO_QUOTE = re.compile(r"""[,:{}\[\]'"\\]|^\s|\s$|^$""")
FORMS = (
    "write 'task.labels={0: no, 1: yes}', 'task.labels=[no, yes]' where the words are the target's values, or"
    " task.labels_file=labels.json"
)


def typed(text: str, key: str = LABELS, why: str = f"are no label words; {FORMS}") -> dict[str, str]:
    """Label words, or other values by label, from a typed text; commas, colons and white space around are quoted."""
    brackets, inner = text[:1] + text[-1:], text[1:-1].strip()
    parts = _matches({"{}": _PAIR, "[]": _ITEM}.get(brackets), inner)
    if not parts:
        raise UserError(f"{key}={text}: {why}")
    return _unique(((plain(part[0]), plain(part[-1])) for part in parts), f"{key}={text}")


def of_file(path: str) -> dict[str, str]:
    """Label words in a JSON file, which may be UTF-16."""
    what = f"{LABELS_FILE}={path}"
    file = place(path, LABELS_FILE)
    try:
        values = json.loads(
            file.read_bytes(), parse_int=str, parse_float=str, object_pairs_hook=lambda pairs: _unique(pairs, what)
        )
    except OSError as error:
        raise UserError(f"{what}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{what}: cannot be read as JSON ({reason(error)})") from None
    return of_tree(values, what)


def of_tree(values: Any, what: str) -> dict[str, str]:
    """Label words from a mapping or a list of texts, read from JSON or YAML."""
    words = _unique(zip(values, values, strict=True), what) if isinstance(values, list) else values
    texts = [*words, *words.values()] if isinstance(words, dict) else []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f'{what}: expected an object as {{"0": "no", "1": "yes"}}, or a list of texts')
    return words


def in_braces(labels: Mapping[str, str]) -> str:
    """Label words written so that `typed` reads them."""
    return f"{{{', '.join(f'{_quoted(value)}: {_quoted(word)}' for value, word in labels.items())}}}"


def shown(labels: Mapping[str, str]) -> str:
    """Label words as an override to type in a shell."""
    return shlex.quote(f"task.labels={in_braces(labels)}")


def check_spelling(words: Iterable[str]) -> None:
    """Refuse words that no answer could match: answers are compared without case and outer white space."""
    spelt: dict[str, str] = {}
    for word in words:
        if not word or word != word.strip():
            raise UserError(f"task.labels: the label word {word!r} is empty, or has white space around it")
        if (other := spelt.setdefault(word.casefold(), word)) != word:
            why = "differ only in case, in which answers are not compared; spell them alike, or give two words"
            raise UserError(f"task.labels: {other!r} and {word!r} {why}")


def split(text: str) -> list[str]:
    """The parts of a typed text between commas, or the whole text if it cannot be split."""
    return [part for part, *_ in _matches(_ITEM, text)] or [text]


def plain(text: str) -> str:
    """A typed text without its quotes, or, if unquoted, without the backslashes before special characters."""
    is_quoted = len(text) > 1 and text[0] in "'\"" and text[0] == text[-1]
    return _ESCAPED.sub(r"\1", text[1:-1] if is_quoted else text)


def _matches(pattern: re.Pattern[str] | None, text: str) -> list[Sequence[str]]:
    """The groups of consecutive matches that cover the whole text; empty if they do not."""
    found, place = list[Sequence[str]](), 0
    while pattern and place < len(text):
        match = pattern.match(text, place)
        if match is None:
            return []
        found.append(match.groups())
        place = match.end()
    return found


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if _TO_QUOTE.search(text) else text


def _unique(pairs: Iterable[tuple[str, Any]], what: str) -> dict[str, Any]:
    words: dict[str, Any] = {}
    for value, word in pairs:
        if value in words:
            raise UserError(f"{what}: {value!r} is given twice; give it once")
        words[value] = word
    return words
