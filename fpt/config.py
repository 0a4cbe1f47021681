"""The typed configuration: its schema, its checks, and how it is composed from conf/ and the command line.

DictConfig stops here; below this file every function receives the frozen group it needs.
"""

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from fpt.errors import UserError, did_you_mean

GROUPS = ("task", "model", "schedule", "prompt", "engine", "experiment")


def setting(help: str, default: Any = MISSING, **limits: Any) -> Any:
    """A field with its one-line help and the limits it checks: choices=, above=, least=, most=."""
    return field(default=default, metadata={"help": help, **limits})


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of settings that checks its own fields when it is made."""

    key: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for item in fields(self):
            name = f"{self.key}.{item.name}".lstrip(".")
            _check_limits(name, getattr(self, item.name), dict(item.metadata))


def _check_limits(name: str, value: Any, limits: dict[str, Any]) -> None:
    if value is None:
        return
    if "choices" in limits and value not in limits["choices"]:
        allowed = ", ".join(limits["choices"])
        hint = limits.get("refused", {}).get(value) or did_you_mean(str(value), limits["choices"])
        raise UserError(f"{name}={value}: allowed are {allowed}.{_spaced(hint)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value}: expected a finite number")
    if "above" in limits and not value > limits["above"]:
        raise UserError(f"{name}={value}: must be greater than {limits['above']}")
    if "least" in limits and value < limits["least"]:
        raise UserError(f"{name}={value}: must be at least {limits['least']}")
    if "most" in limits and value > limits["most"]:
        raise UserError(f"{name}={value}: must be at most {limits['most']}")


def _spaced(hint: str) -> str:
    return f" {hint.strip()}" if hint else ""


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Group):
    """Which pre-trained T5 the prompt is for."""

    key: ClassVar[str] = "model"
    name: str = setting("name used for the run folder and in reports")
    weights: str = setting("'embedded', a local folder, or a Hub id such as google/t5-large-lm-adapt")
    revision: str | None = setting("branch, tag or commit of a Hub id", None)
    config: dict[str, Any] | None = setting(
        "shape as in config.json, so that plans need no download; null: read config.json", None
    )


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Group):
    """Which data, how long, and whether the decoder is reduced with the encoder."""

    key: ClassVar[str] = "task"
    name: str = setting("name of the task")
    data: str = setting(
        "'auto', 'world' (generated), 'hub', or a folder with the task's own files;"
        " auto: generated for the embedded model, else the Hub",
        "auto",
    )
    source_length: int = setting("longest source, in tokens with </s>, prompt not counted", 492, least=2)
    target_length: int = setting("longest target, in tokens with </s>", least=2)
    reduce_decoder: bool = setting("stages reduce the decoder too (the paper: not for short labels)")
    train_examples: int | None = setting("use only so many training examples; null: all", None, least=1)
    valid_examples: int | None = setting("use only so many validation examples; null: all", None, least=1)


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Group):
    """The partial PLMs to train on, in order."""

    key: ClassVar[str] = "schedule"
    name: str = setting("name used for the run folder and in reports")
    stages: list[Any] = field(
        default_factory=list,
        metadata={
            "help": "list of {depth, width, share|updates}; depth and width: a count (6), a fraction"
            " (0.25), full, or {encoder: …, decoder: …}"
        },
    )
    reduce: str = setting(
        "stacks that depth and width reduce: both, encoder, or task (as task.reduce_decoder says)",
        "task",
        choices=("task", "encoder", "both"),
    )
    partial_end: bool = setting("allow a last stage that is not the full model", False)
    importance_examples: int = setting("training examples that score the FFN neurons", 1000, least=1)


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Group):
    """The soft prompt and where it starts."""

    key: ClassVar[str] = "prompt"
    length: int = setting("number of prompt vectors P", 20, least=1)
    init: str = setting(
        "uniform in ±1/sqrt(d_model), vocab (sampled embeddings), labels (label words), text, file",
        "uniform",
        choices=("uniform", "vocab", "labels", "text", "file"),
    )
    text: str | None = setting("the words whose embeddings start the prompt, for prompt.init=text", None)
    file: str | None = setting("a prompt.safetensors to start from, for prompt.init=file", None)


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Group):
    """Adafactor on the prompt, constant learning rate."""

    key: ClassVar[str] = "optim"
    lr: float = setting("learning rate, constant", 0.3, above=0.0)
    weight_decay: float = setting("weight decay", 1e-5, least=0.0)
    clip: float = setting("largest norm of the prompt's gradient", 1.0, above=0.0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Group):
    """How long, how much at once, and how often to look."""

    key: ClassVar[str] = "train"
    updates: int = setting("optimizer updates over all stages", 30000, least=1)
    batch_size: int = setting("examples per update", 32, least=1)
    micro_batch: int | None = setting(
        "examples per forward pass; null: the whole batch. The gradient does not depend on it", None, least=1
    )
    eval_every: int = setting("updates between validations", 500, least=1)
    eval_batch: int = setting("examples per batch of generation", 128, least=1)
    save_every: int = setting("updates between saved states", 50, least=1)
    score_untrained: bool = setting("score the initial prompt on the full model too, to compare", False)
    patience: int | None = setting(
        "stop after so many validations of the full model without a better score; null: never", None, least=1
    )


@dataclass(frozen=True, kw_only=True)
class RecycleConfig(Group):
    """What an expansion carries over besides the prompt."""

    key: ClassVar[str] = "recycle"
    optimizer: bool = setting("carry the optimizer's state over an expansion", True)


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Group):
    """Where the frozen model lives."""

    key: ClassVar[str] = "engine"
    name: str = setting("torch: one process, one device", "torch", choices=("torch",))
    device: str = setting("auto, cpu, cuda or cuda:N; auto: cuda where there is one", "auto")
    dtype: str = setting(
        "precision of the frozen model; the prompt is always float32",
        "float32",
        choices=("float32", "bfloat16"),
        refused={
            "float16": "T5 overflows in float16; bfloat16 is as small.",
            "fp16": "T5 overflows in float16; bfloat16 is as small.",
            "bf16": "Did you mean 'bfloat16'?",
            "fp32": "Did you mean 'float32'?",
        },
    )


@dataclass(frozen=True, kw_only=True)
class FolderConfig(Group):
    """Where the run is kept."""

    key: ClassVar[str] = "run"
    dir: str | None = setting("run folder; null: runs/<task>-<model>-<schedule>-s<seed>", None)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Group):
    """Everything that decides a run."""

    model: ModelConfig
    task: TaskConfig
    schedule: ScheduleConfig
    prompt: PromptConfig
    optim: OptimConfig
    train: TrainConfig
    recycle: RecycleConfig
    engine: EngineConfig
    run: FolderConfig
    seed: int = setting("the one seed; prompt, data order and samples draw from streams named after it", 0, least=0)
    resume: str = setting(
        "auto: go on with an unfinished run; never: start over; must: refuse to start anew;"
        " repair: drop what is damaged and go on from the last good state",
        "auto",
        choices=("auto", "never", "must", "repair"),
    )
    cache_dir: str = setting("where neuron scores are kept for the next run", "~/.cache/fpt")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_clashes(self)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        name = f"{self.task.name}-{self.model.name}-{self.schedule.name}-s{self.seed}"
        return Path(self.run.dir).expanduser() if self.run.dir else Path("runs") / name


def _check_clashes(config: RunConfig) -> None:
    """Settings that are right alone and wrong together."""
    prompt, train = config.prompt, config.train
    for name, value in (("text", prompt.text), ("file", prompt.file)):
        if prompt.init == name and not value:
            raise UserError(f"prompt.init={name} needs prompt.{name}=…")
        if value and prompt.init != name:
            raise UserError(f"prompt.{name} is given but prompt.init={prompt.init}: add prompt.init={name}")
    if prompt.file and not Path(prompt.file).expanduser().is_file():
        raise UserError(f"prompt.file={prompt.file}: no such file")
    if train.micro_batch and train.micro_batch > train.batch_size:
        raise UserError(f"train.micro_batch={train.micro_batch}: must be at most train.batch_size={train.batch_size}")


def conf_dir() -> Path:
    """The folder of YAML files: inside the package in a wheel, beside it in a checkout."""
    here = Path(__file__).parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def group_options(group: str) -> list[str]:
    """The names that `group=` may take, from the files in conf/."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def settings() -> dict[str, tuple[type, dict[str, Any]]]:
    """Every key a user may set, with its type and its metadata, in the schema's order."""
    known: dict[str, tuple[type, dict[str, Any]]] = {}
    for item in fields(RunConfig):
        if isinstance(item.type, type) and issubclass(item.type, Group):
            for inner in fields(item.type):
                known[f"{item.name}.{inner.name}"] = (cast(type, inner.type), dict(inner.metadata))
        else:
            known[item.name] = (cast(type, item.type), dict(item.metadata))
    return known


