"""The late prompt: P vectors made from each example's hidden states inside the model (Liu et al. 2022).

Letters: P prompt, D model, M bottleneck.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from fpt.config.schema import PromptConfig
from fpt.errors import UserError

if TYPE_CHECKING:
    from fpt.backbones.backbone import Backbone
    from fpt.backbones.family_table import Reading
    from fpt.prompts.modules import LatePrompt, Tensors

DROPOUT = 0.1  # rate for generated vectors, as published by Liu et al. 2022: RoBERTa's and GPT-2's own
IN_FILE = ("kind", "layer", "length", "generator", "pool")  # in a file's metadata; tensors tell the bottleneck


@dataclass(frozen=True)
class Late:
    """A late prompt, described by its settings; it has the same methods as `Soft`."""

    config: PromptConfig
    name: ClassVar[str] = "late"
    is_input: ClassVar[bool] = False
    is_behind: ClassVar[bool] = False
    not_exported: ClassVar[dict[str, str]] = {
        "peft": "PEFT has no late prompts",
        "npy": "an array cannot hold a late prompt",
        "embeds": "a late prompt enters behind the embeddings",
        "tokens": "a late prompt enters inside the encoder, made from each example's states there, and an embedding"
        " cannot",
    }

    @staticmethod
    def of_file(metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> PromptConfig:
        """The settings of a prompt in a file, from the file's `metadata` and its tensors' shapes.

        Raises:
            LookupError: a setting is missing.
            ValueError: a setting is wrong.
        """
        bottleneck = {"bottleneck": shapes["down"][0]} if "down" in shapes else {}
        config = PromptConfig(**{name: metadata[name] for name in IN_FILE} | bottleneck)
        if not isinstance(config.layer, int):
            raise ValueError(f"layer={config.layer}")
        return config

    @staticmethod
    def width(shapes: dict[str, tuple[int, ...]]) -> int:
        return shapes.get("down", shapes.get("vectors", (0,)))[-1]

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
        if is_pooled and pool == "first" and reads.pool == "last":
            raise UserError(
                "prompt.pool=first: the first token of a causal model sees no other, so that all examples would have"
                " the same vectors; give prompt.pool=last, as is published for GPT-2, or mean"
            )
        if is_pooled and pool != "mean" and self.position(num_blocks) == 0:
            raise UserError(
                f"prompt.layer={self.config.layer}: before the first block the {pool} token sees no other, so that all"
                " examples of a template would have the same vectors; give prompt.pool=mean, or a higher prompt.layer"
            )
        published = "normal" if self.config.generator == "none" else "uniform"
        return replace(self.config, pool=pool, init=published if self.config.init == "auto" else self.config.init)

    def shapes(self, d_model: int) -> dict[str, tuple[int, ...]]:
        """The vectors' shape, or a generator's: layers `down` [M, D] and `up` [D, M] (npg: [P·D, M]) with biases."""
        config = self.config
        if config.generator == "none":
            return {"vectors": (config.length, d_model)}
        outputs = config.length * d_model if config.generator == "npg" else d_model
        down, up = (config.bottleneck, d_model), (outputs, config.bottleneck)
        return {"down": down, "down_bias": down[:1], "up": up, "up_bias": up[:1]}

    def num_learned(self, d_model: int) -> int:
        return sum(math.prod(shape) for shape in self.shapes(d_model).values())

    def flops(self, source: int, d_model: int) -> tuple[int, int]:
        length = self.config.length
        states = {"none": 0, "npg": 1, "appg": length, "mppg": source}[self.config.generator]
        layer = 2 * d_model * self.config.bottleneck
        return states * layer, length * layer if states else 0

    def initial(self, backbone: "Backbone", *, labels: tuple[str, ...], seed: int) -> "Tensors":
        from fpt.prompts.modules import drawn

        return drawn(self.shapes(backbone.sizes.width), seed, normal=self.config.init == "normal")

    def build(self, tensors: "Tensors", position: int) -> "LatePrompt":
        from fpt.prompts.modules import LatePrompt

        given, published = self.config.dropout, 0.0 if self.config.generator == "none" else DROPOUT
        return LatePrompt(self.config, tensors, position=position, dropout=published if given is None else given)

    def metadata(self, layer: int) -> dict[str, Any]:
        return {name: getattr(self.config, name) for name in IN_FILE} | {"layer": layer}

    def mismatch(self, shapes: dict[str, tuple[int, ...]], other: PromptConfig, d_model: int) -> str | None:
        makers = [(config.generator, config.pool) for config in (self.config, other)]
        if shapes == self.shapes(d_model) and makers[0] == makers[1]:
            return None
        return (
            f"holds a late prompt with {Late(other)._sizes} for d_model={self.width(shapes)};"
            f" this run has {self._sizes} and d_model={d_model}"
        )

    @property
    def _sizes(self) -> str:
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
