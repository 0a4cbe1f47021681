"""The typed configuration: every key, its type, its default, and the values it may have."""

import math
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from fpt.config.file_names import place
from fpt.errors import UserError, did_you_mean

MOST = 2**31 - 1  # the limit of whole numbers that have none of their own


def setting(help: str, default: Any = MISSING, **limits: Any) -> Any:
    """A field with its one-line help and the limits it checks: choices=, above=, least=, most=, folder_name=, place=.

    With place=True the value is a path, unless it is one of words=(…). With verbatim=True it is taken as typed, braces
    included. In PromptConfig, only="late" marks a key for late prompts, only={value: kind} marks single values for one
    kind of prompt, and learning=True marks a key that says how the prompt is learned, not what it is.
    """
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
        refused = limits.get("refused", {}).get(value)
        hint = f" {refused}" if refused else did_you_mean(value, limits["choices"])
        raise UserError(f"{name}={value}: allowed are {allowed}.{hint}")
    if isinstance(value, str) and limits.get("folder_name") and (not value or set(value) & set("/\\\0")):
        raise UserError(f"{name}='{value}': names a folder, so it cannot be empty or hold a slash")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value}: expected a finite number")
    if isinstance(value, str) and limits.get("place"):
        place(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if "above" in limits and not value > limits["above"]:
        raise UserError(f"{name}={value}: must be greater than {limits['above']}")
    if "least" in limits and value < limits["least"]:
        raise UserError(f"{name}={value}: must be at least {limits['least']}")
    most = limits.get("most", MOST if isinstance(value, int) else math.inf)
    if value > most:
        raise UserError(f"{name}={value}: must be at most {most}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Group):
    """Which pre-trained model the prompt is for."""

    key: ClassVar[str] = "model"
    name: str = setting("name used for the run folder and in reports", folder_name=True)
    weights: str = setting(
        "'embedded', a local folder, or a Hub id such as google/t5-large-lm-adapt", place=True, words=("embedded",)
    )
    revision: str | None = setting("branch, tag or commit of a Hub id", None)
    config: dict[str, Any] | None = setting(
        "shape as in config.json, so that plans need no download; null: read config.json", None
    )


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Group):
    """Which data to train on, how long texts may be, and whether stages reduce the decoder too."""

    key: ClassVar[str] = "task"
    name: str = setting("name of the task", folder_name=True)
    data: str = setting(
        "'auto', 'world' (generated), 'hub', or a folder with the task's own files;"
        " auto: generated for the embedded model, else the Hub",
        "auto",
        place=True,
        words=("auto", "world", "hub"),
    )
    world: str | None = setting(
        "of generated data: 'plain' reading, or 'customs' of a land, whose rules only a prompt can hold; null: customs",
        None,
        choices=("plain", "customs"),
    )
    land: int | None = setting("of generated data: the number of the land whose customs hold; null: 0", None, least=0)
    valid_split: str = setting(
        "one of the task's validation sets; mnli: matched, mismatched or both, whose scores are averaged", "validation"
    )
    test_split: str | None = setting(
        "test split to answer when the run ends, and to score if it has labels; mnli: test_matched or test_mismatched",
        None,
    )
    source_length: int = setting("longest source in tokens, </s> included, prompt not", 492, least=2)
    target_length: int = setting("longest target in tokens, </s> included", least=2)
    max_new_tokens: int | None = setting(
        "longest output in tokens; null: the longest label, or twice the 99th percentile of training targets",
        None,
        least=1,
    )
    reduce_decoder: bool = setting("stages reduce the decoder too (the paper: not for short labels)")
    train_examples: int | None = setting("only the first N training examples", None, least=1)
    valid_examples: int | None = setting("only the first N validation examples", None, least=1)
    shots: int | None = setting(
        "train on a random sample of N examples per label, or in all where there are no labels", None, least=1
    )
    protocol: str = setting(
        "of task.shots. per_label: N per label, the best prompt chosen and scored on the validation split. lpt: N in"
        " all, in proportion to the labels, chosen on task.valid_shots more, scored on the validation split as a test"
        " (Liu et al. 2022)",
        "per_label",
        choices=("per_label", "lpt"),
    )
    valid_shots: int | None = setting(
        "of task.protocol=lpt: training examples to validate on; null: 1,000, as published", None, least=1
    )
    sample_seed: int | None = setting(
        "seed of task.shots; null: the run's. Published ones are 13, 21, 42, 87 and 100", None, least=0
    )
    template: str | None = setting(
        "source text with the record's fields, as in 'premise: {premise} hypothesis: {hypothesis}', or lpt: texts and"
        " label words of Liu et al. 2022; null: the task's own",
        None,
        verbatim=True,
    )
    answer: str = setting(
        "generate: read what the model writes; score: take the label whose words are most probable, in one pass;"
        " score_mean: per token; score_norm: per character. Masked models always score",
        "generate",
        choices=("generate", "score", "score_mean", "score_norm"),
    )
    on_error: str = setting(
        "a record that cannot be used stops the run, or is skipped and listed", "stop", choices=("stop", "skip")
    )
    train: str | None = setting("of task=files: JSONL, CSV, TSV or Parquet to train on", None, place=True)
    valid: str | None = setting(
        "of task=files: a file to validate on; null: part of the training file", None, place=True
    )
    test: str | None = setting(
        "of task=files: a file to answer when the run ends; its records need no target", None, place=True
    )
    valid_share: float = setting(
        "share of the training file for validation where there is no validation file", 0.1, above=0.0, most=0.5
    )
    source: str | None = setting(
        "of task=files: source text, as in 'question: {question} context: {passage}'", None, verbatim=True
    )
    target: str | None = setting("of task=files: target text, as in '{answer}'", None, verbatim=True)
    spare: str | None = setting(
        "of task=files: field to cut where a source is too long; null: the example's longest", None
    )
    id: str | None = setting("of task=files: field that names an example; null: its place in the file", None)
    labels: dict[Any, Any] | None = setting(
        "of task=files: target values and their label words, as in {0: no, 1: yes}, or [no, yes] where they are the"
        " same; of other tasks: other label words. task.labels.LABEL=word sets one",
        None,
    )
    labels_file: str | None = setting("a JSON file with task.labels", None)
    metric: str | None = setting(
        "main metric, which chooses the best prompt: one of the task's, or mean, their mean; null: its first."
        " task=files: accuracy, f1, macro_f1 or matthews of labels; exact_match or f1 of texts as they are written,"
        " squad_em or squad_f1 in SQuAD's normal form; pearson or spearman of numbers; rougeL, rouge1 or rouge2",
        None,
    )


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Group):
    """The partial PLMs to train on, in order."""

    key: ClassVar[str] = "schedule"
    name: str = setting("name used for the run folder and in reports", folder_name=True)
    stages: list[Any] = field(
        default_factory=list,
        metadata={
            "help": "list of {depth, width, share|updates}; depth and width: a count (6), a fraction (0.25), full, or"
            " {encoder: …, decoder: …}"
        },
    )
    reduce: str = setting(
        "stacks that stages reduce; task: as task.reduce_decoder says", "task", choices=("task", "encoder", "both")
    )
    partial_end: bool = setting("allow a last stage that is not the full model", False)
    importance_examples: int = setting("training examples by which FFN neurons are scored", 1000, least=1)


