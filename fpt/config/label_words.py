"""Reads label words as typed, `{value: word, …}` or `[word, …]`; all values and words are texts.

They are texts as written: YAML's own types would make false of `no` and 1.5 of `1.50`.
"""

from collections.abc import Iterable

import yaml

from fpt.config import literal
from fpt.errors import UserError

LABELS = "task.labels"
FORMS = "write 'task.labels={0: no, 1: yes}', or 'task.labels=[no, yes]' where the words are the target's values"


def typed(text: str, key: str = LABELS, why: str = f"are no label words; {FORMS}") -> dict[str, str]:
    """Label words, or other values by label, from a typed text."""
    try:
        node = yaml.compose(literal.spaced(text), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        node = None
    pairs = getattr(node, "value", None) or []
    if isinstance(node, yaml.SequenceNode):
        pairs = [(word, word) for word in pairs]
    if isinstance(node, yaml.ScalarNode) or not all(_is_given(part) for pair in pairs for part in pair) or not pairs:
        raise UserError(f"{key}={text}: {why}")
    words: dict[str, str] = {}
    for value, word in pairs:
        if value.value in words:
            raise UserError(f"{key}={text}: {value.value!r} is given twice; give it once")
        words[value.value] = word.value
    return words


def _is_given(node: yaml.Node) -> bool:
    """Whether a part is a text; in `{no, yes}`, `no` has no word."""
    return isinstance(node, yaml.ScalarNode) and bool(node.value or node.style)


def check_spelling(words: Iterable[str]) -> None:
    """Refuse words that no answer could match: answers are compared without case and outer white space."""
    spelt: dict[str, str] = {}
    for word in words:
        if not word or word != word.strip():
            raise UserError(f"task.labels: the label word {word!r} is empty, or has white space around it")
        if (other := spelt.setdefault(word.casefold(), word)) != word:
            why = "differ only in case, in which answers are not compared; spell them alike, or give two words"
            raise UserError(f"task.labels: {other!r} and {word!r} {why}")
