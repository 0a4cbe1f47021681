"""The kinds of prompts; each is a file, and has its place here. Imports nothing heavy."""

from typing import Any, get_args

from fpt.config.schema import PromptConfig
from fpt.prompts.late import Late
from fpt.prompts.soft import Soft

Kind = Soft | Late
KINDS: dict[str, Any] = {kind.name: kind for kind in get_args(Kind)}


def kind_of(config: PromptConfig) -> Kind:
    """The kind of prompt that these settings describe, with the settings."""
    kind: Kind = KINDS[config.kind](config)
    return kind
