"""The typed configuration: every key, its type, its default and its limits; help.yaml says what each one is."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, get_args, get_origin

from fpt.errors import UserError, check_among, reason

RELATIVE_LR = {"prefix": 0.16, "suffix": 0.32}  # of the embeddings' root mean square, by place: see docs/models.md
LONGEST = 255  # the most bytes of a file's name on common file systems
HUB = "hub:"  # begins the name of a data set on the Hub, where a file could be given
MOST = 2**31 - 1  # the limit of whole numbers that have none of their own
MOST_TOKENS = 100_000  # the limit of an output's tokens
WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
WORDS |= {list: "a list", dict: "a mapping", NoneType: "null"}


def place(text: str, key: str) -> Path:
    """The path of a file or folder, which need not exist; ~ stands for a home folder."""
    if any(len(part.encode("utf-8", "replace")) > LONGEST for part in Path(text).parts):
        raise UserError(f"{key}={text[:40]}…: a file's name has at most {LONGEST} bytes; give a shorter one")
    try:
        path = Path(text).expanduser()
        path.resolve()
    except (OSError, RuntimeError, UnicodeError) as error:  # such as a circle of links, or ~ before no user's name
        raise UserError(f"{key}={text}: is no path ({reason(error)})") from None
    return path


def setting(default: Any = MISSING, **limits: Any) -> Any:
    """A field with the limits that its group checks: choices, above, least, most, folder_name and place.

    With place=True the value is a path, unless it is one of words=(…). With verbatim=True it is taken as typed, braces
    included. In TaskConfig, shared=True marks a key that the tasks of a mixture have in common. In PromptConfig,
    only="late" marks a key for late prompts, only={value: kind} marks single values for one kind of prompt, and
    learning=True marks a key that says how the prompt is learned, not what it is.
    """
    return field(default=default, metadata=limits)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of settings that checks its own fields when it is made."""

    key: ClassVar[str]  # the part of its keys before the dot

    def __init_subclass__(cls, key: str = "") -> None:
        cls.key = key

    def error(self, name: str, why: str) -> UserError:
        """The error that refuses one of the group's settings: its key, its value, and why."""
        return UserError(f"{self.key}.{name}={getattr(self, name)}: {why}")

    def __post_init__(self) -> None:
        for item in fields(self):
            name, value = f"{self.key}.{item.name}".lstrip("."), getattr(self, item.name)
            if type(value) is int and float in kinds_of(item) and int not in kinds_of(item):
                value = float(str(value))  # of thousands of digits it is infinite
                object.__setattr__(self, item.name, value)
            if type(value) not in kinds_of(item):
                expected = " or ".join(WORDS[kind] for kind in kinds_of(item))
                raise UserError(f"{name}={value}: expected {expected}")
            _check_limits(name, value, item.metadata)


def kinds_of(item: Field[Any]) -> tuple[Any, ...]:
    """The types of value that a setting takes; of a list or a mapping without that of its items."""
    kinds = get_args(item.type) if isinstance(item.type, UnionType) else (item.type,)
    return tuple(get_origin(kind) or kind for kind in kinds)


