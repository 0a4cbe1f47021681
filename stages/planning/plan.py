"""A run's plan: decided once, before the first update, and kept as plan.json until the run ends.

Free memory changes from day to day. A resumed run therefore reads its plan back, so that it computes what
it would have computed without the stop; it is planned again only if settings that the plan depends on have changed.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from fpt.config.run_config import RunConfig
from fpt.devices.device import named
from fpt.errors import UserError
from stages.kept_states import StatesPlan


@dataclass(frozen=True)
class StagePlan:
    """One stage's size under result.json's names, its FLOPs, and its bytes at the peak of an update on one device.

    Attributes:
        name: the name of its folder, as in 1-6x24-704x2816.
        weight_bytes: bytes of the whole frozen model, even if devices share it.
        flops: FLOPs of the stage's updates and, before them, of the states that are kept (`flops_states`).
        flops_full: FLOPs of vanilla prompt tuning of the full model on the same batches.
        blocks_below: how many of its blocks have states that the prompt does not change: those below a late prompt,
            or all in which the source does not see the prompt behind it.
        weights: bytes of the frozen model on one device.
        activations: bytes of activations without activation checkpointing.
        activations_checkpointed: bytes of activations with it.
        rest: bytes of everything else.
        total: the sum, with checkpointing if the run has it.
        fits: whether the total leaves a tenth of the device's memory free.
    """

    name: str
    encoder_layers: int
    decoder_layers: int
    ffn: int
    decoder_ffn: int
    first_update: int
    updates: int
    parameters: int
    weight_bytes: int
    flops_per_update: int
    flops: int
    flops_states: int
    flops_full: int
    flops_ratio: float
    blocks_below: int
    weights: int
    activations: int
    activations_checkpointed: int
    rest: int
    total: int
    fits: bool


@dataclass(frozen=True)
class Advice:
    """Overrides with which the largest stage fits, and the bytes that it takes then."""

    words: list[str]
    bytes: int
    is_packed: bool


@dataclass(frozen=True)
class Plan:
    """Everything that is decided for a run: how it runs on this machine, and every stage's FLOPs and memory.

    Attributes:
        asked: the settings that it was decided for, as typed, and the number of processes.
        engine: torch or deepspeed.
        dtype: the frozen model's precision.
        quantize: how the weights of the blocks' linear layers are quantised.
        processes: the number of processes on all machines together.
        batch_size: examples per update.
        micro_batch: examples per forward pass of a process.
        activation_checkpointing: whether the run has it.
        graphs: whether updates run as CUDA graphs.
        states: what is done about states that the prompt does not change; None for a prompt before the source.
        learning: how the prompt learns, as settings.
        lr: its highest learning rate; None: RELATIVE_LR of the embeddings' size, which have not been read.
        device_memory: bytes of one device; on a CPU, a process's share of the free memory.
        reasons: in words for the user, why this engine, and what was turned on because nothing fits without it.
        advice: settings with which a run that does not fit would, first without quantised weights, then with them.
        flops_importance: FLOPs of the forward passes that score neurons.
        trainable_parameters: how many numbers are learned.
        vectors_pt: the length of the prompt that vanilla prompt tuning is priced with: the same as this prompt's.
        ends_whole: whether the last stage's model is the full one.
        stages: in order.
    """

    asked: dict[str, Any]
    engine: str
    dtype: str
    quantize: str
    processes: int
    batch_size: int
    micro_batch: int
    activation_checkpointing: bool
    graphs: bool
    states: StatesPlan | None
    learning: str
    lr: float | None
    device_memory: int
    reasons: list[str]
    advice: list[Advice]
    flops_importance: int
    trainable_parameters: int
    vectors_pt: int
    ends_whole: bool
    stages: list[StagePlan]

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
        reason, *others = self.reasons
        engine = f"{reason}; the model is in {self.dtype}{packed}{threads}{graphs}"
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
