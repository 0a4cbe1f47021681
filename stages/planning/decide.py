"""Decides a run's plan: on its own data before the first update, or at the task's limits for `fpt plan`.

Free memory changes from day to day. A resumed run therefore reads its plan back from plan.json, so that it computes
what it would have computed without the stop; it is planned again only if settings that a plan depends on have changed.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from fpt.backbones.backbone import read_config
from fpt.backbones.location import config_values
from fpt.backbones.shapes import row_of
from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices import distributed
from fpt.devices.engine import BFLOAT16_ON_CPU, named, with_precision
from fpt.devices.processes import counted
from fpt.errors import UserError
from fpt.pricing.flops import price_of
from fpt.pricing.memory import has_graphs
from fpt.prompts.kinds import kind_of
from fpt.runs.run import PLAN
from fpt.runs.shared_folder import SharedFolder
from fpt.tasks.catalogue import most_examples
from fpt.units import amount
from stages import kept_states, resolve
from stages.inputs import Inputs
from stages.kept_states import StatesPlan
from stages.planning.costs import Costs, Memory, Work, device_memory, is_auto, of_validation, work_at_limits, work_on
from stages.schedule import Schedule, Stage
from stages.selection import blocks_of


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
            why = "was written by another version of fpt; go on with that one, or start over with resume=never"
            raise UserError(f"{where}: {why}") from None


def plan_run(config: RunConfig, schedule: Schedule, inputs: Inputs, folder: SharedFolder, update: int) -> Plan:
    """The plan of a run that has done `update` updates: decided by the main process, or read back from its folder."""
    config = config.with_batches_of(len(inputs.train))
    written = folder.read_json(PLAN) if PLAN in folder else None
    before = None if written is None else Plan.from_json(written, f"{folder.path / PLAN}")
    if before and before.asked == _asked(config):
        return ended_early(before, config, schedule, inputs)

    def decide_here() -> Plan:
        rate = before.lr if before else resolve.rate_of(config.optim, config.prompt.place, inputs.backbone)
        own = replace(config, optim=replace(config.optim, lr=rate))
        if before and config.engine.dtype == "auto":  # a run that began on another machine keeps its precision
            own = replace(own, engine=replace(config.engine, dtype=before.dtype))
        elif config.engine.device_memory is not None:  # which limits the device that is here
            own = replace(own, engine=with_precision(config.engine, inputs.backbone.sizes.width))
        plan = decide(own, schedule, work_on(config, schedule, inputs), before, update)
        check_fits(config, plan)
        return plan

    plan = distributed.broadcast_from_main(decide_here)
    folder.write_json(PLAN, plan.to_json())
    return plan


def plan_ahead(config: RunConfig, schedule: Schedule) -> Plan:
    """The plan at the task's length limits, without weights or data."""
    examples, reads = most_examples(config)[0], row_of(*config_values(config.model)).reads
    config = config.with_batches_of(examples)
    return decide(config, schedule, work_at_limits(config, schedule, reads, examples))


def described(config: RunConfig, schedule: Schedule) -> dict[str, Any]:
    """The object that `fpt plan --json` prints: the plan, what it was made for, and what validations cost besides."""
    plan, price = plan_ahead(config, schedule), price_of(read_config(*config_values(config.model)))
    return {
        "task": config.task.name,
        "model": config.model.name,
        "schedule": config.schedule.name,
        "source_length": config.task.source_length + config.prompt.length,
        "target_length": config.task.target_length,
        **plan.to_json(),
        "blocks": [_blocks(stage, schedule) for stage in schedule.stages],
        "validation": of_validation(_with_device(config), schedule, price, plan.flops),
    }


def _blocks(stage: Stage, schedule: Schedule) -> dict[str, tuple[int, ...]]:
    """The blocks that a stage keeps of each stack of which it leaves some out."""
    kept = blocks_of(stage.shape, schedule.full, schedule.block, schedule.keeps)
    return {name: blocks for name, blocks in kept.items() if len(blocks) < schedule.full[name].blocks}


def ended_early(plan: Plan, config: RunConfig, schedule: Schedule, inputs: Inputs) -> Plan:
    """The plan of a run of which stages ended early, as in `schedule`, with the costs that they had until then."""
    if plan.updates == schedule.updates:
        return plan
    price, work = price_of(inputs.backbone.config), work_on(config, schedule, inputs)
    costs = Costs(schedule, price, work, plan.micro_batch, config.prompt)
    rows = zip(plan.stages, schedule.stages, _done_about(plan.states, schedule), strict=True)
    return replace(plan, stages=[replace(row, **costs.stage(stage, own)) for row, stage, own in rows])