def load(words: Sequence[str]) -> RunConfig:
    """Compose conf/ with overrides in Hydra's grammar, and check everything that needs no weights.

    Raises:
        UserError: one line that names the key as typed, what was given and what is allowed.
    """
    overrides = [_parse(word) for word in words]
    composed: list[str] = []
    weights: str | None = None
    for override in overrides:
        word = str(override.input_line).lstrip("+")
        if override.key_or_group == "model" and (path := _foreign_weights(override)) is not None:
            weights, word = path, "model=custom"
        elif override.key_or_group in GROUPS:
            _check_option(override)
        else:
            _check_key(override)
        composed.append(word)
    typed = {override.key_or_group for override in overrides}
    if "schedule.stages" in typed and "schedule.name" not in typed:
        composed.append("schedule.name=custom")
    return _compose(composed, weights)


def _parse(word: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        way_out = (
            " Write key=value, for example task=boolq."
            if "=" not in word
            else " Quote a value with brackets, commas or colons: key='\"…\"'."
        )
        raise UserError(f"{word}: not an override ({reason}).{way_out}") from None
    if override.is_delete():
        raise UserError(f"{word}: settings cannot be deleted. Set {word.lstrip('~')}=null if it may be empty.")
    if override.is_sweep_override():
        raise UserError(f"{word}: several values at once are not possible; run the command once for each.")
    return override


def _foreign_weights(override: Override) -> str | None:
    """The folder or Hub id in `model=…`, or None where it names a file in conf/model."""
    value = str(override.value())
    if value in group_options("model") and value != "custom":
        return None
    if "/" in value or value.startswith((".", "~")) or Path(value).is_dir():
        return value
    options = [name for name in group_options("model") if name != "custom"]
    raise UserError(
        f"model={value}: neither one of {', '.join(options)}, nor a local folder, nor a Hub id"
        f" (owner/name).{did_you_mean(value, options)}"
    )


def _check_option(override: Override) -> None:
    group, value = override.key_or_group, override.value()
    options = group_options(group)
    if value in options or (group == "experiment" and value is None):
        return
    allowed = ", ".join(options)
    raise UserError(f"{group}={value}: allowed are {allowed}.{did_you_mean(str(value), options)}")


def _check_key(override: Override) -> None:
    key, known = override.key_or_group, settings()
    if key in known or key.startswith("model.config."):
        return
    inner = [name.rpartition(".")[2] for name in known]
    hint = did_you_mean(key, [*known, *GROUPS])
    if not hint and key in inner:
        hint = f" Did you mean '{list(known)[inner.index(key)]}'?"
    raise UserError(f"{override.input_line}: unknown key '{key}'.{hint or ' See fpt train --help.'}")


def _compose(words: list[str], weights: str | None) -> RunConfig:
    # Hydra merges into plain defaults, the result into the typed schema: so every type error has one place.
    ConfigStore.instance().store(name="schema", node=OmegaConf.to_container(_schema()))
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            tree = compose("config", overrides=words)
        if weights is not None:
            tree.model.weights = weights
            tree.model.name = _short_name(weights)
        return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(_schema(), tree)))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error, words)) from None


