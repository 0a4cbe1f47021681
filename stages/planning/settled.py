"""What is settled once, before the first update, and holds until the run ends: on disk it is plan.json.

Free memory and disk are other ones tomorrow. A run that goes on reads back what was settled, so that it computes what
it would have computed; only where other settings are typed is it settled anew.
"""

from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from pydantic import TypeAdapter

from fpt.config.run_config import RunConfig
from fpt.config.schema import EngineConfig
from fpt.devices import distributed, precision
from fpt.devices.device import named
from fpt.pricing.memory import has_graphs
from fpt.runs.records import PLAN
from fpt.runs.shared_folder import SharedFolder
from fpt.tasks.catalogue import most_train_examples
from stages.inputs import Inputs
from stages.planning.flops import FlopsPlan, nominal, price_run
from stages.planning.kept_states import KeptStatesPlan, decide_for_run
from stages.planning.memory import MemoryPlan, check_fits, plan_memory
from stages.planning.needs import device_of
from stages.schedule import Schedule

# The settings that decide it besides those that may not change while a run goes on.
ASKED = (
    "prompt.cache",
    "train.micro_batch",
    "train.activation_checkpointing",
    "engine.name",
    "engine.device",
    "engine.processes",
    "engine.zero_stage",
    "engine.offload",
    "engine.device_memory",
    "engine.graphs",
)


@dataclass(frozen=True)
class Settled:
    """What was decided.

    Attributes:
        asked: the settings that it was decided for, by key; and how many processes there were.
        memory: the engine, the micro-batch, and what every stage takes.
        flops: what every stage costs.
        kept_states: what is done about the states below a late prompt; None: it is a soft one.
    """

    asked: dict[str, Any]
    memory: MemoryPlan
    flops: FlopsPlan
    kept_states: KeptStatesPlan | None

    def resolved(self, config: RunConfig, inputs: Inputs) -> RunConfig:
        """The configuration with what was decided in place of every `auto`."""
        config = config.with_batches_of(len(inputs.train))
        train = replace(config.train, activation_checkpointing=self.memory.activation_checkpointing)
        engine = replace(config.engine, name=self.memory.engine, dtype=self.memory.dtype)
        graphs = self.has_graphs(engine) and not inputs.backbone.family.row.asks_card
        return replace(config, train=train, engine=replace(engine, graphs=graphs))

    @property
    def micro_batch(self) -> int:
        """Examples per forward pass of a process."""
        return self.memory.micro_batch

    def has_graphs(self, config: EngineConfig) -> bool:
        """Whether updates are CUDA graphs."""
        is_planned = has_graphs(config, checkpointing=self.memory.activation_checkpointing)
        return is_planned and named(config.device).type == "cuda"  # which a plan may be made without

    def sentences(self, config: EngineConfig) -> list[str]:
        """For people: the engine and why, on a CPU its threads, and what is done about the states below the prompt."""
        number = torch.get_num_threads()
        threads = f"; {number} thread{'s' if number > 1 else ''}" if named(config.device).type == "cpu" else ""
        packed = "" if config.quantize == "none" else f", its blocks' linear layers in {config.quantize}"
        graphs = "; updates are CUDA graphs" if config.graphs else ""
        engine = f"{self.memory.reason}; the model is in {self.memory.dtype}{packed}{threads}{graphs}"
        return [engine, *self.memory.told, *([self.kept_states.sentence] if self.kept_states else [])]

    def to_json(self) -> dict[str, Any]:
        """plan.json."""
        states = self.kept_states and self.kept_states.to_json()
        return {**asdict(self.flops), "memory": asdict(self.memory), "states": states, "asked": self.asked}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Settled":
        """What `to_json` made plain."""
        memory = TypeAdapter(MemoryPlan).validate_python(values["memory"])
        flops = TypeAdapter(FlopsPlan).validate_python(values)
        return cls(values["asked"], memory, flops, _kept_states(values))


def settle(config: RunConfig, schedule: Schedule, inputs: Inputs, folder: SharedFolder, update: int) -> Settled:
    """Decide in the main process, for all; or read back what was decided when `update` updates were still to come."""
    config = config.with_batches_of(len(inputs.train))
    if inputs.backbone.family.row.asks_card:
        config = replace(config, engine=replace(config.engine, graphs=False))
    before = folder.read_json(PLAN) if PLAN in folder else {}
    asked = {key: attrgetter(key)(config) for key in ASKED} | {"processes": distributed.size()}
    if before.get("asked") == asked:
        return Settled.from_json(before)

    def decide() -> Settled:
        # Of a run that has begun elsewhere, the precision stays.
        dtype = before.get("memory", {}).get("dtype") if config.engine.dtype == "auto" else None
        engine = replace(config.engine, dtype=dtype) if dtype else precision.settled(config.engine)
        return decide_in(replace(config, engine=engine))

    def decide_in(config: RunConfig) -> Settled:
        kept_states = decide_for_run(config, schedule, inputs, update, _kept_states(before))
        device = device_of(config.engine, kept_in_memory=kept_states.in_memory if kept_states else 0)
        memory = plan_memory(config, schedule, device, inputs.longest)
        check_fits(config, memory)
        flops = price_run(config, schedule, inputs, kept_states, memory.micro_batch)
        return Settled(asked, memory, flops, kept_states)

    settled = distributed.broadcast_from_main(decide)
    folder.write_json(PLAN, settled.to_json())
    return settled


def expect(config: RunConfig, schedule: Schedule) -> dict[str, Any]:
    """What would be settled at the task's length limits, without weights or data: `fpt plan --json`."""
    config = config.with_batches_of(most_train_examples(config))
    priced = nominal(config, schedule)
    kept_states = _kept_states(priced)
    device = device_of(config.engine, kept_in_memory=kept_states.in_memory if kept_states else 0)
    return {**priced, "memory": asdict(plan_memory(config, schedule, device))}


def _kept_states(values: dict[str, Any]) -> KeptStatesPlan | None:
    states = values.get("states")
    return TypeAdapter(KeptStatesPlan).validate_python(states) if states else None