def _done_about(states: StatesPlan | None, schedule: Schedule) -> tuple[str, ...]:
    """What each stage does about states that the prompt does not change."""
    return states.stages if states else ("off",) * len(schedule.stages)


def decide(config: RunConfig, schedule: Schedule, work: Work, before: Plan | None = None, update: int = 0) -> Plan:
    """The plan for this machine; a resumed run gives its old plan as `before`, and the number of updates done."""
    price, kind = price_of(read_config(*config_values(config.model))), kind_of(config.prompt)
    asked = _asked(config)
    graphs = config.engine.graphs and not price.family.row.asks_card and not kind.is_behind
    engine = replace(_with_device(config).engine, graphs=graphs)
    config = replace(config, engine=with_precision(engine, price.d_model))
    was_chosen = engine.device == "cpu" and engine.dtype != config.engine.dtype == "bfloat16"
    states = kept_states.decide(config, schedule, examples=work.examples, tokens=work.tokens, cost=price)
    if states and before and before.states:
        states = kept_states.going_on(config, schedule, states, before.states, update)
    memory = Memory(price, schedule, device_memory(config.engine), states.bytes if states else 0, work.longest)
    engine, reason = memory.engine(config)
    config = replace(config, engine=engine)
    checkpointing = memory.checkpoints(config)
    micro_batch = memory.micro_batch(config, checkpointing=checkpointing)
    passes: dict[str, Any] = {"micro_batch": micro_batch, "checkpointing": checkpointing}
    costs = Costs(schedule, price, work, micro_batch, config.prompt)
    stages = [
        StagePlan(**costs.stage(stage, own), **memory.stage(config, stage, **passes))
        for stage, own in zip(schedule.stages, _done_about(states, schedule), strict=True)
    ]
    return Plan(
        asked=asked,
        engine=engine.name,
        dtype=engine.dtype,
        quantize=engine.quantize,
        processes=counted(engine).all,
        batch_size=config.train.batch_size,
        micro_batch=micro_batch,
        activation_checkpointing=checkpointing,
        graphs=graphs_here(engine, checkpointing),
        states=states,
        learning=resolve.learning(config),
        lr=config.optim.lr,
        device_memory=memory.of_each(engine),
        reasons=[reason, *[BFLOAT16_ON_CPU][:was_chosen]],
        flops_importance=costs.scoring(),
        trainable_parameters=kind.num_learned(price.d_model),
        vectors_pt=config.prompt.length,
        ends_whole=schedule.last.shape == schedule.full,
        stages=stages,
    )


def _with_device(config: RunConfig) -> RunConfig:
    """The configuration with a device in place of auto: a GPU if there is one, or if engine.device_memory is given."""
    engine = config.engine
    has_card = engine.device_memory is not None or named("auto").type == "cuda"
    device = ("cuda" if has_card else "cpu") if engine.device == "auto" else engine.device
    return replace(config, engine=replace(engine, device=device))


def _asked(config: RunConfig) -> dict[str, Any]:
    """The settings that a plan depends on and that may change while a run goes on, which the precision may not."""
    train, engine = config.train, replace(config.engine, dtype="auto", timeout=None)
    how = {"micro_batch": train.micro_batch, "activation_checkpointing": train.activation_checkpointing}
    return {**asdict(engine), **how, "processes": counted(engine).all, "cache": config.prompt.cache}


def graphs_here(engine: EngineConfig, checkpointing: bool) -> bool:
    """Whether updates run as CUDA graphs on this machine; a plan may also be made for a GPU that is not here."""
    return has_graphs(engine, checkpointing=checkpointing) and torch.cuda.is_available()


def check_fits(config: RunConfig, plan: Plan) -> None:
    """Refuse to begin if the micro-batch is to be as large as fits, and not even one example fits."""
    if not is_auto(_with_device(config)) or plan.fits:
        return
    given = config.train.micro_batch or "null"
    raise UserError(
        f"train.micro_batch={given}: one example takes {amount(plan.stages[-1].total)}B on a device of"
        f" {amount(plan.device_memory)}B, of which a tenth is left free; fpt plan says what takes less"
    )