def _schema() -> DictConfig:
    """RunConfig with every group's defaults filled in, writable (OmegaConf locks frozen dataclasses)."""
    schema = OmegaConf.structured(RunConfig)
    OmegaConf.set_readonly(schema, False)
    for item in fields(RunConfig):
        if isinstance(item.type, type) and issubclass(item.type, Group):
            schema[item.name] = OmegaConf.structured(item.type)
            OmegaConf.set_readonly(schema[item.name], False)
    return cast(DictConfig, schema)


def _short_name(weights: str) -> str:
    return Path(weights).expanduser().resolve().name if Path(weights).expanduser().exists() else weights.split("/")[-1]


def _explain(error: Exception, words: list[str]) -> str:
    """One line for a failed merge: the typed override, and what its key takes."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    key = str(getattr(cause, "full_key", "") or "")
    typed = next((word for word in words if word.split("=", 1)[0] == key), key)
    if isinstance(cause, ValidationError) and key in settings():
        kind = str(getattr(settings()[key][0], "__name__", settings()[key][0]))
        names = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
        allowed = " or ".join(names.get(part.strip(), part.strip()) for part in kind.split("|"))
        return f"{typed}: expected {allowed.replace('None', 'null')}"
    return f"{typed}: {str(cause).splitlines()[0]}" if typed else str(cause).splitlines()[0]


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML, keys in the schema's order."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def differences(old: str, new: str) -> dict[str, tuple[Any, Any]]:
    """Keys in which two resolved configurations (YAML) differ, with both values."""

    def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(tree, dict) and tree:
            return {k: v for name, value in tree.items() for k, v in flat(value, f"{prefix}{name}.").items()}
        return {prefix.rstrip("."): tree}

    left, right = (flat(OmegaConf.to_container(OmegaConf.create(text))) for text in (old, new))
    keys = [key for key in {**left, **right} if left.get(key) != right.get(key)]
    return {key: (left.get(key), right.get(key)) for key in keys}