@dataclass(frozen=True, kw_only=True)
class PromptConfig(Group):
    """The prompt: its kind and size, where it enters the model, and how it is initialised."""

    key: ClassVar[str] = "prompt"
    kind: str = setting(
        "soft: vectors before the embedded input; late: vectors before hidden states inside the model",
        "soft",
        choices=("soft", "late"),
    )
    length: int = setting("number of vectors", 20, least=1, most=10_000)
    init: str = setting(
        "uniform in ±1/sqrt(inputs); normal, N(0, 1); vocab, sampled embeddings; labels, label words; text; file."
        " auto: as published, normal for a late prompt without a generator, else uniform",
        "auto",
        choices=("auto", "uniform", "normal", "vocab", "labels", "text", "file"),
        only={"vocab": "soft", "labels": "soft", "text": "soft"},
        learning=True,
    )
    text: str | None = setting(
        "of prompt.init=text: words whose embeddings start the prompt", None, only="soft", learning=True
    )
    file: str | None = setting(
        "of prompt.init=file: a prompt.safetensors or a run's folder; for soft prompts also a .npy, a PEFT adapter's"
        " folder, or what torch saved: a tensor, or a checkpoint of thunlp/FastPromptTuning",
        None,
        place=True,
        learning=True,
    )
    layer: int | float = setting(
        "of late prompts: blocks below the prompt, a count (12) or a fraction (0.5)", 0.5, least=0, only="late"
    )
    generator: str = setting(
        "of late prompts: what makes an example's vectors: npg, from one pooled state; appg or mppg, by average or"
        " max pooling; none, the same learned vectors for all",
        "npg",
        choices=("npg", "appg", "mppg", "none"),
        only="late",
    )
    bottleneck: int = setting("of late prompts: width of the generator's hidden layer", 128, least=1, only="late")
    pool: str = setting(
        "of npg: the first token's state, the last one's, or the mean; auto: as published, the last of causal models,"
        " the first of others",
        "auto",
        choices=("auto", "first", "last", "mean"),
        only="late",
    )
    dropout: float | None = setting(
        "of late prompts: dropout of the vectors; null: as published, 0.1 with a generator, else none",
        None,
        least=0.0,
        most=0.9,
        only="late",
        learning=True,
    )
    cache: str = setting(
        "of late prompts: keep the states below the prompt in memory, or on disk under cache_dir; auto: if a stage"
        " sees its examples more than once and there is room",
        "auto",
        choices=("auto", "off", "memory", "disk"),
        only="late",
        learning=True,
    )


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Group):
    """The prompt's optimizer and learning-rate schedule."""

    key: ClassVar[str] = "optim"
    name: str = setting(
        "adafactor (factored, no parameter scaling) or adamw", "adafactor", choices=("adafactor", "adamw")
    )
    lr: float = setting("highest learning rate of the run", 0.3, above=0.0)
    schedule: str = setting(
        "of the learning rate after warm-up: constant, or linear to 0 at the end of the run",
        "constant",
        choices=("constant", "linear"),
    )
    warmup: float = setting("share of updates in which the learning rate rises", 0.0, least=0.0, most=1.0)
    weight_decay: float = setting("weight decay", 1e-5, least=0.0)
    clip: float = setting("largest norm of the prompt's gradient", 1.0, above=0.0)
    momentum: float | None = setting(
        "beta1; null: as published, none in adafactor, 0.9 in adamw", None, least=0.0, most=0.999
    )
    average: float = setting(
        "score and keep a running mean of the prompt over updates, with this decay, as 0.9; training goes on from the"
        " prompt itself. 0: off",
        0.0,
        least=0.0,
        most=0.999,
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Group):
    """How long to train, on how many examples at once, and how often to validate and save."""

    key: ClassVar[str] = "train"
    updates: int = setting("optimizer updates over all stages", 30000, least=1)
    epochs: float | None = setting(
        "passes over the training examples, in place of train.updates", None, above=0.0, most=100_000
    )
    batch_size: int = setting("examples per update", 32, least=1)
    micro_batch: int | str | None = setting(
        "examples per forward pass of a process, with the same gradient; auto: as many as fit; null: all on a CPU,"
        " else auto",
        None,
        least=1,
    )
    activation_checkpointing: bool | None = setting(
        "keep only each block's input and compute the rest again: less memory, more time, the same result; null: on a"
        " GPU, if the largest stage fits no other way",
        None,
    )
    eval_every: int = setting("updates between validations", 500, least=1)
    eval_examples: int | None = setting(
        "validate during training on N examples only; the best and the last prompt are scored on all", None, least=1
    )
    eval_partial: bool = setting("validate on partial models too, which decides nothing", False)
    eval_batch: int = setting("examples per batch of generation", 128, least=1)
    save_every: int = setting("updates between saved states", 50, least=1)
    score_untrained: bool = setting("score the initial prompt on the full model, to compare", False)
    patience: int | None = setting("stop after N validations of the full model without a better score", None, least=1)


