"""What a prompt can be read from: our own file, a run's folder, a numpy array, the folder of a PEFT adapter.

The shape is read from the file's header, so that what does not fit is refused before torch is imported.

Letters: P prompt, D model.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open

from fpt import records
from fpt.config import PromptConfig
from fpt.errors import UserError
from fpt.folder import LEDGER

if TYPE_CHECKING:
    from torch import Tensor

TENSOR = "prompt"
ADAPTER_CONFIG, ADAPTER, ADAPTER_TENSOR = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"
NUMPY = b"\x93NUMPY"  # google-research/prompt-tuning names its arrays without .npy, so the bytes count
FORMS = "a safetensors file with a tensor 'prompt', a .npy, or the folder of a run or of a PEFT prompt adapter"


@dataclass(frozen=True)
class _Stored:
    """A prompt on disk.

    Attributes:
        file: the one it is in.
        shape: [P, D].
        tensor: its name in a safetensors file; None: the file is a numpy array.
    """

    file: Path
    shape: tuple[int, int]
    tensor: str | None = None


def read_prompt(path: Path) -> "Tensor":
    """The prompt [P, D] in a file or folder, float32.

    Raises:
        UserError: there is none, it is no matrix of finite floats, or reading it would run code.
    """
    import torch  # here, because an error must not wait for it

    stored = _find(path)
    if stored.tensor is None:
        array = np.load(stored.file, allow_pickle=False).astype(np.float32)
        prompt = torch.from_numpy(array.reshape(stored.shape))
    else:
        with safe_open(stored.file, framework="pt") as handle:
            prompt = handle.get_tensor(stored.tensor)[: stored.shape[0]].float()
    if not prompt.isfinite().all():
        raise UserError(f"{stored.file}: holds numbers that are not finite in float32")
    return prompt


def read_learned(path: Path) -> "dict[str, Tensor]":
    """All that a file of a run's own has, by name, float32: a soft prompt's one tensor, or a late prompt's.

    Raises:
        UserError: it cannot be read, or holds numbers that are not finite.
    """
    import torch
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error})") from None
    if not all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in tensors.values()):
        raise UserError(f"{path}: holds numbers that are not finite, or not in float32")
    return tensors


def check(config: PromptConfig, d_model: int) -> None:
    """Refuse a `prompt.file` that a run cannot start from, by its header.

    Raises:
        UserError: there is no prompt in it, or one of another shape than [prompt.length, d_model].
    """
    if config.file is None:
        return
    shape, wanted = _find(Path(config.file).expanduser()).shape, (config.length, d_model)
    if shape != wanted:
        raise UserError(
            f"prompt.file={config.file}: holds a prompt of shape {list(shape)}, this run needs {list(wanted)}"
            " [prompt.length, d_model]"
        )


def _find(path: Path) -> _Stored:
    if path.is_dir():
        return _in_folder(path)
    try:
        with path.open("rb") as stream:
            is_array = stream.read(len(NUMPY)) == NUMPY
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {FORMS}") from None
    return _in_array(path) if is_array else _in_safetensors(path, TENSOR)


def _in_folder(path: Path) -> _Stored:
    if (path / ADAPTER_CONFIG).is_file():
        return _in_adapter(path)
    if not (path / LEDGER).is_file():
        raise UserError(f"{path}: has no prompt; expected {FORMS}")
    run = records.open_records(path)
    if not run.is_finished:
        raise UserError(f"{path}: this run is not finished; stages/<stage>/{records.PROMPT} are the prompts it has")
    run.read(records.PROMPT)
    return _in_safetensors(path / records.PROMPT, TENSOR)


def _in_adapter(path: Path) -> _Stored:
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
    if stored.shape[0] != length * parts:
        raise UserError(f"{stored.file}: has {stored.shape[0]} vectors, {ADAPTER_CONFIG} says {parts} × {length}")
    return replace(stored, shape=(length, stored.shape[1]))


def _in_safetensors(file: Path, tensor: str) -> _Stored:
    try:
        with safe_open(file, framework="np") as handle:
            if tensor not in handle.keys():  # noqa: SIM118 - a safetensors handle is no dict
                hint = "; give the adapter's folder" if ADAPTER_TENSOR in handle.keys() else ""  # noqa: SIM118
                if '"late"' in (handle.metadata() or {}).get("fpt", ""):
                    raise UserError(f"{file}: holds a late prompt, which is used with its run, as in run=DIR")
                held = ", ".join(handle.keys()) or "nothing"
                raise UserError(f"{file}: has no tensor '{tensor}', but {held}{hint}")
            part = handle.get_slice(tensor)
            shape, dtype = part.get_shape(), str(part.get_dtype())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error}); expected {FORMS}") from None
    return _Stored(file, _matrix(file, shape, dtype, is_float="F" in dtype), tensor)


def _in_array(file: Path) -> _Stored:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{file}: cannot be read as a numpy array ({error})") from None
    shape = list(array.shape)
    is_batch = len(shape) == 3 and shape[0] == 1
    return _Stored(file, _matrix(file, shape[is_batch:], str(array.dtype), is_float=array.dtype.kind == "f"))


def _matrix(file: Path, shape: list[int], dtype: str, *, is_float: bool) -> tuple[int, int]:
    if len(shape) != 2 or not all(shape) or not is_float:
        raise UserError(f"{file}: holds {dtype} of shape {shape}; expected floats of shape [P, D]")
    return shape[0], shape[1]
