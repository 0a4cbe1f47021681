"""Examples as long as the real data sets' are, and random T5 1.1 models on disk: what the speed benchmark works on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from fpt.backbones.backbone import Backbone, read_config
from fpt.backbones.location import read_values
from fpt.backbones.shapes import STACKS, Shape, read_shape, read_sizes
from fpt.data.encoded import Encoded, RaggedRows
from fpt.prompts.modules import SoftPrompt
from fpt.prompts.prompted import PromptedModel
from fpt.prompts.readers import prompted_model
from stages import partial, selection

LIMIT = 492  # source tokens; with the paper's 20 prompt vectors 512 positions
PROMPT = 20
VOCABULARY = 32_128


@dataclass(frozen=True)
class Lengths:
    """A data set's lengths in T5 tokens: log-normal sources with this median and 90 % quantile, cut at LIMIT.

    Targets are spread evenly over `target`, ends included, or normal with mean and deviation `summary`.
    """

    median: float
    ninety: float
    target: tuple[int, int] = (2, 4)
    summary: tuple[float, float] | None = None


# Approximations as log-normals: medians and 90 % quantiles of the tokenised training splits, as far as we know them;
# no data set is read here. XSum's documents are cut at the limit in four of ten cases.
LENGTHS = {
    "boolq": Lengths(140, 260),
    "mnli": Lengths(40, 70),
    "xsum": Lengths(450, 1000, summary=(28, 10)),
}


def examples(lengths: Lengths, count: int, seed: int = 0) -> Encoded:
    """Random token ids of such lengths, each row closed with </s>."""
    random = np.random.default_rng(seed)
    spread = math.log(lengths.ninety / lengths.median) / 1.2816  # the normal distribution's 90 % quantile
    sources = random.lognormal(math.log(lengths.median), spread, count).round().clip(8, LIMIT)
    if lengths.summary:
        targets = random.normal(*lengths.summary, count).round().clip(8, 64)
    else:
        targets = random.integers(lengths.target[0], lengths.target[1], count, endpoint=True)
    return Encoded(_rows(random, sources), _rows(random, targets))


def _rows(random: np.random.Generator, lengths: NDArray[Any]) -> RaggedRows:
    return RaggedRows.of([*random.integers(5, 32_000, int(length) - 1).tolist(), 1] for length in lengths)


def config_of(shape: Shape, width: int = 512, heads: int = 6) -> T5Config:
    """A T5 1.1 of T5-small's width and the given depth; both stacks are as wide as the encoder."""
    return T5Config(
        vocab_size=VOCABULARY,
        d_model=width,
        d_kv=64,
        d_ff=shape.encoder.neurons,
        num_layers=shape.encoder.blocks,
        num_decoder_layers=shape.decoder.blocks,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
        decoder_start_token_id=0,
    )


def standalone(shape: Shape) -> Any:
    """Transformers' own model of this shape with random weights, frozen."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config_of(shape)).requires_grad_(False).eval()


def write_backbone(shape: Shape, folder: Path) -> Backbone:
    """Such a model as a checkpoint, opened as a run opens one."""
    logging.disable_progress_bar()
    standalone(shape).save_pretrained(folder)
    return open_backbone(folder)


def open_backbone(folder: Path) -> Backbone:
    """The checkpoint in a folder that has no tokenizer."""
    values = read_values(folder)
    where = str(folder)
    return Backbone(folder, read_shape(values, where), read_sizes(values, where), read_config(values, where))


def part(backbone: Backbone, shape: Shape) -> PromptedModel:
    """The backbone's partial PLM of this shape, built as a stage builds it, with an untrained prompt."""
    full = backbone.shape
    scores = {
        name: torch.rand(full[name].blocks, full[name].neurons, generator=torch.Generator().manual_seed(0))
        for name in STACKS
    }
    return prompted_model(partial.build(backbone, selection.choose(shape, full, scores)), untrained(backbone))


def untrained(backbone: Backbone) -> SoftPrompt:
    """The prompt that every side starts from."""
    size = (PROMPT, backbone.config.d_model)
    return SoftPrompt(torch.randn(size, generator=torch.Generator().manual_seed(0)))


def strata(batches: Sequence[list[int]], data: Encoded, count: int) -> list[list[int]]:
    """A systematic sample: of the batches in order of size, the middles of `count` equal parts."""
    ordered = sorted(batches, key=lambda indices: math.prod(data.padded_size(indices)[:2]))
    return [ordered[int(len(ordered) * (index + 0.5) / count)] for index in range(count)]