@dataclass(frozen=True, kw_only=True)
class RecycleConfig(Group):
    """What is carried over besides the prompt when one stage's model is expanded to the next one's."""

    key: ClassVar[str] = "recycle"
    optimizer: bool = setting("carry the optimizer's state over an expansion", True)


@dataclass(frozen=True, kw_only=True)
class EngineConfig(Group):
    """The device and precision of the frozen model, and how many processes share the work."""

    key: ClassVar[str] = "engine"
    name: str = setting(
        "torch: a whole copy of the model in every process; deepspeed: shared between them, or off the device; auto:"
        " torch where it fits",
        "auto",
        choices=("auto", "torch", "deepspeed"),
    )
    device: str = setting("auto, cpu, cuda or cuda:N", "auto")
    dtype: str = setting(
        "precision of the frozen model; auto: bfloat16 on a GPU that computes in it, else float32. The prompt is"
        " always float32",
        "auto",
        choices=("auto", "float32", "bfloat16"),
        refused={
            "float16": "T5 overflows in float16; bfloat16 is as small.",
            "fp16": "T5 overflows in float16; bfloat16 is as small.",
            "fp32": "Did you mean 'float32'?",
        },
    )
    quantize: str = setting(
        "of engine=torch: pack the blocks' linear layers in 8 bits (int8) or 4 (nf4): less memory, more time, a"
        " slightly lower score; needs fpt[quantize]",
        "none",
        choices=("none", "int8", "nf4"),
        refused={"int4": "Did you mean 'nf4'?", "fp4": "Did you mean 'nf4'?"},
    )
    graphs: bool = setting("of engine=torch on CUDA: run updates as CUDA graphs, one for each batch size", True)
    processes: int = setting(
        "processes to start on this machine, one for each GPU; on a CPU they share its cores", 1, least=1
    )
    zero_stage: int = setting(
        "of engine=deepspeed: 3 shares the frozen model's weights out; 0, 1 and 2 leave them whole", 3, least=0, most=3
    )
    offload: str = setting(
        "of zero_stage=3: keep the weights in the machine's memory",
        "none",
        choices=("none", "cpu"),
        refused={"nvme": "Weights on a disk are not supported; engine.offload=cpu keeps them in the machine's memory."},
    )
    device_memory: str | None = setting("memory of one device, as in 24GiB; null: this machine's", None)
    timeout: int | None = setting(
        "seconds after which a process that does not answer is given up; null: 30 on a CPU, 600 on CUDA."
        " To start, all have 600 seconds or this, if it is more",
        None,
        least=1,
    )


@dataclass(frozen=True, kw_only=True)
class FolderConfig(Group):
    """Where the run is kept."""

    key: ClassVar[str] = "run"
    dir: str | None = setting("run folder; null: runs/<task>-<model>-<schedule>-s<seed>", None, place=True)
