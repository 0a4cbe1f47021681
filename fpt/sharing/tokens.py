"""Exports several prompts as added tokens of one checkpoint, which their names in a text stand for."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fpt.config.run_config import RunConfig
from fpt.errors import UserError
from fpt.sharing.card import model_name, rendered, source_of
from fpt.sharing.export import ExportRequest
from fpt.units import amount

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAME = re.compile(r"[a-zA-Z0-9][\w.-]*", re.ASCII)


def named(configs: Sequence[RunConfig], runs: Sequence[str], names: Sequence[str] | None) -> list[str]:
    """Name the prompts of runs by `names`, or each after its task."""
    given = [config.task.name for config in configs] if names is None else list(names)
    typed = f"names={','.join(given)}"
    if len(given) != len(configs):
        raise UserError(f"{typed}: {len(given)} names for {len(configs)} runs; give one for each, in their order")
    if twice := next((name for name in given if given.count(name) > 1), None):
        raise UserError(f"run={','.join(runs)}: two prompts would be called {twice}; give names=A,B, one for each run")
    if wrong := next((name for name in given if not NAME.fullmatch(name)), None):
        raise UserError(f"{typed}: {wrong} is no name of letters, digits, -, _ and .; give names=A,B, one for each run")
    return given


def written(name: str) -> str:
    """Write a prompt's name as it is used in a text."""
    return f"<prompt:{name}>"


def with_prompts(tokenizer: "PreTrainedTokenizerBase", lengths: dict[str, int]) -> "PreTrainedTokenizerBase":
    """Add prompts, by name and number of tokens, to a copy of a tokenizer, which replaces their names in texts by them.

    The rules for this are in its normaliser, so they hold in every program that reads its tokenizer.json.
    """
    from copy import deepcopy

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


def card_of_tokens(prompts: Mapping[str, ExportRequest]) -> str:
    """Render the README.md of a checkpoint with prompts as tokens: the Hub's metadata, then text for people."""
    one = next(iter(prompts.values()))
    metrics = sorted({prompt.run.result["metric"]["name"] for prompt in prompts.values()})
    return rendered(
        "tokens.md.jinja",
        {"library_name": "transformers", "tags": ["prompt-tuning", "soft-prompt", "fpt"], "metrics": metrics},
        prompts=prompts,
        model_name=model_name(one),
        examples={name: f"{written(name)} {source_of(prompt.run)}" for name, prompt in prompts.items()},
        longest=max(prompt.run.result["max_new_tokens"] for prompt in prompts.values()),
        versions=one.run.result["versions"],
        written=written,
        amount=amount,
    )
