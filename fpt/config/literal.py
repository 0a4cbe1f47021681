"""Reads and writes plain values as YAML, in OmegaConf's dialect: `1e-5` is a number, and nothing is a date.

OmegaConf itself would resolve `${…}` in every text, even to environment variables.
"""

import re
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_omega_conf_dumper, get_yaml_loader

from fpt.errors import UserError

# A quoted text, or a key of `{key:value}` with no space after its colon, as Hydra's users write it and YAML does not.
UNSPACED = re.compile(r"""("(?:[^"\\]|\\.)*"|'[^']*')|([{,]\s*[^\s:,{}\[\]'"]+):(?=\S)""")


def own_table(file: Path) -> Any:
    """The values in a YAML file of fpt's own, read by libyaml where PyYAML has it: ten times as fast."""
    return yaml.load(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def parse(text: str) -> Any:
    """The plain values in a YAML text; aliases are refused, because a few lines of them can expand to gigabytes."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
        raise yaml.YAMLError("aliases (*name) are not read here; write what they stand for")
    return yaml.load(text, Loader=get_yaml_loader())


def spaced(text: str) -> str:
    """A typed mapping with the space that YAML wants after the colon of each key."""
    return UNSPACED.sub(lambda found: found[1] or f"{found[2]}: ", text)


def texts(typed: str, key: str, why: str) -> dict[str, str]:
    """A typed mapping of texts, `{0: no, 1: yes}` or `[no, yes]`, in which YAML itself would see false and true."""
    try:
        node = yaml.compose(spaced(typed), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        node = None
    pairs = node.value if isinstance(node, yaml.MappingNode | yaml.SequenceNode) else []
    if isinstance(node, yaml.SequenceNode):
        pairs = [(word, word) for word in pairs]
    # In `{no, yes}`, `no` has no word: an empty text without quotes.
    if not pairs or not all(isinstance(one, yaml.ScalarNode) and (one.value or one.style) for one in chain(*pairs)):
        raise UserError(f"{key}={typed}: {why}")
    words: dict[str, str] = {}
    for value, word in pairs:
        if value.value in words:
            raise UserError(f"{key}={typed}: {value.value!r} is given twice; give it once")
        words[value.value] = word.value
    return words


def dump(values: dict[str, Any]) -> str:
    """Plain values as the YAML text that `parse` reads."""
    return str(yaml.dump(values, Dumper=get_omega_conf_dumper(), allow_unicode=True, sort_keys=False))


def leaves(tree: Any, key: str = "") -> dict[str, Any]:
    """A tree's values by dotted key; lists stay whole."""
    if isinstance(tree, dict) and tree:
        return {inner: value for name in tree for inner, value in leaves(tree[name], f"{key}.{name}").items()}
    return {key.lstrip("."): tree}
