"""Refuses settings that clash with each other or with what is installed, before any data or weights are read."""

import re
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from fpt.config.schema import EngineConfig, ModelConfig, PromptConfig, TaskConfig, TrainConfig
from fpt.errors import UserError
from fpt.units import bytes_of


def refuse_clashes(
    model: ModelConfig, task: TaskConfig, prompt: PromptConfig, train: TrainConfig, engine: EngineConfig
) -> None:
    """Refuse settings that clash."""
    if not model.weights:
        raise UserError("model.weights is empty: give 'embedded', a local folder, or a Hub id")
    _check_prompt(prompt)
    if task.labels and not all(isinstance(text, str) for text in (*task.labels, *task.labels.values())):
        raise task.error("labels", "values and words are texts, which YAML must be told; put them in quotes")
    _check_samples(task)
    _check_batch(train, engine)
    _check_engine(engine)


def check_quantize(quantize: str) -> None:
    """Refuse quantised weights if bitsandbytes is not installed; a plan can be made without it."""
    if quantize != "none" and find_spec("bitsandbytes") is None:
        raise UserError(
            f"engine.quantize={quantize}: needs bitsandbytes, which is not installed; pip install 'fpt[quantize]', or"
            " engine.quantize=none does without"
        )


def _check_prompt(prompt: PromptConfig) -> None:
    _check_kind(prompt)
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


def _check_samples(task: TaskConfig) -> None:
    if task.protocol != "lpt" and task.valid_shots is not None:
        raise task.error("valid_shots", "is for task.protocol=lpt")
    if task.protocol == "lpt" and task.shots is None:
        raise task.error("protocol", "says how task.shots are drawn; give task.shots=N, as 100, 200 or 500")
    if task.protocol == "lpt" and task.test_split is not None:
        raise task.error("test_split", "with task.protocol=lpt the validation split is the test; leave it out")
    if task.sample_seed is not None and task.shots is None:
        raise task.error("sample_seed", "is the seed of task.shots; give task.shots=N")


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
