"""What a prompt can be read from: our own file, a run's folder, a numpy array, the folder of a PEFT adapter.

Shapes are read from the file's header, so that what does not fit is refused before torch is imported.

Letters: P prompt, D model.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.runs.folder import LEDGER
from fpt.runs.run import PROMPT, open_run

if TYPE_CHECKING:
    from torch import Tensor

TENSOR = "prompt"
ADAPTER_CONFIG, ADAPTER, ADAPTER_TENSOR = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"
NUMPY = b"\x93NUMPY"  # google-research/prompt-tuning names its arrays without .npy, so the bytes count
FORMS = "a prompt.safetensors, a .npy, or the folder of a run or of a PEFT prompt adapter"
USE = ("kind", "layer", "length", "generator", "pool")  # what a late prompt's file says of its use


@dataclass(frozen=True)
class PromptFile:
    """A prompt on disk, of which the header was read.

    Attributes:
        file: the one it is in.
        shapes: of what is learned, by name; a soft prompt's is `prompt` [P, D].
        tensor: a soft prompt's name in a safetensors file; None: the file is a numpy array.
        late: how a late prompt is used; None: it is a soft one.
    """

    file: Path
    shapes: dict[str, tuple[int, ...]]
    tensor: str | None = None
    late: dict[str, Any] | None = None

    def read(self) -> "dict[str, Tensor]":
        """What is learned, by name, float32.

        Raises:
            UserError: it holds numbers that are not finite in float32.
        """
        import torch  # here, because an error must not wait for it

        if self.late is None and self.tensor is None:
            array = np.load(self.file, allow_pickle=False).astype(np.float32)
            tensors = {TENSOR: torch.from_numpy(array.reshape(self.shapes[TENSOR]))}
        else:
            with safe_open(self.file, framework="pt") as handle:
                names = {name: name if self.late else self.tensor for name in self.shapes}
                tensors = {
                    name: handle.get_tensor(stored)[: self.shapes[name][0]].float() for name, stored in names.items()
                }
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise UserError(f"{self.file}: holds numbers that are not finite in float32")
        return tensors

    @property
    def how(self) -> PromptConfig:
        """What the prompt is, as far as its file says."""
        if self.late is None:
            return PromptConfig(length=self.shapes[TENSOR][0])
        return _how(self.late, self.shapes)


def open_prompt(path: Path) -> PromptFile:
    """The prompt in a file or folder, soft or late.

    Raises:
        UserError: there is none, or reading it would run code.
    """
    return _find(path)


def read_prompt(path: Path) -> "Tensor":
    """The soft prompt [P, D] in a file or folder, float32.

    Raises:
        UserError: there is none, it is no matrix of finite floats, or reading it would run code.
    """
    stored = _find(path)
    if stored.late is not None:
        raise UserError(f"{stored.file}: holds a late prompt, which has no vectors to put before the input")
    return stored.read()[TENSOR]


def check(config: PromptConfig, d_model: int) -> None:
    """Refuse a `prompt.file` that a run cannot start from, by its header.

    Raises:
        UserError: there is no prompt in it, or one of another kind or shape than the run's.
    """
    if config.file is None:
        return
    stored, wanted = _find(Path(config.file).expanduser()), config.shapes(d_model)
    holds = stored.how
    if holds.kind != config.kind:
        raise UserError(
            f"prompt.file={config.file}: holds a {holds.kind} prompt, and this run has a {config.kind} one;"
            f" give prompt={holds.kind}"
        )
    makers = [(how.generator, how.pool) for how in (holds, config)]
    if stored.shapes == wanted and makers[0] == makers[1]:
        return
    if config.kind == "soft":
        found, needed, names = list(stored.shapes[TENSOR]), list(wanted[TENSOR]), "[prompt.length, d_model]"
        raise UserError(f"prompt.file={config.file}: holds a prompt of shape {found}, this run needs {needed} {names}")
    width = stored.shapes.get("down", stored.shapes.get("vectors", (0,)))[-1]
    raise UserError(
        f"prompt.file={config.file}: holds a late prompt with {_sizes(holds)} for d_model={width}; this run has"
        f" {_sizes(config)} and d_model={d_model}"
    )


def _sizes(how: PromptConfig) -> str:
    more = "" if how.generator == "none" else f" prompt.bottleneck={how.bottleneck}"
    more += f" prompt.pool={how.pool}" if how.generator == "npg" else ""
    return f"prompt.generator={how.generator} prompt.length={how.length}{more}"


def _find(path: Path) -> PromptFile:
    if path.is_dir():
        return _in_folder(path)
    try:
        with path.open("rb") as stream:
            is_array = stream.read(len(NUMPY)) == NUMPY
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {FORMS}") from None
    return _in_array(path) if is_array else _in_safetensors(path, TENSOR)


def _in_folder(path: Path) -> PromptFile:
    if (path / ADAPTER_CONFIG).is_file():
        return _in_adapter(path)
    if not (path / LEDGER).is_file():
        raise UserError(f"{path}: has no prompt; expected {FORMS}")
    run = open_run(path)
    if not run.is_finished:
        raise UserError(f"{path}: this run is not finished; stages/<stage>/{PROMPT} are the prompts it has")
    run.read(PROMPT)
    return _in_safetensors(path / PROMPT, TENSOR)


def _in_adapter(path: Path) -> PromptFile:
    """For encoder and decoder PEFT keeps a prompt each, one after the other; the encoder's is ours."""
    about = path / ADAPTER_CONFIG
    try:
        values = json.loads(about.read_text(encoding="utf-8"))
        kind, length = values["peft_type"], int(values["num_virtual_tokens"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{about}: is not the configuration of a PEFT prompt adapter") from None
    if kind != "PROMPT_TUNING":
        raise UserError(f"{about}: peft_type={kind}; only PROMPT_TUNING has a prompt that goes before the input")
    if not (path / ADAPTER).is_file():
        pickled = (path / "adapter_model.bin").is_file()
        reason = "adapter_model.bin is a pickle, which may run code; load and save it with PEFT, which writes"
        raise UserError(f"{path}: {reason if pickled else 'has no'} {ADAPTER}")
    stored = _in_safetensors(path / ADAPTER, ADAPTER_TENSOR)
    parts = values.get("num_transformer_submodules") or (2 if values.get("task_type") == "SEQ_2_SEQ_LM" else 1)
    vectors, width = stored.shapes[TENSOR]
    if vectors != length * parts:
        raise UserError(f"{stored.file}: has {vectors} vectors, {ADAPTER_CONFIG} says {parts} × {length}")
    return replace(stored, shapes={TENSOR: (length, width)})


def _in_safetensors(file: Path, tensor: str) -> PromptFile:
    try:
        with safe_open(file, framework="np") as handle:
            about = (handle.metadata() or {}).get("fpt", "")
            parts = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - a handle is no dict
            shapes = {name: (part.get_shape(), str(part.get_dtype())) for name, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error}); expected {FORMS}") from None
    if '"late"' in about:
        return _late(file, about, shapes)
    if tensor not in shapes:
        hint = "; give the adapter's folder" if ADAPTER_TENSOR in shapes else ""
        raise UserError(f"{file}: has no tensor '{tensor}', but {', '.join(shapes) or 'nothing'}{hint}")
    shape, dtype = shapes[tensor]
    return PromptFile(file, {TENSOR: _matrix(file, shape, dtype, is_float="F" in dtype)}, tensor)


def _late(file: Path, about: str, found: dict[str, tuple[list[int], str]]) -> PromptFile:
    """A late prompt, of which the file's own description must hold."""
    shapes = {name: tuple(shape) for name, (shape, _) in found.items()}
    try:
        width = next((shapes[name][-1] for name in ("vectors", "down") if name in shapes), 0)
        use = {name: value for name, value in json.loads(about).items() if name in USE}
        how = _how(use, shapes)
        is_right = len(use) == len(USE) and isinstance(how.layer, int) and shapes == how.shapes(width)
    except (ValueError, TypeError, AttributeError, IndexError, UserError):
        is_right = False
    if not is_right or not all("F" in dtype for _, dtype in found.values()):
        raise UserError(f"{file}: is not a late prompt as fpt writes it; its description and its tensors differ")
    return PromptFile(file, shapes, late=use)


def _how(use: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> PromptConfig:
    bottleneck = {"bottleneck": shapes["down"][0]} if "down" in shapes else {}
    return PromptConfig(**{**use, **bottleneck})


def _in_array(file: Path) -> PromptFile:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{file}: cannot be read as a numpy array ({error})") from None
    shape = list(array.shape)
    is_batch = len(shape) == 3 and shape[0] == 1
    return PromptFile(
        file, {TENSOR: _matrix(file, shape[is_batch:], str(array.dtype), is_float=array.dtype.kind == "f")}
    )


def _matrix(file: Path, shape: list[int], dtype: str, *, is_float: bool) -> tuple[int, int]:
    if len(shape) != 2 or not all(shape) or not is_float:
        raise UserError(f"{file}: holds {dtype} of shape {shape}; expected floats of shape [P, D]")
    return shape[0], shape[1]
