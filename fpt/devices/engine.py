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
from fpt.devices.extensions import check_locks

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
        if not self.is_sharded:
            return
        with _linear_put_back():  # DeepSpeed replaces it for good
            self._deepspeed.zero.Init(module=module, config_dict_or_path=self._settings, dtype=self.dtype)

    @contextmanager
    def holding(self, body: Any) -> Iterator[Any]:
        """Within, the frozen model runs; after, nothing of it is left."""
        if self.config.name == "torch":
            yield body
            return
        with _linear_put_back():
            if self.is_sharded:
                functional.linear = _lean_linear()
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
    check_locks()
    with _silence():
        import deepspeed

        deepspeed.init_distributed(dist_backend="nccl" if device.type == "cuda" else "gloo", verbose=False)
    return deepspeed


@contextmanager
def _silence() -> Iterator[None]:
    """Standard output is for results; DeepSpeed reports there what it builds."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


@contextmanager
def _linear_put_back() -> Iterator[None]:
    """After, `torch.nn.functional.linear` is what it was, whatever happens within."""
    before = functional.linear
    try:
        yield
    finally:
        functional.linear = before


def _lean_linear() -> Any:
    """DeepSpeed's linear(), which does not keep a gathered weight for the way back, as torch's does."""
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    return zero3_linear_wrap


def _release(body: Any) -> None:
    """Free what DeepSpeed 0.19's destroy() leaves behind: shares and modules."""
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    FWD_MODULE_STACK.clear()
    for parameter in body.parameters():
        parameter.ds_tensor.data = torch.empty(0, dtype=parameter.dtype)
        parameter.data = torch.empty(0, dtype=parameter.dtype)
