"""The table of prompt kinds; each kind has a file of its own. Imports nothing heavy."""

from typing import Any, get_args

from fpt.config.schema import PromptConfig
from fpt.prompts.late import Late
from fpt.prompts.soft import Soft

Kind = Soft | Late
KINDS: dict[str, Any] = {kind.name: kind for kind in get_args(Kind)}


def kind_of(config: PromptConfig) -> Kind:
    """The prompt kind that these settings name, holding the settings."""
    kind: Kind = KINDS[config.kind](config)
    return kind
