"""Parses the command line's overrides, `key=value`: in Hydra's grammar, except that texts are taken as typed."""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException

from fpt.config import label_words
from fpt.config.keys import GROUPS, is_text, settings
from fpt.config.label_words import LABELS
from fpt.errors import UserError


@dataclass(frozen=True)
class Override:
    """A setting that was typed."""

    word: str  # what was typed
    key: str  # a key of the schema, a group, or `task.labels.LABEL`
    value: Any
    is_literal: bool  # whether the value is the text as typed, in which `${…}` is never resolved


def parse(word: str) -> Override:
    """Parse an override; one with several values is refused."""
    key, text = _literal(word)
    if key in (None, *GROUPS) and each(word):
        raise UserError(f"{word}: has several values at once; fpt train -m runs all combinations, one after the other")
    if key is None:
        override = _in_hydras_grammar(word)
        parsed = Override(word.lstrip("+"), override.key_or_group, override.value(), False)
    elif key == LABELS and text != "null":
        parsed = Override(word, key, label_words.typed(text.strip()), True)
    else:
        parsed = Override(word, key, _unquoted(key, text), True)
    if _is_open(parsed.value):
        raise UserError(f"{word}: ??? stands for a value that is not given yet; give one")
    return parsed


def each(word: str) -> list[str]:
    """The values of an override with several, as typed; empty if it has only one."""
    key, text = _literal(word)
    if key is None:
        override = _in_hydras_grammar(word)
        if override.is_sweep_override() and not isinstance(override.value(), ChoiceSweep | RangeSweep):
            raise UserError(f"{word}: cannot be swept; write the values with commas, or range(start,stop,step)")
        return list(override.sweep_string_iterator()) if override.is_sweep_override() else []
    values = re.split(r"(?<=[}\]])\s*,\s*(?=[{\[])", text) if key == LABELS else label_words.split(text)
    if len(values) < 2 or (_is_verbatim(key) and not all(value[0] == value[-1] in "'\"" for value in values)):
        return []
    return values


def _literal(word: str) -> tuple[str | None, str]:
    """An override's key and the text after it; the key is None if Hydra is to parse the value."""
    key, is_given, text = word.lstrip("+").partition("=")
    is_literal = is_text(key) or key in GROUPS or key == LABELS or key.startswith(f"{LABELS}.")
    return (key if is_given and is_literal else None), text


def _is_verbatim(key: str) -> bool:
    return bool(settings()[key].metadata.get("verbatim")) if key in settings() else False


def _unquoted(key: str, text: str) -> str | None:
    """A typed text without the quotes of Hydra's grammar; None for null."""
    stripped = text.strip()
    if stripped == "null":
        return None
    if len(stripped) > 1 and stripped[0] == stripped[-1] in "'\"":
        with suppress(UserError):
            value = _in_hydras_grammar(f"{key}={stripped}").value()
            if isinstance(value, str):
                return value
    return text if _is_verbatim(key) else stripped


def _is_open(value: Any) -> bool:
    """Whether a value is or contains `???`, OmegaConf's sign for a missing value, which would become the default."""
    if isinstance(value, list | dict):
        return any(map(_is_open, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and value == "???"


def _in_hydras_grammar(word: str) -> HydraOverride:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        said = str(error).splitlines()[0]
        way_out = (
            " Write key=value, for example task=boolq."
            if "=" not in word
            else " Quote a value with brackets, commas, colons or letters beyond ASCII: 'key=\"…\"'."
        )
        raise UserError(f"{word}: not an override ({said}).{way_out}") from None
    except (ValueError, RecursionError) as error:
        raise unreadable(word, error) from None
    if override.package is not None:
        raise UserError(f"{word}: packages (@) are not used here. Write {override.key_or_group}=…")
    if override.is_delete():
        raise UserError(f"{word}: settings cannot be deleted. Set {word.lstrip('~')}=null if it may be empty.")
    return override


def unreadable(word: str, error: Exception) -> UserError:
    """The error for a value that Hydra gives up on: thousands of digits, or hundreds of brackets in brackets."""
    return UserError(f"{word:.40}…: cannot be read ({type(error).__name__}); shorten it")
