"""Which kinds of prompts there are; a kind is one file, and one place here. Imports nothing heavy."""

from typing import Any, get_args

from fpt.config.schema import PromptConfig
from fpt.prompts.late import Late
from fpt.prompts.soft import Soft

Kind = Soft | Late
KINDS: dict[str, Any] = {kind.name: kind for kind in get_args(Kind)}


def kind_of(config: PromptConfig) -> Kind:
    """What answers for the prompt that these settings describe."""
    kind: Kind = KINDS[config.kind](config)
    return kind
