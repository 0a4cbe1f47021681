"""Where the frozen model lives: whole on this process's device, or in DeepSpeed's hands."""

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
from fpt.devices.extensions import check_locks
from fpt.devices.precision import name_of

KEPT_WHOLE = 10**5  # parameters up to which DeepSpeed leaves a tensor whole in every process: norms, the bias tables


def fetched_ahead(device: str) -> int:
    """How many parameters DeepSpeed may hold before they are needed; on a CPU nothing runs beside a transfer."""
    return 0 if device == "cpu" else 5 * 10**7


@dataclass(frozen=True)
class Held:
    """A frozen model that an engine holds.

    Attributes:
        body: the model.
        begin_pass: to be called, in every process, before each pass through parts of it; the way back belongs to one.
    """

    body: Any
    begin_pass: Callable[[], None] = lambda: None


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
        return getattr(torch, name_of(self.config))

    @property
    def is_sharded(self) -> bool:
        """Whether each process has but a share of the weights, so that all must run the model in step."""
        return self.config.name == "deepspeed" and self.config.zero_stage == 3

    def shard(self, module: nn.Module) -> None:
        """Keep this process's share of the parameters that the module itself has, where weights are shared out."""
        if self.is_sharded:
            with _linear_put_back():  # DeepSpeed replaces it for good
                self._deepspeed.zero.Init(module=module, config_dict_or_path=self._settings, dtype=self.dtype)

    @contextmanager
    def holding(self, body: Any) -> Iterator[Held]:
        """Within, the frozen model runs; after, nothing of it is left."""
        if self.config.name == "torch":
            yield Held(body)
            return
        with _linear_put_back():
            if self.is_sharded:
                from deepspeed.runtime.zero.linear import zero3_linear_wrap

                functional.linear = zero3_linear_wrap  # keeps no gathered weight for the way back, as torch's does
            with redirect_stdout(io.StringIO()):  # which is for results; DeepSpeed reports there what it builds
                held, *_ = self._deepspeed.initialize(model=body, config=self._settings)
            try:
                if self.is_sharded:  # where a model has no optimizer of its own, DeepSpeed has its offload in the place
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
        """DeepSpeed, told its device, and quiet."""
        os.environ.setdefault("DS_ACCELERATOR", self.device.type)
        if self.device.type == "cuda":
            os.environ["LOCAL_RANK"] = str(self.device.index or 0)  # which is to DeepSpeed the device's number
            if self.device.index is not None:
                torch.cuda.set_device(self.device)
        os.environ.setdefault("LOCAL_RANK", "0")
        check_locks()
        with redirect_stdout(io.StringIO()):
            import deepspeed

            # For the sums of tensor parallelism on a CPU, of which there are none here: building it takes a compiler
            # and a minute or more.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            deepspeed.init_distributed(dist_backend=backend, verbose=False)
        return deepspeed

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """DeepSpeed's configuration; stages 1 and 2 share out what only an optimizer of the model's own would have."""
        zero: dict[str, Any] = {"stage": 0}
        if self.is_sharded:
            ahead = fetched_ahead(self.device.type)
            zero = {
                "stage": 3,
                "stage3_max_reuse_distance": 0,  # else DeepSpeed keeps the first 10^9 parameters after their layer ran
                "stage3_prefetch_bucket_size": ahead,  # as many with every module that runs
                "stage3_max_live_parameters": ahead,  # else they add up to 10^9 before they are needed
                "stage3_allgather_sequential": True,  # what comes in one message DeepSpeed would copy, and hold twice
                "stage3_param_persistence_threshold": KEPT_WHOLE,
            }
            if self.config.offload != "none":
                zero["offload_param"] = {"device": self.config.offload, "pin_memory": self.device.type == "cuda"}
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed wants one; the loop feeds the model itself
            "zero_optimization": zero,
            "bf16": {"enabled": self.dtype is torch.bfloat16},
        }


@contextmanager
def _linear_put_back() -> Iterator[None]:
    """After, `torch.nn.functional.linear` is what it was, whatever happens within."""
    before = functional.linear
    try:
        yield
    finally:
        functional.linear = before


def _begin_pass(coordinator: Any) -> None:
    """Have DeepSpeed follow a pass from its start.

    It gathers ahead by the trace of modules of the pass before, begins it anew where the whole model is called, and
    finds at the first module that a pass is another. Training calls encoder and decoder alone.
    """
    if not coordinator.is_complete_trace():
        _forget_releases(coordinator)
    coordinator.reset_step()


def _forget_releases(coordinator: Any) -> None:
    """Empty DeepSpeed's cache of what to release at which step: it holds of other traces too, and models for ever."""
    for method in vars(type(coordinator)).values():
        for cell in getattr(method, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "cache_clear"):
                cell.cell_contents.cache_clear()


def _release(body: Any) -> None:
    """Free what DeepSpeed 0.19's destroy() leaves behind: shares, modules, and what was gathered ahead."""
    from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK

    FWD_MODULE_STACK.clear()
    body.ds_inflight_param_registry.clear()
    for parameter in body.parameters():
        parameter.ds_tensor.data = torch.empty(0, dtype=parameter.dtype)
        parameter.data = torch.empty(0, dtype=parameter.dtype)
