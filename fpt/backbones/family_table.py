"""The table of model families in families.yaml: paths of a model's parts, config.json keys of its sizes, how it reads.

Paths are dotted: of modules in a model, or of keys in a config.json. Imports nothing heavy.

Letters: D model, F FFN neurons of a block.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fpt.backbones.reading import READINGS, Reading
from fpt.config import literal


@dataclass(frozen=True, kw_only=True)
class Ffn:
    """A block's feed-forward network."""

    module: str  # its path in a block
    into: tuple[str, ...]  # its possible layers from D to F; a block has one of them, or two if it is gated
    out: str  # its layer from F back to D
    transposed: bool = False  # whether weights are [inputs, outputs], as in GPT-2


@dataclass(frozen=True, kw_only=True)
class StackRow:
    """A stack of blocks."""

    module: str  # the path of the module whose forward takes token ids or embeddings, and a padding mask
    blocks: str  # the path of its blocks, below `module`
    norm: str | None  # the path of the norm after the last block, below `module`; None: it has none
    ffn: Ffn  # the FFN of its blocks
    width: str = "hidden_size"  # the key of D
    num_blocks: str = "num_hidden_layers"  # the key of its number of blocks
    num_neurons: str = "intermediate_size"  # the key of F
    config: str = ""  # the path of its part of the configuration; "": the whole configuration
    # For keys that may be missing, the key to use instead, and a factor.
    otherwise: dict[str, tuple[str, int]] = field(default_factory=dict)

    def key(self, name: str) -> str:
        """The full path of a key in the stack's part of the configuration."""
        return f"{self.config}.{name}".lstrip(".")

    def width_in(self, config: Any) -> int:
        """The width D of the stack's hidden states in a model with this configuration."""
        return int(value_at(config, self.key(self.width)))


@dataclass(frozen=True, kw_only=True)
class FamilyRow:
    """A family of models."""

    reads: Reading  # how its models read an example and answer it
    # Its stacks by name, in the order in which hidden states pass through them; a prompt enters the first.
    stacks: dict[str, StackRow]
    num_heads: str = "num_attention_heads"  # the key of the first stack's number of attention heads
    vocabulary: str = "vocab_size"  # the key of the number of tokens, in the first stack's part of the configuration
    embedding: tuple[str, ...]  # the names that the token embedding may be saved under
    saved: tuple[tuple[str, str], ...] = ()  # prefixes of tensor names, and what checkpoints may have instead
    embedding_scale: bool = False  # whether token embeddings are multiplied by √D before the first block
    scales_inputs: bool = False  # whether a stack does that to `inputs_embeds` too
    embedding_norm: str = ""  # the LayerNorm that token embeddings pass before the first block; "": none
    head: tuple[str, ...] = ("lm_head",)  # the modules that turn the last stack's output into logits, in this order
    start: str = "decoder_start_token_id"  # the key of the token that a target begins with
    shares_width: bool = False  # whether config.json has one F for all stacks, the largest of theirs
    unread: tuple[str, ...] = ()  # modules that text does not pass through, as a vision tower; they stay on disk
    # For learned position embeddings, the key of their number, and how many are reserved; None: the blocks make them.
    positions: tuple[str, int] | None = None
    asks_card: bool = False  # whether a pass reads something back from the GPU, so that it cannot be a CUDA graph
    no_peft: str = ""  # why PEFT's prompt tuning would differ from fpt's; "": it does not
    refused: dict[str, tuple[Any, str]] = field(default_factory=dict)  # by key: a value that is refused, and why
    transformers: str = ""  # the first release whose model of this family is correct; "": all that fpt allows

    @property
    def first(self) -> StackRow:
        """The stack that reads the source, which a prompt enters."""
        return next(iter(self.stacks.values()))

    @property
    def last(self) -> StackRow:
        """The stack before the head."""
        return list(self.stacks.values())[-1]

    def key_heads_in(self, config: Any) -> tuple[int, int]:
        """How many heads of a first stack's block have keys and values of their own, and the width of each."""
        heads, grouped, width = (
            value_at(config, self.first.key(key)) for key in (self.num_heads, "num_key_value_heads", "head_dim")
        )
        return grouped or heads, width or self.first.width_in(config) // heads


def _family(reads: str, stacks: dict[str, dict[str, Any]], **more: Any) -> FamilyRow:
    """A family from its entry in the file."""
    typed = {name: StackRow(**_frozen(stack | {"ffn": Ffn(**_frozen(stack["ffn"]))})) for name, stack in stacks.items()}
    return FamilyRow(reads=READINGS[reads], stacks=typed, **_frozen(more))


def _frozen(value: Any) -> Any:
    """A value of the file with tuples for lists."""
    if isinstance(value, dict):
        return {key: _frozen(inner) for key, inner in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


FILE: dict[str, Any] = literal.own_table(Path(__file__).with_name("families.yaml"))
FAMILY_TABLE = {name: _family(**row) for name, row in FILE["families"].items()}
SUPPORTED: str = FILE["supported"]
REFUSED: dict[str, str] = FILE["refused"]


def value_at(values: Any, path: str) -> Any:
    """The value at a dotted path in a configuration or in a config.json's values, which "" stands for; None: none."""
    for key in filter(None, path.split(".")):
        values = values.get(key) if isinstance(values, dict) else getattr(values, key, None)
    return values
