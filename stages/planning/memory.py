"""Does every stage fit into a device's memory: with which engine and micro-batch, and what would help if not?"""

from dataclasses import dataclass, field, replace

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices import precision
from fpt.devices.processes import counted
from fpt.errors import UserError
from fpt.units import amount
from stages.planning.advice import PACKED, advise, advise_packed
from stages.planning.needs import Device, Lengths, Needs, StageMemory, device_of, is_auto
from stages.schedule import Schedule


@dataclass(frozen=True)
class MemoryPlan:
    """All stages on a device of `device_memory` bytes.

    Attributes:
        engine: torch or deepspeed.
        dtype: the frozen model's precision.
        reason: why this engine.
        processes: over all machines.
        micro_batch: examples per forward pass of a process.
        activation_checkpointing: whether the run has it.
        device_memory: of one device; for a process on a CPU its share of what is free.
        stages: each one's bytes.
        fits: whether all stages do, with a tenth of the memory left.
        advice: the settings that would make them fit, None where nothing would or need.
        advised_bytes: the largest stage's total then.
        quantize: how the weights of the blocks' linear layers are packed.
        told: for people, what was chosen because nothing fits without.
        packed_advice: the settings with packed weights that would make them fit, at a little of the score; likewise.
        packed_bytes: the largest stage's total then.
    """

    engine: str
    dtype: str
    reason: str
    processes: int
    micro_batch: int
    activation_checkpointing: bool
    device_memory: int
    stages: list[StageMemory]
    fits: bool
    advice: list[str] | None = None
    advised_bytes: int | None = None
    quantize: str = "none"
    told: list[str] = field(default_factory=list)
    packed_advice: list[str] | None = None
    packed_bytes: int | None = None


def plan_memory(
    config: RunConfig, schedule: Schedule, device: Device | None = None, lengths: Lengths | None = None
) -> MemoryPlan:
    """Which engine and micro-batch a run has, what every stage takes then, and what would help if that is too much.

    Args:
        config: of the run.
        schedule: whose last stage is the largest.
        device: whose memory counts; None: this machine's.
        lengths: of the longest source and target; None: the task's limits.
    """
    config = replace(config, engine=precision.settled(config.engine))
    needs = Needs(config, schedule, device or device_of(config.engine), lengths)
    engine, reason = _engine(needs, config)
    config = replace(config, engine=engine)
    micro_batch = needs.micro_batch(config) or 1
    stages = [needs.stage(config, stage, micro_batch) for stage in schedule.stages]
    plan = MemoryPlan(
        engine=engine.name,
        dtype=engine.dtype,
        reason=reason,
        processes=counted(engine).all,
        micro_batch=micro_batch,
        activation_checkpointing=needs.checkpointing(config),
        device_memory=needs.device.of_each(counted(engine).here),
        stages=stages,
        fits=all(stage.fits for stage in stages),
        quantize=engine.quantize,
        told=_told(needs, config),
    )
    if plan.fits:
        return plan
    advice, advised_bytes = advise(needs, config)
    packed_advice, packed_bytes = advise_packed(needs, config)
    return replace(
        plan, advice=advice, advised_bytes=advised_bytes, packed_advice=packed_advice, packed_bytes=packed_bytes
    )


def _told(needs: Needs, config: RunConfig) -> list[str]:
    """What is on because the largest stage fits with it alone."""
    if config.train.activation_checkpointing is not None or not needs.checkpointing(config):
        return []
    without, at_once = amount(needs.without_checkpointing(config)), needs.micro_batch(config) or 1
    least = "one example" if is_auto(config) else f"train.micro_batch={at_once}"
    for quantize in PACKED if config.engine.name == "torch" else ():
        packed = replace(config, engine=replace(config.engine, quantize=quantize))
        if not needs.checkpointing(packed) and needs.fits(packed, needs.least(packed)):
            other = f"; with engine.quantize={quantize}, for a little of the score, it need not be"
            break
    else:
        other = ""
    return [f"activation checkpointing is on: without it {least} takes {without}B{other}"]


def check_fits(config: RunConfig, plan: MemoryPlan) -> None:
    """Refuse to begin where the largest micro-batch that fits is asked for, and not even one example does."""
    if not is_auto(config) or plan.fits:
        return
    ways = [" ".join(way) for way in (plan.advice, plan.packed_advice) if way]
    advice = f"{', or '.join(ways)} fits" if ways else "No setting of fpt makes it fit; take a smaller model"
    given = config.train.micro_batch or "null"
    raise UserError(
        f"train.micro_batch={given}: one example takes {amount(plan.stages[-1].total)}B on a device of"
        f" {amount(plan.device_memory)}B, of which a tenth is left free. {advice}"
    )


def _engine(needs: Needs, config: RunConfig) -> tuple[EngineConfig, str]:
    """The engine that engine=auto stands for, and why: torch where it fits, or sharing wins nothing."""
    engine = config.engine
    if engine.name != "auto":
        return engine, f"engine={engine.name} as given"
    if engine.quantize != "none":
        return replace(engine, name="torch"), f"engine=torch for engine.quantize={engine.quantize}"
    if engine.offload != "none":
        return replace(engine, name="deepspeed"), f"engine=deepspeed for engine.offload={engine.offload}"
    plain, shared = (replace(config, engine=replace(engine, name=name)) for name in ("torch", "deepspeed"))
    of = f"{amount(needs.device.of_each(counted(engine).here))}B of memory"
    whole = needs.least(plain)
    if needs.fits(plain, whole):
        return plain.engine, f"engine=torch: the largest stage takes {amount(whole)}B of {of}"
    parts = needs.least(shared)
    reason = f"with engine=torch the largest stage takes {amount(whole)}B of {of}, shared out {amount(parts)}B"
    if parts >= whole:
        return plain.engine, f"engine=torch: {reason}; fpt plan says what would make it fit"
    more = "" if needs.fits(shared, parts) else "; engine.offload=cpu takes less"
    return shared.engine, f"engine=deepspeed: {reason}{more}"
