"""The table of model families in families.yaml: paths of a model's parts, config.json keys of its sizes, ways to read.

Paths are dotted: of modules in a model, or of keys in a config.json. Imports nothing heavy.

Letters: D model, F FFN neurons of a block.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from fpt.config import literal


@dataclass(frozen=True)
class Learning:
    """How a soft prompt learns on a family's models where nothing is said; by default as was measured to learn best."""

    init: str = "labels"  # what it starts from, a value of `prompt.init`
    optimizer: str = "adamw"  # a value of `optim.name`
    schedule: str = "linear"  # a value of `optim.schedule`
    lr: float | None = None  # the learning rate; None: relative to the embeddings' size, which differs tenfold
    bucket: int = 4  # the value of `train.bucket`


@dataclass(frozen=True)
class Reading:
    """How a family's models read an example and answer it: sequence to sequence, causal, or by filling in a mask.

    Other code uses these attributes and never asks which way it is; each has a subclass of `PromptedModel`.
    """

    name: str
    auto_class: str  # the class of transformers that opens such models
    peft_task: str = ""  # what PEFT calls their task
    pool: str = "first"  # the token whose hidden state summarises a source best, "first" or "last"
    writes: bool = True  # whether an answer is generated up to an end token; else one word is chosen at a mask
    reads_target: bool = False  # whether the target follows the source through the stack that the prompt enters
    stands_alone: bool = False  # whether a target is the beginning of its stack's input, rather than following a text
    sentinel: str = ""  # the token that targets begin with, as in pre-training; "": none
    schedule: str = "cr"  # what `schedule=auto` stands for
    blocks: str = "evenly"  # the blocks that partial PLMs keep unless `schedule.blocks` says otherwise
    # What marks a generated answer's place in a source; "": it follows the source; None: nothing.
    mark: str | None = None
    cue: str = ""  # what a source ends with, before the answer, if its template does not say where the answer belongs
    learning: Learning = Learning()  # how a soft prompt learns where nothing is said

    def positions(self, source: int, target: int) -> int:
        """How many positions of an example go through the stack that a prompt enters, not counting the prompt."""
        return source + target - 1 if self.reads_target else source  # nothing is read from the last token

    def answered(self, target: int) -> int:
        """How many positions logits are computed for."""
        return target if self.writes else 1

    def chooses(self, answer: str) -> bool:
        """Whether the answer is chosen among label words, given `task.answer`."""
        return answer != "generate" or not self.writes

    def mark_of(self, tokenizer: Any) -> str | None:
        """The mark of an answer's place, for a model with this tokenizer."""
        return self.mark if self.writes else tokenizer.mask_token

    def wrong_mark(self, *, is_last: bool) -> str:
        """Why a template cannot have `{mask}`, whether at its end (`is_last`) or not; "": it can."""
        if self.writes and self.mark is None:
            return "has no mark for an answer in its source: give a task.template without {mask}"
        if self.mark == "" and not is_last:
            return "goes on behind its source: give a task.template that ends in {mask}, or has none"
        return ""


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


FILE: dict[str, Any] = literal.own_table(Path(__file__).with_name("families.yaml"))
FAMILY_TABLE = TypeAdapter(dict[str, FamilyRow]).validate_python(FILE["families"])
SUPPORTED: str = FILE["supported"]
REFUSED: dict[str, str] = FILE["refused"]


def value_at(values: Any, path: str) -> Any:
    """The value at a dotted path in a configuration or in a config.json's values, which "" stands for; None: none."""
    for key in filter(None, path.split(".")):
        values = values.get(key) if isinstance(values, dict) else getattr(values, key, None)
    return values
