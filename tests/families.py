"""A small random checkpoint of every family, saved by transformers: one line in a table for each."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformers
from packaging.version import Version
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedTokenizerFast

from fpt.backbones import tiny
from fpt.backbones.backbone import Backbone
from fpt.backbones.family_table import FAMILY_TABLE
from fpt.backbones.shapes import Selection, Shape, StackSelection
from fpt.data.encoded import IGNORED, Batch, Encoded, RaggedRows
from tests.conftest import VOCABULARY, open_folder
from tests.models import DATA

WIDTH, NEURONS, BLANK = 32, 48, 77
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": NEURONS, **TOKENS}
TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
GROUPED = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
SLIDING = {**GROUPED, "sliding_window": 6, "layer_types": TYPES}
DEEPER = {**SLIDING, "num_hidden_layers": 5, "layer_types": [*TYPES, "sliding_attention"]}
EYES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
VISION = {**EYES, "image_size": 28, "patch_size": 14}
T5 = {"d_model": WIDTH, "d_ff": NEURONS, "d_kv": 8, "num_heads": 4, "num_layers": 4, "feed_forward_proj": "gated-gelu"}


@dataclass(frozen=True)
class Case:
    """A family's small model.

    Attributes:
        values: of its config.json.
        own_head: its checkpoints have a head of their own, although transformers' configuration says tied.
    """

    values: dict[str, Any]
    own_head: bool = False


CASES = {
    "mt5": Case({**T5, **TOKENS, "decoder_start_token_id": 0}, own_head=True),
    "umt5": Case({**T5, **TOKENS, "decoder_start_token_id": 0, "num_decoder_layers": 5}, own_head=True),
    "t5gemma": Case({"encoder": SLIDING, "decoder": DEEPER, "vocab_size": VOCABULARY}),
    "t5gemma2": Case({"encoder": {"text_config": SLIDING, "vision_config": VISION}, "decoder": DEEPER}),
    "gpt2": Case({"n_embd": WIDTH, "n_layer": 4, "n_head": 4, "n_inner": NEURONS, "n_positions": 520, **TOKENS}),
    "llama": Case(GROUPED),
    "mistral": Case({**GROUPED, "sliding_window": 6}),
    "qwen2": Case({**GROUPED, "use_sliding_window": True, "sliding_window": 6, "max_window_layers": 2}),
    "qwen3": Case({**GROUPED, "tie_word_embeddings": True}),
    "gemma2": Case(SLIDING),
    "gemma3_text": Case(SLIDING),
    "opt": Case({**SIZES, "ffn_dim": NEURONS, "word_embed_proj_dim": WIDTH, "max_position_embeddings": 520}),
    "bert": Case({**SIZES, "max_position_embeddings": 520}),
    "roberta": Case({**SIZES, "max_position_embeddings": 522}),
}
INSTALLED = Version(transformers.__version__)
# Families whose model the installed release computes wrongly are refused.
REFUSED = {name for name, row in FAMILY_TABLE.items() if Version(row.transformers or "0") > INSTALLED}
CASES = {name: case for name, case in CASES.items() if name not in REFUSED}
COUNTED = pytest.mark.skipif(Version("5.18") > INSTALLED, reason="older releases multiply in other places")


def save_family(folder: Path, family: str, **values: Any) -> Path:
    """A random model of a family, with the embedded model's tokenizer beside it; `values` are of its config.json."""
    case = CASES[family]
    torch.manual_seed(7)
    model = getattr(transformers, FAMILY_TABLE[family].reads.auto_class).from_config(
        CONFIG_MAPPING[family](**{**case.values, **values}), dtype=torch.float32
    )
    if case.own_head:
        model.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    with torch.no_grad():
        for parameter in model.parameters():  # far enough from 0 for every part to matter
            parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.5))
    model.save_pretrained(folder)
    if case.own_head:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "tie_word_embeddings": False}))
    more = {"mask_token": "<extra_id_9>"} if FAMILY_TABLE[family].reads.name == "mask" else {}
    AutoTokenizer.from_pretrained(tiny.FOLDER, **more).save_pretrained(folder)
    return folder


def save_byte_level(folder: Path, family: str, *, end: str = "<|endoftext|>", **values: Any) -> Path:
    """A random model of a family with a byte-level tokenizer of its own, which has no token to pad with, as GPT-2's.

    `values` are of its config.json.
    """
    library = Tokenizer(models.BPE())
    library.pre_tokenizer, library.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<|endoftext|>", "<|eot|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(["the lamp is red", "a stone is old", "yes no", "是 否 Привет мир"] * 20, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, eos_token=end, additional_special_tokens=special)
    save_family(folder, family, vocab_size=len(tokenizer), pad_token_id=None)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    said = json.loads((folder / "config.json").read_text())
    # Written past transformers, which does not save every end and pad token that older releases have saved.
    (folder / "config.json").write_text(json.dumps({**said, **ends, **values}))
    for name in ("tokenizer.json", "tokenizer_config.json", "spiece.model", "generation_config.json"):
        (folder / name).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return folder


