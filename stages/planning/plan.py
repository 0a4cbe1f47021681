"""A run's plan: decided once, before the first update, and kept as plan.json until the run ends.

Free memory changes from day to day. A resumed run therefore reads its plan back, so that it computes what
it would have computed without the stop; it is planned again only if settings that the plan depends on have changed.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from fpt.config.run_config import RunConfig
from fpt.devices.engine import named
from fpt.errors import UserError
from stages.kept_states import StatesPlan


@dataclass(frozen=True)
class StagePlan:
    """One stage's size under result.json's names, its FLOPs, and its bytes at the peak of an update on one device."""

    name: str  # of its folder, as in 1-6x24-704x2816
    encoder_layers: int
    decoder_layers: int
    ffn: int
    decoder_ffn: int
    first_update: int
    updates: int
    parameters: int
    weight_bytes: int  # of the whole frozen model, even if devices share it
    flops_per_update: int
    flops: int  # of its updates and, before them, of the states that are kept
    flops_states: int  # of the latter
    flops_full: int  # of vanilla prompt tuning of the full model on the same batches
    flops_ratio: float
    # How many of its blocks have states that the prompt does not change: those below a late prompt, or all in which the
    # source does not see the prompt behind it.
    blocks_below: int
    weights: int  # bytes of the frozen model on one device
    activations: int  # bytes of a micro-batch's activations
    rest: int  # bytes of everything else
    total: int  # the sum
    fits: bool  # whether that leaves a tenth of the device's memory free


@dataclass(frozen=True)
class Plan:
    """Everything that is decided for a run: how it runs on this machine, and every stage's FLOPs and memory."""

    asked: dict[str, Any]  # the settings that it was decided for, as typed, and the number of processes
    engine: str  # torch or deepspeed
    dtype: str  # the frozen model's precision
    quantize: str  # how the weights of the blocks' linear layers are quantised
    processes: int  # on all machines together
    batch_size: int  # examples per update
    micro_batch: int  # examples per forward pass of a process
    activation_checkpointing: bool
    graphs: bool  # whether updates run as CUDA graphs
    states: StatesPlan | None  # what is done about states that the prompt does not change, if there are any
    learning: str  # how the prompt learns, as settings
    lr: float | None  # its highest learning rate; None: RELATIVE_LR of the embeddings' size, which have not been read
    device_memory: int  # bytes of one device; on a CPU, a process's share of the free memory
    reasons: list[str]  # why this engine and precision, in words for the user
    flops_importance: int  # of the forward passes that score neurons
    trainable_parameters: int  # how many numbers are learned
    vectors_pt: int  # the length of the prompt that vanilla prompt tuning is priced with: the same as this prompt's
    ends_whole: bool  # whether the last stage's model is the full one
    stages: list[StagePlan]  # in order

    @property
    def updates(self) -> int:
        """Updates of all stages together."""
        return sum(stage.updates for stage in self.stages)

    @property
    def flops(self) -> int:
        """FLOPs of the run, without its validations."""
        return self.flops_importance + sum(stage.flops for stage in self.stages)

    @property
    def flops_pt(self) -> int:
        """FLOPs of vanilla prompt tuning on the same batches."""
        return sum(stage.flops_full for stage in self.stages)

    @property
    def flops_ratio(self) -> float:
        """The run's FLOPs as a share of vanilla prompt tuning's."""
        return self.flops / self.flops_pt

    @property
    def fits(self) -> bool:
        """Whether every stage fits into the device's memory."""
        return all(stage.fits for stage in self.stages)

    def flops_before(self, update: int) -> int:
        """FLOPs that the stages have spent after `update` updates."""
        return sum(
            stage.flops_states + stage.flops_per_update * min(update - stage.first_update, stage.updates)
            for stage in self.stages
            if update > stage.first_update
        )

    def resolved(self, config: RunConfig) -> RunConfig:
        """The configuration with what was decided in place of every `auto`."""
        train = replace(
            config.train,
            batch_size=self.batch_size,
            micro_batch=self.micro_batch,
            activation_checkpointing=self.activation_checkpointing,
        )
        engine = replace(config.engine, name=self.engine, dtype=self.dtype, graphs=self.graphs)
        return replace(config, train=train, engine=engine, optim=replace(config.optim, lr=self.lr))

    def sentences(self, device: str) -> list[str]:
        """The plan in words for the user: the engine and why, the states that are kept, and how the prompt learns."""
        number = torch.get_num_threads()
        threads = f"; {number} thread{'s' if number > 1 else ''}" if named(device).type == "cpu" else ""
        packed = "" if self.quantize == "none" else f", its blocks' linear layers in {self.quantize}"
        graphs = "; updates are CUDA graphs" if self.graphs else ""
        again = "; activation checkpointing is on" if self.activation_checkpointing else ""
        reason, *others = self.reasons
        engine = f"{reason}; the model is in {self.dtype}{packed}{threads}{graphs}{again}"
        return [engine, *others, *([self.states.sentence] if self.states else []), self.learning]

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json: the plan, the sums over its stages, and its sentence about states."""
        sums = {name: getattr(self, name) for name in ("updates", "flops", "flops_pt", "flops_ratio", "fits")}
        states = self.states and {**asdict(self.states), "sentence": self.states.sentence}
        return {**asdict(self), **sums, "states": states}

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str) -> "Plan":
        """Read back a plan that `to_json` wrote; `where` names its file in errors."""
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError:
            raise UserError(
                f"{where}: is the plan of another version of fpt, with which this run can go on; or start over with"
                " resume=never"
            ) from None
