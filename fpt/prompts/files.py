"""Reads the prompt to start from: fpt's own file, a run's folder, a numpy array, torch's file or a PEFT adapter.

Shapes come from the file's header, so that a prompt that does not fit is refused before torch is imported; only a
file that torch saved has no header, and is loaded.

Letters: P prompt, D model.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fpt.backbones.location import TOKENIZER_FILES
from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.prompts.kinds import KINDS, kind_of
from fpt.prompts.soft import TENSOR
from fpt.runs.files import other_kind
from fpt.runs.folder import LEDGER
from fpt.runs.run import INPUTS, PROMPT, open_run

if TYPE_CHECKING:
    from fpt.backbones.backbone import Backbone
    from fpt.prompts.modules import Tensors

ADAPTER_CONFIG, ADAPTER, ADAPTER_TENSOR = "adapter_config.json", "adapter_model.safetensors", "prompt_embeddings"
NUMPY = b"\x93NUMPY"  # first bytes; google-research/prompt-tuning saves arrays without the ending .npy
ZIP = b"PK\x03\x04"  # first bytes of what torch has saved since 1.6
AS_IT_IS = "to use it there as it is, give its prompt.safetensors as prompt.file in place of the run"
FORMS = "a prompt.safetensors, a .npy, what torch saved, or the folder of a run or of a PEFT prompt adapter"


@dataclass(frozen=True)
class PromptFile:
    """A prompt on disk, of which only the header has been read.

    Attributes:
        file: its file.
        config: its settings, as far as the file states them.
        shapes: its tensors' shapes, by name; a PEFT adapter may hold more rows, which are not the encoder's.
        load: reads the tensors, in the precision that they are stored in.
        vocabulary: the hash of the tokenizer that it was trained with; None: not known.
    """

    file: Path
    config: PromptConfig
    shapes: dict[str, tuple[int, ...]]
    load: Callable[[], "Tensors"]
    vocabulary: str | None = None

    def read(self) -> "Tensors":
        """The learned tensors, by name, in float32; numbers that are not finite there are an error."""
        tensors = {name: tensor[: self.shapes[name][0]].float() for name, tensor in self.load().items()}
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise UserError(f"{self.file}: holds numbers that are not finite in float32")
        return tensors


def initial(config: PromptConfig, backbone: "Backbone", *, labels: tuple[str, ...], seed: int) -> "Tensors":
    """The float32 tensors to start from: those in `prompt.file`, or else the initial ones of the prompt's kind."""
    stored = prompt_to_start_from(config, backbone.sizes.width)
    if stored is None:
        return kind_of(config).initial(backbone, labels=labels, seed=seed)
    refuse_other_tokenizer(f"prompt.file={config.file}", stored.vocabulary, backbone)
    return stored.read()


def refuse_other_tokenizer(name: str, vocabulary: str | None, backbone: "Backbone") -> None:
    """Refuse a prompt that was trained with another tokenizer than the model's; `vocabulary` is that one's hash."""
    if vocabulary not in (None, backbone.vocabulary):
        raise UserError(
            f"{name}: the prompt was trained with another tokenizer than that in {backbone.folder}, whose"
            f" files ({', '.join(TOKENIZER_FILES)}) have changed; put them back, or {AS_IT_IS}"
        )


def prompt_to_start_from(config: PromptConfig, d_model: int) -> PromptFile | None:
    """The prompt in `prompt.file`, if that is set; a prompt of another kind or shape than the run's is an error."""
    if config.file is None:
        return None
    stored = open_prompt(Path(config.file).expanduser())
    holds = stored.config.kind
    if holds != config.kind:
        raise config.error("file", f"holds a {holds} prompt, and this run has a {config.kind} one; give prompt={holds}")
    if problem := kind_of(config).mismatch(stored.shapes, stored.config, d_model):
        raise config.error("file", problem)
    return stored


