"""The kinds of prompt: what each says of itself, from its settings alone.

torch is imported only when tensors are made, so that settings are checked first; `modules` has the trained modules.

Letters: P prompt, D model, M bottleneck.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from fpt.config.schema import PromptConfig
from fpt.errors import UserError

if TYPE_CHECKING:
    from fpt.backbones.backbone import Backbone
    from fpt.backbones.family_table import Reading
    from fpt.prompts.modules import LatePrompt, SoftPrompt, Tensors

TENSOR = "prompt"  # the name of a soft prompt's tensor
NUM_COMMON = 5000  # Lester et al. sample from the 5,000 most frequent pieces; T5's vocabulary is sorted by frequency
DROPOUT = 0.1  # rate for generated vectors, as published by Liu et al. 2022: RoBERTa's and GPT-2's own
IN_FILE = ("kind", "layer", "length", "generator", "pool")  # in a late prompt's metadata; tensors tell the bottleneck
Shapes = dict[str, tuple[int, ...]]  # tensors' shapes, by name


@dataclass(frozen=True)
class _Learned(ABC):
    """What all kinds have: settings that say how many numbers are learned, and where they start."""

    config: PromptConfig
    name: ClassVar[str]

    @abstractmethod
    def shapes(self, d_model: int) -> Shapes:
        """The shapes of the learned tensors, by name."""

    @property
    def sizes(self) -> str:
        """The settings that another prompt must share for its tensors to be used here, as they are typed."""
        return f"prompt.length={self.config.length}"

    def num_learned(self, d_model: int) -> int:
        """How many numbers are learned."""
        return sum(math.prod(shape) for shape in self.shapes(d_model).values())

    def initial(self, backbone: "Backbone", *, labels: tuple[str, ...], seed: int) -> "Tensors":
        """The float32 tensors to start from; with prompt.init=labels they are embeddings of the task's label words."""
        from fpt.prompts.modules import drawn

        return drawn(self.shapes(backbone.sizes.width), seed, normal=self.config.init == "normal")

    def mismatch(self, width: int, other: PromptConfig, d_model: int) -> str | None:
        """Why this prompt cannot start from another one of its kind, for a model of that `width`; None: it can."""
        theirs = type(self)(other).sizes
        if (theirs, width) == (self.sizes, d_model):
            return None
        held = f"holds a {self.name} prompt with {theirs} for d_model={width}"
        return f"{held}; this run has {self.sizes} and d_model={d_model}"


class Soft(_Learned):
    """A soft prompt: P learned vectors [P, D] before the embedded source (Lester et al. 2021), or behind it.

    Every kind of prompt has the same methods.
    """

    name = "soft"

    @staticmethod
    def of_file(metadata: dict[str, Any], shapes: Shapes) -> PromptConfig:
        """The settings of a prompt in a file, from the file's `metadata` and its tensors' shapes.

        A setting that is missing or wrong is a LookupError or a ValueError.
        """
        return PromptConfig(place=metadata["place"], length=shapes[TENSOR][0])

    def metadata(self, layer: int) -> dict[str, Any]:
        """The metadata of the prompt's file; its vectors enter before block `layer` of the full model."""
        return {"kind": self.name, "place": self.config.place} if self.is_behind else {}

    @property
    def is_behind(self) -> bool:
        """Whether it stands behind the source, so that the source's states do not depend on it."""
        return self.config.place == "suffix"

    @property
    def not_exported(self) -> dict[str, str]:
        """The export formats that cannot hold it, each with the reason."""
        why = "is for prompts before the source, and prompt.place=suffix puts this one behind it"
        return dict.fromkeys(("peft", "npy", "thunlp", "tokens"), why) if self.is_behind else {}

    def position(self, num_blocks: int) -> int:
        """The number of blocks below the prompt, in a first stack of `num_blocks`."""
        return 0

    def kept_blocks(self, num_blocks: int) -> int | None:
        """How many of a first stack's blocks have states that can be kept; None: it is not asked of such a prompt."""
        return num_blocks if self.is_behind else None

    def resolved(self, reads: "Reading", num_blocks: int) -> PromptConfig:
        """The settings with `auto` resolved for a model's way to read and its first stack's number of blocks."""
        if self.is_behind and not reads.writes:
            why = "a masked model's source sees what stands behind it; leave it out, or take a model that writes"
            raise self.config.error("place", why)
        return replace(self.config, init=reads.learning.init if self.config.init == "auto" else self.config.init)

    def shapes(self, d_model: int) -> Shapes:
        return {TENSOR: (self.config.length, d_model)}

    def flops(self, source: int, d_model: int) -> tuple[int, int]:
        """FLOPs of a generator's two layers for an example of `source` positions; a soft prompt has none."""
        return 0, 0

    def initial(self, backbone: "Backbone", *, labels: tuple[str, ...], seed: int) -> "Tensors":
        from fpt.data.tokens import Tokens
        from fpt.prompts.modules import common_pieces

        config = self.config
        if config.init in ("uniform", "normal"):
            return super().initial(backbone, labels=labels, seed=seed)
        if config.init == "text":
            pieces = backbone.tokenizer(config.text, add_special_tokens=False)["input_ids"]
            if not pieces:
                raise UserError(f"prompt.init: '{config.text}' has no token to start from")
            ids = [pieces[index % len(pieces)] for index in range(config.length)]
        else:
            tokens = Tokens(backbone.tokenizer, backbone.family.row)
            words = tokens.of_targets(list(labels)) if labels and config.init == "labels" else []
            # A prompt behind the source ends in the cue that the answer follows, as it stands between the two.
            cues = tokens.of_parts([tokens.row.reads.cue]) if self.is_behind and config.init == "labels" else [[]]
            cue = cues[0][-config.length :]
            room = config.length - len(cue)
            ids = [piece for word in words for piece in word[: len(word) - tokens.ends]][:room]
            ids += [*common_pieces(backbone.tokenizer, room - len(ids), seed, among=NUM_COMMON), *cue]
        return {TENSOR: backbone.embeddings(ids)}

    def build(self, tensors: "Tensors", position: int) -> "SoftPrompt":
        """The tensors as a trainable module that enters after the first `position` blocks."""
        from fpt.prompts.modules import SoftPrompt

        return SoftPrompt(tensors[TENSOR], is_behind=self.is_behind)

    def described(self, d_model: int, layer: int, model: str) -> str:
        """A sentence for the user that describes the prompt; `layer` blocks of `model` lie below it."""
        where = "stand between source and target in" if self.is_behind else "go before the embedded input of"
        return f"{self.config.length} vectors of {d_model} numbers that {where} {model}"


