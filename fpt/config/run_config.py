"""The configuration of a run: all groups of settings, checked against each other before data or weights are read."""

import re
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path

from fpt.config import schema
from fpt.config.schema import OF_ONE, EngineConfig, Group, PromptConfig, TaskConfig, TrainConfig, place, setting
from fpt.errors import UserError
from fpt.units import bytes_of


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
    resume: str = setting("auto", choices=("auto", "never", "must"))
    tracking: str = setting("auto", choices=("auto", "none", "tensorboard", "wandb"))

    def __post_init__(self) -> None:
        super().__post_init__()
        place(str(self.folder), "run.dir")  # the names of task, model and schedule are parts of it
        if not self.model.weights:
            raise UserError("model.weights is empty: give 'embedded', a local folder, or a Hub id")
        _check_kind(self.prompt)
        _check_prompt(self.prompt)
        _check_task(self.task)
        _check_batch(self.train, self.engine)
        _check_engine(self.engine)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        kind = self.prompt.place if self.prompt.kind == PromptConfig.kind else self.prompt.kind
        named = "" if kind == PromptConfig.place else f"-{kind}"
        name = f"{self.task.name}-{self.model.name}-{self.schedule.name}{named}-s{self.seed}"
        return Path(self.run.dir).expanduser() if self.run.dir else Path("runs") / name

    @property
    def num_scored(self) -> int:
        """How many training examples neurons are scored on, so that scoring takes little of a short run too.

        Of SmolLM2's neurons, 64 of TREC's examples choose 98 % of those that 1,000 choose.
        """
        trained = self.train.updates * self.train.batch_size
        return self.schedule.importance_examples or min(1000, max(64, trained // 100))

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


def check_quantize(quantize: str) -> None:
    """Refuse quantised weights if bitsandbytes is not installed; a plan can be made without it."""
    if quantize != "none" and find_spec("bitsandbytes") is None:
        raise UserError(f"engine.quantize={quantize}: bitsandbytes is not installed; pip install 'fpt[quantize]'")


def _check_prompt(prompt: PromptConfig) -> None:
    for name in ("text", "file"):
        if (value := getattr(prompt, name)) and prompt.init != name:
            raise UserError(f"prompt.{name} is given but prompt.init={prompt.init}: add prompt.init={name}")
        if prompt.init == name and not value:
            raise UserError(f"prompt.init={name} needs prompt.{name}=…")
    if prompt.file and not Path(prompt.file).expanduser().exists():
        raise prompt.error("file", "no such file or folder")
    if prompt.cache != "auto" and (prompt.kind, prompt.place) == ("soft", "prefix"):
        raise prompt.error("cache", "is for prompt=late and prompt.place=suffix; here no states are below the prompt")
    if prompt.init == "normal" and prompt.kind == "late" and prompt.generator != "none":
        raise prompt.error("init", f"is for vectors; the layers of prompt.generator={prompt.generator} start uniform")
    if prompt.pool not in ("auto", "first") and prompt.generator != "npg":
        raise prompt.error("pool", f"is for prompt.generator=npg; this is {prompt.generator}")
    if prompt.bottleneck != PromptConfig.bottleneck and prompt.generator == "none":
        raise prompt.error("bottleneck", "prompt.generator=none has no hidden layer")
    if isinstance(prompt.layer, float) and prompt.layer > 1:
        raise prompt.error("layer", "expected a count of blocks (12), or a fraction up to 1.0")


def _check_kind(prompt: PromptConfig) -> None:
    """Refuse keys, and ways to start, that are for the other kind of prompt."""
    for item in fields(prompt):
        value, only = getattr(prompt, item.name), item.metadata.get("only", prompt.kind)
        if isinstance(only, str) and only != prompt.kind and value != item.default:
            raise prompt.error(item.name, f"is for prompt={only}; this is prompt={prompt.kind}")
        if isinstance(only, dict) and (kind := only.get(value, prompt.kind)) != prompt.kind:
            fit = " or ".join(each for each in item.metadata["choices"] if only.get(each, prompt.kind) == prompt.kind)
            raise prompt.error(item.name, f"is for prompt={kind}; a {prompt.kind} prompt takes {fit}")


def _check_task(task: TaskConfig) -> None:
    if task.labels and not all(isinstance(text, str) for text in (*task.labels, *task.labels.values())):
        raise task.error("labels", "values and words are texts, which YAML must be told; put them in quotes")
    if task.sample_seed is not None and task.shots is None:
        raise task.error("sample_seed", "is the seed of task.shots; give task.shots=N")
    for item in fields(task):
        is_of_one = not item.metadata.get("shared") and item.name not in ("name", "of", "weights")
        if task.of is not None and is_of_one and getattr(task, item.name) != item.default:
            in_file = "" if item.name in OF_ONE else ", or set it in a YAML file of that task's"
            raise task.error(item.name, f"is for one task, and this is a mixture; leave it out{in_file}")
    if task.weights is not None and task.of is None:
        raise task.error("weights", "is for task=mixture, whose tasks task.of=[…] names; leave it out")


def _check_batch(train: TrainConfig, engine: EngineConfig) -> None:
    if isinstance(train.micro_batch, str) and train.micro_batch != "auto":
        raise train.error("micro_batch", "expected a whole number, auto or null")
    if isinstance(train.micro_batch, int) and train.micro_batch > train.batch_size:
        raise train.error("micro_batch", f"must be at most train.batch_size={train.batch_size}")
    if engine.processes > train.batch_size:
        why = f"must be at most train.batch_size={train.batch_size}, so that each has an example; give fewer"
        raise engine.error("processes", why)


def _check_engine(engine: EngineConfig) -> None:
    if engine.device_memory is not None:
        bytes_of(engine.device_memory)
    if engine.offload != "none" and engine.name == "torch":
        raise engine.error("offload", "is for engine=deepspeed; this is engine=torch")
    if engine.quantize != "none" and (engine.name == "deepspeed" or engine.offload != "none"):
        now = f"this is engine={engine.name} with engine.offload={engine.offload}"
        raise engine.error("quantize", f"is for engine=torch, as DeepSpeed shares out no packed weights; {now}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,4})?", engine.device):
        raise engine.error("device", "allowed are auto, cpu, cuda and cuda:N")
    if engine.processes > 1 and ":" in engine.device:
        raise engine.error("device", "is one device, for engine.processes=1; engine.device=cuda is all")
