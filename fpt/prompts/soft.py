"""The soft prompt: P learned vectors [P, D] before the embedded source (Lester et al. 2021), or behind it.

torch is imported only when tensors are made, so that settings are checked first; `modules` has the trained module.

Letters: P prompt, D model.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from fpt.config.schema import PromptConfig
from fpt.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fpt.backbones.backbone import Backbone
    from fpt.backbones.family_table import Reading
    from fpt.data.tokens import Tokens
    from fpt.prompts.modules import SoftPrompt, Tensors

TENSOR = "prompt"
NUM_COMMON = 5000  # Lester et al. sample from the 5,000 most frequent pieces; T5's vocabulary is sorted by frequency


@dataclass(frozen=True)
class Soft:
    """A soft prompt, described by its settings; every prompt kind has the same methods.

    `of_file` reads the `metadata` in its files.
    """

    config: PromptConfig
    name: ClassVar[str] = "soft"

    @staticmethod
    def of_file(metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> PromptConfig:
        """The settings of a prompt in a file, from the file's `metadata` and its tensors' shapes."""
        return PromptConfig(place=metadata["place"], length=shapes[TENSOR][0])

    @property
    def is_behind(self) -> bool:
        """Whether it stands behind the source, so that the source's states do not depend on it."""
        return self.config.place == "suffix"

    @property
    def is_input(self) -> bool:
        """Whether it goes before the embedded input, which other libraries support."""
        return not self.is_behind

    @property
    def not_exported(self) -> dict[str, str]:
        """The export formats that cannot hold it, each with the reason."""
        if not self.is_behind:
            return {}
        where = "a prompt before the source, and prompt.place=suffix puts this one behind it"
        return {"peft": f"PEFT has {where}", "npy": f"an array is read as {where}", "tokens": f"tokens are {where}"}

    @staticmethod
    def width(shapes: dict[str, tuple[int, ...]]) -> int:
        """The model width D of tensors with these shapes."""
        return shapes[TENSOR][-1]

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
        init = reads.learning.init if self.config.init == "auto" else self.config.init
        return replace(self.config, init=init)

    def shapes(self, d_model: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the learned tensors, by name."""
        return {TENSOR: (self.config.length, d_model)}

    def num_learned(self, d_model: int) -> int:
        """How many numbers are learned."""
        return self.config.length * d_model

    def flops(self, source: int, d_model: int) -> tuple[int, int]:
        """FLOPs of the generator's two layers for an example of `source` positions; a soft prompt has none."""
        return 0, 0

    def initial(self, backbone: "Backbone", *, labels: tuple[str, ...], seed: int) -> "Tensors":
        """The float32 tensors to start from; with prompt.init=labels they are embeddings of the task's label words."""
        from fpt.data.tokens import Tokens
        from fpt.prompts.modules import drawn

        config = self.config
        if config.init in ("uniform", "normal"):
            return drawn(self.shapes(backbone.sizes.width), seed, normal=config.init == "normal")
        if config.init == "text":
            pieces = _pieces(backbone.tokenizer, str(config.text))
            ids = [pieces[index % len(pieces)] for index in range(config.length)]
        else:
            tokens = Tokens(backbone.tokenizer, backbone.family.row)
            words = tokens.of_targets(list(labels)) if labels and config.init == "labels" else []
            cue = self._cue(tokens)[-config.length :]
            room = config.length - len(cue)
            ids = [piece for word in words for piece in word[: len(word) - tokens.ends]][:room]
            ids += [*_common(backbone.tokenizer, room - len(ids), seed), *cue]
        return {TENSOR: backbone.embeddings(ids)}

    def _cue(self, tokens: "Tokens") -> list[int]:
        """The tokens that the answer follows; a prompt behind the source ends in them, as it stands between the two."""
        is_asked = self.is_behind and self.config.init == "labels"
        return tokens.of_parts([tokens.row.reads.cue])[0] if is_asked else []

    def build(self, tensors: "Tensors", position: int) -> "SoftPrompt":
        """The tensors as a trainable module that enters after the first `position` blocks."""
        from fpt.prompts.modules import SoftPrompt

        return SoftPrompt(tensors[TENSOR], is_behind=self.is_behind)

    def metadata(self, layer: int) -> dict[str, Any]:
        """The metadata of the prompt's file; its vectors enter before block `layer` of the full model."""
        return {"kind": self.name, "place": self.config.place} if self.is_behind else {}

    def mismatch(self, shapes: dict[str, tuple[int, ...]], other: PromptConfig, d_model: int) -> str | None:
        """Why this prompt cannot start from the tensors of another one of its kind; None: it can."""
        held, needed = shapes[TENSOR], self.shapes(d_model)[TENSOR]
        if held == needed:
            return None
        return f"holds a prompt of shape {list(held)}, this run needs {list(needed)} [prompt.length, d_model]"

    def described(self, d_model: int, layer: int, model: str) -> str:
        """A sentence for the user that describes the prompt; `layer` blocks of `model` lie below it."""
        where = "stand between source and target in" if self.is_behind else "go before the embedded input of"
        return f"{self.config.length} vectors of {d_model} numbers that {where} {model}"


def _pieces(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    pieces: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not pieces:
        raise UserError(f"prompt.init: '{text}' has no token to start from")
    return pieces


def _common(tokenizer: "PreTrainedTokenizerBase", count: int, seed: int) -> list[int]:
    from fpt.prompts.modules import sampled

    special = set(tokenizer.all_special_ids)
    ids = [index for index in range(min(NUM_COMMON, len(tokenizer))) if index not in special]
    if len(ids) < count:
        raise UserError(f"prompt.length: {count} pieces wanted, but the vocabulary has only {len(ids)}")
    return sampled(ids, count, seed)