def open_prompt(path: Path) -> PromptFile:
    """The prompt in a file or folder, of any kind; a file without one, or one that would run code, is an error."""
    if path.is_dir():
        return _in_folder(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(len(NUMPY))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected {FORMS}") from None
    if start.startswith(ZIP):
        return _in_torch_file(path)
    return _in_array(path) if start == NUMPY else _in_safetensors(path, TENSOR)


def _in_folder(path: Path) -> PromptFile:
    if (path / ADAPTER_CONFIG).is_file():
        return _in_adapter(path)
    if not (path / LEDGER).is_file():
        raise UserError(f"{path}: has no prompt; expected {FORMS}")
    run = open_run(path)
    if not run.is_finished:
        raise UserError(f"{path}: this run is not finished; stages/<stage>/{PROMPT} are the prompts it has")
    run.read(PROMPT)
    return replace(_in_safetensors(path / PROMPT, TENSOR), vocabulary=run.read_json(INPUTS).get("tokenizer"))


def _in_adapter(path: Path) -> PromptFile:
    """The encoder's prompt in a PEFT adapter, which stores one for the encoder and then one for the decoder."""
    file = path / ADAPTER_CONFIG
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        peft_type, length = values["peft_type"], int(values["num_virtual_tokens"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: is not the configuration of a PEFT prompt adapter") from None
    if peft_type != "PROMPT_TUNING":
        raise UserError(f"{file}: peft_type={peft_type}; only PROMPT_TUNING has a prompt that goes before the input")
    if not (path / ADAPTER).is_file():
        pickled = (path / "adapter_model.bin").is_file()
        reason = "adapter_model.bin is a pickle, which may run code; load and save it with PEFT, which writes"
        raise UserError(f"{path}: {reason if pickled else 'has no'} {ADAPTER}")
    stored = _in_safetensors(path / ADAPTER, ADAPTER_TENSOR)
    parts = values.get("num_transformer_submodules") or (2 if values.get("task_type") == "SEQ_2_SEQ_LM" else 1)
    vectors, width = stored.shapes[TENSOR]
    if vectors != length * parts:
        raise UserError(f"{stored.file}: has {vectors} vectors, {ADAPTER_CONFIG} says {parts} × {length}")
    return replace(stored, shapes={TENSOR: (length, width)}, config=PromptConfig(length=length))


def _in_safetensors(file: Path, stored: str) -> PromptFile:
    """A soft prompt, in the tensor called `stored`, or a prompt of the kind that the file's metadata names."""
    try:
        with safe_open(file, framework="np") as handle:
            description = (handle.metadata() or {}).get("fpt", "")
            parts = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 - a handle is no dict
            shapes = {name: tuple(part.get_shape()) for name, part in parts.items()}
            dtypes = {name: str(part.get_dtype()) for name, part in parts.items()}
    except (SafetensorError, OSError) as error:
        other = other_kind(file) if file.is_file() else None
        raise UserError(f"{file}: {other or f'cannot be read as safetensors ({error}); expected {FORMS}'}") from None
    # A prompt before the input has no kind recorded, so that fpt's files and those of other tools are read alike.
    if kind := next((name for name in KINDS if f'"{name}"' in description), None):
        are_floats = all("F" in dtype for dtype in dtypes.values())
        config = _described(file, kind, description if are_floats else "", shapes)
        return PromptFile(file, config, shapes, partial(_load, file, {name: name for name in shapes}))
    if stored not in shapes:
        hint = "; give the adapter's folder" if ADAPTER_TENSOR in shapes else ""
        raise UserError(f"{file}: has no tensor '{stored}', but {', '.join(shapes) or 'nothing'}{hint}")
    dtype, load = dtypes[stored], partial(_load, file, {TENSOR: stored})
    return _soft(file, shapes[stored], dtype, load, is_float="F" in dtype)


def _described(file: Path, kind: str, description: str, shapes: dict[str, tuple[int, ...]]) -> PromptConfig:
    """The settings in a file's metadata; tensors of other shapes than they imply are an error."""
    try:
        config: PromptConfig = KINDS[kind].of_file(json.loads(description), shapes)
        if shapes == kind_of(config).shapes(KINDS[kind].width(shapes)):
            return config
    except (ValueError, TypeError, AttributeError, LookupError):
        pass
    raise UserError(f"{file}: is not a {kind} prompt as fpt writes it; its description and its tensors differ")


def _load(file: Path, stored: dict[str, str]) -> "Tensors":
    """Load tensors from a safetensors file; `stored` maps each name to the tensor's name in the file."""
    with safe_open(file, framework="pt") as handle:
        return {name: handle.get_tensor(own) for name, own in stored.items()}


def _in_array(file: Path) -> PromptFile:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{file}: cannot be read as a numpy array ({error})") from None
    if array.ndim == 3 and len(array) == 1:
        array = array[0]

    def load() -> "Tensors":
        import torch  # here, because an error must not wait for it

        return {TENSOR: torch.from_numpy(array.astype(np.float32))}

    return _soft(file, array.shape, str(array.dtype), load, is_float=array.dtype.kind == "f")


class _Unread:
    """Takes the place of any object in a pickle that is no tensor; its class and constructor are never looked up."""

    def __new__(cls, *_: Any) -> "_Unread":
        """Ignore the constructor's arguments in the pickle."""
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


def _in_torch_file(file: Path) -> PromptFile:
    """A prompt that torch saved: a tensor, or a dictionary with one as `prompt`, as thunlp/FastPromptTuning writes it.

    Those checkpoints also hold a configuration, an object of their own class; torch's restricted reader is told to put
    an empty object in its place.
    """
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        with safe_globals([(_Unread, name) for name in get_unsafe_globals_in_checkpoint(file)]):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # torch has many types for files that it did not write, and advises to run what is in them
        raise UserError(
            f"{file}: torch's restricted reader refuses it, or did not write it; expected {FORMS}"
        ) from None
    tensor = loaded.get(TENSOR) if isinstance(loaded, dict) else loaded
    if not isinstance(tensor, torch.Tensor):
        what = ", ".join(map(str, loaded)) if isinstance(loaded, dict) else type(loaded).__name__
        raise UserError(f"{file}: has no tensor '{TENSOR}', but {what or 'nothing'}")
    dtype = str(tensor.dtype).removeprefix("torch.")
    is_float = tensor.is_floating_point()
    return _soft(file, tuple(tensor.shape), dtype, lambda: {TENSOR: tensor.detach()}, is_float=is_float)


def _soft(
    file: Path, shape: tuple[int, ...], dtype: str, load: Callable[[], "Tensors"], *, is_float: bool
) -> PromptFile:
    """A soft prompt in a tensor of the given shape, which must be floats of [P, D]."""
    if len(shape) != 2 or not all(shape) or not is_float:
        raise UserError(f"{file}: holds {dtype} of shape {list(shape)}; expected floats of shape [P, D]")
    return PromptFile(file, PromptConfig(length=shape[0]), {TENSOR: shape}, load)
