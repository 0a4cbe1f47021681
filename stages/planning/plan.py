"""What is decided once, before the first update, and holds until the run ends: on disk it is plan.json.

Free memory and disk are other ones tomorrow. A run that goes on reads its plan back, so that it computes what it would
have computed; only where other settings are typed is it planned anew.
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
    """One stage: its size with result.json's names, what it costs in FLOPs, and what it takes in bytes.

    Attributes:
        name: of its folder, as in 1-6x24-704x2816.
        weight_bytes: of the frozen model, all of it.
        flops: of the stage's updates, and of the states below a late prompt, `flops_states`, before the first of them.
        flops_full: what the full model's updates with vanilla prompt tuning take on the same batches.
        blocks_below: how many of its blocks lie below the prompt.
        weights: on one device, at an update's peak, and so are the others.
        activations: without activation checkpointing.
        activations_checkpointed: with it.
        total: with checkpointing where the run has it.
        fits: whether that leaves a tenth of the device's memory free.
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
    """The words to type that make the largest stage fit, and the bytes that it takes then."""

    words: list[str]
    bytes: int
    is_packed: bool


@dataclass(frozen=True)
class Plan:
    """Everything that is decided for a run: how it runs on this machine, and what every stage costs and takes.

    Attributes:
        asked: the settings that it was decided for, by key; and how many processes there were.
        engine: torch or deepspeed.
        dtype: the frozen model's precision.
        quantize: how the weights of the blocks' linear layers are packed.
        processes: over all machines.
        batch_size: examples of an update.
        micro_batch: examples per forward pass of a process.
        activation_checkpointing: whether the run has it.
        graphs: whether updates are CUDA graphs.
        states: what is done about the states below a late prompt; None: it is a soft one.
        device_memory: bytes of one device; for a process on a CPU its share of what is free.
        reasons: for people, why this engine, and what is on because nothing fits without.
        advice: what would make a run fit that does not, first without packed weights, then with them.
        flops_importance: of the forward passes that score neurons.
        trainable_parameters: how many numbers are learned.
        vectors_pt: of the prompt of vanilla prompt tuning, as many as this one has, wherever it enters.
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
    def flops_of_stages(self) -> int:
        """FLOPs of all stages, without the scoring of neurons."""
        return sum(stage.flops for stage in self.stages)

    @property
    def flops(self) -> int:
        """FLOPs of the run, without its validations."""
        return self.flops_importance + self.flops_of_stages

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
        return replace(config, train=train, engine=engine)

    def sentences(self, device: str) -> list[str]:
        """What a run says of its plan: the engine and why, and what is done about the states below the prompt."""
        number = torch.get_num_threads()
        threads = f"; {number} thread{'s' if number > 1 else ''}" if named(device).type == "cpu" else ""
        packed = "" if self.quantize == "none" else f", its blocks' linear layers in {self.quantize}"
        graphs = "; updates are CUDA graphs" if self.graphs else ""
        reason, *others = self.reasons
        engine = f"{reason}; the model is in {self.dtype}{packed}{threads}{graphs}"
        return [engine, *others, *([self.states.sentence] if self.states else [])]

    def to_json(self) -> dict[str, Any]:
        """plan.json: the plan, the sums of its stages, and what it says about states."""
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
