"""Checks a request to export before torch is imported, and writes PEFT adapters."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt.backbones import tiny
from fpt.backbones.family_table import FamilyRow, value_at
from fpt.backbones.location import config_values, read_values
from fpt.backbones.shapes import Shape, Stack, read_shape, read_sizes, row_of
from fpt.config.stored import is_hub_id
from fpt.errors import UserError, check_among
from fpt.prompts.files import ADAPTER, ADAPTER_CONFIG, ADAPTER_TENSOR
from fpt.prompts.kinds import kind_of
from fpt.runs.run import Run, RunStage, open_run

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("fpt", "peft", "npy", "hf", "tokens", "embeds")
WITH_MODEL = ("hf", "tokens")  # the formats that include the prompt's model


@dataclass(frozen=True)
class ExportRequest:
    """A checked request to export one prompt."""

    run: Run
    to: str  # the format
    stage: RunStage  # the stage on whose model the prompt was learned
    number: int | None  # the number of the stage whose last prompt to export; None: the run's best prompt
    folder: Path  # the folder to write
    base: str  # a Hub id or a folder: the model that the prompt is for, or that its checkpoint is a part of

    @property
    def shape(self) -> Shape:
        """The shape of the stage's model."""
        sizes, full = self.stage.values, read_shape(self.values, "")
        widths = [sizes["ffn"], sizes["decoder_ffn"]]  # the first is the first stack's
        return Shape(**{name: Stack(sizes[f"{name}_layers"], width) for name, width in zip(full, widths, strict=False)})

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config.json of the run's model."""
        return config_values(self.run.config.model)[0]

    @property
    def row(self) -> FamilyRow:
        """The row of the model's family."""
        return row_of(self.values, "")

    @property
    def is_whole(self) -> bool:
        """Whether the stage trained on the run's whole model."""
        return self.shape == read_shape(self.values, "")

    @property
    def layer(self) -> int:
        """The number of blocks below a late prompt in the stage's model."""
        layer = kind_of(self.run.config.prompt).position(read_shape(self.values, "").source.blocks)
        return sum(block < layer for block in self.stage.values[f"{next(iter(self.shape))}_blocks"])

    @property
    def is_embedded(self) -> bool:
        """Whether the prompt is for fpt's embedded model."""
        return self.base == str(tiny.FOLDER)

    @property
    def revision(self) -> str | None:
        """The run's `model.revision`; None if `base` is another model."""
        model = self.run.config.model
        return model.revision if self.base == model.weights else None

    @property
    def what(self) -> str:
        """What the prompt is, in words for the user."""
        return "the run's best prompt" if self.number is None else f"the prompt at the end of stage {self.number}"


def check_request(
    path: str, to: str, *, number: int | None = None, folder: str | None = None, base: str | None = None
) -> ExportRequest:
    """Check a typed request to export a prompt of the run in the folder `path`."""
    check_among(to, FORMATS, f"to={to}: allowed are")
    if to in WITH_MODEL and base is not None:
        raise UserError(f"base={base}: is for fpt, peft and npy; with to={to} the prompt's model comes along")
    run = open_run(path)
    _ = run.result  # refuses a run that is not finished
    row = row_of(config_values(run.config.model)[0], "")
    if why := kind_of(run.config.prompt).not_exported.get(to, _not_held(row, to)):
        raise UserError(f"to={to}: {why}; to=fpt writes it as fpt reads it, to=hf its model too")
    stage = run.stages[-1] if number is None else run.stage(number)
    name = to if number is None else f"{to}-stage{number}"
    target = Path(folder).expanduser() if folder else run.path / "export" / name
    if target.exists():
        raise UserError(f"{target}: exists already; remove it, or give another output=DIR")
    is_embedded = not base and run.config.model.weights == "embedded"
    model = str(tiny.FOLDER) if is_embedded else _resolved(base or run.config.model.weights)
    request = ExportRequest(run, to, stage, number, target, model)
    if to not in WITH_MODEL:
        _check_base(request, base)
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


def is_local(base: str) -> bool:
    """Return whether a model is a folder on this machine."""
    return Path(base).expanduser().is_dir()


def _resolved(base: str) -> str:
    """Make a folder's path absolute, so that `from_pretrained` finds it from anywhere; a Hub id is left as it is."""
    return str(Path(base).expanduser().resolve()) if is_local(base) else base


def _check_base(request: ExportRequest, base: str | None) -> None:
    """Check that the prompt's model is named and has the right shape."""
    if base is None and not request.is_whole:
        number = request.stage.values["index"]
        raise UserError(
            f"to={request.to}: stage {number} has a partial PLM, which to=hf stage={number} writes, with its prompt"
            f" beside it; name that folder, or the repository that has it, as base=…"
        )
    if base is not None and is_local(base):
        values, wanted = read_values(Path(base).expanduser()), request.shape
        if request.row.shares_width:  # in a checkpoint both stacks are as wide as the wider one
            wide = max(stack.neurons for stack in wanted.values())
            wanted = Shape(**{name: Stack(stack.blocks, wide) for name, stack in wanted.items()})
        actual = read_shape(values, f"base={base}")
        if (actual, read_sizes(values, "").width) != (wanted, read_sizes(request.values, "").width):
            raise UserError(f"base={base}: {_sized(actual)}, the prompt's model has {_sized(wanted)}")
    elif base is not None and not is_hub_id(base):
        raise UserError(f"base={base}: no such folder, and not a Hub id (owner/name)")


def _sized(shape: Shape) -> str:
    blocks = "+".join(str(stack.blocks) for stack in shape.values())
    return f"{blocks} blocks of {shape.source.neurons} FFN neurons"


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
        "revision": request.revision,
        "task_type": row.reads.peft_task,
        "token_dim": prompt.shape[1],
    }
    (folder / ADAPTER_CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    tensors = {ADAPTER_TENSOR: prompt.float().contiguous().numpy()}
    (folder / ADAPTER).write_bytes(save(tensors, {"format": "pt"}))  # `save_file` lets nobody else read it
