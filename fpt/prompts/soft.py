"""The soft prompt [P, D]: where it starts, and how it is put before the embedded input (Lester et al. 2021).

Letters: B batch, S source, P prompt, D model.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from fpt.backbones.backbone import Backbone
from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.prompts import files
from fpt.random_streams import stream

COMMON = 5000  # Lester et al. sample from the 5,000 most frequent pieces; T5's vocabulary is sorted by frequency


class SoftPrompt(nn.Module):
    """P learned vectors, always in float32: their updates vanish in bfloat16."""

    position = 0  # before the first block

    def __init__(self, vectors: Tensor) -> None:
        """Start from vectors [P, D]."""
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone().float())

    @property
    def length(self) -> int:
        """The number of vectors."""
        return self.vectors.shape[0]

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """What is learned, by name."""
        return {files.TENSOR: self.vectors}

    def prepend(self, embedded: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded source [B, S, D] and its mask [B, S] with the prompt in front: [B, P+S, D], [B, P+S]."""
        return put_before(self.vectors.expand(len(embedded), -1, -1), embedded, mask)


def put_before(prompt: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """KeptStates [B, S, D] and their mask [B, S] with a prompt [B, P, D] in front: [B, P+S, D], [B, P+S]."""
    ones = mask.new_ones(prompt.shape[:2])
    return torch.cat([prompt.to(states.dtype), states], 1), torch.cat([ones, mask], 1)


def uniform(size: tuple[int, ...], inputs: int, random: torch.Generator) -> Tensor:
    """Numbers in ±1/√inputs, float32."""
    bound = inputs**-0.5
    return torch.rand(size, generator=random) * 2 * bound - bound


def initial(config: PromptConfig, backbone: Backbone, *, labels: tuple[str, ...], seed: int) -> Tensor:
    """Vectors [P, D] to start from, float32; the same for every schedule.

    Args:
        config: length and kind of start.
        backbone: whose embeddings, tokenizer and width count.
        labels: the task's label words, for init=labels.
        seed: of the run.

    Raises:
        UserError: nothing to start from, or a file of another shape.
    """
    size = (config.length, backbone.config.d_model)
    random = stream(seed, "prompt")
    if config.init == "uniform":
        return uniform(size, size[1], random)
    if config.init == "file":
        files.check(config, size[1])
        return files.read_prompt(Path(str(config.file)).expanduser())
    if config.init == "text":
        pieces = _pieces(backbone.tokenizer, str(config.text))
        ids = [pieces[index % len(pieces)] for index in range(config.length)]
    else:
        words = [piece for label in labels for piece in _pieces(backbone.tokenizer, label)]
        ids = words[: config.length] if config.init == "labels" else []
        ids += _common(backbone.tokenizer, config.length - len(ids), random)
    return backbone.embeddings(ids)


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    pieces: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not pieces:
        raise UserError(f"prompt.init: '{text}' has no token to start from")
    return pieces


def _common(tokenizer: PreTrainedTokenizerBase, count: int, random: torch.Generator) -> list[int]:
    special = set(tokenizer.all_special_ids)
    ids = [index for index in range(min(COMMON, len(tokenizer))) if index not in special]
    picked = torch.randperm(len(ids), generator=random)[:count].tolist()
    if len(picked) < count:
        raise UserError(f"prompt.length: {count} pieces wanted, but the vocabulary has only {len(ids)}")
    return [ids[index] for index in picked]