class Late(_Learned):
    """A late prompt: P vectors made from each example's hidden states inside the model (Liu et al. 2022)."""

    name = "late"
    is_behind: ClassVar[bool] = False
    not_exported: ClassVar[dict[str, str]] = dict.fromkeys(
        ("peft", "npy", "thunlp", "embeds", "tokens"),
        "a late prompt is made inside the model, from each example's states there",
    )

    @staticmethod
    def of_file(metadata: dict[str, Any], shapes: Shapes) -> PromptConfig:
        bottleneck = {"bottleneck": shapes["down"][0]} if "down" in shapes else {}
        config = PromptConfig(**{name: metadata[name] for name in IN_FILE} | bottleneck)
        if not isinstance(config.layer, int):
            raise ValueError(f"layer={config.layer}")
        return config

    def metadata(self, layer: int) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in IN_FILE} | {"layer": layer}

    def position(self, num_blocks: int) -> int:
        layer = self.config.layer
        below = int(layer * num_blocks + 0.5) if isinstance(layer, float) else layer
        if below > num_blocks:
            raise UserError(f"prompt.layer={layer}: the model reads with {num_blocks} blocks; give 0 to {num_blocks}")
        return below

    def kept_blocks(self, num_blocks: int) -> int | None:
        return self.position(num_blocks)

    def resolved(self, reads: "Reading", num_blocks: int) -> PromptConfig:
        pool, is_pooled = self.config.pool, self.config.generator == "npg"
        if pool == "auto":
            pool = reads.pool if is_pooled else "first"
        sees_others = pool == "mean" or (self.position(num_blocks) > 0 and (pool, reads.pool) != ("first", "last"))
        if is_pooled and not sees_others:
            raise UserError(
                f"prompt.pool={pool}, prompt.layer={self.config.layer}: the {pool} token sees no other there, so that"
                " all examples of a template would have the same vectors; give prompt.pool=mean, a higher prompt.layer,"
                " or to a causal model prompt.pool=last"
            )
        published = "normal" if self.config.generator == "none" else "uniform"
        return replace(self.config, pool=pool, init=published if self.config.init == "auto" else self.config.init)

    def shapes(self, d_model: int) -> Shapes:
        """The vectors' shape, or a generator's: layers `down` [M, D] and `up` [D, M] (npg: [P·D, M]) with biases."""
        config = self.config
        if config.generator == "none":
            return {"vectors": (config.length, d_model)}
        outputs = config.length * d_model if config.generator == "npg" else d_model
        down, up = (config.bottleneck, d_model), (outputs, config.bottleneck)
        return {"down": down, "down_bias": down[:1], "up": up, "up_bias": up[:1]}

    def flops(self, source: int, d_model: int) -> tuple[int, int]:
        length = self.config.length
        states = {"none": 0, "npg": 1, "appg": length, "mppg": source}[self.config.generator]
        layer = 2 * d_model * self.config.bottleneck
        return states * layer, length * layer if states else 0

    def build(self, tensors: "Tensors", position: int) -> "LatePrompt":
        from fpt.prompts.modules import LatePrompt

        given, published = self.config.dropout, 0.0 if self.config.generator == "none" else DROPOUT
        return LatePrompt(self.config, tensors, position=position, dropout=published if given is None else given)

    @property
    def sizes(self) -> str:
        config = self.config
        more = "" if config.generator == "none" else f" prompt.bottleneck={config.bottleneck}"
        more += f" prompt.pool={config.pool}" if config.generator == "npg" else ""
        return f"prompt.generator={config.generator} prompt.length={config.length}{more}"

    def described(self, d_model: int, layer: int, model: str) -> str:
        generator = self.config.generator
        origin = "the same for every example" if generator == "none" else "made from each example's states there"
        return (
            f"{self.config.length} vectors of {d_model} numbers, {origin}, that go before the states after"
            f" block {layer} of {model} (late prompt tuning, {generator}, {self.num_learned(d_model):,} parameters)"
        )


Kind = Soft | Late
KINDS: dict[str, type[Kind]] = {kind.name: kind for kind in get_args(Kind)}


def kind_of(config: PromptConfig) -> Kind:
    """The prompt kind that these settings name, holding the settings."""
    return KINDS[config.kind](config)


def width_of(tensors: Mapping[str, Any]) -> int:
    """The model width D that a prompt's tensors or arrays are for."""
    name = next((name for name in (TENSOR, "vectors") if name in tensors), "down")
    return int(tensors[name].shape[-1])
