"""The soft prompt: P learned vectors [P, D] before the embedded input (Lester et al. 2021).

A kind answers questions before torch is imported; the module that is trained is in `modules`.

Letters: P prompt, D model.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from fpt.config.schema import PromptConfig
from fpt.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fpt.backbones.backbone import Backbone
    from fpt.backbones.reading import Reading
    from fpt.prompts.modules import SoftPrompt, Tensors

TENSOR = "prompt"
NUM_COMMON = 5000  # Lester et al. sample from the 5,000 most frequent pieces; T5's vocabulary is sorted by frequency


@dataclass(frozen=True)
class Soft:
    """A prompt that its settings describe; every kind answers the same questions.

    A kind whose files have `metadata` also reads them, by `of_file`.
    """

    config: PromptConfig
    name: ClassVar[str] = "soft"
    is_input: ClassVar[bool] = True  # vectors before the embedded input, for which other libraries have a place
    not_exported: ClassVar[dict[str, str]] = {}  # formats that cannot hold it, each with the reason

    @staticmethod
    def width(shapes: dict[str, tuple[int, ...]]) -> int:
        """The model width D of tensors with such shapes."""
        return shapes[TENSOR][-1]

    def position(self, num_blocks: int) -> int:
        """How many blocks lie below the prompt, of the stack that it enters."""
        return 0

    def resolved(self, reads: "Reading", num_blocks: int) -> PromptConfig:
        """The settings, `auto` resolved for a model that reads in this way and has so many blocks."""
        return self.config

    def shapes(self, d_model: int) -> dict[str, tuple[int, ...]]:
        """The shapes of the learned tensors, by name."""
        return {TENSOR: (self.config.length, d_model)}

    def num_learned(self, d_model: int) -> int:
        """How many numbers are learned."""
        return self.config.length * d_model

    def flops(self, source: int, d_model: int) -> tuple[int, int]:
        """FLOPs of the two layers that make the vectors of an example of `source` positions; a soft prompt has none."""
        return 0, 0

    def initial(self, backbone: "Backbone", *, labels: tuple[str, ...], seed: int) -> "Tensors":
        """The float32 tensors to start from; with prompt.init=labels they are embeddings of the task's label words."""
        from fpt.prompts.modules import drawn

        config = self.config
        if config.init in ("auto", "uniform", "normal"):
            return drawn(self.shapes(backbone.sizes.width), seed, normal=config.init == "normal")
        if config.init == "text":
            pieces = _pieces(backbone.tokenizer, str(config.text))
            ids = [pieces[index % len(pieces)] for index in range(config.length)]
        else:
            words = [piece for label in labels for piece in _pieces(backbone.tokenizer, label)]
            ids = words[: config.length] if config.init == "labels" else []
            ids += _common(backbone.tokenizer, config.length - len(ids), seed)
        return {TENSOR: backbone.embeddings(ids)}

    def build(self, tensors: "Tensors", position: int) -> "SoftPrompt":
        """The tensors as a trainable module that enters after the first `position` blocks."""
        from fpt.prompts.modules import SoftPrompt

        return SoftPrompt(tensors[TENSOR])

    def metadata(self, layer: int) -> dict[str, Any]:
        """What a prompt's file says besides its tensors, which enter before block `layer` of the whole model."""
        return {}

    def mismatch(self, shapes: dict[str, tuple[int, ...]], other: PromptConfig, d_model: int) -> str | None:
        """Why this prompt cannot start from the tensors of another one of its kind; None: it can."""
        held, needed = shapes[TENSOR], self.shapes(d_model)[TENSOR]
        if held == needed:
            return None
        return f"holds a prompt of shape {list(held)}, this run needs {list(needed)} [prompt.length, d_model]"

    def described(self, d_model: int, layer: int, model: str) -> str:
        """A line for people that says what the prompt is; `layer` blocks of `model` lie below it."""
        return f"{self.config.length} vectors of {d_model} numbers that go before the embedded input of {model}"


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
