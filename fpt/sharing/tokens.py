"""Adds prompts to a tokenizer as tokens, which their names in a text stand for."""

from copy import deepcopy
from typing import TYPE_CHECKING

from fpt.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def written(name: str) -> str:
    """Write a prompt's name as it is used in a text."""
    return f"<prompt:{name}>"


def with_prompts(tokenizer: "PreTrainedTokenizerBase", lengths: dict[str, int]) -> "PreTrainedTokenizerBase":
    """Add prompts, by name and number of tokens, to a copy of a tokenizer, which replaces their names in texts by them.

    The rules for this are in its normaliser, so they hold in every program that reads its tokenizer.json.
    """
    from tokenizers import AddedToken, normalizers

    if not tokenizer.is_fast:
        raise UserError(
            f"to=tokens: {type(tokenizer).__name__} has no rules by which a name could stand for tokens; to=peft and"
            " to=npy take the prompt along without a tokenizer"
        )
    tokenizer = deepcopy(tokenizer)
    library, rules = tokenizer.backend_tokenizer, []
    for name, length in lengths.items():
        tokens = [f"<prompt:{name}:{number}>" for number in range(length)]
        # With normalized=True they are matched after the rules have inserted them; special tokens are not decoded.
        added = [AddedToken(token, normalized=True, special=True) for token in tokens]
        if tokenizer.add_tokens(added, special_tokens=True) < length:
            raise UserError(f"to=tokens: the model has a prompt called {name} already; give another name with names=…")
        rules.append(normalizers.Replace(written(name), "".join(tokens)))
    library.normalizer = normalizers.Sequence([*rules, *filter(None, [library.normalizer])])
    return tokenizer