def _check_limits(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if value is None:
        return
    if "choices" in limits:
        check_among(value, limits["choices"], f"{name}={value}: allowed are")
    if limits.get("folder_name") and (not value or set(value) & set("/\\\0")):
        raise UserError(f"{name}='{value}': names a folder, so it cannot be empty or hold a slash")
    if limits.get("place"):
        place(value, name)
    if not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        raise UserError(f"{name}={value}: expected a finite number")
    if "above" in limits and not value > limits["above"]:
        raise UserError(f"{name}={value}: must be greater than {limits['above']}")
    if "least" in limits and value < limits["least"]:
        raise UserError(f"{name}={value}: must be at least {limits['least']}")
    most = limits.get("most", MOST if isinstance(value, int) else math.inf)
    if value > most:
        raise UserError(f"{name}={value}: must be at most {most}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Group, key="model"):
    """The pre-trained model that the prompt is for."""

    name: str = setting(folder_name=True)
    weights: str = setting(place=True, words=("embedded",))
    revision: str | None = None
    config: dict[str, Any] | None = None


OF_ONE = ("of", "weights", "class_weights", "test", "test_split")  # keys that no task of a mixture can have


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Group, key="task"):
    """The data to train on, how long texts may be, and whether stages shrink the decoder too."""

    name: str = setting(folder_name=True)
    of: list[Any] | None = None
    weights: list[Any] | dict[str, Any] | None = None
    data: str = setting("auto", place=True, words=("auto", "world", "hub"), shared=True)
    world: str | None = setting(None, choices=("plain", "customs"), shared=True)
    land: int | None = setting(None, least=0, shared=True)
    valid_split: str = "validation"
    test_split: str | None = None
    source_length: int = setting(492, least=2, shared=True)
    target_length: int = setting(least=2, most=MOST_TOKENS, shared=True)
    max_new_tokens: int | None = setting(None, least=1, most=MOST_TOKENS, shared=True)
    reduce_decoder: bool = setting(shared=True)
    train_examples: int | None = setting(None, least=1, shared=True)
    valid_examples: int | None = setting(None, least=1, shared=True)
    shots: int | None = setting(None, least=1, shared=True)
    sample_seed: int | None = setting(None, least=0, shared=True)
    template: str | None = setting(None, verbatim=True)
    chat: bool = setting(False, shared=True)
    add_bos_token: bool = setting(False, shared=True)
    answer: str = setting("generate", choices=("generate", "score", "score_mean", "score_norm"), shared=True)
    on_error: str = setting("stop", choices=("stop", "skip"), shared=True)
    train: str | None = setting(None, place=True)
    valid: str | None = setting(None, place=True)
    test: str | None = setting(None, place=True)
    columns: list[str] | None = None
    valid_share: float = setting(0.1, above=0.0, most=0.5, shared=True)
    source: str | None = setting(None, verbatim=True)
    target: str | None = setting(None, verbatim=True)
    spare: str | None = None
    id: str | None = None
    labels: dict[Any, Any] | None = None
    multilabel: bool = False
    class_weights: str | None = setting(None, verbatim=True)
    metric: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Group, key="schedule"):
    """The partial PLMs to train on, one after the other."""

    name: str = setting(folder_name=True)
    stages: list[Any] = field(default_factory=list)
    reduce: str = setting("task", choices=("task", "encoder", "both"))
    blocks: str = setting("auto", choices=("auto", "evenly", "outer"))
    partial_end: bool = False
    importance_examples: int | None = setting(None, least=1)


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Group, key="prompt"):
    """The prompt: its kind and size, where it enters the model, and how it is initialised."""

    kind: str = setting("soft", choices=("soft", "late"))
    length: int = setting(20, least=1, most=10_000)
    init: str = setting(
        "auto",
        choices=("auto", "uniform", "normal", "vocab", "labels", "text", "file"),
        only={"vocab": "soft", "labels": "soft", "text": "soft"},
        learning=True,
    )
    text: str | None = setting(None, only="soft", learning=True)
    file: str | None = setting(None, place=True, learning=True)
    place: str = setting("prefix", choices=("prefix", "suffix"), only="soft")
    layer: int | float = setting(0.5, least=0, only="late")
    generator: str = setting("npg", choices=("npg", "appg", "mppg", "none"), only="late")
    bottleneck: int = setting(128, least=1, only="late")
    pool: str = setting("auto", choices=("auto", "first", "last", "mean"), only="late")
    dropout: float | None = setting(None, least=0.0, most=0.9, only="late", learning=True)
    cache: str = setting("auto", choices=("auto", "off", "memory"), learning=True)


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Group, key="optim"):
    """The prompt's optimizer and learning-rate schedule."""

    name: str = setting("auto", choices=("auto", "adafactor", "adamw"))
    lr: float | None = setting(None, above=0.0)
    schedule: str = setting("auto", choices=("auto", "constant", "linear"))
    warmup: float = setting(0.0, least=0.0, most=1.0)
    weight_decay: float = setting(1e-5, least=0.0)
    clip: float = setting(1.0, above=0.0)
    momentum: float | None = setting(None, least=0.0, most=0.999)
    average: float = setting(0.0, least=0.0, most=0.999)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Group, key="train"):
    """How long to train, how many examples at a time, and how often to validate and save."""

    updates: int = setting(30000, least=1)
    epochs: float | None = setting(None, above=0.0, most=100_000)
    max_seconds: float | None = setting(None, above=0.0)
    batch_size: int = setting(32, least=1)
    bucket: int | None = setting(None, least=1)
    micro_batch: int | str | None = setting(None, least=1)
    activation_checkpointing: bool | None = None
    eval_every: int = setting(500, least=1)
    eval_examples: int | None = setting(None, least=1)
    eval_partial: bool = False
    eval_batch: int = setting(128, least=1)
    save_every: int = setting(50, least=1)
    score_untrained: bool = False
    patience: int | None = setting(None, least=1)


@dataclass(frozen=True, kw_only=True)
class RecycleConfig(Group, key="recycle"):
    """What is kept, besides the prompt, when the model of one stage is expanded to that of the next."""

    optimizer: bool = True


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Group, key="engine"):
    """The device and precision of the frozen model, and how many processes share the work."""

    name: str = setting("auto", choices=("auto", "torch", "deepspeed"))
    device: str = "auto"
    dtype: str = setting("auto", choices=("auto", "float32", "bfloat16"))
    quantize: str = setting("none", choices=("none", "int8", "nf4"))
    graphs: bool = True
    processes: int = setting(1, least=1)
    offload: str = setting("none", choices=("none", "cpu"))
    device_memory: str | None = None
    timeout: int | None = setting(None, least=1)

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds only a share of the weights, so that all must run the model together."""
        return self.name == "deepspeed"


@dataclass(frozen=True, kw_only=True)
class FolderConfig(Group, key="run"):
    """Where the run is kept."""

    dir: str | None = setting(None, place=True)
