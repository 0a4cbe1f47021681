"""Chooses device and precision, and holds the frozen model there: whole in plain torch, or sharded by DeepSpeed."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fpt.config.schema import EngineConfig
from fpt.devices.processes import counted, is_worker
from fpt.errors import UserError

WIDE = 512  # a narrower model's updates gain little or nothing from bfloat16 on a CPU
BFLOAT16_ON_CPU = "engine.dtype=auto: bfloat16 on this CPU, whose AMX multiplies it faster"
KEPT_WHOLE = 10**5  # tensors with fewer parameters, such as norms and bias tables, DeepSpeed keeps whole everywhere


def open_device(config: EngineConfig) -> torch.device:
    """Return this process's device among those that `engine.device` names; refuse one that is not here."""
    there, number = torch.cuda.device_count(), counted(config).here
    device = named(config.device)
    if device.type != "cuda":
        return device
    if config.dtype == "auto":  # products that stay in float32 may use TF32 on GPUs that have it
        torch.set_float32_matmul_precision("high")
    if (device.index or 0) >= there:
        raise UserError(f"engine.device={config.device}: torch sees {there} CUDA devices here; engine.device=cpu works")
    if number > there:
        key = "engine.processes" if config.processes > 1 else "LOCAL_WORLD_SIZE"
        raise UserError(f"{key}={number}: torch sees {there} CUDA devices for so many processes; give {there}")
    if not is_worker():
        return device
    return torch.device("cuda", device.index or 0 if number == 1 else int(os.environ["LOCAL_RANK"]))


def named(name: str) -> torch.device:
    """Return the device that `engine.device` names, whether or not it is here."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def with_precision(engine: EngineConfig, width: int) -> EngineConfig:
    """Replace `engine.dtype=auto`, for a model of this width: bfloat16 where the device computes faster in it."""
    if engine.dtype != "auto":
        return engine
    if named(engine.device).type == "cpu":
        is_faster = width >= WIDE and multiplies_bfloat16()
    else:  # a plan may be for a GPU that is not here
        is_faster = not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    return replace(engine, dtype="bfloat16" if is_faster else "float32")


def states_precision(engine: EngineConfig) -> str:
    """Name the precision of hidden states: the model's, but on a CPU float32, which costs nothing there.

    DeepSpeed computes states in its shards' precision on every device.
    """
    return "float32" if not engine.is_sharded and named(engine.device).type == "cpu" else engine.dtype


def multiplies_bfloat16() -> bool:
    """Whether this machine's CPU multiplies bfloat16 several times as fast as float32: with AMX, in oneDNN's kernels.

    AVX512-BF16 alone is not enough: the same kernels were slower than float32's with it.
    """
    has_kernels: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_kernels and torch.cpu._is_amx_tile_supported()


def fetched_ahead(device: str) -> int:
    """Return how many parameters DeepSpeed may gather ahead: none on a CPU, where no transfer overlaps with work."""
    return 0 if device == "cpu" else 5 * 10**7


@dataclass(frozen=True)
class Engine:
    """Holds the frozen models of a run, one after the other; neither name nor precision is auto."""

    config: EngineConfig
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """The frozen model's precision."""
        return getattr(torch, self.config.dtype)

    @property
    def states_dtype(self) -> torch.dtype:
        """The precision of the model's hidden states."""
        return getattr(torch, states_precision(replace(self.config, device=self.device.type)))

    def shard(self, module: nn.Module) -> None:
        """Under DeepSpeed's ZeRO-3, keep only this process's share of the module's own parameters."""
        if self.config.is_sharded:
            with _linear_put_back():  # DeepSpeed replaces torch's function for good
                self._deepspeed.zero.Init(module=module, config_dict_or_path=self._settings, dtype=self.dtype)

    @contextmanager
    def holding(self, body: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
        """A context in which a frozen model can run: the model, and what a `PromptedModel` of it must be told.

        All of its memory is freed at the end.
        """
        if not self.config.is_sharded:
            yield body, {}
            return
        from deepspeed.runtime.zero.linear import zero3_linear_wrap

        with _linear_put_back():
            functional.linear = zero3_linear_wrap  # torch's would keep gathered weights for the backward pass
            with redirect_stdout(io.StringIO()):  # standard output is for results, and DeepSpeed prints there
                held, *_ = self._deepspeed.initialize(model=body, config=self._settings)
            coordinator = held.optimizer.param_coordinator  # without an optimizer, it is DeepSpeed's parameter offload
            try:
                yield held.module, {"begin_pass": partial(_begin_pass, coordinator), "in_step": True}
            finally:
                held.destroy()
                held.module = None
                _forget_releases(coordinator)
                _release(body)

    @cached_property
    def _deepspeed(self) -> Any:
        """Import DeepSpeed for this process's device, without its output."""
        os.environ.setdefault("DS_ACCELERATOR", self.device.type)
        if self.device.type == "cuda":
            os.environ["LOCAL_RANK"] = str(self.device.index or 0)  # DeepSpeed uses it as the device's number
            if self.device.index is not None:
                torch.cuda.set_device(self.device)
        os.environ.setdefault("LOCAL_RANK", "0")
        with redirect_stdout(io.StringIO()):
            import deepspeed

            # It is for tensor parallelism on CPUs, which fpt does not use, and needs a compiler and a minute to build.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            deepspeed.init_distributed(dist_backend=backend, verbose=False)
        return deepspeed

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """DeepSpeed's configuration; ZeRO 1 and 2 would shard an optimizer, which a frozen model does not have."""
        ahead = fetched_ahead(self.device.type)
        zero: dict[str, Any] = {
            "stage": 3,
            "stage3_max_reuse_distance": 0,  # otherwise DeepSpeed keeps the first 10^9 parameters
            "stage3_prefetch_bucket_size": ahead,  # gathered ahead while a module runs
            "stage3_max_live_parameters": ahead,  # otherwise they add up to 10^9
            "stage3_allgather_sequential": True,  # otherwise DeepSpeed copies what it gathers
            "stage3_param_persistence_threshold": KEPT_WHOLE,
        }
        if self.config.offload != "none":
            zero["offload_param"] = {"device": self.config.offload, "pin_memory": self.device.type == "cuda"}
        return {
            "train_micro_batch_size_per_gpu": 1,  # DeepSpeed requires a number, but loads no data
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
    """Restart DeepSpeed's trace of modules, which tells it what to gather ahead.

    DeepSpeed itself does so only when the whole model is called; training calls encoder and decoder separately.
    """
    if not coordinator.is_complete_trace():
        _forget_releases(coordinator)
    coordinator.reset_step()


def _forget_releases(coordinator: Any) -> None:
    """Clear DeepSpeed's cache of what to release at which step, which outlives its trace and keeps models alive."""
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
