"""Reads the prompt to start from: fpt's own file, a run's folder, a numpy array, torch's file or a PEFT adapter.

A prompt that does not fit is refused before torch is imported, unless only torch can read the file.

Letters: P prompt, D model.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fpt.backbones.location import TOKENIZER_FILES
from fpt.config.schema import PromptConfig
from fpt.errors import UserError
from fpt.prompts.kinds import KINDS, TENSOR, kind_of, width_of
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
    """A prompt that was read from disk; numbers that are not finite in float32 are an error."""

    file: Path
    config: PromptConfig  # its settings, as far as the file states them
    arrays: dict[str, NDArray[Any]]  # its tensors by name, floats
    fingerprint: str | None = None  # the hash of the model's weights that it was trained with; None: not known
    vocabulary: str | None = None  # the tokenizer's hash; None: not known

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            are_finite = all(np.isfinite(array.astype(np.float32)).all() for array in self.arrays.values())
        if not are_finite:
            raise UserError(f"{self.file}: holds numbers that are not finite in float32")

    def tensors(self) -> "Tensors":
        """The learned tensors, by name, in float32."""
        import torch  # here, because an error must not wait for it

        return {name: torch.from_numpy(array.astype(np.float32)) for name, array in self.arrays.items()}


def initial(config: PromptConfig, backbone: "Backbone", *, labels: tuple[str, ...], seed: int) -> "Tensors":
    """The float32 tensors to start from: those in `prompt.file`, or else the initial ones of the prompt's kind."""
    stored = prompt_to_start_from(config, backbone.sizes.width)
    if stored is None:
        return kind_of(config).initial(backbone, labels=labels, seed=seed)
    refuse_other_tokenizer(f"prompt.file={config.file}", stored.vocabulary, backbone)
    return stored.tensors()


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
    if problem := kind_of(config).mismatch(width_of(stored.arrays), stored.config, d_model):
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
    stored, inputs = _in_safetensors(path / PROMPT, TENSOR), run.read_json(INPUTS)
    return replace(stored, fingerprint=inputs["model"], vocabulary=inputs.get("tokenizer"))


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
        way_out = "adapter_model.bin is a pickle, which may run code; load and save it with PEFT"
        raise UserError(f"{path}: has no {ADAPTER}; {way_out}")
    stored = _in_safetensors(path / ADAPTER, ADAPTER_TENSOR)
    parts = values.get("num_transformer_submodules") or (2 if values.get("task_type") == "SEQ_2_SEQ_LM" else 1)
    vectors = stored.arrays[TENSOR]
    if len(vectors) != length * parts:
        raise UserError(f"{stored.file}: has {len(vectors)} vectors, {ADAPTER_CONFIG} says {parts} × {length}")
    return replace(stored, arrays={TENSOR: vectors[:length]}, config=PromptConfig(length=length))


def _in_safetensors(file: Path, stored: str) -> PromptFile:
    """A soft prompt, in the tensor called `stored`, or a prompt of the kind that the file's metadata names."""
    try:
        with safe_open(file, framework="np") as handle:
            description, names = (handle.metadata() or {}).get("fpt", ""), list(handle.keys())
    except (SafetensorError, OSError) as error:
        other = other_kind(file) if file.is_file() else None
        raise UserError(f"{file}: {other or f'cannot be read as safetensors ({error}); expected {FORMS}'}") from None
    # A prompt before the input has no kind recorded, so that fpt's files and those of other tools are read alike.
    if kind := next((name for name in KINDS if f'"{name}"' in description), None):
        return _described(file, kind, description, _arrays(file, names))
    if stored not in names:
        hint = "; give the adapter's folder" if ADAPTER_TENSOR in names else ""
        raise UserError(f"{file}: has no tensor '{stored}', but {', '.join(names) or 'nothing'}{hint}")
    return _soft(file, _arrays(file, [stored])[stored])


def _arrays(file: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    try:
        with safe_open(file, framework="np") as handle:
            return {name: handle.get_tensor(name) for name in names}
    except (TypeError, AttributeError):  # numpy has no bfloat16
        with safe_open(file, framework="pt") as handle:
            return {name: handle.get_tensor(name).float().numpy() for name in names}


def _described(file: Path, kind: str, description: str, arrays: dict[str, NDArray[Any]]) -> PromptFile:
    """A prompt with the settings in its file's metadata; tensors of other shapes than they imply are an error."""
    shapes = {name: array.shape for name, array in arrays.items()}
    try:
        config = KINDS[kind].of_file(json.loads(description), shapes)
        fits = shapes == kind_of(config).shapes(width_of(arrays))
    except (ValueError, TypeError, AttributeError, LookupError):
        fits = False
    if not fits or any(array.dtype.kind != "f" for array in arrays.values()):
        raise UserError(f"{file}: is not a {kind} prompt as fpt writes it; its description and its tensors differ")
    return PromptFile(file, config, arrays)


def _in_array(file: Path) -> PromptFile:
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{file}: cannot be read as a numpy array ({error})") from None
    return _soft(file, array[0] if array.ndim == 3 and len(array) == 1 else array)


class _Unread:
    """Takes the place of whatever in a pickle is no tensor, as a configuration; its own class is never looked up."""

    def __new__(cls, *_: Any) -> "_Unread":
        """Ignore the constructor's arguments in the pickle."""
        return super().__new__(cls)


def _in_torch_file(file: Path) -> PromptFile:
    """A prompt that torch saved: a tensor, or a dictionary with one as `prompt`, as thunlp/FastPromptTuning has it."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        with safe_globals([(_Unread, name) for name in get_unsafe_globals_in_checkpoint(file)]):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # torch has many types for files that it did not write, and advises to run what is in them
        raise UserError(f"{file}: is refused by torch's restricted reader; expected {FORMS}") from None
    tensor = loaded.get(TENSOR) if isinstance(loaded, dict) else loaded
    if not isinstance(tensor, torch.Tensor):
        what = ", ".join(map(str, loaded)) or "nothing" if isinstance(loaded, dict) else "an object that is no tensor"
        raise UserError(f"{file}: has no tensor '{TENSOR}', but {what}")
    return _soft(file, (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy())


def _soft(file: Path, array: NDArray[Any]) -> PromptFile:
    """A soft prompt in an array, which must be floats of [P, D]."""
    if array.ndim != 2 or not array.size or array.dtype.kind != "f":
        raise UserError(f"{file}: holds {array.dtype} of shape {list(array.shape)}; expected floats of shape [P, D]")
    return PromptFile(file, PromptConfig(length=len(array)), {TENSOR: array})
