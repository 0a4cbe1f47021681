"""The configuration of a run: all groups of settings, and the few settings of the run as a whole."""

from dataclasses import dataclass, replace
from pathlib import Path

from fpt.config import clashes, schema
from fpt.config.schema import Group, PromptConfig, place, setting


@dataclass(frozen=True, kw_only=True)
class RunConfig(Group):
    """All settings of a run, checked against each other when it is made."""

    model: schema.ModelConfig
    task: schema.TaskConfig
    schedule: schema.ScheduleConfig
    prompt: schema.PromptConfig
    optim: schema.OptimConfig
    train: schema.TrainConfig
    recycle: schema.RecycleConfig
    engine: schema.EngineConfig
    run: schema.FolderConfig
    seed: int = setting(0, least=0)
    resume: str = setting(
        "auto",
        choices=("auto", "never", "must"),
        refused={"repair": "A damaged run is not repaired; resume=never sets it aside and starts over."},
    )
    tracking: str = setting("auto", choices=("auto", "none", "tensorboard"))

    def __post_init__(self) -> None:
        super().__post_init__()
        place(str(self.folder), "run.dir")  # the names of task, model and schedule are parts of it
        clashes.refuse_clashes(self.model, self.task, self.prompt, self.train, self.engine)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        kind = self.prompt.place if self.prompt.kind == PromptConfig.kind else self.prompt.kind
        named = "" if kind == PromptConfig.place else f"-{kind}"
        name = f"{self.task.name}-{self.model.name}-{self.schedule.name}{named}-s{self.seed}"
        return Path(self.run.dir).expanduser() if self.run.dir else Path("runs") / name

    def with_batches_of(self, examples: int | None) -> "RunConfig":
        """The configuration with batches no larger than the training set, so that no update sees an example twice.

        `examples` is None if their number is not known. Every process keeps at least one example.
        """
        size = self.train.batch_size
        if examples is not None:
            size = min(size, max(examples, self.engine.processes))
        micro_batch = self.train.micro_batch
        at_once = min(micro_batch, size) if isinstance(micro_batch, int) else micro_batch
        return replace(self, train=replace(self.train, batch_size=size, micro_batch=at_once))
