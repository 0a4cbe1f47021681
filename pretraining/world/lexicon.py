"""What the generated world is made of: names, the properties things can have, and how English speaks of them.

The words themselves are data (`lexicon.json`); what is drawn from them, and how, is decided in `scenes.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["person", "place", "thing"]

# People and places are named outright, things with an article.
CALLED: dict[Kind, str] = {"person": "{}", "place": "{}", "thing": "the {}"}
BEFORE, AFTER = "before", "after"  # what an ordered relation is asked with


@dataclass(frozen=True)
class Relation:
    """One property of one kind of entity, and the ways English speaks of it.

    In the templates `{e}` is the entity, `{v}` the value that holds, `{w}` a value that does not. `groups` are what
    several values have in common and can be said in a value's place: who lives in Oslo lives in Europe. Where values
    have an order, `order` asks which of two entities comes first.
    """

    kind: Kind
    name: str
    values: Sequence[str]
    states: Sequence[str]
    contrasts: Sequence[str]
    denial: str
    asks: Sequence[str]
    seeks: Sequence[str]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    order: str | None = None


@dataclass(frozen=True)
class Scale:
    """Something two entities of a kind are compared by: the comparison and its opposite, a statement and questions.

    In the templates `{e}` and `{w}` are the two entities, `{v}` is `more` or `less`.
    """

    kind: Kind
    more: str
    less: str
    state: str = "{e} is {v} than {w}."
    asks: Sequence[str] = ("is {e} {v} than {w}", "is it true that {e} is {v} than {w}")


@dataclass(frozen=True)
class Summary:
    """Two relations of a kind that are told together in one sentence, in the words of a summary or in others."""

    kind: Kind
    relations: Sequence[str]
    text: str
    others: Sequence[str]


_DATA = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
# By kind: the first words of names, and the last.
NAME_PARTS: dict[Kind, tuple[Sequence[str], Sequence[str]]] = _DATA["name_parts"]
RELATIONS = tuple(Relation(**entry) for entry in _DATA["relations"])
SCALES = tuple(Scale(**entry) for entry in _DATA["scales"])
SUMMARIES = tuple(Summary(**entry) for entry in _DATA["summaries"])
CLASSES: tuple[str, ...] = tuple(_DATA["classes"])  # words that mean nothing until customs give them a meaning
