"""What leaves fpt: which prompt of a run, for which model, in which format; nothing heavy is imported to check it."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpt.backbones import tiny
from fpt.backbones.location import config_values, read_values
from fpt.backbones.shapes import Shape, Stack, read_shape
from fpt.config.schema import ModelConfig
from fpt.errors import UserError, did_you_mean
from fpt.prompts.files import ADAPTER, ADAPTER_CONFIG, ADAPTER_TENSOR
from fpt.prompts.kinds import kind_of
from fpt.runs.atomic import new_folder
from fpt.runs.run import Run, RunStage, open_run

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("fpt", "peft", "npy", "hf")
ARRAY = "prompt.npy"


@dataclass(frozen=True)
class ExportRequest:
    """Which prompt leaves, how, and to where; checked.

    Attributes:
        run: whose prompt.
        to: the format.
        number: the stage whose last prompt it is; None: the run's best prompt.
        folder: where it goes.
        base: the model that the prompt goes before: a Hub id or a folder. In a checkpoint, the one it is a part of.
        repo: the Hub's repository that gets it, if any.
    """

    run: Run
    to: str
    number: int | None
    folder: Path
    base: str
    repo: str | None

    @property
    def stage(self) -> RunStage:
        """The stage on whose model the prompt was learned."""
        return self.run.stages[(self.number or len(self.run.stages)) - 1]

    @property
    def shape(self) -> Shape:
        """Of that stage's model."""
        sizes = self.stage.about
        return Shape(Stack(sizes["encoder_layers"], sizes["ffn"]), Stack(sizes["decoder_layers"], sizes["decoder_ffn"]))

    @cached_property
    def values(self) -> dict[str, Any]:
        """The config.json of the run's model."""
        return config_values(self.run.config.model)[0]

    @property
    def is_whole(self) -> bool:
        """Whether the stage's model is the run's model and not a part of it."""
        return self.shape == read_shape(self.values, "")

    @property
    def layer(self) -> int:
        """How many encoder blocks lie below a late prompt in the stage's model."""
        layer = kind_of(self.run.config.prompt).position(read_shape(self.values, "").encoder.blocks)
        return sum(block < layer for block in self.stage.about["encoder_blocks"])

    @property
    def what(self) -> str:
        """The prompt, for people."""
        return "the run's best prompt" if self.number is None else f"the prompt at the end of stage {self.number}"


def check_request(
    path: str, to: str, *, number: int | None = None, folder: str | None = None, base: str | None, repo: str | None
) -> ExportRequest:
    """What is to leave the run in the folder `path`.

    Raises:
        UserError: no such format, stage or finished run; the folder exists; or the model that the prompt goes before
            is not named, or has another shape.
    """
    if to not in FORMATS:
        raise UserError(f"to={to}: allowed are {', '.join(FORMATS)}.{did_you_mean(to, FORMATS)}")
    if to == "hf" and base is not None:
        raise UserError(f"base={base}: is for fpt, peft and npy; with to=hf the prompt's model comes along")
    run = open_run(path)
    _ = run.result  # what is not finished has none
    if why := kind_of(run.config.prompt).not_exported.get(to):
        raise UserError(f"to={to}: {why}; to=fpt writes it as fpt reads it, to=hf its model too")
    if number is not None:
        run.stage(number)
    name = to if number is None else f"{to}-stage{number}"
    target = Path(folder).expanduser() if folder else run.path / "export" / name
    if target.exists():
        raise UserError(f"{target}: exists already; remove it, or give another output=DIR")
    request = ExportRequest(run, to, number, target, _resolved(base) if base else default_base(run.config.model), repo)
    if to != "hf":
        _check_base(request, base)
    return request


def default_base(config: ModelConfig) -> str:
    """The model of a run as `from_pretrained` takes it: a Hub id, or a folder from the root on."""
    return str(tiny.FOLDER) if config.weights == "embedded" else _resolved(config.weights)


def is_local(base: str) -> bool:
    """Whether a model is a folder of this machine."""
    return Path(base).expanduser().is_dir()


def _resolved(base: str) -> str:
    return str(Path(base).expanduser().resolve()) if is_local(base) else base


def _check_base(request: ExportRequest, base: str | None) -> None:
    """The model must be named where it is not the run's, be of the prompt's shape, and not be this machine's alone."""
    if base is None and not request.is_whole:
        number = request.stage.about["index"]
        raise UserError(
            f"to={request.to}: stage {number} has a partial PLM, which to=hf stage={number} writes, with its prompt"
            f" beside it; name that folder, or the repository that has it, as base=…"
        )
    if base is not None and is_local(base):
        values, shape = read_values(Path(base).expanduser()), request.shape
        wide = max(shape.encoder.neurons, shape.decoder.neurons)  # as a checkpoint has it, with one d_ff
        wanted = Shape(Stack(shape.encoder.blocks, wide), Stack(shape.decoder.blocks, wide))
        actual = read_shape(values, f"base={base}")
        if (actual, values["d_model"]) != (wanted, request.values["d_model"]):
            raise UserError(f"base={base}: {_sized(actual)}, the prompt's model has {_sized(wanted)}")
    elif base is not None and (base.count("/") != 1 or base.startswith(("/", ".", "~"))):
        raise UserError(f"base={base}: no such folder, and not a Hub id (owner/name)")
    if request.repo and is_local(request.base) and request.base != str(tiny.FOLDER):
        raise UserError(
            f"push-to-hub={request.repo}: the prompt's model, {request.base}, is on this machine alone;"
            " name its repository with base=OWNER/NAME"
        )


def _sized(shape: Shape) -> str:
    return f"{shape.encoder.blocks}+{shape.decoder.blocks} blocks of {shape.encoder.neurons} FFN neurons"


def adapter(prompt: "Tensor", *, base: str, revision: str | None, layers: int, heads: int) -> dict[str, bytes]:
    """The files of a PEFT prompt-tuning adapter for an encoder-decoder, without PEFT.

    PEFT would keep a second prompt for the decoder, which its forward pass leaves alone; one is written here.

    Args:
        prompt: [P, D].
        base: the model, as `from_pretrained` takes it.
        revision: of a Hub id.
        layers: blocks of the encoder.
        heads: attention heads of a block.
    """
    from safetensors.numpy import save

    values = {
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "num_attention_heads": heads,
        "num_layers": layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": prompt.shape[0],
        "peft_type": "PROMPT_TUNING",
        "prompt_tuning_init": "RANDOM",
        "prompt_tuning_init_text": None,
        "revision": revision,
        "task_type": "SEQ_2_SEQ_LM",
        "token_dim": prompt.shape[1],
        "tokenizer_name_or_path": None,
    }
    tensors = save({ADAPTER_TENSOR: prompt.float().contiguous().numpy()}, {"format": "pt"})
    return {ADAPTER_CONFIG: (json.dumps(values, indent=2) + "\n").encode(), ADAPTER: tensors}


def array(prompt: "Tensor") -> dict[str, bytes]:
    """A prompt [P, D] as `np.load` and google-research/prompt-tuning's `prompts.from_array` take it, float32."""
    import numpy as np

    data = io.BytesIO()
    np.save(data, prompt.float().numpy())
    return {ARRAY: data.getvalue()}


@contextmanager
def made_aside(folder: Path) -> Iterator[Path]:
    """A path beside the folder that becomes it when all is written, and is removed when that fails.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"output={folder}: cannot be made ({error.strerror})") from None
    with new_folder(folder) as aside:
        yield aside