def opened(folder: Path, family: str) -> Any:
    """transformers' own model of a checkpoint."""
    model = (
        getattr(transformers, FAMILY_TABLE[family].reads.auto_class).from_pretrained(folder, dtype=torch.float32).eval()
    )
    if family == "umt5":  # which transformers takes for tied, and scales: no published checkpoint is
        model.config.tie_word_embeddings = False
    return model.requires_grad_(False)


def fixtures_of(names: Iterable[str]) -> tuple[Any, Any, Any, Any]:
    """A module's fixtures: each family's name, its small model's folder, the backbone there, and transformers' own."""

    @pytest.fixture(scope="module", params=names)
    def family(request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture(scope="module")
    def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return save_family(tmp_path_factory.mktemp("families") / family, family)

    @pytest.fixture(scope="module")
    def backbone(folder: Path) -> Backbone:
        return open_folder(folder)

    @pytest.fixture(scope="module")
    def theirs(folder: Path, family: str) -> Any:
        return opened(folder, family)

    return family, folder, backbone, theirs


def data_of(family: str) -> Encoded:
    """Four examples of unlike lengths; a masked model's have a word each, which stands where the mask is."""
    if FAMILY_TABLE[family].reads.name != "mask":
        return DATA
    sources = [
        [2, 5, 6, BLANK, 7, 1],
        [2, 8, 9, 10, 11, 12, 13, 14, 15, BLANK, 1],
        [2, BLANK, 15, 1],
        [2, 16, BLANK, 1],
    ]
    return Encoded(RaggedRows.of(sources), RaggedRows.of([[30], [31], [32], [34]]), blank=BLANK)


class Inputs(NamedTuple):
    """A batch as transformers' own model takes it: [B, L] each, labels -100 where nothing is asked."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


def inputs_of(family: str, batch: Batch) -> Inputs:
    """The source, or in a causal model source and target one after the other."""
    if FAMILY_TABLE[family].reads.name == "seq2seq":
        return Inputs(batch.source, batch.mask, batch.labels)
    rows, answers = [], []
    for source, mask, target in zip(batch.source, batch.mask, batch.labels, strict=True):
        own, said = source[mask.bool()], target[target != IGNORED]
        if FAMILY_TABLE[family].reads.name == "causal":
            rows.append(torch.cat([own, said]))
            answers.append(torch.cat([torch.full_like(own, IGNORED), said]))
        else:
            rows.append(own)
            answers.append(torch.where(own == BLANK, said, IGNORED))
    ids = pad_sequence(rows, batch_first=True, padding_value=0)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_value=0)
    return Inputs(ids, mask, pad_sequence(answers, batch_first=True, padding_value=IGNORED))


class Given(nn.Module):
    """Stands in an embedding's place, and gives what is put in."""

    def forward(self, *, inputs_embeds: Tensor, **_: Any) -> Tensor:
        return inputs_embeds


class Nothing(nn.Module):
    """Stands in a position embedding's place, and adds nothing."""

    def forward(self, positions: Tensor, *_: Any, **__: Any) -> Tensor:
        return torch.zeros(*positions.shape, 1)


@contextmanager
def embedding_of(model: Any, family: str) -> Iterator[Callable[[Tensor], Tensor]]:
    """Within, the model takes as `inputs_embeds` what the function makes of ids: the states before its first block."""
    place, stand_in = {
        "gpt2": ("transformer.wpe", Nothing()),
        "opt": ("model.decoder.embed_positions", Nothing()),
        "bert": ("bert.embeddings", Given()),
        "roberta": ("roberta.embeddings", Given()),
    }.get(family, ("", None))
    if stand_in is None:
        yield model.get_input_embeddings()
        return
    parent, _, name = place.rpartition(".")
    own, words = model.get_submodule(place), model.get_input_embeddings()

    def embedded(ids: Tensor) -> Tensor:
        if family == "gpt2":
            return words(ids) + own(torch.arange(ids.shape[1]))
        if family == "opt":
            return words(ids) + own(torch.ones_like(ids))
        return own(input_ids=ids)

    setattr(model.get_submodule(parent), name, stand_in)
    yield embedded
    setattr(model.get_submodule(parent), name, own)


def part_of(shape: Shape, *, blocks: int = 2, neurons: int = 16) -> Selection:
    """Some blocks, not the first ones alone, with some of their neurons, other ones in each."""

    def some(total: int) -> StackSelection:
        kept = tuple(range(1, total))[-blocks:]
        return StackSelection(kept, tuple(tuple(range(block % 3, NEURONS, 3))[:neurons] for block in kept))

    return Selection(**{name: some(size.blocks) for name, size in shape.items()})
