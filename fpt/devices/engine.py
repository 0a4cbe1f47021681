"""What holds the frozen model: plain torch, whole on this process's device, or DeepSpeed."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fpt.config.schema import EngineConfig
from fpt.devices.device import precision_of
from fpt.devices.extensions import check_locks

KEPT_WHOLE = 10**5  # parameters up to which DeepSpeed leaves a tensor whole in every process: norms, the bias tables


def fetched_ahead(device: str) -> int:
    """Return how many parameters DeepSpeed may gather ahead: none on a CPU, where no transfer overlaps with work."""
    return 0 if device == "cpu" else 5 * 10**7


@dataclass(frozen=True)
class Held:
    """A frozen model that an engine holds; every process calls `begin_pass` before each forward (and backward) pass."""

    body: Any
    begin_pass: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Engine:
    """Holds the frozen models of a run, one after the other; `config.name` is torch or deepspeed, not auto."""

    config: EngineConfig
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """The frozen model's precision."""
        return getattr(torch, precision_of(self.config))

    @property
    def is_sharded(self) -> bool:
        """Whether each process has only a share of the weights, so that all must run the model together."""
        return self.config.name == "deepspeed" and self.config.zero_stage == 3

    def shard(self, module: nn.Module) -> None:
        """Under ZeRO-3, keep only this process's share of the module's own parameters."""
        if self.is_sharded:
            with _linear_put_back():  # DeepSpeed replaces it for good
                self._deepspeed.zero.Init(module=module, config_dict_or_path=self._settings, dtype=self.dtype)

    @contextmanager
    def holding(self, body: Any) -> Iterator[Held]:
        """Hold a frozen model so that it can run, and free all of it at the end."""
        if self.config.name == "torch":
            yield Held(body)
            return
        with _linear_put_back():
            if self.is_sharded:
                from deepspeed.runtime.zero.linear import zero3_linear_wrap

                functional.linear = zero3_linear_wrap  # torch's would keep gathered weights for the backward pass
            with redirect_stdout(io.StringIO()):  # standard output is for results, and DeepSpeed prints there
                held, *_ = self._deepspeed.initialize(model=body, config=self._settings)
            try:
                if self.is_sharded:  # without an optimizer, DeepSpeed puts its offload in the place of one
                    yield Held(held.module, partial(_begin_pass, held.optimizer.param_coordinator))
                else:
                    yield Held(held.module)
            finally:
                held.destroy()
                held.module = None
                if self.is_sharded:
                    _forget_releases(held.optimizer.param_coordinator)
                    _release(body)

    @cached_property
    def _deepspeed(self) -> Any:
        """Import DeepSpeed for this process's device, without what it prints."""
        os.environ.setdefault("DS_ACCELERATOR", self.device.type)
        if self.device.type == "cuda":
            os.environ["LOCAL_RANK"] = str(self.device.index or 0)  # what DeepSpeed takes for the device's number
            if self.device.index is not None:
                torch.cuda.set_device(self.device)
        os.environ.setdefault("LOCAL_RANK", "0")
        check_locks()
        with redirect_stdout(io.StringIO()):
            import deepspeed

            # It is for tensor parallelism on a CPU, which no run has, and takes a compiler and a minute to build.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            deepspeed.init_distributed(dist_backend=backend, verbose=False)
        return deepspeed

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """DeepSpeed's configuration; ZeRO 1 and 2 would shard an optimizer, which a frozen model does not have."""
        zero: dict[str, Any] = {"stage": 0}
        if self.is_sharded:
            ahead = fetched_ahead(self.device.type)
            zero = {
                "stage": 3,
                "stage3_max_reuse_distance": 0,  # or DeepSpeed would keep the first 10^9 parameters
                "stage3_prefetch_bucket_size": ahead,  # with every module that runs
                "stage3_max_live_parameters": ahead,  # or they would add up to 10^9
                "stage3_allgather_sequential": True,  # or DeepSpeed would copy what it gathers
                "stage3_param_persistence_threshold": KEPT_WHOLE,
            }
            if self.config.offload != "none":
                zero["offload_param"] = {"device": self.config.offload, "pin_memory": self.device.type == "cuda"}
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed wants a number; it feeds nothing
            "zero_optimization": zero,
            "bf16": {"enabled": self.dtype is torch.bfloat16},
        }


@contextmanager
def _linear_put_back() -> Iterator[None]:
    """Restore `torch.nn.functional.linear` at the end, whatever happens within."""
    before = functional.linear
    try:
        yield
    finally:
        functional.linear = before


def _begin_pass(coordinator: Any) -> None:
    """Begin DeepSpeed's trace of modules, by which it gathers ahead, anew.

    DeepSpeed itself does so only where the whole model is called; training calls encoder and decoder by themselves.
    """
    if not coordinator.is_complete_trace():
        _forget_releases(coordinator)
    coordinator.reset_step()


def _forget_releases(coordinator: Any) -> None:
    """Empty DeepSpeed's cache of what to release at which step, which outlives its trace and keeps models alive."""
    for method in vars(type(coordinator)).values():
        for cell in getattr(method, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "cache_clear"):
                cell.cell_contents.cache_clear()


def _release(body: Any) -> None:
    """Free what DeepSpeed 0.19's destroy() leaves behind: shards, modules, and what was gathered ahead."""
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    FWD_MODULE_STACK.clear()
    body.ds_inflight_param_registry.clear()
    for parameter in body.parameters():
        parameter.ds_tensor.data = torch.empty(0, dtype=parameter.dtype)
        parameter.data = torch.empty(0, dtype=parameter.dtype)
