"""Where the frozen model lives: whole on this process's device, or in DeepSpeed's hands."""

import contextlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fpt.config.schema import EngineConfig
from fpt.devices.launch import is_worker
from fpt.errors import UserError


def open_device(config: EngineConfig) -> torch.device:
    """The device of this process, of those that `engine.device` names.

    Raises:
        UserError: no such device here, or fewer than processes.
    """
    found = torch.cuda.device_count()
    number = int(os.environ["LOCAL_RANK"]) + 1 if is_worker() else config.processes
    if config.device == "auto":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            device = torch.device(config.device)
        except RuntimeError:
            raise UserError(f"engine.device={config.device}: allowed are auto, cpu, cuda and cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"engine.device={config.device}: allowed are auto, cpu, cuda and cuda:N")
    if device.type == "cuda" and (device.index or 0) >= found:
        raise UserError(f"engine.device={config.device}: torch sees {found} CUDA devices here; engine.device=cpu works")
    if device.type == "cuda" and number > found:
        raise UserError(
            f"engine.processes={number}: torch sees {found} CUDA devices here, and each process takes one;"
            f" give {found}, or engine.device=cpu"
        )
    if device.type == "cuda" and is_worker():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


KEPT_WHOLE = 10**5  # parameters up to which DeepSpeed leaves a tensor whole in every process: norms, the bias tables


def fetched_ahead(device: str) -> int:
    """How many parameters DeepSpeed gathers before they are needed; on a CPU nothing runs beside a transfer."""
    return 0 if device == "cpu" else 5 * 10**7


@dataclass(frozen=True)
class Engine:
    """What holds the frozen models of a run, one after the other.

    `config.name` is torch or deepspeed here, no longer auto.
    """

    config: EngineConfig
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """The frozen model's precision."""
        dtype: torch.dtype = getattr(torch, self.config.dtype)
        return dtype

    @property
    def is_sharded(self) -> bool:
        """Whether each process has but a share of the weights, so that all must run the model in step."""
        return self.config.name == "deepspeed" and self.config.zero_stage == 3

    def shard(self, module: nn.Module) -> None:
        """Keep this process's share of the parameters that the module itself has, where weights are shared out."""
        if self.is_sharded:
            self._deepspeed.zero.Init(module=module, config_dict_or_path=self._settings, dtype=self.dtype)

    @contextmanager
    def holding(self, body: Any) -> Iterator[Any]:
        """Within, the frozen model runs; after, nothing of it is left."""
        if self.config.name == "torch":
            yield body
            return
        with _silence():
            held, *_ = self._deepspeed.initialize(model=body, config=self._settings)
        try:
            yield held.module
        finally:
            held.destroy()
            held.module = None
            if self.is_sharded:
                _release(body)

    @cached_property
    def _deepspeed(self) -> Any:
        return _import_deepspeed(self.device)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """DeepSpeed's configuration; stages 1 and 2 share out what only an optimizer of the model's own would have."""
        zero: dict[str, Any] = {"stage": 3 if self.is_sharded else 0}
        if self.is_sharded:
            # A parameter is let go as soon as its layer has run; left to itself, DeepSpeed keeps the first 10^9.
            ahead = fetched_ahead(self.device.type)
            zero |= {"stage3_max_reuse_distance": 0, "stage3_prefetch_bucket_size": ahead}
            zero |= {"stage3_param_persistence_threshold": KEPT_WHOLE}
        if self.is_sharded and self.config.offload != "none":
            offload = {"device": self.config.offload, "pin_memory": self.device.type == "cuda"}
            if self.config.nvme_dir is not None:
                offload["nvme_path"] = self.config.nvme_dir
            zero["offload_param"] = offload
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed wants one; the loop feeds the model itself
            "zero_optimization": zero,
            "bf16": {"enabled": self.dtype is torch.bfloat16},
        }


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, told its accelerator, and quiet."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    os.environ.setdefault("LOCAL_RANK", "0")
    with _silence():
        import deepspeed

        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
    return deepspeed


@contextmanager
def _silence() -> Iterator[None]:
    """Standard output is for results; DeepSpeed reports there what it builds."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


_LINEAR = functional.linear


def _release(body: Any) -> None:
    """Free what DeepSpeed 0.19's destroy() leaves behind: shares, modules, and its own linear()."""
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    functional.linear = _LINEAR
    FWD_MODULE_STACK.clear()
    for parameter in body.parameters():
        parameter.ds_tensor.data = torch.empty(0, dtype=parameter.dtype)
        parameter.data = torch.empty(0, dtype=parameter.dtype)
