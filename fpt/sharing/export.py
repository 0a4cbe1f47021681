"""Checks a request to export before torch is imported, and makes PEFT adapters and prompts that are tokens."""

import json
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt.backbones import tiny
from fpt.backbones.family_table import FamilyRow, value_at
from fpt.backbones.location import config_values
from fpt.backbones.shapes import Shape, Stack, read_shape, row_of
from fpt.errors import UserError, check_among
from fpt.prompts.files import ADAPTER, ADAPTER_CONFIG, ADAPTER_TENSOR
from fpt.prompts.kinds import kind_of
from fpt.runs.run import Run, RunStage, open_run

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

FORMATS = ("fpt", "peft", "npy", "thunlp", "hf", "tokens", "embeds")
WITH_MODEL = ("hf", "tokens")  # the formats that include the prompt's model


@dataclass(frozen=True)
class ExportRequest:
    """A checked request to export one prompt."""

    run: Run
    to: str  # the format
    stage: RunStage  # the stage on whose model the prompt was learned
    number: int | None  # the number of the stage whose last prompt to export; None: the run's best prompt
    folder: Path  # the folder to write

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config.json of the run's model."""
        return config_values(self.run.config.model)[0]

    @property
    def row(self) -> FamilyRow:
        """The row of the model's family."""
        return row_of(self.values, "")

    @cached_property
    def full(self) -> Shape:
        """The shape of the run's model."""
        return read_shape(self.values, "")

    @property
    def shape(self) -> Shape:
        """The shape of the stage's model."""
        sizes = self.stage.values
        widths = [sizes["ffn"], sizes["decoder_ffn"]]  # the first is the first stack's
        stacks = {name: Stack(sizes[f"{name}_layers"], width) for name, width in zip(self.full, widths, strict=False)}
        return Shape(**stacks)

    @property
    def layer(self) -> int:
        """The number of blocks below a late prompt in the stage's model."""
        layer = kind_of(self.run.config.prompt).position(self.full.source.blocks)
        return sum(block < layer for block in self.stage.values[f"{next(iter(self.shape))}_blocks"])

    @property
    def is_embedded(self) -> bool:
        """Whether the run's model is fpt's embedded one."""
        return self.run.config.model.weights == "embedded"

    @property
    def is_local(self) -> bool:
        """Whether the run's model is a folder on this machine."""
        return Path(self.base).is_dir()

    @property
    def base(self) -> str:
        """The run's model, as `from_pretrained` finds it from anywhere: a Hub id, or a folder's absolute path."""
        weights = self.run.config.model.weights
        folder = tiny.FOLDER if self.is_embedded else Path(weights).expanduser()
        return str(folder.resolve()) if folder.is_dir() else weights

    @property
    def what(self) -> str:
        """What the prompt is, in words for the user."""
        return "the run's best prompt" if self.number is None else f"the prompt at the end of stage {self.number}"


def check_request(path: str, to: str, *, number: int | None = None, folder: str | None = None) -> ExportRequest:
    """Check a typed request to export a prompt of the run in the folder `path`."""
    check_among(to, FORMATS, f"to={to}: allowed are")
    run = open_run(path)
    _ = run.result  # refuses a run that is not finished
    stage = run.stages[-1] if number is None else run.stage(number)
    name = to if number is None else f"{to}-stage{number}"
    target = Path(folder).expanduser() if folder else run.path / "export" / name
    request = ExportRequest(run, to, stage, number, target)
    if why := kind_of(run.config.prompt).not_exported.get(to, _not_held(request.row, to)):
        raise UserError(f"to={to}: {why}; to=fpt writes it as fpt reads it, to=hf its model too")
    if target.exists():
        raise UserError(f"{target}: exists already; remove it, or give another output=DIR")
    if to not in WITH_MODEL and request.shape != request.full:
        index = stage.values["index"]
        raise UserError(f"to={to}: stage {index} has a partial PLM, which to=hf stage={index} writes, with its prompt")
    return request


def _not_held(row: FamilyRow, to: str) -> str:
    """Say why a format cannot hold prompts for a model family; "" if it can."""
    if to == "peft":
        return row.no_peft
    if to == "embeds" and not row.reads.reads_target:
        return "servers take embeddings for decoder-only models alone"
    if to == "embeds" and row.positions is not None:
        return "a server would add positions to the prompt's vectors, fpt puts them behind that, as is published"
    return ""


def write_adapter(folder: Path, request: ExportRequest, prompt: "Tensor") -> None:
    """Write a PEFT prompt-tuning adapter with the prompt [P, D], without PEFT.

    PEFT itself would also save a prompt for an encoder-decoder's decoder, which its forward pass does not use.
    """
    from safetensors.numpy import save

    row = request.row
    values = {
        "base_model_name_or_path": request.base,
        "inference_mode": True,
        "num_attention_heads": value_at(request.values, row.first.key(row.num_heads)),
        "num_layers": request.shape.source.blocks,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt.shape[0],
        "peft_type": "PROMPT_TUNING",
        "revision": request.run.config.model.revision,
        "task_type": row.reads.peft_task,
        "token_dim": prompt.shape[1],
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tensors = {ADAPTER_TENSOR: prompt.float().contiguous().numpy()}
    (folder / ADAPTER).write_bytes(save(tensors, {"format": "pt"}))  # `save_file` lets nobody else read it


def written(name: str) -> str:
    """Write a prompt's name as it is used in a text."""
    return f"<prompt:{name}>"


def with_prompts(tokenizer: "PreTrainedTokenizerBase", lengths: dict[str, int]) -> "PreTrainedTokenizerBase":
    """Add prompts, by name and number of tokens, to a copy of a tokenizer, which replaces their names in texts by them.

    The rules for this are in its normaliser, so they hold in every program that reads its tokenizer.json.
    """
    from tokenizers import AddedToken, normalizers

    if not tokenizer.is_fast:
        raise UserError(
            f"to=tokens: {type(tokenizer).__name__} has no rules by which a name could stand for tokens; to=peft and"
            " to=npy take the prompt along without a tokenizer"
        )
    tokenizer = deepcopy(tokenizer)
    library, rules = tokenizer.backend_tokenizer, []
    for name, length in lengths.items():
        tokens = [f"<prompt:{name}:{number}>" for number in range(length)]
        # With normalized=True they are matched after the rules have inserted them; special tokens are not decoded.
        added = [AddedToken(token, normalized=True, special=True) for token in tokens]
        if tokenizer.add_tokens(added, special_tokens=True) < length:
            raise UserError(f"to=tokens: the model has a prompt called {name} already; give another name with names=…")
        rules.append(normalizers.Replace(written(name), "".join(tokens)))
    library.normalizer = normalizers.Sequence([*rules, *filter(None, [library.normalizer])])
    return tokenizer
